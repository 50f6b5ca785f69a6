"""Runs one stage of a task, or one batch of polls: claim, work, exactly one move a task, and what follows from it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial

from django.db import Error

from media_pipeline.errors import MediaError
from video.attempts import poll_records, task_moves
from video.engine import claims, transitions
from video.engine.claims import Claim
from video.engine.leases import heartbeat
from video.engine.outcomes import Advance, Dropped, Fail, Outcome, Park, Succeed, TryAgain, WaitForSlot
from video.infra import metrics, outage
from video.infra.failpoints import failpoint
from video.models import Stage
from video.pipeline import media_stages, odd_media, provider_stages, wakes, watched

log = logging.getLogger(__name__)

DATABASE_BACK_S = 1.0  # until a stage that met an outage of the database is begun anew

WORK = {
    Stage.GENERATE: provider_stages.generate,
    Stage.DOWNLOAD: media_stages.download,
    Stage.TRANSCODE: media_stages.transcode,
    Stage.THUMBNAIL: media_stages.thumbnail,
    Stage.SAVE: media_stages.save,
}

#: How long a claim is tried again while the database is away: through a restart, which cuts all connections. A task
#: whose message was acknowledged in vain is enqueued again after ten seconds only.
CLAIM_FOR_S = 5.0


def run_stage(stage: Stage, task_id: str) -> bool:
    """Do a stage if it is due and unheld. True when the task is in the chain's next stage and that is due now.

    Raises the database's errors while it is away; the task is then enqueued again. A second run finds nothing due.
    """
    if stage is Stage.POLL:
        return bool(run_batch([task_id]))
    held = _claim(stage, [task_id], f"{task_id} {stage}")
    if not held:
        return False
    (claim,) = held
    with heartbeat.keep(claim), watched.stage(claim) as seen:
        failpoint(f"{stage}.claimed")
        outcome = _decided(claim, partial(WORK[stage], claim))
        ours, sure = _move(claim, outcome)
        seen.ended(outcome, ours=ours)
    if ours:
        _pass_failpoint(stage, outcome)
    return wakes.send(
        wakes.after(stage, outcome, task_id=task_id, held=ours, sure=sure, generation_id=claim.generation_id)
    )


def run_batch(task_ids: Sequence[str]) -> list[str]:
    """Poll those of these tasks that are due and unheld. Returns the ids of those whose next stage is due now.

    Jobs that go on cost a fixed number of statements together; every other outcome is a move of its own.
    """
    what = f"a batch of {len(task_ids)} polls"
    held = _claim(Stage.POLL, task_ids, what)
    if not held:
        return []
    seen = {claim.task.pk: watched.Watched(claim) for claim in held}
    with heartbeat.keep(*held):
        failpoint("poll.claimed")
        decisions = _polls([claim for claim in held if not claims.is_poison(claim)])
        decisions += [(claim, _undecided) for claim in held if claims.is_poison(claim)]
        outcomes = [(claim, _decided(claim, decide)) for claim, decide in decisions]
        parks = [(claim, outcome) for claim, outcome in outcomes if isinstance(outcome, Park)]
        looks = [(claim.generation_id, park.look) for claim, park in parks if claim.generation_id and park.look]
        outage.retry_while_unavailable(partial(poll_records.record_polls, looks), what)
        outage.retry_while_unavailable(partial(claims.park, parks), what)
        moves = [(claim, outcome) for claim, outcome in outcomes if not isinstance(outcome, Park)]
        moved = [(claim, outcome, *_move(claim, outcome)) for claim, outcome in moves]
    for claim, park in parks:
        seen[claim.task.pk].ended(park, ours=True)
    for claim, outcome, ours, _ in moved:
        with watched.stage(claim):
            seen[claim.task.pk].ended(outcome, ours=ours)
    if any(ours and outcome.next_stage() for _, outcome, ours, _ in moved):
        failpoint("poll.advanced")
    return [
        claim.task.pk
        for claim, outcome, ours, sure in moved
        if wakes.send(wakes.after(Stage.POLL, outcome, task_id=claim.task.pk, held=ours, sure=sure))
    ]


def _claim(stage: Stage, task_ids: Sequence[str], what: str) -> list[Claim]:
    held = outage.retry_while_unavailable(partial(claims.claim, stage, task_ids), what, for_s=CLAIM_FOR_S)
    metrics.CLAIMS.labels(stage.value).inc(len(held))
    return held


def _pass_failpoint(stage: Stage, outcome: Outcome) -> None:
    """The task's move is committed, and nothing was sent yet."""
    match outcome:
        case Advance():
            failpoint(f"{stage}.advanced")
        case Succeed():
            failpoint("save.finished")


