"""`manage.py up` with everything real: it starts, can be found, runs a command, and leaves nothing behind."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from config import embedded
from config.embedded import home as home_folder
from tests.config.starting import run

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.pipeline


def until(done: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="rw up "))
    path.chmod(0o755)
    yield path
    embedded.remove(path)
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def env(home: Path) -> dict[str, str]:
    dropped = ("DATABASE_URL", "CELERY_BROKER_URL", "PORT", "HOST", "SIMULATOR_PORT")
    clean = {name: value for name, value in os.environ.items() if name not in dropped}
    return clean | {"REELWORKS_HOME": str(home), "REELWORKS_SIMULATE": "1", "REELWORKS_ENV_FILE": ""}


def up(env: dict[str, str], *args: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "manage.py", "up", *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)


def test_port_that_is_taken_is_said_plainly(env: dict[str, str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = up(env | {"PORT": str(other.getsockname()[1])})
        simulators = up(env | {"SIMULATOR_PORT": str(other.getsockname()[1])})
    assert done.returncode == 1
    assert "cannot be used (Address already in use)" in done.stderr
    assert simulators.returncode == 1
    assert "Choose another one: SIMULATOR_PORT=" in simulators.stderr


def test_without_a_key_it_simulates_for_this_machine_only(tmp_path: Path) -> None:
    done = run(tmp_path, "manage.py", "up", HOST="0.0.0.0")
    done.is_one_sentence("CommandError", "HOST is 0.0.0.0", "demo", "REELWORKS_SIMULATE=1")


def test_then_runs_the_command_and_ends_with_its_code(env: dict[str, str], home: Path) -> None:
    done = up(env, "--then", "migrate", "--check")
    assert done.returncode == 0, done.stderr
    assert "ALL VIDEOS ARE SIMULATED" in done.stderr
    assert (home / "log" / "web.log").exists()
    assert not home_folder.readable_by_others(home)
    assert up(env, "--then", "migrate", "no_such_app").returncode == 1
    assert not processes_of(home)


def test_second_up_finds_the_first_and_kill_9_leaves_nothing(env: dict[str, str], home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (home / "up.out").open("w") as out:
        first = subprocess.Popen(
            [sys.executable, "manage.py", "up"], cwd=ROOT, env=env | {"PORT": str(port)}, stdout=out, stderr=out
        )
    try:
        until(lambda: "Reelworks is ready" in (home / "up.out").read_text() or first.poll() is not None, "it is ready")
        second = up(env)
        assert second.returncode == 1
        assert f"already running (pid {first.pid}), at http://127.0.0.1:{port}" in second.stderr
        guest = up(env, "--then", "migrate", "--check")
        assert guest.returncode == 0, guest.stderr
        assert json.loads((home / "run" / "up.json").read_text())["pid"] == first.pid
    finally:
        first.kill()
        first.wait()
    until(lambda: not processes_of(home), "all its processes are gone", seconds=60)


SECRETS = {
    "SECRET_KEY": "canary-secret-key-" + "x" * 32,
    "JWT_SIGNING_KEY": "canary-jwt-signing-key-" + "x" * 32,
    "SECRET_KEY_FALLBACKS": "canary-former-secret-key-" + "x" * 32,
    "KLING_WEBHOOK_SECRET": "canary-webhook-secret-" + "x" * 32,
    "RUNWAY_API_KEY": "canary-runway-key",
    "AWS_ACCESS_KEY_ID": "canary-aws-id",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-secret",
    "GITHUB_TOKEN": "canary-of-the-shell",
}


@pytest.fixture(scope="module")
def with_secrets(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Process id of an `up` that has them all; the last tests of this file share it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = tmp_path_factory.mktemp("up") / "out"
    with said.open("w") as out:
        command = [sys.executable, "manage.py", "up"]
        first = subprocess.Popen(command, cwd=ROOT, env=env | SECRETS | {"PORT": str(port)}, stdout=out, stderr=out)
    try:
        until(lambda: "Reelworks is ready" in said.read_text() or first.poll() is not None, "it is ready")
        yield first.pid
    finally:
        first.terminate()
        first.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_process_has_only_the_secrets_that_it_needs(with_secrets: int) -> None:
    found = secrets_below(with_secrets)
    nothing: set[str] = set()
    assert found.pop("ffmpeg", nothing) == nothing  # a process starts one for a moment, to see what it can do
    workers = set(SECRETS) - {"JWT_SIGNING_KEY", "SECRET_KEY_FALLBACKS", "KLING_WEBHOOK_SECRET"}
    assert found == {
        "postgres": nothing,
        "valkey": nothing,
        "sitter": nothing,
        "simulator": nothing,
        "worker": workers,
        "media": workers,
        "sweeper": workers,
        "webhooks": workers - {"RUNWAY_API_KEY"} | {"SECRET_KEY_FALLBACKS"},
        "web": set(SECRETS) - {"RUNWAY_API_KEY"},
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("uid", [65534, 12345])
def test_no_other_user_has_a_key_in_sight_or_gets_into_a_server(with_secrets: int, home: Path, uid: int) -> None:
    database_url, broker_url = embedded.urls(home)
    broker = redis.Redis(unix_socket_path=broker_url.partition("?")[0].removeprefix("redis+socket://"))
    tried: dict[str, Callable[[], object]] = {
        "the database": lambda: psycopg.connect(database_url).close(),
        "the broker": broker.ping,
        "the folder of the sockets": lambda: os.listdir(database_url.partition("host=")[2].partition("&")[0]),
        "the home": lambda: os.listdir(home),
        "a log": (home / "log" / "postgres.log").read_text,
        "the data": lambda: os.listdir(home / "pg"),
        "an environment": lambda: Path(f"/proc/{with_secrets}/environ").read_text(),
    }
    assert [what for what, get in tried.items() if works(get)] == list(tried)  # as root
    broker.close()
    got, said = os.pipe()
    pid = os.fork()
    if pid == 0:  # nothing of the test may run on in this copy
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.write(said, json.dumps([what for what, get in tried.items() if works(get)] + canaries()).encode())
        finally:
            os._exit(0)
    os.close(said)
    with os.fdopen(got) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    assert json.loads(answer) == []


def works(get: Callable[[], object]) -> bool:
    try:
        get()
    except (OSError, psycopg.OperationalError, redis.RedisError):
        return False
    return True


def canaries() -> list[str]:
    """Processes whose environment or arguments this user can read, with a secret in them."""
    found = []
    for file in (*Path("/proc").glob("[0-9]*/environ"), *Path("/proc").glob("[0-9]*/cmdline")):
        with contextlib.suppress(OSError):
            if b"canary" in file.read_bytes():
                found.append(str(file))
    return found


#: What stands in the command line of each kind of process; the first one that does counts.
KINDS = {
    "sitter.py": "sitter",
    "/postgres": "postgres",
    "postgres:": "postgres",
    "valkey-server": "valkey",
    "providers.simulator": "simulator",
    "videoQueue": "worker",
    "mediaQueue": "media",
    "webhookQueue": "webhooks",
    "manage.py sweeper": "sweeper",
    "granian": "web",
    "/ffmpeg": "ffmpeg",
}


def secrets_below(supervisor: int) -> dict[str, set[str]]:
    """Kind of process → names in SECRETS whose values any of its kind has, for all below the supervisor."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found: dict[str, set[str]] = {}
    pending = list(children.get(supervisor, []))
    while pending:
        pid = pending.pop()
        pending += children.get(pid, [])
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            has = Path(f"/proc/{pid}/environ").read_text()
            kind = next((kind for mark, kind in KINDS.items() if mark in line), line)
            found.setdefault(kind, set()).update(name for name, value in SECRETS.items() if value in has + line)
    return found


def processes_of(home: Path) -> list[str]:
    """What still runs for this home: its servers and its Procfile, by the environment or the arguments they have."""
    database_url, broker_url = embedded.urls(home)
    marks = [str(home), database_url.partition("host=")[2].partition("&")[0], broker_url.partition("?")[0][16:]]
    shown = ["ps", "-A", "-ww", "-o", "pid=,args="] if sys.platform != "linux" else ["ps", "axeww", "-o", "pid=,args="]
    listed = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.splitlines()
    mine = str(os.getpid())
    return [line for line in listed if any(mark in line for mark in marks) and line.split()[0] != mine]
