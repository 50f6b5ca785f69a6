"""The real thing, for tests: a simulator, workers and a sweeper in processes of their own, on the test database."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
import requests
from django.conf import settings
from django.db import connection

from config import embedded
from tests import leaks
from tests.system.zygote import zygote
from video.models import VideoTask, WorkerSign

ROOT = Path(__file__).resolve().parents[2]


def until(what: str, check: Callable[[], Any], *, seconds: float = 240) -> Any:
    """Wait until `check` answers something true, and return that; fail with a plain sentence when it never does.

    So many `seconds` that only what will never come is missed, however busy the machine is; fewer where coming soon is
    what the test is about.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.03)


class Simulator:
    """The provider simulator and its control endpoint."""

    def __init__(self, folder: Path, *args: str) -> None:
        self._log = (folder / "simulator.log").open("wb")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "providers.simulator", "--port", "0", "--exit-with-stdin"),
                *("--data-dir", str(folder / "clips"), *args),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.url = line.split()[-1].strip()
        assert self.url.startswith("http://"), line

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def submits(self, prompt: str) -> dict[str, int]:
        """`received` and `created`, counted by prompt."""
        found: dict[str, int] = requests.get(f"{self.url}/_sim/submits", params={"contains": prompt}, timeout=30).json()
        return found

    def config(self, **changes: Any) -> None:
        reply = requests.post(f"{self.url}/_sim/config", json=changes, timeout=30)
        assert reply.status_code == 200, reply.text


def environment(simulator: Simulator) -> dict[str, str]:
    """What a process of the product needs to work on this test's database, broker and simulator."""
    return {
        **os.environ,
        "DATABASE_URL": database_url(),
        "REELWORKS_SIMULATOR_URL": simulator.url,
        "STAGE_LEASE_SECONDS": "2",
        "POLL_INTERVAL_SECONDS": "0.2",
        "SUBMIT_TIMEOUT_SECONDS": "5",
        "FFMPEG_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def database_url() -> str:
    """The address of this test's database, on the embedded server."""
    url = urlsplit(embedded.urls(settings.REELWORKS_HOME)[0])
    return url._replace(path=f"/{connection.settings_dict['NAME']}").geturl()


def broker() -> redis.Redis:
    """The Valkey of this test, as its client sees it."""
    path, _, query = settings.CELERY_BROKER_URL.removeprefix("redis+socket://").partition("?")
    return redis.Redis(unix_socket_path=path, db=int(query.split("virtual_host=")[1].split("&")[0]))


class Process:
    """A process of the product, with its log."""

    def __init__(self, folder: Path, name: str, argv: list[str], env: dict[str, str]) -> None:
        self.log_path = folder / f"{name}.log"
        self.log_path.touch()
        self._returncode: int | None = None
        self._reaped = False
        self.pid = zygote().start(argv, env, self.log_path)

    @property
    def alive(self) -> bool:
        return self.returncode is None

    @property
    def returncode(self) -> int | None:
        if self._returncode is None:
            self._returncode = zygote().look(self.pid)
        return self._returncode

    def signal(self, number: signal.Signals) -> None:
        """To the process alone, as a supervisor does it."""
        if self.alive:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9 of the process and all its children, also of those that outlived it. Once is enough."""
        if self._reaped:
            return
        self._reaped = True
        with contextlib.suppress(ProcessLookupError):  # it has not come to its own session yet
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._returncode = zygote().reap(self.pid)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")


class System:
    """Starts processes and ends them all."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self.folder = folder
        self.simulator = simulator
        self.env = environment(simulator)
        self._processes: list[Process] = []

    def worker(
        self, name: str = "worker", *, failpoint: str = "", queues: str = "videoQueue,mediaQueue", threads: int = 4
    ) -> Process:
        """A Celery worker as the Procfile starts it, ready when this returns."""
        env = {**self.env, **({"REELWORKS_FAILPOINT": failpoint} if failpoint else {})}
        process = self._start(
            name,
            [
                *("-m", "celery", "-A", "config", "worker", "--pool", "threads"),
                *("-c", str(threads)),
                *("-Q", queues, "-n", f"{name}-{len(self._processes)}@%h", "--without-gossip", "--without-mingle"),
                *("--loglevel", "info"),
            ],
            env,
        )
        until(f"{name} is ready", lambda: " ready." in process.log() or not process.alive)
        assert process.alive, process.log()[-3000:]
        return process

    def web(self, port: int) -> Process:
        """The API, answering when this returns."""
        argv = ["-m", "granian", "--interface", "rsgi", "--http", "1", "--host", "127.0.0.1", "--port", str(port)]
        process = self._start("web", [*argv, "config.front:application"], self.env)

        def answers() -> bool:
            with contextlib.suppress(requests.RequestException):
                return requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).ok
            return False

        until("the API answers", answers)
        return process

    def sweeper(self) -> Process:
        return self._start("sweeper", ["manage.py", "sweeper"], self.env)

    def _start(self, name: str, argv: list[str], env: dict[str, str]) -> Process:
        process = Process(self.folder, f"{name}-{len(self._processes)}", argv, env)
        self._processes.append(process)
        return process

    def logs(self) -> str:
        """What all of them have said so far."""
        return "".join(process.log() for process in self._processes)

    def ends_of_logs(self) -> Iterator[tuple[str, str]]:
        """Name and last lines of each log."""
        for process in self._processes:
            yield process.log_path.name, "\n".join(process.log().splitlines()[-25:])

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
        self._processes.clear()


@contextlib.contextmanager
def running(folder: Path, simulator: Simulator) -> Iterator[System]:
    """A system that is gone afterwards, whatever happened. It begins alone: nobody counts a killed one's workers."""
    WorkerSign.objects.all().delete()
    system = System(folder, simulator)
    try:
        yield system
    finally:
        system.stop()
    told = leaks.in_logs(folder.glob("*.log"), VideoTask.objects.values_list("prompt", flat=True))
    assert not told, told[:5]
