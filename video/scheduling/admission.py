"""admit(): the tasks whose turn it is (`fair_share.py`) get the free slots, each with a model and a key.

Tasks wait in the database, so the broker's queue never holds a user's backlog, and its order decides nothing. A slot is
a live Generation, counted under the lock of its account's row in the transaction that inserts it. The choice is kept on
the Generation with every candidate and its reason.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection
from decimal import Decimal

from django.conf import settings
from django.db import transaction

from providers import catalogue
from providers.errors import OutOfCredits
from providers.ranking import Candidate
from video.attempts import configured_keys, task_moves
from video.engine import transitions, workers
from video.engine.claims import WORKER
from video.engine.sql import UNHELD
from video.infra import database
from video.infra.failpoints import failpoint
from video.infra.toolkit import toolkit
from video.models import Generation, ProviderAccount, Stage, VideoTask
from video.routing import accounts, health, model_choice, refusals
from video.routing.availability import Availability
from video.routing.slots import Slot
from video.scheduling import fair_share

BATCH = 200  # tasks of one pass, which holds the lock on the accounts
AT_ONCE = 50  # of them chosen by one statement
#: Tasks that have a slot and wait for a worker. More would be dispatched again and again; a task that is admitted later
#: is chosen later, and more fairly.
MOST_READY = 100
_LOCK = 0x736C6F7473  # of pg_try_advisory_xact_lock
LARGEST_USD = Decimal("999999.9999")  # what the column holds
MAX_ATTEMPTS = 5  # of one run; the last cause then ends the task


class Capacity(Availability):
    """What can be had at this moment: slots under lock, and what is known of every model."""

    def slot(self, model: str, *, without: Collection[int] = ()) -> Slot | None:
        """The account (of others than these ids) for a job of a model: one that is to be tried, else the freest."""
        found = [slot for slot in self.slots if slot.account.model == model and slot.free > 0]
        open_to_it = [slot for slot in found if slot.account.pk not in without]
        return max(open_to_it, key=lambda slot: (slot.is_try or bool(slot.to_try), slot.free), default=None)

    def note_try(self, account: ProviderAccount, key: str) -> None:
        """A job tries this key: in this pass no other does, of no model; nor on an account without credits."""
        for slot in self.slots:
            other = slot.account
            if other.provider == account.provider and key in slot.to_try:
                slot.to_try.remove(key)
                slot.free = min(slot.free, slot.free if slot.keys else len(slot.to_try))
            if slot.is_try and account.closed_reason == OutOfCredits.code == other.closed_reason:
                slot.free = 0 if (other.provider, other.account) == (account.provider, account.account) else slot.free


def admit() -> list[tuple[str, Stage]]:
    """Give free slots to waiting tasks, the fairest first. Returns those to dispatch; call it outside a transaction.

    One pass at a time; a call meanwhile does nothing, so that no messages queue behind calls that wait for a lock. The
    sweeper's next pass, half a second later, finds what this one did not see.
    """
    with transaction.atomic():
        begun = database.fetch_one(_BEGIN, _BEGIN_PARAMS)
        if begun is None:
            return []
        ready, wanted = begun
        most = min(BATCH, MOST_READY - ready)
        if most <= 0:  # before what costs more the more jobs are in flight: their slots are counted
            return []
        capacity = Capacity(configured_keys.open_slots(), health.read())
        _add_fallbacks(capacity, wanted)
        admitted: list[str] = []
        ended = 0
        passed_over: set[str] = set()
        while len(admitted) + ended + len(passed_over) < most:
            free = capacity.free()
            limit = min(AT_ONCE, most - len(admitted) - ended, sum(free.values()))
            fairest = fair_share.waiting(sorted(free), limit, without=passed_over, kept_out=capacity.health.kept_out())
            generations, failed = _plan_all(fairest, capacity)
            admitted += [generation.task_id for generation in generations]
            ended += len(failed)
            # The others waited for a model that the first ones filled, or can't be run after all.
            passed_over |= {one.task.pk for one in fairest}.difference(admitted, failed)
            if len(fairest) < limit or not fairest:
                break  # nobody else waits for these models
        if admitted:
            failpoint("admit.before_commit")
    failpoint("admit.committed")
    return [(task_id, Stage.GENERATE) for task_id in admitted]


# Whether a pass may begin: a row where any user's task waits, a worker has room on its disk (tasks under way may use
# the space that is left), and no other pass is under way, until the transaction ends. In it: how many admitted tasks
# wait for a worker, MOST_READY at most, and all models that waiting tasks name.
_BEGIN = f"""
WITH RECURSIVE {fair_share.LINES}
SELECT (
    SELECT count(*) FROM (
        SELECT FROM video_videotask WHERE stage = 'generate' AND next_run_at <= statement_timestamp() AND {UNHELD}
        LIMIT %(most_ready)s) ready
), (SELECT coalesce(array_agg(DISTINCT model), '{{}}') FROM line, unnest(eligible_models) model)
WHERE EXISTS (SELECT FROM line) AND NOT {workers.DISK_FULL}
    AND pg_try_advisory_xact_lock(%(lock)s)
