"""The words of a wait: the state comes first, and what a provider says beside it is cut between two words."""

from __future__ import annotations

import pytest

from providers.errors import ProviderDown, SubmissionUnknown
from providers.untrusted import shortened
from tests.factories import accepted, admitted, claimed, make_task, park_one, reload
from video.attempts import unknown_submits
from video.engine import transitions
from video.engine.outcomes import Park, TryAgain
from video.models import Stage, TaskEvent
from video.pipeline import patience, provider_stages, runner

LONG = "the upstream gateway answered with a page of its own " * 40


@pytest.mark.parametrize("limit", [20, 60, 300])
def test_what_is_too_long_is_cut_between_words_and_says_so(limit: int) -> None:
    cut = shortened(f"waits for another slot: {LONG}", limit)
    assert len(cut) <= limit
    assert cut.endswith("…")
    assert f"waits for another slot: {LONG}".startswith(cut[:-1])
    assert cut[:-1].split()[-1].rstrip(":") in f"waits for another slot: {LONG}".replace(":", "").split()


def test_what_fits_is_left_whole_and_one_long_word_is_cut() -> None:
    assert shortened("asked  again\nlater", 300) == "asked again later"
    assert shortened("x" * 400, 300) == "x" * 299 + "…"


@pytest.mark.django_db
class TestReasons:
    def test_of_a_park_keep_the_state(self) -> None:
        task = make_task()
        accepted(task)
        assert park_one(claimed(task, Stage.POLL), delay_s=60, reason=f"asked again later: {LONG}")
        reason = reload(task).park_reason
        assert reason.startswith("asked again later: the upstream gateway")
        assert reason.endswith("…")
        assert TaskEvent.objects.filter(task=task, outcome="parked").latest("id").detail == reason

    def test_of_a_wait_for_another_slot_keep_the_state(self) -> None:
        task = make_task()
        admitted(task)
        assert transitions.wait_for_slot(claimed(task), delay_s=0, reason=f"waits for another slot: {LONG}")
        assert reload(task).park_reason.startswith("waits for another slot: ")
        assert reload(task).park_reason.endswith("…")

    def test_of_an_unknown_submit_say_first_what_is_done_about_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        task = make_task(model_requested="kling-2.6")
        outcome = unknown_submits.after_unknown(admitted(task), SubmissionUnknown(LONG))
        assert isinstance(outcome, Park)
        assert shortened(outcome.reason, 300).startswith("outcome unknown, it is looked up by our reference: ")

    def test_of_a_poll_that_failed_say_first_that_it_is_asked_again(self) -> None:
        task = make_task()
        generation = accepted(task)
        outcome = provider_stages._poll_failed(claimed(task, Stage.POLL), generation, ProviderDown(LONG))
        assert isinstance(outcome, Park)
        assert shortened(outcome.reason, 300).startswith("asking for its state failed, it is asked again: the upstream")

    def test_of_a_last_try_say_first_which_it_was(self) -> None:
        task = make_task()
        admitted(task)
        claim = claimed(task)
        assert runner.apply(claim, TryAgain("internal_error", "It failed.", LONG, most_tries=1))
        detail = TaskEvent.objects.filter(task=task, outcome="failed").latest("id").detail
        assert detail.startswith("try 1 of 1 failed: the upstream gateway")
        assert detail.endswith("…")

    def test_of_a_fetch_that_failed_say_first_that_it_is_tried_again(self) -> None:
        task = make_task()
        accepted(task)
        outcome = patience.fetch_again(claimed(task, Stage.POLL), patience.Cause("x", "No.", LONG, "x"))
        assert isinstance(outcome, Park)
        words = "fetch 1 of the finished video failed, it is tried again until the task's deadline: the upstream"
        assert shortened(outcome.reason, 300).startswith(words)
