"""A server that has the product imported and forks a child for each piece of work, so that a child can die anywhere.

The children are real processes: killed by SIGKILL, frozen, raising. Only the imports are shared.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


def _enter(database: str, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    from django.db import connections

    connections["default"].settings_dict["NAME"] = database
    work(*args)


def _serve(database: str, conn: Connection) -> None:
    from django.db import connections

    connections["default"].settings_dict["NAME"] = database
    while True:
        try:
            work, args = conn.recv()
        except EOFError:
            return
        try:
            conn.send(("ok", work(*args)))
        except BaseException:
            conn.send(("error", traceback.format_exc()))


class Child:
    """One forked process, which is to go wrong somewhere."""

    def __init__(self, process: BaseProcess) -> None:
        self.process = process

    def stands_still(self, seconds: float = 30) -> None:
        """Wait until it has frozen itself."""
        deadline = time.monotonic() + seconds
        stat = Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert time.monotonic() < deadline, f"the child did not freeze within {seconds:g} s"
            time.sleep(0.02)

    def thaw(self) -> None:
        """Let it go on where it stood."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def died(self, seconds: float = 40) -> int | None:
        """The exit code of a child that was to die."""
        self.process.join(seconds)
        return self.process.exitcode


class ForkServer:
    """Forks children that work on one database."""

    def __init__(self, database: str, env: dict[str, str]) -> None:
        os.environ.update(env)  # read when the server imports the settings, at its first use
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # of an earlier file, with another environment
        self._context = mp.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.system.preload"])
        self._database = database
        self._children: list[Child] = []
        self._healthy: tuple[BaseProcess, Connection] | None = None

    def close(self) -> None:
        """End every child that a failed test has left standing."""
        for child in self._children:
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
        self._children.clear()
        self._end_healthy()

    def _end_healthy(self) -> None:
        """Whatever it is doing."""
        if self._healthy is not None:
            process, conn = self._healthy
            conn.close()
            process.kill()
            process.join()
            self._healthy = None

    def start(self, work: Callable[..., Any], *args: Any) -> Child:
        """Run `work(*args)` in a child."""
        process = self._context.Process(target=_enter, args=(self._database, work, args), daemon=True)
        process.start()
        self._children = [child for child in self._children if child.process.is_alive()]
        self._children.append(Child(process))
        return self._children[-1]

    def call(self, work: Callable[..., Any], *args: Any, seconds: float = 60) -> Any:
        """Run it in the child that lives on and goes wrong nowhere, and return its result."""
        if self._healthy is None:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(self._database, theirs), daemon=True)
            process.start()
            theirs.close()
            self._healthy = (process, ours)
        conn = self._healthy[1]
        conn.send((work, args))
        try:
            assert conn.poll(seconds), f"the child did not answer within {seconds:g} s"
            kind, value = conn.recv()
        except (AssertionError, EOFError):
            self._end_healthy()  # its answer, should it still come, is to no later question
            raise
        assert kind == "ok", value
        return value


# --- work for children -----------------------------------------------------------------------------------------------


def admit(point: str = "", action: str = "") -> int:
    """One pass of admission, with the child's keys and a fail point armed."""
    from video.infra import failpoints
    from video.scheduling import admission

    if point:
        failpoints.arm(point, action)

    return len(admission.admit())


def sweep_stored(point: str = "", action: str = "") -> int:
    """One turn of the sweeper over what is to be deleted, with a fail point armed."""
    from video.infra import failpoints
    from video.processes import retention

    if point:
        failpoints.arm(point, action)
    return retention.sweep()


def do_jobs(point: str = "", action: str = "") -> int:
    """The jobs of operators that nobody holds, with a fail point armed; how many there were."""
    import threading

    from video.infra import failpoints
    from video.processes import operator_jobs

    if point:
        failpoints.arm(point, action)
    done = 0
    while operator_jobs.work(threading.Event()):
        done += 1
    return done


def delete(task_id: str, point: str = "", action: str = "") -> bool:
    """Delete one task, with a fail point armed; whether it was not deleted before."""
    from video.actions.delete import delete
    from video.infra import failpoints

    if point:
        failpoints.arm(point, action)
    return delete(task_id).changed


def deliver(delivery_id: str, host: str, point: str = "", action: str = "") -> str | None:
    """One try of a webhook to a host that is allowed, with a fail point armed."""
    from django.conf import settings

    from video.infra import failpoints
    from video.webhooks.deliver import deliver

    settings.WEBHOOK_PRIVATE_HOSTS = [host]
    if point:
        failpoints.arm(point, action)
    return deliver(delivery_id)


def render(user_id: int, task_id: str, point: str = "", action: str = "") -> str:
    """Render a stored video anew, with a fail point armed; the new task."""
    from django.conf import settings

    from video.actions.render import render
    from video.infra import failpoints

    settings.KEEP_SOURCE_DAYS = 7
    if point:
        failpoints.arm(point, action)
    return render(user_id, task_id, {}, idempotency_key="k")[0].pk


def run_stage(stage: str, task_id: str, point: str = "", action: str = "") -> bool:
    """One stage of one task, with a fail point armed."""
    from tests.factories import give_core
    from video.infra import failpoints
    from video.models import Stage
    from video.pipeline import runner

    if point:
        failpoints.arm(point, action)
    give_core(task_id)
    return runner.run_stage(Stage(stage), task_id)


def drive(task_id: str, stop_at: str = "", seconds: float = 40) -> str:
    """Do what workers and sweeper would, without their waiting, until the task stands in `stop_at` or has ended.

    Only parked clocks are moved forward, never a lease.
    """
    from django.db import connection

    from tests.factories import give_core
    from video.models import Stage, VideoTask
    from video.pipeline import runner
    from video.scheduling import admission

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        task = VideoTask.objects.get(pk=task_id)
        if not task.is_active or task.stage == stop_at:
            return task.stage if task.is_active else task.status
        if task.admit_at is not None:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE video_videotask SET admit_at = created_at WHERE id = %s", [task_id])
            admission.admit()
            continue
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE video_videotask SET next_run_at = least(next_run_at, statement_timestamp()) WHERE id = %s",
                [task_id],
            )
        give_core(task_id)
        if not runner.run_stage(Stage(task.stage), task_id):
            time.sleep(0.02)
    raise AssertionError(f"{task_id} has not ended")
