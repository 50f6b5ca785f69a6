"""Faults × providers through the real pipeline: the right end, no doubled submit, and a ledger that is right.

All tasks of one system are made at once and run beside each other; each case then looks at its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from django.db.models.functions import Now

from tests.factories import make_task, make_user, reload
from tests.system.system import Simulator, System, running, until
from video.credits import ledger
from video.models import CreditEntry, Generation, VideoTask

MODELS = {"runway": "gen4.5", "pika": "pika-2.2", "kling": "kling-2.5-turbo", "kling-older": "kling-2.5-turbo"}
CAN_LOOK_UP = {"kling", "kling-older"}


@dataclass(frozen=True)
class End:
    """How a case must end. `created`: jobs that the provider really made."""

    code: str = ""  # empty: success
    created: int = 1
    attempts: int = 1
    at_deadline: bool = False  # what would be tried again until then


DONE = End()
FOUND_OR_UNKNOWN = "found by its reference where the provider can, else unknown"
SENT_AGAIN_OR_UNKNOWN = "sent again with its reference where that can't double, else unknown"

CASES: dict[str, End | str] = {
    "": DONE,
    # before a job exists
    "status=429x1 retry_after=0.3": End(attempts=2),
    "status=503x1": SENT_AGAIN_OR_UNKNOWN,
    "status=500x1": SENT_AGAIN_OR_UNKNOWN,
    "reset=1": SENT_AGAIN_OR_UNKNOWN,
    # before the real answer
    "interim=102,103,103x1 poll_interim=103x2": DONE,
    "interim=103 status=429x1 retry_after=0.3": End(attempts=2),
    # after the job was made
    "status_after=500x1": FOUND_OR_UNKNOWN,
    "status_after=503x1": FOUND_OR_UNKNOWN,
    "lost_reply=1": FOUND_OR_UNKNOWN,
    "lost_reply_reset=1": FOUND_OR_UNKNOWN,
    "garbage=1": FOUND_OR_UNKNOWN,
    "hang=9": FOUND_OR_UNKNOWN,
    # while it runs
    "throttled=0.5": DONE,
    "unknown_status=0.5": DONE,
    "poll_status=503x2": DONE,
    "poll_status=429x1": DONE,
    "poll_reset=1": DONE,
    "poll_garbage=1": DONE,
    "not_found=1": DONE,
    # its end
    "fail=INTERNAL": End("generation_failed"),
    "fail=SAFETY.OUTPUT.VIDEO": End("moderation"),
    # its file
    "link_expired=1": DONE,
    "link_expired=7": DONE,
    "file_status=503x1": DONE,
    "file_status=500x7": DONE,
    "file_status=429x2 retry_after=1": DONE,
    "file_status=403-htmlx2": DONE,
    "file=truncatedx1": DONE,
    "file=cut": DONE,
    "file=resetx2": DONE,
    "odd_link file=redirect_oddx1": DONE,
    "file=redirect_nowherex2": DONE,
    "file=redirect_privatex2": DONE,
    "file=htmlx7": DONE,
    "file=emptyx2": DONE,
    "file=gzip": DONE,
    "file=shortx1": DONE,
    "file=short": DONE,  # with a warning
    "file=corrupt": End("not_a_video"),
    "file=empty": End("not_a_video", at_deadline=True),
    "file=html": End("not_a_video", at_deadline=True),
    "file=hls": End("not_a_video", at_deadline=True),
    "file=oversized": End("download_too_large", at_deadline=True),
    "file=redirect_private": End("forbidden_address", at_deadline=True),
    "file_status=503": End("download_failed", at_deadline=True),
    "link_expired=9999": End("download_failed", at_deadline=True),
}


def expected(provider: str, directive: str) -> End:
    """The case's end at this provider."""
    end = CASES[directive]
    if isinstance(end, End):
        return end
    if end is FOUND_OR_UNKNOWN:
        return DONE if provider in CAN_LOOK_UP else End("outcome_unknown", created=1)
    return DONE if provider == "kling-older" else End("outcome_unknown", created=0)


