"""What is counted, logged and traced of each stage that a worker works on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from video.engine.claims import Claim
from video.engine.outcomes import Advance, Dropped, Fail, Outcome, Park, Succeed, TryAgain, WaitForSlot
from video.infra import log_context, metrics, tracing
from video.models import Stage

log = logging.getLogger("reelworks.stages")

WORDS: dict[type[Outcome], str] = {
    Advance: "advanced",
    Park: "parked",
    TryAgain: "tries_again",
    WaitForSlot: "waits_for_slot",
    Fail: "failed",
    Succeed: "succeeded",
    Dropped: "dropped",
}
#: The worker's move was not written: the task had ended, or is another worker's.
NOT_OURS = "not_ours"


class Watched:
    """A stage that is worked on, from its claim."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.begun = time.perf_counter()

    def ended(self, outcome: Outcome, *, ours: bool) -> None:
        """The move that it led to. A poll that found its job still rendering has no line: there are too many."""
        claim, seconds = self.claim, time.perf_counter() - self.begun
        said = WORDS[type(outcome)] if ours else NOT_OURS
        metrics.STAGES.labels(claim.stage.value, said).observe(seconds)
        if ours:
            _count_attempt(claim, outcome)
            if isinstance(outcome, Succeed | Fail):
                code = outcome.code if isinstance(outcome, Fail) else ""
                tracing.task_ended(
                    claim.task.pk, claim.task.created_at, {"reelworks.outcome": said, "reelworks.error_code": code}
                )
        tracing.note({"reelworks.outcome": said})
        is_routine = claim.stage is Stage.POLL and isinstance(outcome, Park)
        level = logging.DEBUG if is_routine else logging.INFO
        if not log.isEnabledFor(level):
            return
        generation = generation_of(claim)
        log.log(
            level,
            "%s %s: %s after %.3f s, generation %s",
            *(claim.task.pk, claim.stage.value, said, seconds, generation or "-"),
            extra={
                "facts": {"task": claim.task.pk, "stage": claim.stage.value, "outcome": said}
                | {"seconds": round(seconds, 3)}
                | ({"generation": generation} if generation else {})
            },
        )


def generation_of(claim: Claim) -> str:
    """The attempt that the stage works on, if there is one."""
    return claim.generation_id or (claim.attempt.pk if claim.attempt is not None else "")


@contextmanager
def working(claim: Claim) -> Iterator[None]:
    """Lines of a log in this block are about the claim's task and attempt."""
    with log_context.about(task=claim.task.pk, generation=generation_of(claim)):
        yield


@contextmanager
def stage(claim: Claim) -> Iterator[Watched]:
    """A stage from its claim to its move."""
    with (
        working(claim),
        tracing.stage(claim.stage.value, claim.task.pk, {"reelworks.generation": generation_of(claim)}),
    ):
        yield Watched(claim)


def _count_attempt(claim: Claim, outcome: Outcome) -> None:
    attempt = claim.attempt
    if attempt is None:
        return
    if isinstance(outcome, Advance) and claim.stage is Stage.DOWNLOAD:
        metrics.ATTEMPTS_ENDED.labels(attempt.provider, metrics.word(attempt.model), "delivered").inc()
    elif isinstance(outcome, Fail | WaitForSlot):
        metrics.ATTEMPTS_ENDED.labels(attempt.provider, metrics.word(attempt.model), "failed").inc()
