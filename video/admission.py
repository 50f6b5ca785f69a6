"""admit(): the tasks that waited longest get the free slots, each with a model and a key.

Creating a task only puts it in line. So the broker's queue never holds a user's backlog, and its order decides nothing.
A slot is a live Generation, counted under the lock of its account's row in the transaction that inserts it.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.db import connection, transaction

from providers import catalogue
from video import accounts, states
from video.kit import kit
from video.models import Generation, ProviderAccount, Stage, TaskEvent, VideoTask

BATCH = 200
MAX_ATTEMPTS = 5  # of one run; the last cause then ends the task


@dataclass
class Slots:
    """A locked account, and how many more generations may be live on it."""

    account: ProviderAccount
    free: int
    fingerprint: str


def admit() -> list[tuple[str, Stage]]:
    """Give free slots to waiting tasks, the oldest first. Returns those to ring; call it outside a transaction."""
    if not VideoTask.objects.filter(admit_at__isnull=False).exists():
        return []
    admitted: list[tuple[str, Stage]] = []
    with transaction.atomic():
        slots = _lock_slots()
        # Only those for whom a slot is free: a long line for one model must not hide a short one for another.
        open_models = sorted({s.account.model for s in slots if s.free > 0})
        waiting = list(
            VideoTask.objects.raw(
                """
                SELECT * FROM video_videotask
                WHERE admit_at <= statement_timestamp() AND eligible_models && %s::varchar[]
                ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED
                """,
                [open_models, BATCH],
            )
        )
        attempts = _attempts_of_run([task.pk for task in waiting])
        generations: list[Generation] = []
        for task in waiting:
            made = attempts.get(task.pk, (0, 0, "", ""))
            if made[1] >= MAX_ATTEMPTS:
                states.fail_waiting(task, code=made[2] or "no_attempt_left", message=made[3] or "All tries failed.")
                continue
            place = _place(slots, task.eligible_models)
            if place is None:
                continue
            place.free -= 1
            generations.append(_plan(task, place, attempt=made[0] + 1))
        if generations:
            Generation.objects.bulk_create(generations)
            _make_due(generations)
            admitted = [(generation.task_id, Stage.GENERATE) for generation in generations]
    return admitted


def _lock_slots() -> list[Slots]:
    """Every open account of a key that we have, locked, in one order for everybody."""
    rows = _lock_accounts()
    known = {(row.provider, row.account, row.model) for row in rows}
    missing = [row for name, row in kit().accounts().items() if name not in known]
    if missing:
        ProviderAccount.objects.bulk_create(missing, ignore_conflicts=True)
        rows = _lock_accounts()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT account_id, count(*) FROM video_generation
            WHERE state IN ('planned', 'unknown', 'accepted') GROUP BY account_id
            """
        )
        taken = dict(cursor.fetchall())
    found = []
    for account in rows:
        fingerprint = kit().fingerprint_of(account.provider, account.account)
        if fingerprint is not None and account.is_open:  # type: ignore[attr-defined]  # computed by the query
            found.append(Slots(account, account.slots - taken.get(account.pk, 0), fingerprint))
    return found


def _lock_accounts() -> list[ProviderAccount]:
    return list(
        ProviderAccount.objects.raw(
            """
            SELECT *, closed_reason = '' AND coalesce(cooldown_until <= statement_timestamp(), true) AS is_open
            FROM video_provideraccount ORDER BY id FOR UPDATE
            """
        )
    )


def _attempts_of_run(task_ids: list[str]) -> dict[str, tuple[int, int, str, str]]:
    """(highest attempt, attempts in this run, last error code, last error message) of each task that has any."""
    if not task_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT t.id, max(g.attempt),
                -- Trouble of the key or its account is not the task's: it only waits for a better one.
                count(*) FILTER (WHERE g.run = t.run AND NOT g.error_code = ANY(%(not_its_fault)s)),
                (array_agg(g.error_code ORDER BY g.attempt DESC))[1],
                (array_agg(g.error_message ORDER BY g.attempt DESC))[1]
            FROM video_videotask t JOIN video_generation g ON g.task_id = t.id
            WHERE t.id = ANY(%(ids)s) GROUP BY t.id
            """,
            {"ids": task_ids, "not_its_fault": accounts.NOT_THE_TASKS_FAULT},
        )
        return {row[0]: (row[1], row[2], row[3], row[4]) for row in cursor.fetchall()}


def _place(slots: list[Slots], models: list[str]) -> Slots | None:
    """The account with the most free slots for the first model that has any."""
    for model in models:
        free = [s for s in slots if s.free > 0 and s.account.model == model]
        if free:
            return max(free, key=lambda s: s.free)
    return None


def _plan(task: VideoTask, place: Slots, *, attempt: int) -> Generation:
    model = catalogue.BY_ID[place.account.model]
    return Generation(
        task=task,
        run=task.run,
        attempt=attempt,
        account=place.account,
        provider=model.provider,
        model=model.id,
        key_fingerprint=place.fingerprint,
        simulated=settings.SIMULATE,
        expected_usd=catalogue.price_usd(model, task.duration_s, "720p"),
        cost_unit=kit().provider(model.provider).cost_unit,
        candidates=[{"model": model.id, "chosen": True, "reason": "named" if task.model_requested else "the default"}],
    )


def _make_due(generations: list[Generation]) -> None:
    """The admitted tasks are due now; the bell is rung after the commit."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH due AS (
                UPDATE video_videotask t SET admit_at = NULL, next_run_at = statement_timestamp(),
                    rung_at = statement_timestamp(), park_reason = '', tries = 0,
                    deadline_at = coalesce(deadline_at, statement_timestamp() + %(deadline)s * interval '1 second')
                FROM unnest(%(tasks)s::text[], %(generations)s::text[], %(details)s::text[]) AS g (task, id, detail)
                WHERE t.id = g.task RETURNING t.id, t.run, t.fence, g.id AS generation, g.detail, t.created_at
            )
            INSERT INTO video_taskevent
                (task_id, run, generation_id, stage, outcome, fence, worker, detail, error_code, started_at)
            SELECT id, run, generation, 'generate', %(outcome)s, fence, %(worker)s, detail, '', created_at FROM due
            """,
            {
                "deadline": settings.TASK_DEADLINE_SECONDS,
                "tasks": [g.task_id for g in generations],
                "generations": [g.pk for g in generations],
                "details": [f"{g.provider} {g.model}" for g in generations],
                "outcome": TaskEvent.Outcome.ADMITTED.value,
                "worker": str(states.WORKER),
            },
        )
