"""A whole Reelworks of its own: temporary home, embedded servers, the lines of the Procfile."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import requests

from bench import cpu

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = ("RUNWAY_", "PIKA_", "KLING_", "AWS_", "REELWORKS_", "DATABASE_", "CELERY_BROKER_URL", "STORAGE_", "SCRATCH_")
READY_S = 90.0
MANY_CREDITS = 100_000_000


class BenchError(Exception):
    """The run cannot go on; the message says why and where the logs are."""


def until(what: str, check: Callable[[], object], *, seconds: float = READY_S, every_s: float = 0.05) -> None:
    """Wait until `check` answers something true. Raises BenchError when it never does."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {seconds:g} s: {what}")
        time.sleep(every_s)


def free_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Home:
    """The temporary home: settings in the environment, embedded servers up, schema and a rich user made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.clips = folder / "clips"
        self.port, self.simulator_port = free_port(), free_port()
        self._set_environment()

        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", interactive=False, verbosity=0)
        self.token = _rich_user()
        for connection in connections.all():
            connection.close()
            connection.close_pool()  # type: ignore[attr-defined]  # idle backends of ours would be in the figures

    def _set_environment(self) -> None:
        """What a child gets is what we have: nothing of the user's environment or `.env.local` gets in."""
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            del os.environ[name]
        from config import embedded

        home = self.folder / "home"
        self._embedded_home = home
        held = embedded.hold(home)
        self._holds = [held]
        os.environ.update(
            REELWORKS_ENV_FILE="",
            REELWORKS_HOME=str(home),
            REELWORKS_SIMULATE="1",
            REELWORKS_SIMULATOR_URL=f"http://127.0.0.1:{self.simulator_port}",
            SIMULATOR_PORT=str(self.simulator_port),
            STORAGE_LOCAL_PATH=str(self.folder / "storage"),
            SECRET_KEY="bench-bench-bench-bench-bench-bench-bench",
            DATABASE_URL=held.database_url,
            CELERY_BROKER_URL=held.broker_url,
            DJANGO_SETTINGS_MODULE="config.settings",
            PORT=str(self.port),
            MAX_WAITING_PER_USER="1000000",  # one rich user makes all of a bench's tasks
            MAX_WAITING="1000000",
            PYTHONUNBUFFERED="1",
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        )
        os.environ.setdefault("MEDIA_CONCURRENCY", str(os.cpu_count() or 2))

    @property
    def servers(self) -> dict[str, int]:
        """Process ids of the embedded servers' keepers: the roots of their trees."""
        found = {}
        for process in cpu.all_processes():
            if process.parent == os.getpid():
                command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
                if b"sitter.py" in command:
                    if b"valkey-server" in command:
                        found["Valkey"] = process.pid
                    elif b"/bin/postgres" in command:
                        found["PostgreSQL"] = process.pid
        if len(found) != 2:
            raise BenchError(f"the embedded servers' processes were not found, only {sorted(found)}")
        return found

    def server_pid(self, name: str) -> int:
        """Process id of the embedded server itself, "postgres" or "valkey"."""
        _, pid = (self._embedded_home / "run" / f"{name}.alive").read_text().split()
        return int(pid)

    def start_server(self, name: str) -> None:
        """Start one of them again, after it was killed."""
        from config import embedded

        postgres, valkey = name == "postgres", name == "valkey"
        self._holds.append(embedded.hold(self._embedded_home, postgres=postgres, valkey=valkey))

    def close(self) -> None:
        """Stop the servers and remove everything."""
        from config import embedded

        if "django" in sys.modules:
            from django.db import connections

            for connection in connections.all():
                connection.close()
                connection.close_pool()  # type: ignore[attr-defined]
        for held in self._holds:
            held.release()
        embedded.remove(self._embedded_home)


def _rich_user() -> str:
    """The demo user with more credits than any run needs; returns a token of its."""
    from django.contrib.auth import get_user_model

    from video.api import tokens
    from video.credits import ledger
    from video.web.demo_login import NAME, ensure_demo_user
    from video.web.logins import sessions

    ensure_demo_user()
    user = get_user_model().objects.get(username=NAME)
    ledger.grant(user.pk, MANY_CREDITS, note="bench")
    login = sessions.start(user, address="127.0.0.1", user_agent="bench")
    assert login is not None
    return str(tokens.pair_of(user, login)[0])


