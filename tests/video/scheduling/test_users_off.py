"""A user who is switched off spends nothing more: what waits stays, and goes on when they are switched on again."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import CommandError, call_command

from tests.factories import OLGA, accepted, admitted, claimed, make_task, make_user, reload
from video.actions import cancel, retry
from video.actions.task_rows import ActionRefused
from video.attempts import provider_calls, records, task_moves
from video.credits import ledger
from video.engine import transitions
from video.models import Generation, ProviderAccount, Stage, VideoTask
from video.monitoring import overview
from video.pipeline import runner
from video.scheduling import admission, estimates, fair_share, wait_deadline

pytestmark = pytest.mark.django_db


def switch(user: AbstractBaseUser, *, on: bool) -> None:
    user.is_active = on
    user.save(update_fields=["is_active"])


def test_their_tasks_are_passed_over_and_go_on_when_they_are_switched_on_again(
    user: AbstractBaseUser, stranger: AbstractBaseUser
) -> None:
    task, other = make_task(user), make_task(stranger)
    switch(user, on=False)
    assert admission.admit() == [(other.pk, Stage.GENERATE)]
    assert admission.admit() == []
    switch(user, on=True)
    assert admission.admit() == [(task.pk, Stage.GENERATE)]


def test_they_take_no_place_among_the_fairest(user: AbstractBaseUser, stranger: AbstractBaseUser) -> None:
    for _ in range(3):
        make_task(user)
    other = make_task(stranger)
    switch(user, on=False)
    assert [one.task.pk for one in fair_share.waiting(["gen4.5"], 1)] == [other.pk]


def test_no_other_model_is_looked_for_their_tasks(user: AbstractBaseUser) -> None:
    make_task(user, fallback=True)
    assert len(fair_share.blocked(["kling-3.0"], 5)) == 1
    switch(user, on=False)
    assert fair_share.blocked(["kling-3.0"], 5) == []


def test_others_do_not_wait_behind_them(user: AbstractBaseUser, stranger: AbstractBaseUser) -> None:
    for _ in range(3):
        make_task(user)
    mine = make_task(stranger)

    def position() -> int:
        estimates._cache.clear()
        place = estimates.place(["gen4.5"], user_id=stranger.pk, own=0, rerun=False, created_at=mine.created_at)
        return place.position

    assert position() == 2
    switch(user, on=False)
    assert position() == 1


def test_what_has_a_slot_and_was_not_sent_gives_it_back(
    monkeypatch: pytest.MonkeyPatch, user: AbstractBaseUser
) -> None:
    def never(self: provider_calls.Submission) -> None:
        raise AssertionError

    monkeypatch.setattr(provider_calls.Submission, "send", never)
    task = make_task(user)
    generation = admitted(task)
    switch(user, on=False)
    runner.run_stage(Stage.GENERATE, task.pk)
    generation.refresh_from_db()
    assert (generation.state, generation.error_code) == ("rejected", "user_off")
    assert reload(task).admit_at is not None
    assert admission.admit() == []
    switch(user, on=True)
    assert admission.admit() == [(task.pk, Stage.GENERATE)]


def test_a_worker_that_dies_between_the_two_leaves_the_task_in_line(user: AbstractBaseUser) -> None:
    task = make_task(user)
    generation = admitted(task)
    switch(user, on=False)
    records.record_rejected(generation.pk, code=records.USER_OFF, message="")
    runner.run_stage(Stage.GENERATE, task.pk)
    assert reload(task).admit_at is not None


def test_being_switched_off_and_on_uses_up_no_attempt(user: AbstractBaseUser) -> None:
    task = make_task(user)
    for _ in range(admission.MAX_ATTEMPTS + 1):
        admitted(task)
        switch(user, on=False)
        runner.run_stage(Stage.GENERATE, task.pk)
        switch(user, on=True)
    assert admission.admit() == [(task.pk, Stage.GENERATE)]


def test_a_job_at_its_provider_goes_on(user: AbstractBaseUser) -> None:
    task = make_task(user)
    generation = accepted(task)
    switch(user, on=False)
    assert records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)
    assert reload(task).stage == "download"


def test_what_waited_too_long_ends_with_its_refund_and_the_true_cause(user: AbstractBaseUser) -> None:
    task = make_task(user)
    switch(user, on=False)
    assert wait_deadline.expire_waiting() == 0
    VideoTask.objects.filter(pk=task.pk).update(admit_at="2020-01-01T00:00:00Z")
    assert wait_deadline.expire_waiting() == 1
    assert (reload(task).status, reload(task).error_code) == ("failed", "user_off")
    assert ledger.balance(user.pk) == 1000


def test_the_list_of_problems_says_how_many_wait_in_vain(user: AbstractBaseUser) -> None:
    make_task(user)
    assert "users_off" not in {one.code for one in overview.read().problems}
    switch(user, on=False)
    found = overview.read()
    (problem,) = (one for one in found.problems if one.code == "users_off")
    assert problem.sentence == "1 task of users who are switched off waits for a slot."
    assert not problem.needs_person
    assert (found.waiting.number, found.waiting.off) == (0, 1)
    ProviderAccount.objects.update(closed_reason="out_of_credits")
    assert "nothing_open" not in {one.code for one in overview.read().problems}


def test_nothing_new_is_begun_for_them_by_an_operator(user: AbstractBaseUser) -> None:
    task = make_task(user)
    cancel.cancel(task.pk, by=OLGA)
    switch(user, on=False)
    for attempt in (retry.would_retry, lambda task_id: retry.retry(task_id, by=OLGA)):
        with pytest.raises(ActionRefused) as refused:
            attempt(task.pk)
        assert refused.value.code == "user_off"
    with pytest.raises(CommandError, match="is switched off"):
        call_command("generate", "A cat", user=user.get_username())
    assert ledger.balance(user.pk) == 1000


def test_a_video_that_is_at_its_provider_can_still_be_fetched_for_them(user: AbstractBaseUser) -> None:
    task = make_task(user)
    generation = accepted(task)
    claim = claimed(task, Stage.POLL)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert task_moves.fail(claim, code="download_failed", message="It could not be fetched.")
    switch(user, on=False)
    assert retry.retry(task.pk, by=OLGA).stage is Stage.DOWNLOAD


def test_only_what_waits_is_cancelled_when_that_is_asked_for() -> None:
    runs = make_task(make_user())
    accepted(runs)
    waits = make_task(make_user())
    assert cancel.cancel(waits.pk, by=OLGA, only_waiting=True).changed
    with pytest.raises(ActionRefused) as refused:
        cancel.cancel(runs.pk, by=OLGA, only_waiting=True)
    assert refused.value.code == "not_waiting"
    assert reload(runs).is_active
    assert not cancel.cancel(waits.pk, by=OLGA, only_waiting=True).changed
