"""The database as the model would tell it, and what must hold of any history whatever the model says."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

from django.db import connection
from django.utils import timezone

from tests.video.machine.model import ACTIVE, LIVE, MOVES, Attempt, Task, World
from video.costs import roll_up
from video.models import CostDay, CostTouch

# Longer than any example runs and shorter than what `pass_time` lets pass: nothing here depends on the clock.
RECENTLY_S = 1800.0


def world(labels: dict[str, int], users: dict[int, int]) -> World:
    """What the rows say. `labels`: the tests' number of each task id; `users`: that of each user id."""
    found = World()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT id, user_id, run, status, stage, admit_at IS NOT NULL,
                coalesce(coalesce(admit_at, next_run_at) <= statement_timestamp(), false),
                lease_until IS NOT NULL, coalesce(lease_until < statement_timestamp(), false),
                coalesce(rung_at > statement_timestamp() - %s * interval '1 second', false),
                fence, tries, deaths, error_code, gone_why = 'deleted'
            FROM video_videotask
            """,
            [RECENTLY_S],
        )
        for row in cursor.fetchall():
            found.tasks[labels[row[0]]] = Task(users[row[1]], *row[2:])
        cursor.execute(
            """
            SELECT task_id, attempt, run, state, job_id, resent, lookups, cancel_wanted_at IS NOT NULL,
                look_at IS NOT NULL, error_code
            FROM video_generation ORDER BY task_id, attempt
            """
        )
        for row in cursor.fetchall():
            found.tasks[labels[row[0]]].attempts.append(Attempt(*row[1:]))
        cursor.execute("SELECT user_id, balance FROM video_account")
        found.balances = {users[row[0]]: row[1] for row in cursor.fetchall()}
        cursor.execute("SELECT account_id, task_id, run, kind, amount FROM video_creditentry")
        for account, task, run, kind, amount in cursor.fetchall():
            if kind == "grant":
                found.granted[users[account]] = found.granted.get(users[account], 0) + amount
            else:
                found.entries.add((labels[task], run, kind))
    return found


def check_money(found: World) -> None:
    """Each run was debited once, and refunded once at most: exactly if it failed without a late video."""
    sums: Counter[int] = Counter(found.granted)
    for label, _, kind in found.entries:
        sums[found.tasks[label].user] += {"debit": -10, "refund": 10}[kind]
    assert dict(sums) == found.balances
    for label, task in found.tasks.items():
        runs = {run for of, run, kind in found.entries if of == label and kind == "debit"}
        assert runs == set(range(1, task.run + 1)), f"task {label} was debited for runs {runs}"
        if task.status == "failed":
            assert (label, task.run, "refund") in found.entries, f"task {label} failed without a refund"


def check_costs() -> None:
    """The costs come to the ledger and the attempts, and whatever counts otherwise than at the last roll-up of its day
    has left a touch. Today is rolled up here as if it were over, as soon as it is touched.
    """
    assert roll_up.differences() == []
    today = timezone.now().date()
    if not CostDay.objects.exists() or CostTouch.objects.exists():
        roll_up._roll_up(today, wait=True)
        assert not CostTouch.objects.exists()
        assert roll_up.differences() == []


def check_attempts(found: World) -> None:
    """What must hold of attempts and of the tasks that have them."""
    for label, task in found.tasks.items():
        live = [attempt for attempt in task.attempts if attempt.state in LIVE]
        assert len(live) <= 1, f"task {label} has {len(live)} live attempts"
        for attempt in task.attempts:
            if task.status not in ACTIVE and attempt.state == "planned":
                raise AssertionError(f"task {label} has ended, and attempt {attempt.number} holds a slot for ever")
            if task.status not in ACTIVE and attempt.state == "accepted":
                assert attempt.watched, f"nobody looks at attempt {attempt.number} of task {label} any more"
        last = task.attempts[-1] if task.attempts else None
        failed = task.status == "failed" and not task.deleted
        if failed and task.stage in {"generate", "poll"} and last and last.state == "succeeded":
            assert last.watched or last.run < task.run, f"nobody delivers the paid video of task {label}"
        if task.active and task.in_line:
            assert not live, f"task {label} stands in line with a live attempt"


def check_history() -> None:
    """Every task's events tell a legal way, and its last one tells where it stands."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT task_id, run, stage, outcome, fence FROM video_taskevent ORDER BY id")
        ways: dict[str, list[tuple[int, str, str, int]]] = defaultdict(list)
        for task_id, *event in cursor.fetchall():
            ways[task_id].append(tuple(event))
        cursor.execute("SELECT id, run, status, stage, fence FROM video_videotask")
        rows = {row[0]: row[1:] for row in cursor.fetchall()}
    assert set(ways) == set(rows)
    for task_id, way in ways.items():
        run, status, stage, fence = rows[task_id]
        _check_way(way)
        last = way[-1]
        assert last[0] == run
        assert last[3] <= fence
        ends = {"succeeded": "success", "failed": "failed", "cancelled": "cancelled"}
        assert ends.get(last[2]) == (status if status in ends.values() else None), (way, status)
        if last[2] in {"parked", "failed"}:
            assert last[1] == stage
        if last[2] == "advanced":
            assert stage in MOVES[last[1]]


def _check_way(way: list[tuple[int, str, str, int]]) -> None:
    assert way[0][1:] == ("generate", "created", 0)
    assert [event[2] for event in way].count("created") == 1
    in_line = True
    for before, after in pairwise(way):
        (run, stage, outcome, fence), (next_run, next_stage, next_outcome, next_fence) = before, after
        assert next_fence >= fence, f"the fence fell: {way}"
        assert next_run == run + (next_outcome == "resumed" and next_run > run), way
        assert outcome != "succeeded", way
        if outcome in {"failed", "cancelled"}:
            assert next_outcome == "resumed", way
        elif outcome == "advanced":
            assert next_stage in MOVES[stage], way
        elif outcome in {"created", "admitted", "waiting"}:
            assert next_stage == "generate", way
        elif outcome == "parked":
            assert next_stage == stage, way
        if next_outcome == "admitted":
            assert in_line, way
        if next_outcome == "succeeded":
            assert next_stage == "save", way
        if next_outcome == "waiting" and not in_line:
            assert "generate" in MOVES[next_stage], way
        if next_outcome in {"advanced", "parked", "succeeded"}:
            assert not in_line, way
        if outcome == "resumed":
            assert next_stage == stage, way
        if next_outcome in {"waiting", "admitted", "failed", "cancelled", "resumed"}:
            in_line = next_outcome == "waiting" or (next_outcome == "resumed" and next_stage == "generate")