"""  # noqa: S608 - constants
_BEGIN_PARAMS = {"most_ready": MOST_READY, "lock": _LOCK, **workers.DISK_FULL_PARAMS}


def _plan_all(fairest: list[fair_share.Waiting], capacity: Capacity) -> tuple[list[Generation], list[str]]:
    """An attempt for each of these tasks, as far as there are slots, and the ids of those that ended: they had used up
    their attempts."""
    refused_at = _refused_lately([one.task.pk for one in fairest if one.last_error_code in accounts.MAY_BE_THE_TASKS])
    generations: list[Generation] = []
    ended: list[str] = []
    for task, last_attempt, tries_of_run, error_code, error_message in fairest:
        if tries_of_run >= MAX_ATTEMPTS:
            code, message = error_code or "no_attempt_left", error_message or "All tries failed."
            transitions.fail_waiting(task, code=code, message=message)
            ended.append(task.pk)
            continue
        generation = _choose(task, capacity, attempt=last_attempt + 1, without=refused_at.get(task.pk, ()))
        if generation is not None:
            generations.append(generation)
    if generations:
        task_moves.plan(generations)
        _admit(generations)
        refusals.begin_tries(generations)
    return generations, ended


def _admit(generations: list[Generation]) -> None:
    """The tasks of these planned attempts are due, and each counts as a grant of its user; one statement."""
    database.execute(
        f"WITH {transitions.ADMIT} {fair_share.COUNT_GRANTED.format(rows='due')}",
        {
            "deadline": settings.TASK_DEADLINE_SECONDS,
            "tasks": [generation.task_id for generation in generations],
            "generations": [generation.pk for generation in generations],
            "details": [f"{generation.provider} {generation.model}" for generation in generations],
            "worker": str(WORKER),
            "resource": fair_share.Resource.SLOT.value,
            "half_life": fair_share.HALF_LIFE_S,
        },
    )


def _choose(task: VideoTask, capacity: Capacity, *, attempt: int, without: Collection[int] = ()) -> Generation | None:
    """The best model with a free slot of those that may run the task; None when there is none any more.

    `without`: accounts (and their models) that have just refused this very task.
    """
    available = capacity.reasons()
    seen = capacity.health.seen_by(task.user_id)
    ranked = model_choice.candidates(task, available, health=seen, overrides=capacity.health.overrides)
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
        generation = _plan(task, candidate, ranked, slot, attempt=attempt)
        if generation.is_probe:
            capacity.note_try(slot.account, generation.key_fingerprint)
        return generation
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
        expected_usd=None if chosen.price_usd is None else min(chosen.price_usd, LARGEST_USD),
        cost_unit=toolkit().provider(model.provider).cost_unit,
        candidates=[{**candidate.as_json(), "chosen": candidate.model == chosen.model} for candidate in ranked],
    )


def _add_fallbacks(capacity: Capacity, wanted: Collection[str]) -> None:
    """Tasks whose models take no job at all now may go to another, where their client allows it.

    `wanted`: all models that waiting tasks name.
    """
    serving = sorted(capacity.serving())
    kept_out = capacity.health.kept_out()
    if not serving or (not kept_out and set(wanted).issubset(serving)):
        return
    without = _unplaceable.known((serving, kept_out))
    for task in fair_share.blocked(serving, BATCH, without=without, kept_out=kept_out):
        open_to_it = {model for model in serving if (task.user_id, model) not in kept_out}
        others = [model for model in model_choice.fallbacks(task, set(task.eligible_models)) if model in open_to_it]
        if others:
            reason = f"another model may run it now, since none of these can be had: {', '.join(task.eligible_models)}"
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