def _polls(held: list[Claim]) -> list[tuple[Claim, Callable[[], Outcome]]]:
    """The decision about each of these jobs; where the database went away meanwhile, each decision says that."""
    try:
        return provider_stages.poll(held)
    except outage.ERRORS as err:
        return [(claim, partial(_raise, err)) for claim in held]


def _raise(err: Exception) -> Outcome:
    raise err


def _undecided() -> Outcome:
    raise AssertionError("a poison task is not worked on")


def _decided(claim: Claim, decide: Callable[[], Outcome]) -> Outcome:
    """The stage's own decision; an error that the stage did not foresee is tried again, a bounded number of times."""
    with watched.working(claim):
        return _judged(claim, decide)


def _judged(claim: Claim, decide: Callable[[], Outcome]) -> Outcome:
    if claims.is_poison(claim):
        return Fail(
            "worker_lost",
            "Processing this video failed again and again.",
            claims.describe_crashes(claim),
        )
    try:
        return decide()
    except MediaError as err:
        return media_stages.trouble(claim, err)
    except outage.ERRORS as err:  # not the task's fault: begun anew from its row as soon as the database is back
        log.warning("%s %s: the database can't be used (%s)", claim.task.pk, claim.stage, err)
        return Park(DATABASE_BACK_S, "the database could not be used")
    except Error:
        raise  # a bug here: the lease runs out, and the claim counts as a crashed one
    except Exception as err:  # the boundary of a stage: whatever it is, the task must not be lost
        log.exception("%s: %s failed", claim.task.pk, claim.stage)
        return TryAgain("internal_error", "Processing this video failed.", f"{type(err).__name__} in {claim.stage}")


def _move(claim: Claim, outcome: Outcome) -> tuple[bool, bool]:
    """Write the outcome's move as soon as the database can be reached: (whether it is written, whether that is sure).

    A write whose answer was lost may have been made: then nothing that it named may be thrown away.
    """
    times = 0

    def write() -> bool:
        nonlocal times
        times += 1
        return apply(claim, outcome)

    with watched.working(claim):
        held = outage.retry_while_unavailable(write, f"{claim.task.pk} {claim.stage}")
    return held, held or times == 1


def backoff_s(tries: int, jitter: float) -> float:
    """Seconds before try `tries` + 1: 2, 4, 8, … at most 60, less up to a third by `jitter` (0 to 1)."""
    return min(60.0, 2.0 ** (tries + 1)) * (1 - jitter / 3)


def apply(claim: Claim, outcome: Outcome) -> bool:
    """Write the one move that the outcome asks for. False: the claim no longer holds, and nothing was written."""
    task = claim.task
    generation_id = claim.generation_id
    if (other := odd_media.instead(claim, outcome)) is not None:
        log.warning("%s: %s", task.pk, other.detail)
        return apply(claim, other)
    match outcome:
        case Advance():
            return transitions.advance(
                claim,
                outcome.to,
                delay_s=outcome.delay_s,
                detail=outcome.detail,
                generation_id=generation_id,
                **outcome.fields,
            )
        case Park():
            return bool(claims.park([(claim, outcome)]))
        case TryAgain():
            return _try_again(claim, outcome)
        case WaitForSlot():
            return transitions.wait_for_slot(
                claim,
                delay_s=outcome.delay_s,
                reason=outcome.reason,
                models=outcome.models,
                generation_id=generation_id,
            )
        case Fail():
            log.warning("%s failed in %s: %s (%s)", task.pk, claim.stage, outcome.code, outcome.detail)
            return task_moves.fail(
                claim, code=outcome.code, message=outcome.message, detail=outcome.detail, generation_id=generation_id
            )
        case Succeed():
            log.info("%s is done", task.pk)
            return transitions.succeed(claim, generation_id=generation_id, **outcome.fields)
        case Dropped():
            log.info("%s %s: the task moved on without this worker", task.pk, claim.stage)
            return False


def _try_again(claim: Claim, outcome: TryAgain) -> bool:
    tries = claim.task.tries
    if outcome.counts and tries + 1 >= outcome.most_tries:
        detail = f"try {tries + 1} of {outcome.most_tries} failed: {outcome.detail}"
        return apply(claim, Fail(outcome.code, outcome.message, detail))
    delay_s = max(outcome.at_least_s, backoff_s(tries, random.random()))
    log.info("%s %s: %s; again in %.0f s", claim.task.pk, claim.stage, outcome.detail, delay_s)
    return apply(
        claim,
        Park(
            delay_s,
            f"{claim.stage} is tried again: {outcome.detail}",
            # Trouble of this installation may last for hours: it is recorded once.
            code="" if outcome.counts else outcome.code,
            error_code=outcome.code,
            counts_as_try=outcome.counts,
        ),
    )
