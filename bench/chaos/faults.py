"""Doing harm, by the plan, and putting it right again."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import redis

from bench.chaos.fleet import DISK_RESERVE_BYTES, Fleet
from bench.chaos.plan import RESTART_GROUPS, Fault
from bench.system import Home, until

ECHOES = 200  # messages doubled at once


@dataclass(frozen=True)
class Done:
    """A fault that was carried out, in seconds since the epoch; `detail` says what it hit."""

    fault: Fault
    began: float
    ended: float
    detail: str = ""


class Harm:
    """Carries faults out, several at once; two of the same thing take turns."""

    def __init__(self, fleet: Fleet, home: Home, *, disk: Path | None) -> None:
        self.fleet, self.home, self.disk = fleet, home, disk
        self.done: list[Done] = []
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="harm")
        self._futures: list[Future[None]] = []
        self._locks = {
            name: threading.Lock()
            for name in ("postgres", "valkey", "disk", "restart", "freeze worker", "freeze media")
        }
        self.stops: list[tuple[str, float]] = []  # name, seconds from SIGTERM to its end
        self.loads: list[int] = []  # unfinished tasks at the begin of each rolling restart
        self._do: dict[str, Callable[[Fault], str]] = {
            **dict.fromkeys(("kill worker", "kill media", "kill sweeper", "kill web"), self._kill),
            **dict.fromkeys(("freeze worker", "freeze media"), self._freeze),
            "empty broker": self._empty_broker,
            "kill broker": self._kill_broker,
            "kill database": lambda fault: self._stop_server("postgres", signal.SIGKILL, fault.seconds),
            "restart database": lambda fault: self._stop_server("postgres", signal.SIGINT, fault.seconds),
            "cut connections": self._cut_connections,
            "fill disk": self._fill_disk,
            "echo": self._echo,
            "rolling restart": self._roll,
        }

    def begin(self, fault: Fault) -> None:
        """Carry it out in the background."""
        self._futures.append(self._pool.submit(self._carry_out, fault))

    def last_over(self) -> float:
        """Wait until all are over; returns when the last one was, in seconds since the epoch."""
        for future in self._futures:
            future.result()
        return max((done.ended for done in self.done), default=time.time())

    def heal(self) -> None:
        """Wait until everything is up again by itself."""
        until("every process is up again", self.fleet.all_up, seconds=120)

    def _carry_out(self, fault: Fault) -> None:
        began = time.time()
        try:
            detail = self._do[fault.kind](fault)
        except BaseException as err:
            self.fleet.abandon(err)  # a run without it proves nothing
            raise
        self.done.append(Done(fault, began, time.time(), detail))

    # --- processes ---

    def _kill(self, fault: Fault) -> str:
        pid = self._present(fault.target)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return f"{fault.target} {pid}"

    def _freeze(self, fault: Fault) -> str:
        with self._locks[fault.kind]:  # so that the other one is there to take its work over
            pid = self._present(fault.target)
            with suppress(ProcessLookupError):  # another fault may have killed it
                os.kill(pid, signal.SIGSTOP)
                time.sleep(fault.seconds)
                os.kill(pid, signal.SIGCONT)
        return f"{fault.target} {pid}, {fault.seconds:g} s"

    def _present(self, name: str) -> int:
        until(f"{name} runs", lambda: self.fleet.pid(name), seconds=90)
        return self.fleet.pid(name) or self._present(name)

    def _roll(self, fault: Fault) -> str:
        """SIGTERM for each, group after group, as a deploy does."""
        with self._locks["restart"]:
            before = len(self.stops)
            self.loads.append(_unfinished())
            for group in RESTART_GROUPS:
                starts = {name: self.fleet.starts(name) for name in group}
                began, pids = time.monotonic(), {name: self._present(name) for name in group}
                for pid in pids.values():
                    os.kill(pid, signal.SIGTERM)
                for name, pid in pids.items():
                    until(f"{name} is gone", partial(_is_gone, pid), seconds=60, every_s=0.02)
                    self.stops.append((name, time.monotonic() - began))
                until(f"{', '.join(group)} are back", partial(self._are_back, starts))
        slowest = max(seconds for _, seconds in self.stops[before:])
        return f"{self.loads[-1]} tasks under way; the slowest stop took {slowest:.1f} s"

    def _are_back(self, starts: Mapping[str, int]) -> bool:
        """Whether each of these has logged that it is ready once more; the web server is asked instead."""
        workers = {name: count for name, count in starts.items() if name != "web"}
        web = len(workers) == len(starts) or self.fleet.web_answers()
        return web and all(self.fleet.starts(name) > count for name, count in workers.items())

    # --- broker ---

    def _broker(self) -> redis.Redis:
        path = os.environ["CELERY_BROKER_URL"].removeprefix("redis+socket://").partition("?")[0]
        return redis.Redis(unix_socket_path=path, socket_timeout=10)

    def _empty_broker(self, fault: Fault) -> str:
        with self._locks["valkey"], self._broker() as broker:
            messages = sum(int(broker.llen(name)) for name in broker.scan_iter("*Queue*", _type="list"))
            unacked = int(broker.hlen("unacked"))
            broker.flushall()
        return f"{messages} waiting and {unacked} unacknowledged messages"

    def _kill_broker(self, fault: Fault) -> str:
        return self._stop_server("valkey", signal.SIGKILL, fault.seconds)

    def _echo(self, fault: Fault) -> str:
        """A broker may deliver twice: dispatch tasks of every kind, whether they are due or not."""
        from video.engine import dispatch
        from video.models import Stage

        with self._locks["postgres"], psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            rows = connection.execute(
                "SELECT id, stage FROM video_videotask WHERE finished_at IS NULL ORDER BY random() LIMIT %s", [ECHOES]
            ).fetchall()
        sent = sum(dispatch.resume(task_id, Stage(stage)) for task_id, stage in rows for _ in range(2))
        return f"{sent} messages"

    # --- database ---

    def _stop_server(self, name: str, number: signal.Signals, seconds: float) -> str:
        with self._locks[name]:
            began, pid = time.monotonic(), self.home.server_pid(name)
            os.kill(pid, number)
            until(f"{name} is gone", partial(_is_gone, pid), seconds=60)
            time.sleep(seconds)
            self.home.start_server(name)
        return f"{name} was away for {time.monotonic() - began:.1f} s"

    def _cut_connections(self, fault: Fault) -> str:
        with self._locks["postgres"], psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
            row = connection.execute(
                """
                SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                """
            ).fetchone()
        return f"{row[0] if row else 0} connections"

    # --- disk ---

    def _fill_disk(self, fault: Fault) -> str:
        if self.disk is None:
            return "left out: no small disk could be mounted"
        with self._locks["disk"]:
            ballast = self.disk / ".scratch" / "ballast"
            ballast.parent.mkdir(exist_ok=True)
            try:
                with ballast.open("wb") as file:
                    while not self._fill(file.fileno()):
                        file.truncate(0)
                time.sleep(fault.seconds)
            finally:
                ballast.unlink()
        return f"full for {fault.seconds:g} s"

    def _fill(self, file: int) -> bool:
        """Take all that is free but for a little. False: the product took some of it a moment before."""
        assert self.disk is not None
        free = os.statvfs(self.disk)
        try:
            os.posix_fallocate(file, 0, free.f_bavail * free.f_frsize - DISK_RESERVE_BYTES // 64)
        except OSError as err:
            if err.errno != errno.ENOSPC:
                raise
            return False
        return True


def _unfinished() -> int:
    from video.models import VideoTask

    return VideoTask.objects.filter(finished_at=None).count()


def _is_gone(pid: int) -> bool:
    from video.engine import dead_workers

    return not dead_workers.is_alive(pid)
