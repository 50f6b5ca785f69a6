"""admit(): the tasks whose turn it is (`fair_share.py`) get the free slots, each with a model and a key.

Tasks wait in the database, so the broker's queue never holds a user's backlog, and its order decides nothing. A slot is
a live Generation, counted under the lock of its account's row in the transaction that inserts it. The choice is kept on
the Generation with every candidate and its reason.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Now

from providers import catalogue, ranking
from providers.ranking import Candidate, Override
from video.attempts import configured_keys, records, task_moves
from video.engine import transitions, workers
from video.engine.sql import UNHELD
from video.infra import database
from video.infra.failpoints import failpoint
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, VideoTask
from video.routing import accounts, health, model_choice, refusals, slots
from video.routing.slots import Slot, Slots
from video.scheduling import fair_share

BATCH = 200  # tasks of one pass, which holds the lock on the accounts
AT_ONCE = 50  # of them chosen by one statement
#: Tasks that have a slot and wait for a worker. More would be dispatched again and again; a task that is admitted later
#: is chosen later, and more fairly.
MOST_READY = 100
EXPIRE_BATCH, EXPIRE_BATCHES = 500, 20  # each minute
_LOCK = 0x736C6F7473  # of pg_try_advisory_xact_lock
#: Code and message for a task that waited too long.
NO_ROOM = ("no_capacity", "No video provider had room for this video in time.")
SWITCHED_OFF = (records.USER_OFF, "This video was not begun in time, since its account is switched off.")
MAX_ATTEMPTS = 5  # of one run; the last cause then ends the task


@dataclass
class Capacity:
    """What can be had at this moment: slots under lock, and what is known of every model."""

    slots: Slots
    health: health.Health
    overrides: dict[str, Override]

    def serving(self) -> set[str]:
        """Models that take jobs at all now, though their slots may be full, and their circuits keep out one user."""
        found = self.health.seen_by(health.ANOTHER_USER)
        return {
            model
            for model, why in slots.availability(self.slots).items()
            if why is None
            and self.overrides.get(model, Override()).enabled
            and not (model in found and found[model].circuit_open)
        }

    def free(self) -> dict[str, int]:
        """The models that a job could start on now, each with its free slots."""
        serving = self.serving()
        return {model: number for model, number in slots.free(self.slots).items() if number and model in serving}

    def slot(self, model: str, *, without: Collection[int] = ()) -> Slot | None:
        """The account (of others than these ids) for a job of a model: one that is to be tried, else the freest."""
        found = [slot for slot in self.slots if slot.account.model == model and slot.free > 0]
        open_to_it = [slot for slot in found if slot.account.pk not in without]
        return max(open_to_it, key=lambda slot: (slot.is_try or bool(slot.to_try), slot.free), default=None)


def admit() -> list[tuple[str, Stage]]:
    """Give free slots to waiting tasks, the fairest first. Returns those to dispatch; call it outside a transaction.

    One pass at a time; a call meanwhile does nothing, so that no messages queue behind calls that wait for a lock. The
    sweeper's next pass, half a second later, finds what this one did not see.
    """
    if not VideoTask.objects.filter(admit_at__isnull=False).exists() or workers.is_disk_full():
        return []  # tasks under way may use the space that is left
    with transaction.atomic():
        if not _only_pass():
            return []
        most = min(BATCH, MOST_READY - _ready())
        if most <= 0:  # before what costs more the more jobs are in flight: their slots are counted
            return []
        capacity = Capacity(configured_keys.open_slots(), health.read(), health.overrides())
        _add_fallbacks(capacity)
        admitted: list[str] = []
        ended = 0
        passed_over: set[str] = set()
        while len(admitted) + ended + len(passed_over) < most:
            free = capacity.free()
            limit = min(AT_ONCE, most - len(admitted) - ended, sum(free.values()))
            fairest = fair_share.waiting(sorted(free), limit, without=passed_over, kept_out=capacity.health.kept_out())
            if not fairest:
                break
            generations, failed = _plan_all(fairest, capacity)
            admitted += [generation.task_id for generation in generations]
            ended += len(failed)
            # The others waited for a model that the first ones filled, or can't be run after all.
            passed_over |= {task.pk for task in fairest}.difference(admitted, failed)
        if admitted:
            failpoint("admit.before_commit")
    failpoint("admit.committed")
    return [(task_id, Stage.GENERATE) for task_id in admitted]


def _ready() -> int:
    """How many admitted tasks wait for a worker; at most MOST_READY are counted."""
    return database.value(
        f"""
        SELECT count(*) FROM (
            SELECT FROM video_videotask
            WHERE stage = 'generate' AND next_run_at <= statement_timestamp()
                AND {UNHELD}
            LIMIT %s
        ) ready
        """,  # noqa: S608 - a constant
        [MOST_READY],
    )


def _only_pass() -> bool:
    """Whether no other pass is under way; until the transaction ends."""
    return database.value("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])


def _plan_all(fairest: list[VideoTask], capacity: Capacity) -> tuple[list[Generation], list[str]]:
    """An attempt for each of these tasks, as far as there are slots, and the ids of those that ended: they had used up
    their attempts."""
    attempts = _attempts_of_run([task.pk for task in fairest])
    refused_at = _refused_lately(
        [task_id for task_id, made in attempts.items() if made[2] in accounts.MAY_BE_THE_TASKS]
    )
    generations: list[Generation] = []
    ended: list[str] = []
    for task in fairest:
        made = attempts.get(task.pk, (0, 0, "", ""))
        if made[1] >= MAX_ATTEMPTS:
            transitions.fail_waiting(task, code=made[2] or "no_attempt_left", message=made[3] or "All tries failed.")
            ended.append(task.pk)
            continue
        generation = _choose(task, capacity, attempt=made[0] + 1, without=refused_at.get(task.pk, ()))
        if generation is not None:
            generations.append(generation)
    if generations:
        task_moves.plan(generations)
        transitions.admit(generations)
        refusals.begin_tries(generations)
        fair_share.record_granted(fair_share.Resource.SLOT, [generation.user_id for generation in generations])
    return generations, ended


def _choose(task: VideoTask, capacity: Capacity, *, attempt: int, without: Collection[int] = ()) -> Generation | None:
    """The best model with a free slot of those that may run the task; None when there is none any more.

    `without`: accounts (and their models) that have just refused this very task.
    """
    available = slots.availability(capacity.slots, full=ranking.FULL)
    seen = capacity.health.seen_by(task.user_id)
    ranked = model_choice.candidates(task, available, health=seen, overrides=capacity.overrides)
    for candidate in ranked:
        if not candidate.usable:
            break
        slot = capacity.slot(candidate.model, without=without)
        if slot is None:
            continue
        if candidate.model in seen and health.is_half_open(seen[candidate.model]):
            capacity.health.note_probe(candidate.model, task.user_id)
            if not health.take_probe(candidate.model, task.user_id):
                continue
        return _plan(task, candidate, ranked, slot, attempt=attempt)
    return None


def _plan(task: VideoTask, chosen: Candidate, ranked: list[Candidate], slot: Slot, *, attempt: int) -> Generation:
    model = catalogue.BY_ID[chosen.model]
    is_probe = slot.is_try or bool(slot.to_try)  # before the slot is taken
    return Generation(
        task=task,
        user_id=task.user_id,
        run=task.run,
        attempt=attempt,
        account=slot.account,
        provider=model.provider,
        model=model.id,
        key_fingerprint=slot.take(),
        is_probe=is_probe,
        simulated=settings.SIMULATE,
        duration_s=task.duration_s,
        resolution=model_choice.render_resolution(task.resolution, model),
        expected_usd=chosen.price_usd,
        cost_unit=toolkit().provider(model.provider).cost_unit,
        candidates=[{**candidate.as_json(), "chosen": candidate.model == chosen.model} for candidate in ranked],
    )


def _add_fallbacks(capacity: Capacity) -> None:
    """Tasks whose models take no job at all now may go to another, where their client allows it."""
    serving = sorted(capacity.serving())
    if not serving:
        return
    kept_out = capacity.health.kept_out()
    without = _unplaceable.known((serving, kept_out))
    for task in fair_share.blocked(serving, BATCH, without=without, kept_out=kept_out):
        open_to_it = {model for model in serving if (task.user_id, model) not in kept_out}
        others = [model for model in model_choice.fallbacks(task, set(task.eligible_models)) if model in open_to_it]
        if others:
            reason = f"{', '.join(task.eligible_models)} can't be had now; another model may run it"
            transitions.add_fallback_models(task, [*task.eligible_models, *others], reason)
        else:
            _unplaceable.add(task.pk)


class _Unplaceable:
    """Blocked tasks that no serving model could run, so that the next passes consider others for a minute."""

    MOST = 10_000
    KEPT_S = 60.0

    def __init__(self) -> None:
        self._capacity: object = None
        self._since = 0.0
        self._ids: set[str] = set()

    def known(self, capacity: object) -> set[str]:
        """Their ids; none when `capacity`, the models that serve and for whom, is not what it was."""
        old = time.monotonic() - self._since > self.KEPT_S
        if old or capacity != self._capacity or len(self._ids) > self.MOST:
            self._capacity, self._since, self._ids = capacity, time.monotonic(), set()
        return set(self._ids)

    def add(self, task_id: str) -> None:
        self._ids.add(task_id)


_unplaceable = _Unplaceable()


def _attempts_of_run(task_ids: list[str]) -> dict[str, tuple[int, int, str, str]]:
    """(highest attempt, attempts in this run, last error code, last error message) of each task that has any."""
    if not task_ids:
        return {}
    rows = database.fetch(
        """
        SELECT t.id, max(g.attempt),
            -- Trouble of the key, its account or the user is not the task's: it only waits for a better one.
            count(*) FILTER (WHERE g.run = t.run AND NOT g.error_code = ANY(%(not_its_fault)s)),
            (array_agg(g.error_code ORDER BY g.attempt DESC))[1],
            (array_agg(g.error_message ORDER BY g.attempt DESC))[1]
        FROM video_videotask t JOIN video_generation g ON g.task_id = t.id
        WHERE t.id = ANY(%(ids)s) GROUP BY t.id
        """,
        {"ids": task_ids, "not_its_fault": [*accounts.NOT_THE_TASKS_FAULT, records.USER_OFF]},
    )
    return {row[0]: (row[1], row[2], row[3], row[4]) for row in rows}


def _refused_lately(task_ids: list[str]) -> dict[str, set[int]]:
    """Accounts (and models) that refused a task with an answer that may be due to the task: not for it again until a
    pause of its own is over, which doubles each time. Else one odd prompt would be sent there again and again.
    """
    if not task_ids:
        return {}
    rows = database.fetch(
        """
        SELECT g.task_id, g.account_id
        FROM video_generation g JOIN video_videotask t ON t.id = g.task_id AND t.run = g.run
        WHERE g.task_id = ANY(%(ids)s) AND g.state = 'rejected' AND g.error_code = ANY(%(codes)s)
        GROUP BY g.task_id, g.account_id
        HAVING max(g.ended_at) > statement_timestamp() - interval '1 second'
            * least(%(longest)s, %(first)s * power(2, least(count(*), 20) - 1))
        """,
        {
            "ids": task_ids,
            "codes": accounts.MAY_BE_THE_TASKS,
            "first": refusals.FIRST_PAUSE_S,
            "longest": refusals.LONGEST_PAUSE_S,
        },
    )
    found: dict[str, set[int]] = defaultdict(set)
    for task_id, account_id in rows:
        found[task_id].add(account_id)
    return found


def expire_waiting() -> int:
    """End tasks that have waited for WAIT_DEADLINE_SECONDS, also in parts: those are admitted and refused again and
    again, and had the first slot of their run so long and a task's deadline ago. Those of users who are switched off
    end like the others. Returns how many ended."""
    ended = 0
    for _ in range(EXPIRE_BATCHES):
        overdue = _overdue()
        for task in overdue:
            code, message = NO_ROOM if task.user.is_active else SWITCHED_OFF
            ended += transitions.fail_waiting(task, code=code, message=message)
        if len(overdue) < EXPIRE_BATCH:
            break
    return ended


def _overdue() -> list[VideoTask]:
    long_ago = Now() - timedelta(seconds=settings.WAIT_DEADLINE_SECONDS)
    attempts = Generation.objects.filter(task=OuterRef("pk"), run=OuterRef("run")).order_by("attempt")
    had_slot = Q(deadline_at__isnull=False)  # so that the attempts of no other task are read
    late = Q(admit_at__lt=long_ago) | (
        had_slot & Q(first_slot_at__lt=long_ago - timedelta(seconds=settings.TASK_DEADLINE_SECONDS))
    )
    waiting = VideoTask.objects.filter(admit_at__isnull=False)
    found = waiting.annotate(first_slot_at=Subquery(attempts.values("planned_at")[:1])).filter(late)
    return list(found.select_related("user").order_by("admit_at")[:EXPIRE_BATCH])
