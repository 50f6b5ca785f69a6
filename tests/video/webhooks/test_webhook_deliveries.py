"""What becomes of a delivery, with a real receiver: signed, tried again, given up, never lost and never doubled."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from pytest_django.fixtures import Settings
from standardwebhooks import Webhook, WebhookVerificationError

from tests.factories import make_user
from tests.receiver import DRIP, DROP, HANG, Receiver, busy_for, redirect_to
from tests.video.webhooks.hooks import endpoint_of, only, outcomes, pass_time, started, sweep
from video.actions import cancel
from video.audit.actors import Unaudited
from video.models import WebhookCircuit, WebhookDelivery, WebhookTry
from video.webhooks import deliveries, endpoints, schedule, signing
from video.webhooks.deliver import deliver

pytestmark = pytest.mark.django_db
HOUR = 3600


def test_a_message_is_signed_by_the_standard_and_arrives_once(
    user: AbstractBaseUser, receiver: Receiver, settings: Settings
) -> None:
    settings.PUBLIC_BASE_URL = "https://video.example.com"
    _, secret = endpoint_of(user, receiver.url)
    task = started(user)
    assert len(sweep()) == 1
    assert sweep() == []
    (got,) = receiver.got
    said = Webhook(secret).verify(got.body, got.headers)
    assert said == json.loads(got.body)
    assert (said["type"], said["data"]["taskId"]) == ("task.started", task.pk)
    assert said["data"]["links"]["status"] == f"https://video.example.com/api/video/status?taskId={task.pk}"
    assert datetime.fromisoformat(said["timestamp"]).tzinfo == UTC
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == only().message_id
    assert (only().state, outcomes(only())) == ("delivered", ["delivered"])


def test_a_message_that_was_changed_on_its_way_is_noticed(user: AbstractBaseUser, receiver: Receiver) -> None:
    _, secret = endpoint_of(user, receiver.url)
    started(user)
    sweep()
    (got,) = receiver.got
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(got.body.replace(b"running", b"success"), got.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.new_secret()).verify(got.body, got.headers)


def test_a_task_s_own_url_is_signed_with_its_user_s_secret(user: AbstractBaseUser, receiver: Receiver) -> None:
    started(user, webhook_url=receiver.url)
    sweep()
    secret = endpoints.shown(endpoints.secret_of_user(user.pk))  # made with the first message
    Webhook(secret).verify(receiver.got[0].body, receiver.got[0].headers)


def test_while_a_secret_is_rolled_both_verify(user: AbstractBaseUser, receiver: Receiver) -> None:
    endpoint, former = endpoint_of(user, receiver.url)
    _, secret = endpoints.roll(endpoint, overlap_h=24)
    task = started(user)
    sweep()
    (got,) = receiver.got
    assert len(got.headers["webhook-signature"].split()) == 2
    for one in (former, secret):
        Webhook(one).verify(got.body, got.headers)
    pass_time(25 * HOUR)
    cancel.cancel(task.pk, by=Unaudited("test"))
    sweep()
    later = receiver.got[1]
    Webhook(secret).verify(later.body, later.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(former).verify(later.body, later.headers)


@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        (500, "refused", 500),
        (404, "refused", 404),
        (304, "refused", 304),
        (DROP, "unreachable", None),
        (HANG, "timeout", None),
        (DRIP, "timeout", None),
        (b"nonsense\r\n\r\n", "unreachable", None),
    ],
)
def test_a_receiver_that_fails_gets_it_again_and_each_try_is_logged(
    user: AbstractBaseUser,
    receiver: Receiver,
    settings: Settings,
    answer: Any,
    outcome: str,
    status: int | None,
) -> None:
    settings.WEBHOOK_TIMEOUT_SECONDS = 0.5
    _, secret = endpoint_of(user, receiver.url)
    started(user)
    receiver.answers = [answer, 200]
    assert len(sweep()) == 1
    (tried,) = WebhookTry.objects.all()
    assert (tried.outcome, tried.http_status, tried.number) == (outcome, status, 1)
    assert tried.ended_at is not None
    assert "token" not in tried.detail
    assert sweep() == []  # not yet
    pass_time(schedule.PAUSES_S[0] * 1.2)
    assert len(sweep()) == 1
    assert (only().state, outcomes(only())) == ("delivered", [outcome, "delivered"])
    first, second = receiver.got
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    for one in (first, second):
        Webhook(secret).verify(one.body, one.headers)


def test_a_redirect_is_a_failure_and_is_not_followed(user: AbstractBaseUser, receiver: Receiver) -> None:
    endpoint_of(user, receiver.url)
    started(user)
    receiver.answers = [redirect_to(receiver.url, 308)]
    sweep()
    assert outcomes(only()) == ["refused"]
    assert receiver.connections == 1


def test_an_address_that_is_private_is_not_connected_to_though_the_row_names_it(
    user: AbstractBaseUser, receiver: Receiver, settings: Settings
) -> None:
    """An operator took the host from the setting, or its name leads elsewhere by now."""
    endpoint_of(user, receiver.url)
    settings.WEBHOOK_PRIVATE_HOSTS = []
    started(user)
    sweep()
    assert outcomes(only()) == ["forbidden"]
    assert receiver.connections == 0


def test_tries_spread_over_a_day_and_then_it_has_failed(user: AbstractBaseUser, receiver: Receiver) -> None:
    endpoint_of(user, receiver.url)
    started(user)
    receiver.answers = [500]
    waited = 0.0
    for pause in (*schedule.PAUSES_S, None):
        WebhookCircuit.objects.all().delete()  # alone it is another test's
        assert len(sweep()) == 1
        if pause is None:
            break
        due_in = (only().due_at - datetime.now(UTC)).total_seconds()
        assert pause * 0.89 < due_in < pause * 1.11
        waited += due_in
        pass_time(pause * 1.11)
    assert 0.89 * sum(schedule.PAUSES_S) < waited < schedule.GIVE_UP_S
    delivery = only()
    assert (delivery.state, delivery.tries) == ("failed", schedule.MOST_TRIES)
    assert outcomes(delivery) == ["refused"] * schedule.MOST_TRIES
    assert sweep() == []


def test_pauses_differ_so_that_receivers_are_not_asked_all_at_once() -> None:
    found = {schedule.next_pause_s(3) for _ in range(20)}
    assert len(found) > 10


def test_a_pause_that_the_receiver_asks_for_is_kept_up_to_an_hour(user: AbstractBaseUser, receiver: Receiver) -> None:
    endpoint_of(user, receiver.url)
    started(user)
    receiver.answers = [busy_for(600), busy_for(90_000)]
    sweep()
    assert 590 < (only().due_at - datetime.now(UTC)).total_seconds() <= 600
    pass_time(600)
    sweep()
    assert 3590 < (only().due_at - datetime.now(UTC)).total_seconds() <= 3600


def test_a_receiver_that_is_down_for_an_hour_gets_every_event_in_the_end(
    user: AbstractBaseUser, receiver: Receiver
) -> None:
    _, secret = endpoint_of(user, receiver.url)
    receiver.answers = [503]
    tasks = [started(user) for _ in range(6)]
    for _ in range(60):
        sweep()
        pass_time(60)
    assert WebhookDelivery.objects.filter(state="pending").count() == 6
    assert len(receiver.got) < 6 * 6  # its circuit was open for most of that time
    receiver.answers = [200]
    for _ in range(60):
        sweep()
        pass_time(60)
    assert WebhookDelivery.objects.filter(state="delivered").count() == 6
    good = {Webhook(secret).verify(one.body, one.headers)["data"]["taskId"] for one in receiver.got[-6:]}
    assert good == {task.pk for task in tasks}
    assert not WebhookCircuit.objects.exists()


def test_a_receiver_that_says_gone_is_never_asked_again(user: AbstractBaseUser, receiver: Receiver) -> None:
    endpoint, _ = endpoint_of(user, receiver.url)
    task = started(user)
    started(user)
    receiver.answers = [410]
    first = deliveries.enqueue_due()[0]
    assert deliver(first) == "gone"
    states = set(WebhookDelivery.objects.values_list("state", flat=True))
    assert states == {"failed", "dropped"}
    endpoint.refresh_from_db()
    assert (endpoint.end_reason, endpoint.is_live) == ("gone", False)
    cancel.cancel(task.pk, by=Unaudited("test"))
    assert WebhookDelivery.objects.count() == 2
    assert sweep() == []
    with pytest.raises(endpoints.WebhookRefused, match="410"):
        endpoints.change(endpoint.pk, user.pk, enabled=True)


def test_a_circuit_opens_after_failures_in_a_row_and_lets_one_through_then(
    user: AbstractBaseUser, receiver: Receiver
) -> None:
    other = make_user()
    endpoint, _ = endpoint_of(user, receiver.url)
    receiver.answers = [500]
    for _ in range(schedule.CIRCUIT_FAULTS + 3):
        started(user)
    while sweep():
        pass
    circuit = WebhookCircuit.objects.get(target=endpoint.pk)
    assert circuit.faults >= schedule.CIRCUIT_FAULTS
    asked = len(receiver.got)
    pass_time(10)  # what failed first is due again
    assert sweep() == []
    endpoint_of(other, receiver.url)  # another receiver, though at the same address
    started(other)
    assert len(sweep()) == 1
    assert len(receiver.got) == asked + 1
    pass_time(schedule.FIRST_CIRCUIT_S * 10)
    tried = WebhookDelivery.objects.filter(pk__in=sweep(), target=endpoint.pk)
    assert tried.count() == 1  # one alone, and it is closed again
    circuit.refresh_from_db()
    assert circuit.open_until is not None
    assert circuit.open_until > datetime.now(UTC)


def test_a_slow_receiver_gets_few_tries_at_once_and_other_users_are_served(
    user: AbstractBaseUser, receiver: Receiver
) -> None:
    other = make_user()
    for _ in range(3):
        endpoint_of(user, receiver.url)
    endpoint_of(other, receiver.url)
    for _ in range(6):
        started(user)
    started(other)
    found = WebhookDelivery.objects.filter(pk__in=deliveries.enqueue_due())
    mine = [one.target for one in found if one.user_id == user.pk]
    assert len(mine) == schedule.MOST_OF_USER
    assert max(map(mine.count, mine)) <= schedule.MOST_OF_TARGET
    assert [one.user_id for one in found if one.user_id != user.pk] == [other.pk]
    assert deliveries.enqueue_due() == []  # all that may be under way is


def test_a_message_that_the_broker_lost_is_sent_again(user: AbstractBaseUser) -> None:
    endpoint_of(user)
    started(user)
    assert len(deliveries.enqueue_due()) == 1
    assert deliveries.enqueue_due() == []
    pass_time(120)
    assert len(deliveries.enqueue_due()) == 1


def test_a_try_is_one_worker_s(user: AbstractBaseUser, receiver: Receiver) -> None:
    endpoint_of(user, receiver.url)
    started(user)
    claimed = deliveries.claim(only().pk)
    assert claimed is not None
    assert deliveries.claim(only().pk) is None
    assert deliver(only().pk) is None
    assert deliver("whd_of_nobody") is None
    assert receiver.got == []


def test_after_a_lease_another_worker_tries_and_a_late_failure_changes_nothing(user: AbstractBaseUser) -> None:
    endpoint_of(user)
    started(user)
    first = deliveries.claim(only().pk)
    pass_time(120)
    second = deliveries.claim(only().pk)
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (1, 2)
    assert not deliveries.record(first, WebhookTry.Outcome.TIMEOUT)
    assert only().lease_until is not None
    assert deliveries.record(second, WebhookTry.Outcome.DELIVERED, http_status=200)
    assert outcomes(only()) == ["timeout", "delivered"]


def test_a_late_success_counts_and_ends_the_tries(user: AbstractBaseUser) -> None:
    endpoint_of(user)
    started(user)
    first = deliveries.claim(only().pk)
    pass_time(120)
    second = deliveries.claim(only().pk)
    assert first is not None
    assert second is not None
    assert deliveries.record(first, WebhookTry.Outcome.DELIVERED, http_status=200)
    assert not deliveries.record(second, WebhookTry.Outcome.REFUSED, http_status=500)
    assert only().state == "delivered"
    assert not deliveries.record(second, WebhookTry.Outcome.REFUSED, http_status=500)  # told twice


def test_an_endpoint_that_is_switched_off_loses_what_waits(user: AbstractBaseUser, receiver: Receiver) -> None:
    endpoint, _ = endpoint_of(user, receiver.url)
    started(user)
    endpoints.change(endpoint.pk, user.pk, enabled=False)
    assert only().state == "dropped"
    assert sweep() == []


def test_what_was_written_while_its_endpoint_was_switched_off_is_dropped_when_its_turn_comes(
    user: AbstractBaseUser, receiver: Receiver
) -> None:
    endpoint, _ = endpoint_of(user, receiver.url)
    started(user)
    type(endpoint).objects.update(enabled=False)  # between the trigger's look and its commit
    assert deliver(only().pk) == "dropped"
    assert (only().state, receiver.got) == ("dropped", [])


def test_what_was_not_delivered_in_a_day_is_given_up(user: AbstractBaseUser) -> None:
    endpoint_of(user)
    started(user)
    assert deliveries.give_up() == 0
    pass_time(schedule.GIVE_UP_S + 1)
    assert deliveries.give_up() == 1
    assert only().state == "failed"


def test_a_delivery_is_sent_again_whatever_became_of_it(user: AbstractBaseUser, receiver: Receiver) -> None:
    endpoint_of(user, receiver.url)
    started(user)
    receiver.answers = [200]
    sweep()
    endpoints.resend(only().pk, user.pk)
    assert only().state == "pending"
    assert len(sweep()) == 1
    assert outcomes(only()) == ["delivered", "delivered"]
    assert len({one.headers["webhook-id"] for one in receiver.got}) == 1
    with pytest.raises(endpoints.NoSuchWebhook):
        endpoints.resend(only().pk, make_user().pk)


def test_a_wish_to_send_again_closes_the_circuit_and_outlasts_a_try_under_way(
    user: AbstractBaseUser, receiver: Receiver
) -> None:
    endpoint, _ = endpoint_of(user, receiver.url)
    started(user)
    WebhookCircuit.objects.create(target=endpoint.pk, faults=9, open_until=datetime(2999, 1, 1, tzinfo=UTC))
    assert deliver(only().pk) is None
    endpoints.resend(only().pk)
    under_way = deliveries.claim(only().pk)
    assert under_way is not None
    endpoints.resend(only().pk)
    assert deliveries.record(under_way, WebhookTry.Outcome.REFUSED, http_status=500)
    assert len(sweep()) == 1  # at once, not after the pause of a failure
    assert only().state == "delivered"


def test_a_secret_that_can_not_be_read_is_told_and_waits_to_be_rolled(
    user: AbstractBaseUser, receiver: Receiver, settings: Settings
) -> None:
    endpoint, _ = endpoint_of(user, receiver.url)
    started(user)
    settings.SECRET_KEY = "another key, of which nothing was told to anybody"
    sweep()
    assert outcomes(only()) == ["unsigned"]
    assert not WebhookCircuit.objects.exists()
    with pytest.raises(endpoints.WebhookRefused, match="roll it"):
        endpoints.shown(endpoint)
    _, secret = endpoints.roll(endpoint, overlap_h=24)
    endpoints.resend(only().pk)
    sweep()
    Webhook(secret).verify(receiver.got[0].body, receiver.got[0].headers)


def test_a_former_secret_key_reads_what_was_stored_under_it(user: AbstractBaseUser, settings: Settings) -> None:
    endpoint, secret = endpoint_of(user)
    assert secret not in endpoint.secret
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another key, of which nothing was told to anybody"
    assert endpoints.shown(endpoint) == secret


def test_no_log_line_has_a_url_a_secret_or_a_signature(
    user: AbstractBaseUser, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _, secret = endpoint_of(user, receiver.url)
    started(user)
    receiver.answers = [500]
    sweep()
    told = [one.getMessage() for one in caplog.records if one.name.startswith(("video.webhooks", "media_pipeline"))]
    assert told == [f"webhook: delivery={only().pk} event=task.started try=1 outcome=refused status=500"]
    assert secret not in caplog.text


def test_old_deliveries_are_pruned_with_their_tries(user: AbstractBaseUser, receiver: Receiver) -> None:
    endpoint, _ = endpoint_of(user, receiver.url)
    started(user)
    sweep()
    pass_time(29 * 24 * HOUR)
    assert deliveries.prune() == 0
    started(user)  # pending ones stay
    endpoints.delete(endpoint.pk, user.pk)
    pass_time(2 * 24 * HOUR)
    assert deliveries.prune() == 1
    assert not WebhookTry.objects.exists()
    assert endpoint_rows() == 1
    pass_time(31 * 24 * HOUR)
    assert deliveries.prune() == 1
    deliveries.prune()
    assert endpoint_rows() == 0


def test_a_try_that_outlives_its_erased_user_leaves_nothing(user: AbstractBaseUser) -> None:
    endpoint_of(user)
    started(user)
    claimed = deliveries.claim(only().pk)
    assert claimed is not None
    deliveries.erase_of(user.pk)
    assert not deliveries.record(claimed, WebhookTry.Outcome.REFUSED, http_status=500)
    assert not WebhookCircuit.objects.exists()
    assert not WebhookTry.objects.exists()
    assert endpoint_rows() == 0


def test_an_endpoint_that_is_deleted_meanwhile_gets_no_secret(user: AbstractBaseUser) -> None:
    endpoint, _ = endpoint_of(user)
    endpoints.delete(endpoint.pk, user.pk)
    with pytest.raises(endpoints.NoSuchWebhook):
        endpoints.roll(endpoint, overlap_h=0)
    endpoint.refresh_from_db()
    assert endpoint.secret == ""


def endpoint_rows() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM video_webhookendpoint")
        found: int = cursor.fetchone()[0]
        return found
