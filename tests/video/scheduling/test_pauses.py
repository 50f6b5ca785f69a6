"""A pause stops new submits of what it covers, and of nothing else; it costs no waiting task its time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from tests.factories import accepted, admitted, claimed, make_task, reload
from video.actions import pause as pausing
from video.actions.pause import EVERYTHING, Target, target
from video.actions.task_rows import ActionRefused
from video.attempts import provider_calls, records
from video.audit.actors import Actor
from video.engine import transitions
from video.models import AuditRecord, Pause, ProviderAccount, Stage
from video.pipeline import runner
from video.routing import availability, model_choice, pauses
from video.routing.pauses import Paused
from video.scheduling import admission, estimates, wait_deadline
from video.scheduling.wait_deadline import Past, counted_back, held

pytestmark = pytest.mark.django_db
ANN = Actor("ann", AuditRecord.Via.COMMAND, "web-1")


def paused(wanted: Target = EVERYTHING, **more: Any) -> Pause:
    return pausing.pause(wanted, actor=ANN, **more)[0]


def account() -> str:
    return str(ProviderAccount.objects.filter(provider="runway").values_list("account", flat=True)[0])


def age(table: str, seconds: float, *columns: str, where: str = "true") -> None:
    sets = ", ".join(f"{name} = {name} - interval '1 second' * {seconds}" for name in columns)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {sets} WHERE {where}")


@pytest.fixture(params=["everything", "provider", "model", "account", "user"])
def covering(request: pytest.FixtureRequest, user: AbstractBaseUser) -> Target:
    """What covers a task of `user` on gen4.5."""
    admission.admit()  # makes the accounts' rows
    make_task(user)
    admission.admit()
    return {
        "everything": lambda: EVERYTHING,
        "provider": lambda: target(provider="runway"),
        "model": lambda: target(model="gen4.5"),
        "account": lambda: target(provider="runway", account=account()),
        "user": lambda: target(user=user.get_username()),
    }[request.param]()


def test_nothing_new_is_admitted_until_it_is_resumed(user: AbstractBaseUser, covering: Target) -> None:
    task = make_task(user)
    found = paused(covering)
    assert admission.admit() == []
    pausing.resume(found.pk, actor=ANN)
    assert admission.admit() == [(task.pk, Stage.GENERATE)]


def test_what_has_a_slot_and_was_not_sent_gives_it_back(
    user: AbstractBaseUser, covering: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_calls.Submission, "send", lambda self: pytest.fail("it was sent"))
    task = make_task(user)
    generation = admitted(task)
    found = paused(covering)
    runner.run_stage(Stage.GENERATE, task.pk)
    generation.refresh_from_db()
    assert (generation.state, generation.error_code) == ("rejected", records.PAUSED)
    assert reload(task).admit_at is not None
    assert admission.admit() == []
    pausing.resume(found.pk, actor=ANN)
    for _ in range(admission.MAX_ATTEMPTS):  # it counts as no attempt
        generation = admitted(task)
        assert records.record_rejected(generation.pk, code=records.PAUSED, message="")
        assert transitions.wait_for_slot(claimed(task), delay_s=0, reason="paused")
    assert admission.admit() == [(task.pk, Stage.GENERATE)]


def test_a_claim_from_before_the_pause_does_not_send_after_it(user: AbstractBaseUser, covering: Target) -> None:
    task = make_task(user)
    generation = admitted(task)
    claim = claimed(task)
    found = paused(covering)
    assert not records.mark_sent(claim, generation)
    assert records.is_paused(generation.pk)
    pausing.resume(found.pk, actor=ANN)
    assert not records.is_paused(generation.pk)
    assert records.mark_sent(claim, generation)


def test_what_is_at_the_provider_goes_on(user: AbstractBaseUser, covering: Target) -> None:
    task = make_task(user)
    accepted(task)
    paused(covering)
    claim = claimed(task, Stage.POLL)
    assert not claim.is_paused
    assert transitions.advance(claim, Stage.DOWNLOAD)


def test_others_go_on(user: AbstractBaseUser, stranger: AbstractBaseUser) -> None:
    mine, theirs = make_task(user), make_task(stranger, model_requested="kling-3.0")
    paused(target(user=user.get_username()))
    assert admission.admit() == [(theirs.pk, Stage.GENERATE)]
    other = make_task(stranger, model_requested="kling-3.0")
    paused(target(model="gen4.5"))
    assert admission.admit() == [(other.pk, Stage.GENERATE)]
    assert reload(mine).admit_at is not None


def test_another_model_takes_the_task_where_its_client_allows_that(user: AbstractBaseUser) -> None:
    task = make_task(user, fallback=True)
    paused(target(provider="runway"))
    admission.admit()
    assert admitted(task).provider != "runway"


def test_it_ends_at_its_time_without_a_write(user: AbstractBaseUser, covering: Target) -> None:
    task = make_task(user)
    found = paused(covering, until=timezone.now() + timedelta(hours=1))
    assert admission.admit() == []
    age("video_pause", 3601, "since", "until")
    assert admission.admit() == [(task.pk, Stage.GENERATE)]
    with pytest.raises(ActionRefused) as refused:
        pausing.resume(found.pk, actor=ANN)
    assert refused.value.code == "not_paused"
    again = paused(covering)  # what is over is not in its way
    found.refresh_from_db()
    assert again.pk != found.pk
    assert found.ended_at == found.until


def test_the_same_object_is_paused_once_and_changed_by_the_second(covering: Target) -> None:
    first, is_new = pausing.pause(covering, actor=ANN, reason="one")
    second, is_second_new = pausing.pause(
        covering, actor=ANN, reason="two", until=timezone.now() + timedelta(minutes=5)
    )
    assert (first.pk, is_new, is_second_new) == (second.pk, True, False)
    assert (second.reason, second.until is not None) == ("two", True)
    with pytest.raises(IntegrityError), transaction.atomic():
        Pause.objects.create(kind=first.kind, subject=first.subject, user=first.user, paused_by="bob")
    pausing.resume(first.pk, actor=ANN, reason="done")
    with pytest.raises(ActionRefused):
        pausing.resume(first.pk, actor=ANN)
    told = AuditRecord.objects.filter(kind="pause", object_id=str(first.pk)).order_by("id")
    assert [(one.action, one.reason, one.actor) for one in told] == [
        ("pause", "one", "ann"),
        ("pause", "two", "ann"),
        ("resume", "done", "ann"),
    ]


def test_what_no_words_name_is_refused(user: AbstractBaseUser) -> None:
    admission.admit()
    for wrong, code in (
        ({}, "invalid_request"),
        ({"everything": True, "model": "gen4.5"}, "invalid_request"),
        ({"account": "x"}, "invalid_request"),
        ({"provider": "acme"}, "invalid_request"),
        ({"model": "acme-1"}, "invalid_request"),
        ({"provider": "runway", "account": "nobody"}, "invalid_request"),
        ({"user": "nobody"}, "invalid_request"),
    ):
        with pytest.raises(ActionRefused) as refused:
            target(**wrong)  # type: ignore[arg-type]
        assert refused.value.code == code
    with pytest.raises(ActionRefused):
        paused(until=timezone.now() - timedelta(seconds=1))


def test_everybody_is_told_since_when_and_why_and_not_by_whom(user: AbstractBaseUser, covering: Target) -> None:
    found = paused(covering, reason="the bill")
    state = availability.read().of_all(user.pk)["gen4.5"]
    assert state.reason is not None
    assert (state.reason.code, state.takes_jobs) == ("paused", False)
    assert state.reason.text == f"paused by the operators since {pauses.minute(found.since)}: the bill"
    assert pauses.live()[0].told.endswith("by ann: the bill")
    task = make_task(user)
    estimates._cache.clear()
    place = estimates.place(["gen4.5"], user_id=user.pk, own=0, rerun=False, created_at=task.created_at)
    assert (place.expected_wait_s, place.waits_for) == (None, state.reason)
    quote = model_choice.quote(order_of(user), user_id=user.pk)
    assert (quote.waits_for, quote.waits_for_code) == (state.reason.text, "paused")


def order_of(user: AbstractBaseUser) -> Any:
    from video.models.order import Order

    return Order(prompt="A cat", duration_s=5, aspect_ratio="16:9", model_requested="gen4.5", fallback=False)


# --- the deadline of the wait --------------------------------------------------------------------------------------


def test_a_paused_task_is_not_ended_and_has_its_rest_afterwards(
    user: AbstractBaseUser, covering: Target, settings: Any
) -> None:
    """It waited for 40 min before the pause and was paused for two days: 20 of its 60 min are left."""
    settings.WAIT_DEADLINE_SECONDS = 3600
    task = make_task(user)
    found = paused(covering)
    days = 2 * 86400
    age("video_pause", days, "since")
    age("video_videotask", days + 2400, "admit_at", where=f"id = '{task.pk}'")
    assert wait_deadline.expire_waiting() == 0
    pausing.resume(found.pk, actor=ANN)
    assert wait_deadline.expire_waiting() == 0
    age("video_pause", 1190, "since", "ended_at")
    age("video_videotask", 1190, "admit_at", where=f"id = '{task.pk}'")
    assert wait_deadline.expire_waiting() == 0
    age("video_pause", 20, "since", "ended_at")
    age("video_videotask", 20, "admit_at", where=f"id = '{task.pk}'")
    assert wait_deadline.expire_waiting() == 1
    assert reload(task).error_code == "no_capacity"


def test_a_pause_of_another_thing_gives_no_time(user: AbstractBaseUser, settings: Any) -> None:
    settings.WAIT_DEADLINE_SECONDS = 3600
    task = make_task(user)
    paused(target(model="kling-3.0"))
    age("video_pause", 86400, "since")
    age("video_videotask", 3700, "admit_at", where=f"id = '{task.pk}'")
    assert wait_deadline.expire_waiting() == 1


def test_time_that_is_held_is_counted_out() -> None:
    assert counted_back([], 100) == 100
    assert counted_back([(50, 0)], 100) is None
    assert counted_back([(50, 20)], 100) == 130
    assert counted_back([(500, 120), (50, 20)], 100) == 130 + 380
    assert counted_back([(500, 131), (50, 20)], 100) == 130


def test_a_task_is_held_while_every_account_of_its_models_is() -> None:
    now = timezone.now()

    def past(kind: str, subject: str, *span: float, user: int | None = None) -> Past:
        return Past(Paused(1, kind, subject, user, "", "", "ann", now, None), (span[0], span[1]))

    places = [("runway", "gen4.5", "a"), ("kling", "kling-3.0", "b")]
    one, other = past("provider", "runway", 100, 10), past("account", "kling b", 80, 20)
    assert held([one, other], 7, places) == [(80, 20)]
    assert held([one], 7, places) == []
    assert held([one, past("user", "", 15, 5, user=8)], 8, places[:1]) == [(100, 5)]
    assert held([past("everything", "", 9, 3)], 7, []) == [(9, 3)]