def prompt_of(provider: str, directive: str) -> str:
    return f"fault table {provider} [[sim {directive}]]" if directive else f"fault table {provider} clean."


ENVIRONMENT = {
    "LOOKUP_SECONDS": "0.3,0.6,1",
    "CIRCUIT_FAULTS": "100000",  # every case is to meet its own fault, not an open circuit
    "MAX_SOURCE_BYTES": str(20 * 1024**2),
    "DOWNLOAD_RETRY_SECONDS": "0.1,0.2,0.4",
}


@pytest.fixture(scope="module")
def ends(
    database: str, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], VideoTask]:
    """Every case's task, made at once: three providers in simulation, Kling's older standard with a pair of keys."""
    folder = tmp_path_factory.mktemp("faults")
    older = {
        **ENVIRONMENT,
        "REELWORKS_SIMULATE": "0",
        "KLING_API_KEY": "access-key-of-tests:secret-key-of-tests",
        "KLING_BASE_URL": simulator.url,
        "SLOTS_PER_KEY": "100",
    }
    user = make_user(10 * 10 * len(CASES))
    made: dict[tuple[str, str], VideoTask] = {}
    with running(folder, simulator) as system:
        system.env.update(ENVIRONMENT)
        _work(system)
        for provider in ("runway", "pika", "kling"):
            for directive in CASES:
                made[provider, directive] = _task(provider, directive, user)
        _see_the_end(made)
        system.stop()
        system.env.update(older)
        _work(system)
        pair = {("kling-older", directive): _task("kling-older", directive, user) for directive in CASES}
        _see_the_end(pair)
    return {**made, **pair}


def _see_the_end(made: dict[tuple[str, str], VideoTask]) -> None:
    """The deadlines of those that are patient come as soon as they have shown that."""
    for (provider, directive), task in made.items():
        if expected(provider, directive).at_deadline:
            waits = VideoTask.objects.filter(pk=task.pk, stage="download").exclude(park_code="")
            until(f"{task.pk} waits for its file", waits.exists)
            waits.filter(lease_until=None).update(deadline_at=Now(), next_run_at=Now())
            VideoTask.objects.filter(pk=task.pk).update(deadline_at=Now())
    for task in made.values():
        until(f"{task.pk} ends", lambda task=task: reload(task).finished_at)


def _work(system: System) -> None:
    system.worker("io", queues="videoQueue", threads=16)
    system.worker("media", queues="mediaQueue", threads=2)
    system.sweeper()


def _task(provider: str, directive: str, user: object) -> VideoTask:
    return make_task(user, prompt_of(provider, directive), model_requested=MODELS[provider])  # type: ignore[arg-type]


@pytest.mark.parametrize("directive", CASES)
@pytest.mark.parametrize("provider", MODELS)
def test_a_fault_ends_as_it_should(
    ends: dict[tuple[str, str], VideoTask], simulator: Simulator, provider: str, directive: str
) -> None:
    task = reload(ends[provider, directive])
    end = expected(provider, directive)
    assert task.error_code == end.code, task.error_message
    assert task.status == ("failed" if end.code else "success")
    generations = list(Generation.objects.filter(task=task))
    assert len(generations) == end.attempts
    submits = simulator.submits(prompt_of(provider, directive))
    assert submits["created"] == end.created
    assert submits["doubled"] == 0
    if directive in ("file=short", "file=shortx1"):
        assert ("truncated" in [one["code"] for one in task.warnings]) == (directive == "file=short")
    kinds = list(CreditEntry.objects.filter(task=task).order_by("id").values_list("kind", flat=True))
    assert kinds == (["debit", "refund"] if end.code else ["debit"])
    if end.at_deadline:
        assert "until the task's deadline" in task.error_message


def test_the_ledger_is_whole_after_all_of_it(ends: dict[tuple[str, str], VideoTask]) -> None:
    assert len(ends) >= 60
    assert ledger.differences() == []
