"""The project as a user has it: a copy in a folder of its own, and what the README says typed into a shell."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests import leaks
from tests.system.system import Simulator, until

ROOT = Path(__file__).resolve().parents[2]
_ANYWHERE = shutil.ignore_patterns("__pycache__", ".*_cache", "results")
_AT_THE_ROOT = {".git", ".venv", ".reelworks", "storage"}


def not_copied(folder: str, names: list[str]) -> set[str]:
    """What a copy of the project leaves out, as `shutil.copytree` asks for it."""
    return _ANYWHERE(folder, names) | (_AT_THE_ROOT & set(names) if Path(folder) == ROOT else set())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.pipeline)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project, in a path with a space, with the packages that are installed already."""
    folder = tmp_path_factory.mktemp("user") / "my project"
    shutil.copytree(ROOT, folder, ignore=not_copied)
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    os.chmod(folder.parent, 0o755)
    yield folder
    from config import embedded

    embedded.remove(folder / ".reelworks")


def bare_environment(**more: str) -> dict[str, str]:
    """What a fresh shell has, and no more."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PIP_CACHE_DIR") if name in os.environ}
    return {**kept, "TERM": "dumb", **more}


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that run in this folder or name it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if int(entry.name) != os.getpid() and (
                str(folder) in line or os.readlink(entry / "cwd").startswith(str(folder))
            ):
                found.append(line)
    return found


@dataclass
class Canary:
    """A server that nobody may call."""

    url: str
    calls: list[str]


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    calls: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            calls.append(self.path)
            self.send_error(500)

        do_POST = do_DELETE = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Canary(f"http://127.0.0.1:{server.server_port}", calls)
    server.shutdown()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Up:
    """A running `make up`."""

    def __init__(self, project: Path, **environment: str) -> None:
        self.project = project
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = bare_environment(PORT=str(self.port), **environment)
        self.log_path = project / "up.log"
        self._log = self.log_path.open("wb")
        self.process = subprocess.Popen(
            ["make", "up"],
            cwd=project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            until("the API answers", self._answers, seconds=300)
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log()[-4000:]
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(f"{self.url}/healthz", timeout=5).ok and str(self.port) in self.log()
        return False

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def manage(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """One management command beside it."""
        return subprocess.run(
            [".venv/bin/python", "manage.py", *args],
            cwd=self.project,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the whole foreground group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)

    def stop(self) -> None:
        self.interrupt()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """Another server that speaks Runway's protocol and asks for its one key."""
    simulator = Simulator(
        tmp_path_factory.mktemp("provider"), "--canned", "--fps", "30", "--render-seconds", "0.5", "--keys", "key_e2e"
    )
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module")
def up(project: Path, provider: Simulator) -> Iterator[Up]:
    """`make up` with a key and an address of its own, and two users, one of them with credits."""
    up = Up(
        project,
        RUNWAY_API_KEY="key_e2e",
        RUNWAY_BASE_URL=provider.url,
        POLL_INTERVAL_SECONDS="0.3",
        DJANGO_SUPERUSER_PASSWORD="secret-of-the-suite",
    )
    for name in ("alice", "bob"):
        made = up.manage("createsuperuser", "--noinput", "--username", name, "--email", f"{name}@example.com")
        assert made.returncode == 0, made.stderr
    granted = up.manage("grant_credits", "alice", "500")
    assert granted.returncode == 0, granted.stderr
    yield up
    up.stop()
    home = project / ".reelworks"
    assert not leaks.in_logs([up.log_path, *(home / "log").iterdir()])
    assert not leaks.readable_by_others(home)
