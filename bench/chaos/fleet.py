"""All processes of a run, kept alive by the product's own supervisor: two of each kind but the web server."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import requests

from bench.chaos.plan import MEDIA, PIKA_WINDOW_S, SWEEPERS, WORKERS
from bench.system import ROOT, BenchError, Home, until

T = TypeVar("T")
MEDIA_THREADS = 1  # of each media worker
VICTIMS = ("web", *WORKERS, *MEDIA, *SWEEPERS)
# Below it no work begins; on the small disk this much and what the run needs is all there is.
DISK_RESERVE_BYTES = 512 * 1024**2
# The product's mark for "nothing new begins" is above the whole small disk, so that it would always count as full.
MIN_FREE_BYTES = DISK_RESERVE_BYTES + 64 * 1024**2


def settings(home: Home, *, lease_s: float, slots: int) -> dict[str, str]:
    """What differs from the defaults: waits that would only make the run longer, and limits that are worth breaking."""
    return {
        "MIN_FREE_BYTES": str(MIN_FREE_BYTES),
        "STAGE_LEASE_SECONDS": f"{lease_s:g}",
        "SUBMIT_TIMEOUT_SECONDS": "5",
        "LOOKUP_SECONDS": "1,4,10",
        "PIKA_UNKNOWN_WINDOW_SECONDS": f"{PIKA_WINDOW_S:g}",
        "PUBLIC_BASE_URL": f"http://127.0.0.1:{home.port}",  # so that providers call back
        "COOKIE_SECURE": "0",
        "SLOTS_PER_KEY": str(slots),
        # Misbehaviour by script comes at every model at once, and would close them all.
        "CIRCUIT_FAULTS": "1000",
        "VIDEO_CONCURRENCY": "8",
        "MEDIA_CONCURRENCY": str(MEDIA_THREADS),
        "DOWNLOAD_TIMEOUT_SECONDS": "15",
        "FFMPEG_THREADS": "1",
    }


class Fleet:
    """Processes by name. `run` keeps them up in the main thread while the work is done in another."""

    def __init__(self, home: Home, env: Mapping[str, str], *, fps: int, render_s: float) -> None:
        from config.supervisor import Supervisor, read_procfile

        self.home = home
        self.env = {**os.environ, **env}
        self.url = f"http://127.0.0.1:{home.port}"
        self.simulator_url = f"http://127.0.0.1:{home.simulator_port}"
        self._failed: list[BaseException] = []
        lines = read_procfile(ROOT / "Procfile")
        options = f"--canned --fps {fps} --render-seconds {render_s:g} --keep-ended 1000000 --data-dir {home.clips}"
        commands = {"simulator": f"{lines['simulator']} {options}", "web": lines["web"]}
        commands |= {name: _named(lines["worker"], name) for name in WORKERS}
        commands |= {name: _named(lines["media"], name) for name in MEDIA}
        commands |= dict.fromkeys(SWEEPERS, lines["sweeper"])
        self._supervisor = Supervisor(commands, env=lambda _name: self.env, cwd=ROOT, log_dir=home.logs)

    def run(self, work: Callable[[], T]) -> T:
        """Start everything, do `work` in a thread, stop everything. Raises what `work` raises."""
        done: list[T] = []
        failed = self._failed

        def carry_out() -> None:
            try:
                self.wait_ready()
                done.append(work())
            except BaseException as err:  # told to the main thread
                failed.append(err)

        thread = threading.Thread(target=carry_out, name="run", daemon=True)
        with self._supervisor as supervisor:
            supervisor.start()
            thread.start()
            if not supervisor.run_until(lambda: bool(failed) or not thread.is_alive()):
                raise KeyboardInterrupt
        if failed:
            raise failed[0]
        return done[0]

    def abandon(self, error: BaseException) -> None:
        """End the run with this error, from any thread."""
        self._failed.append(error)

    def wait_ready(self) -> None:
        """Until everything works for the first time."""
        until("the simulator answers", lambda: _answers(f"{self.simulator_url}/_sim/stats"))
        until("the web server answers", self.web_answers)
        for name in (*WORKERS, *MEDIA, *SWEEPERS):
            until(f"{name} is ready", lambda name=name: self.starts(name) > 0)  # type: ignore[misc]

    def web_answers(self) -> bool:
        """Whether the API can be reached now."""
        return _answers(f"{self.url}/healthz")

    def starts(self, name: str) -> int:
        """How often a worker or sweeper has said that it is ready."""
        return self.log(name).count("sweeper: ringing" if name in SWEEPERS else " ready.")

    def pid(self, name: str) -> int | None:
        """Of the process that bears the name now; None while it is down."""
        return self._supervisor.pid(name)

    def pids(self) -> set[int]:
        """Of all that run now."""
        return {pid for name in VICTIMS if (pid := self.pid(name)) is not None}

    def all_up(self) -> bool:
        """Whether each has a process and the API answers."""
        return all(self.pid(name) is not None for name in VICTIMS) and self.web_answers()

    def log(self, name: str) -> str:
        """What a process has written so far."""
        path = self.home.logs / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


def _named(line: str, name: str) -> str:
    """A worker's line under a node name of its own: two with one name would take each other for a twin."""
    renamed, count = re.subn(r"-n \w+@", f"-n {name}@", line)
    if count != 1:
        raise BenchError(f"no node name in the Procfile's line {line!r}")
    return renamed


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


def small_disk(folder: Path, size_bytes: int) -> bool:
    """Mount a file system of that size on the folder; False where we may not."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return False
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=755", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    return mounted.returncode == 0


def unmount(folder: Path) -> None:
    """The small disk is gone, with what is on it."""
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
