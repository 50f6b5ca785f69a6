"""Runs one stage of one task, or of a wave: claim, work, and exactly one move a task that says how it ended."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.db import Error

from media_pipeline.errors import MediaError
from video.engine import claims as waves
from video.engine import dispatch, transitions
from video.engine.leases import heartbeat
from video.engine.outcomes import Advance, Dropped, Fail, Outcome, Park, Succeed, TryAgain, WaitForSlot
from video.engine.transitions import Claim
from video.infra import outage
from video.infra.failpoints import failpoint
from video.models import Stage
from video.pipeline import media_stages, provider_stages
from video.scheduling import transcode_slots

log = logging.getLogger(__name__)

DATABASE_BACK_S = 1.0  # until a stage that met a database that was away is begun anew

WORK = {
    Stage.GENERATE: provider_stages.generate,
    Stage.DOWNLOAD: media_stages.download,
    Stage.TRANSCODE: media_stages.transcode,
    Stage.THUMBNAIL: media_stages.thumbnail,
    Stage.SAVE: media_stages.save,
}

#: How long a claim is tried again while the database is away: through a restart, which cuts all connections. A bell
#: that was heard in vain is rung again after ten seconds only.
CLAIM_FOR_S = 5.0


def run_stage(stage: Stage, task_id: str) -> bool:
    """Do a stage if it is due and free. True when the task stands in the next stage and that is due now."""
    if stage is Stage.POLL:
        return bool(run_batch([task_id]))
    claim = outage.retry_while_unavailable(
        partial(transitions.claim, task_id, stage), f"{task_id} {stage}", for_s=CLAIM_FOR_S
    )
    if claim is None:
        return False
    with heartbeat.keep(claim):
        failpoint(f"{stage}.claimed")
        outcome = _decided(claim, partial(WORK[stage], claim))
        held, sure = _move(claim, outcome)
    if held and isinstance(outcome, Advance):
        failpoint(f"{stage}.advanced")
    elif held and isinstance(outcome, Succeed):
        failpoint("save.finished")
        _tidy(media_stages.drop_work_files, task_id)
    elif not held and sure:
        _tidy(media_stages.drop_what_was_made, outcome)
        if stage is Stage.GENERATE and claim.generation_id:
            dispatch.request_check(
                claim.generation_id
            )  # cancelled in the middle of its submit: a job of it is to stop now
    if isinstance(outcome, Fail | WaitForSlot):  # a slot is free, or somebody stands in line again
        dispatch.request_admission()
    if stage in transcode_slots.STAGES or (held and isinstance(outcome, Advance) and outcome.to is Stage.TRANSCODE):
        return _after_media(stage, task_id, outcome, held=held)
    return held and isinstance(outcome, Advance) and outcome.delay_s == 0


def _after_media(stage: Stage, task_id: str, outcome: Outcome, *, held: bool) -> bool:
    """A core is free or wanted: ring those whose turn it is. True when this task's chain may go on right now."""
    if held and isinstance(outcome, Advance) and outcome.to is Stage.THUMBNAIL:
        return True  # on the core that it has
    if held and isinstance(outcome, Advance) and outcome.to is Stage.DOWNLOAD:
        dispatch.resume(task_id, Stage.DOWNLOAD)  # its source is gone
    rung = transcode_slots.grant()
    # After a download the transcode is the chain's next link; from anywhere else the way leads back.
    in_chain = stage is Stage.DOWNLOAD and (task_id, Stage.TRANSCODE) in rung
    dispatch.resume_all(one for one in rung if not (in_chain and one[0] == task_id))
    return in_chain or (held and isinstance(outcome, Advance) and outcome.to is Stage.SAVE)


def _tidy(drop: Callable[[Any], None], what: Any) -> None:
    """Delete files that nobody needs. Where the storage won't now they are litter, and no reason to fail."""
    try:
        drop(what)
    except MediaError as err:
        log.warning("files that are no longer needed stay for now: %s", err)


def run_batch(task_ids: Sequence[str]) -> list[str]:
    """Poll those of these tasks that are due and free. Returns the ids of those whose next stage is due now.

    Jobs that go on cost a fixed number of statements together; every other outcome is a move of its own.
    """
    what = f"a wave of {len(task_ids)} looks"
    claims = outage.retry_while_unavailable(partial(waves.claim, task_ids), what, for_s=CLAIM_FOR_S)
    if not claims:
        return []
    with heartbeat.keep(*claims):
        failpoint("poll.claimed")
        decisions = _polls([claim for claim in claims if not _is_poison(claim)])
        decisions += [(claim, _undecided) for claim in claims if _is_poison(claim)]
        outcomes = [(claim, _decided(claim, decide)) for claim, decide in decisions]
        parks = [(claim, outcome) for claim, outcome in outcomes if isinstance(outcome, Park)]
        seen = [(claim.generation_id, park.look) for claim, park in parks if claim.generation_id and park.look]
        outage.retry_while_unavailable(partial(waves.record_polls, seen), what)
        outage.retry_while_unavailable(partial(waves.park, parks), what)
        moves = [(claim, outcome) for claim, outcome in outcomes if not isinstance(outcome, Park)]
        held = [(claim, outcome) for claim, outcome in moves if _move(claim, outcome)[0]]
    advanced = [(claim.task.pk, outcome) for claim, outcome in held if isinstance(outcome, Advance)]
    if advanced:
        failpoint("poll.advanced")
    if moves:  # a slot is free, or somebody stands in line again
        dispatch.request_admission()
    return [task_id for task_id, outcome in advanced if outcome.delay_s == 0]