@contextmanager
def home() -> Iterator[Home]:
    """A home that is gone afterwards, whatever happened; SIGTERM and SIGHUP unwind like Ctrl-C."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    folder = Path(tempfile.mkdtemp(prefix="reelworks-bench-"))
    folder.chmod(0o755)  # run by root, the database server works as another user
    made: Home | None = None
    try:
        made = Home(folder)
        yield made
    finally:
        if made is not None:
            made.close()
        shutil.rmtree(folder, ignore_errors=True)


class Processes:
    """Named processes, each with a sitter that ends it and all below it when we end, however we end."""

    def __init__(self, home: Home) -> None:
        from config.supervisor import Child

        self._child = Child
        self.home = home
        self._running: dict[str, Child] = {}

    def start(self, name: str, command: str, env: Mapping[str, str] | None = None) -> None:
        """Start a shell command under a name; its output goes to a log of that name."""
        with self.log(name).open("ab") as log:
            self._running[name] = self._child(
                ["/bin/sh", "-c", f"exec {command}"], env={**os.environ, **(env or {})}, cwd=ROOT, output=log.fileno()
            )

    def stop(self, *names: str) -> None:
        """End these, or all, in good order and all at once."""
        chosen = [self._running.pop(name) for name in names or list(self._running)]
        for child in chosen:
            child.end()
        for child in chosen:
            if not child.wait(10):
                child.kill()

    def roots(self, *names: str) -> dict[str, int]:
        """Roots of these trees, or of all, for CPU accounts: the sitters, who would also adopt orphans."""
        return {name: cpu.parent_of(self._running[name].pid) for name in names or self._running}

    def check(self) -> None:
        """Raises BenchError when one has died."""
        for name, child in self._running.items():
            if (code := child.poll()) is not None:
                tail = self.log(name).read_text(errors="replace")[-2000:]
                raise BenchError(f"{name} ended with code {code}:\n{tail}")

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self.home.logs / f"{name}.log"

    def wait_http(self, name: str, url: str) -> None:
        """Wait until a web server answers 200 there."""

        def answers() -> bool:
            self.check()
            try:
                return requests.get(url, timeout=2).status_code == 200
            except requests.RequestException:
                return False

        until(f"{name} answers at {url}", answers)

    def wait_log(self, name: str, text: str) -> None:
        """Wait until a process has written this."""

        def has() -> bool:
            self.check()
            return text in self.log(name).read_text(errors="replace")

        until(f"{name} writes {text!r}", has)


class Reelworks(Processes):
    """The product's own processes, by the lines of the Procfile."""

    OWN = ("web", "worker", "media", "sweeper")

    def __init__(self, home: Home) -> None:
        from config.supervisor import read_procfile

        super().__init__(home)
        self.lines = read_procfile(ROOT / "Procfile")
        self.url = f"http://127.0.0.1:{home.port}"

    def start_simulator(self, *, fps: int, render_s: float, keep_ended: int = 20_000) -> None:
        """One clip for all prompts, made once. 24 frames a second need a transcode to 30, 30 only a remux."""
        options = f"--canned --fps {fps} --render-seconds {render_s:g} --data-dir {self.home.clips / str(fps)}"
        options += f" --keep-ended {keep_ended}"
        self.start("simulator", f"{self.lines['simulator']} {options}")
        self.wait_http("simulator", f"http://127.0.0.1:{self.home.simulator_port}/_sim/stats")

    def source(self, fps: int) -> Path:
        """The only clip that the simulator has made at this rate."""
        (clip,) = (self.home.clips / str(fps)).glob("*.mp4")
        return clip

    def start_own(self, *names: str) -> None:
        """Start these lines, or all of ours, and wait until they work."""
        for name in names or self.OWN:
            self.start(name, self.lines[name])
        for name in names or self.OWN:
            if name == "web":
                self.wait_http("web", f"{self.url}/healthz")
            elif name in {"worker", "media"}:
                self.wait_log(name, " ready.")
            else:
                self.wait_log(name, "sweeper:")


@contextmanager
def reelworks(home: Home) -> Iterator[Reelworks]:
    """The product's processes; all are gone afterwards."""
    product = Reelworks(home)
    try:
        yield product
    finally:
        product.stop()
