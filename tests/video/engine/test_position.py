"""The API, the admin's words, its filter, `generate` and the figures say the same of the same task."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from django.db import connection
from django.utils import timezone

from tests.factories import accepted, admitted, age, claimed, make_task, park_one, reload
from tests.video.presence import everybody
from video.actions import task_filters
from video.admin import timeline
from video.api import task_details
from video.engine import transitions, workers
from video.engine.position import RESEND_S, SQL, State, position_of
from video.management import task_progress
from video.models import PeriodicRun, Stage, VideoTask
from video.monitoring import stages

pytestmark = pytest.mark.django_db


def at_transcode() -> VideoTask:
    task = make_task()
    accepted(task)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)
    assert transitions.advance(claimed(task, Stage.DOWNLOAD), Stage.TRANSCODE, source_key="work/x")
    return task


def in_line() -> VideoTask:
    return make_task()


def of_nobody() -> VideoTask:
    """Its user was switched off."""
    task = make_task()
    task.user.is_active = False
    task.user.save()
    return task


def later() -> VideoTask:
    task = make_task()
    age(task.pk, -600)
    return task


def in_work() -> VideoTask:
    task = make_task()
    admitted(task)
    claimed(task)
    return task


def parked() -> VideoTask:
    task = make_task()
    admitted(task)
    assert park_one(claimed(task), delay_s=600, reason="runway: throttled")
    return task


def due() -> VideoTask:
    task = make_task()
    admitted(task)
    age(task.pk, 60)
    return task


def silent() -> VideoTask:
    task = in_work()
    age(task.pk, 120)
    return task


def waits_for_core() -> VideoTask:
    task = at_transcode()
    age(task.pk, 60)
    return task


def silent_transcode() -> VideoTask:
    task = at_transcode()
    claimed(task, Stage.TRANSCODE)
    age(task.pk, 120)
    return task


def has_core() -> VideoTask:
    task = at_transcode()
    rung(task, 0)
    return task


def lost_message() -> VideoTask:
    task = at_transcode()
    rung(task, RESEND_S + 1)
    age_due(task)
    return task


def over() -> VideoTask:
    task = make_task()
    admitted(task)
    assert transitions.fail(claimed(task), code="x", message="Went wrong.")
    return task


def rung(task: VideoTask, seconds_ago: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_videotask SET rung_at = statement_timestamp() - %s * interval '1 second' WHERE id = %s",
            [seconds_ago, task.pk],
        )


def age_due(task: VideoTask) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_videotask SET next_run_at = next_run_at - interval '1 minute' WHERE id = %s", [task.pk]
        )


#: made by, state, the API's word, the admin's first words, row of the filter, words of `generate`.
TABLE = [
    (in_line, State.WAITS_FOR_SLOT, "waitsForSlot", "a free slot", "waiting", "waits for a free slot"),
    (of_nobody, State.USER_OFF, "waitsForSlot", "its user (", "off", "its user is switched off"),
    (later, State.NOT_BEFORE, "waitsForSlot", "in line for a slot in", "later", "waits for a free slot"),
    (in_work, State.IN_WORK, "inWork", "in work at", "held", ""),
    (parked, State.PARKED, "parked", "runway: throttled; next look in", "parked", ""),
    (due, State.WAITS_FOR_WORKER, "waitsForWorker", "a worker", "due", "Nothing is working"),
    (silent, State.WORKER_SILENT, "waitsForWorker", "its worker (", "due", "Nothing is working"),
    (waits_for_core, State.WAITS_FOR_CORE, "waitsForCore", "a free core", "core", "waits for a free core"),
    (silent_transcode, State.WAITS_FOR_CORE, "waitsForCore", "a free core", "core", "waits for a free core"),
    (lost_message, State.WAITS_FOR_CORE, "waitsForCore", "a free core", "core", "waits for a free core"),
    (has_core, State.WAITS_FOR_WORKER, "waitsForWorker", "a worker", "due", ""),
    (over, State.OVER, None, "", None, ""),
]


def rows_with(task: VideoTask) -> list[str]:
    """The rows of the admin's filter that list the task."""
    rows = VideoTask.objects.select_related("user")
    return [
        name for name in task_filters.STANDS if task_filters.narrow(rows, {"stands": name}).filter(pk=task.pk).exists()
    ]


def counted() -> set[str]:
    """What the figures count, of a system with one task."""
    found = set()
    if stages.waiting().number:
        found.add("waiting")
    if stages.waiting().off:
        found.add("off")
    if stages.waiting().later:
        found.add("later")
    if stages.waiting_for_core().number:
        found.add("core")
    for one in stages.stages():
        found |= {
            name for name, number in (("due", one.due), ("held", one.held), ("parked", one.parked_number)) if number
        }
    return found


def stuck_because(task: VideoTask) -> str:
    progress = task_progress.Progress(task)
    progress.moved_at = time.monotonic() - 2 * task_progress.STILL_S
    return progress.stuck_because()


@pytest.mark.parametrize(
    ("made", "state", "word", "words", "row", "stuck"), TABLE, ids=[made.__name__ for made, *_ in TABLE]
)
def test_all_say_the_same(
    made: Callable[[], VideoTask], state: State, word: str | None, words: str, row: str | None, stuck: str
) -> None:
    everybody()
    sweeper_ran()
    task = reload(made())
    now = timezone.now()
    assert position_of(task, now).state is state
    shown = task_details.details(task, staff=False)["now"]
    assert (shown and shown["state"]) == word
    assert timeline.waits_for(task, now).startswith(words)
    assert bool(timeline.waits_for(task, now)) == bool(words)
    assert rows_with(task) == ([row] if row else [])
    # A transcode that waits for a core is due as well: the depth of its queue counts both.
    assert counted() == {name for name in (row, "due" if row == "core" else None) if name}
    assert stuck in stuck_because(task)
    assert bool(stuck) == bool(stuck_because(task))
    matching = {one for one, condition in SQL.items() if matches(task, condition)}
    assert matching == {state} | ({State.DISK_FULL} if state is State.WAITS_FOR_SLOT else set())


def test_a_full_disk_is_said_of_a_task_that_could_have_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "is_disk_full", lambda: True)
    everybody()
    sweeper_ran()
    task, now = make_task(), timezone.now()
    assert position_of(task, now, is_disk_full=workers.is_disk_full).state is State.DISK_FULL
    assert timeline.waits_for(task, now).startswith("room, for")
    assert workers.DISK_FULL in stuck_because(task)
    assert rows_with(task) == ["waiting"]
    assert counted() == {"waiting"}
    shown = task_details.details(task, staff=False)["now"]
    assert shown is not None
    assert shown["state"] == "waitsForSlot"  # the API tells nothing of the servers


def test_nothing_asks_for_the_disk_of_a_task_that_needs_no_slot() -> None:
    def never() -> bool:
        raise AssertionError

    for made in (later, in_work, parked, due, silent, over):
        position_of(reload(made()), timezone.now(), is_disk_full=never)


def matches(task: VideoTask, condition: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT EXISTS (SELECT FROM video_videotask WHERE id = %s AND {condition})", [task.pk])
        return bool(cursor.fetchone()[0])


def sweeper_ran() -> None:
    """A sweeper that has just run."""
    PeriodicRun.objects.create(name="test", period=timezone.now())