def _polls(claims: list[Claim]) -> list[tuple[Claim, Callable[[], Outcome]]]:
    """What the jobs' looks say; where the database went away meanwhile, each claim's decision says that."""
    try:
        return provider_stages.polls(claims)
    except outage.ERRORS as err:
        return [(claim, partial(_raise, err)) for claim in claims]


def _raise(err: Exception) -> Outcome:
    raise err


def _is_poison(claim: Claim) -> bool:
    return claim.task.deaths > transitions.MAX_CRASHED_CLAIMS


def _undecided() -> Outcome:
    raise AssertionError("a task that kills workers is not worked on")


def _decided(claim: Claim, decide: Callable[[], Outcome]) -> Outcome:
    """The stage's own decision, or what an error that it did not foresee means: our trouble, tried again, bounded."""
    if _is_poison(claim):
        return Fail(
            "worker_lost",
            "Processing this video failed again and again.",
            transitions.describe_crashes(claim),
        )
    try:
        return decide()
    except MediaError as err:
        return media_stages.trouble(claim, err)
    except outage.ERRORS as err:  # nobody's fault: begun anew from the row as soon as it is back
        log.warning("%s %s: the database can't be used (%s)", claim.task.pk, claim.stage, err)
        return Park(DATABASE_BACK_S, "the database could not be used")
    except Error:
        raise  # ours: the lease runs out, and the claim counts as one that ended without a word
    except Exception as err:  # the boundary of a stage: whatever it is, the task must not be lost
        log.exception("%s: %s failed", claim.task.pk, claim.stage)
        return TryAgain("internal_error", "Processing this video failed.", f"{type(err).__name__} in {claim.stage}")


def _move(claim: Claim, outcome: Outcome) -> tuple[bool, bool]:
    """Write the outcome's move, as soon as the database lets us: (whether it is written by us, whether that is sure).

    A write whose answer was lost may have been made: then nothing that it named may be thrown away.
    """
    times = 0

    def write() -> bool:
        nonlocal times
        times += 1
        return apply(claim, outcome)

    held = outage.retry_while_unavailable(write, f"{claim.task.pk} {claim.stage}")
    return held, held or times == 1


def backoff_s(tries: int, jitter: float) -> float:
    """Seconds before try `tries` + 1: 2, 4, 8, … at most 60, less up to a third by `jitter` (0 to 1)."""
    return min(60.0, 2.0 ** (tries + 1)) * (1 - jitter / 3)


def apply(claim: Claim, outcome: Outcome) -> bool:
    """Write the one move that the outcome asks for. False: the task was no longer ours, and nothing was written."""
    task = claim.task
    generation_id = claim.generation_id
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
            return transitions.park(
                claim,
                delay_s=outcome.delay_s,
                reason=outcome.reason,
                hint_delay_s=outcome.hint_delay_s,
                progress=outcome.progress,
                record=outcome.record,
                error_code=outcome.error_code,
                generation_id=generation_id,
            )
        case TryAgain():
            return _try_again(claim, outcome, generation_id)
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
            return transitions.fail(
                claim, code=outcome.code, message=outcome.message, detail=outcome.detail, generation_id=generation_id
            )
        case Succeed():
            log.info("%s is done", task.pk)
            return transitions.succeed(claim, generation_id=generation_id, **outcome.fields)
        case Dropped():
            log.info("%s %s: the task moved on without this worker", task.pk, claim.stage)
            return False


def _try_again(claim: Claim, outcome: TryAgain, generation_id: str | None) -> bool:
    tries = claim.task.tries
    if outcome.counts and tries + 1 >= outcome.most_tries:
        detail = f"{outcome.detail}; try {tries + 1} of {outcome.most_tries}"
        return apply(claim, Fail(outcome.code, outcome.message, detail))
    delay_s = max(outcome.at_least_s, backoff_s(tries, random.random()))
    log.info("%s %s: %s; again in %.0f s", claim.task.pk, claim.stage, outcome.detail, delay_s)
    return transitions.park(
        claim,
        delay_s=delay_s,
        reason=outcome.detail,
        counts_as_try=outcome.counts,
        # Our own trouble may last for hours: it is told once.
        record=outcome.counts or claim.task.park_reason != outcome.detail[:200],
        error_code=outcome.code,
        generation_id=generation_id,
    )
