"""How many statements each stage sends, and how long the database takes: the stages run in this process, one by one.

`python -m bench.statements` runs it alone, in some ten seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench import runs
from bench.system import BenchError, home, reelworks, until
from bench.tables import ms, table


class Counter:
    """Counts through Django's own hook for statements, and psycopg's blocks through Django's `set_autocommit`."""

    def __init__(self) -> None:
        self.statements = 0
        self.transactions = 0
        self.db_s = 0.0
        self.shown: list[str] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        started = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self.db_s += time.perf_counter() - started
            self.statements += 1
            self.shown.append(" ".join(sql.split())[:110])


@contextmanager
def counting() -> Iterator[Counter]:
    """Everything that this thread asks of the database inside the block."""
    from django.db import connection

    counter = Counter()
    original = connection.set_autocommit

    def set_autocommit(autocommit: bool, *args: Any, **kwargs: Any) -> None:
        counter.transactions += not autocommit
        original(autocommit, *args, **kwargs)

    connection.ensure_connection()
    connection.set_autocommit = set_autocommit  # type: ignore[method-assign]
    try:
        with connection.execute_wrapper(counter):
            yield counter
    finally:
        connection.set_autocommit = original  # type: ignore[method-assign]


def by_stage(*, verbose: bool = False) -> dict[str, dict[str, float]]:
    """One job from create to save, with no worker and no sweeper running beside."""
    from django.contrib.auth import get_user_model
    from django.db import connection

    from video.actions import create
    from video.models import Stage, VideoTask
    from video.models.order import Order
    from video.pipeline import runner
    from video.scheduling import admission
    from video.web import demo_login

    user = get_user_model().objects.get(username=demo_login.NAME)
    found: dict[str, dict[str, float]] = {}

    def note(name: str, counter: Counter) -> None:
        found[name] = {
            "statements": counter.statements,
            "transactions": counter.transactions,
            "db_s": counter.db_s,
        }
        if verbose:
            for line in counter.shown:
                print(f"    {name}: {line}")

    def once(name: str) -> None:
        with counting() as counter:
            task, _ = create.create(user.pk, Order(prompt="a bench", duration_s=5, aspect_ratio="16:9"))
        note("create", counter)
        with counting() as counter:
            admission.admit()
        note("admit", counter)
        for stage in (Stage.GENERATE, Stage.POLL, Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL, Stage.SAVE):
            if stage is Stage.TRANSCODE:
                _give_core(task.pk)
            for _ in range(200):
                due = VideoTask.objects.get(pk=task.pk).next_run_at
                assert due is not None
                time.sleep(max(0.0, due.timestamp() - time.time()) + 0.01)
                with counting() as counter:
                    runner.run_stage(stage, task.pk)
                task.refresh_from_db()
                if task.stage != stage:
                    break
            else:
                raise BenchError(f"{stage} did not end")
            note(stage.value, counter)
        until("the job is done", lambda: VideoTask.objects.get(pk=task.pk).status == "success", seconds=5)

    once("warm")  # connections, imports, the decoder child
    found.clear()
    once("counted")
    connection.close()
    from video.infra.toolkit import toolkit

    toolkit().prober.close()
    return found


def _give_core(task_id: str) -> None:
    """No media worker runs that could have one free."""
    from django.db.models.functions import Now

    from video.models import VideoTask

    VideoTask.objects.filter(pk=task_id).update(core_at=Now())


def show(found: dict[str, dict[str, float]]) -> str:
    """One row a stage."""
    rows = [[name, one["statements"], one["transactions"], ms(one["db_s"])] for name, one in found.items()]
    return table("Statements of one job", ["stage", "statements", "transactions", "database, ms"], rows)


def main() -> int:
    """Run and print."""
    with home() as place, reelworks(place) as product:
        product.start_simulator(fps=30, render_s=0.5)
        print(show(by_stage()))
    return 0


if __name__ == "__main__":
    sys.exit(runs.exit_code(main))
