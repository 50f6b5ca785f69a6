"""Which changes of a task become deliveries: written with the change or not at all, and for nobody at no cost."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.factories import admitted, claimed, make_task, make_user, reload
from tests.video.storing import saved
from tests.video.webhooks.hooks import endpoint_of, only, started
from video.actions import cancel, retry
from video.audit.actors import Unaudited
from video.engine import transitions
from video.models import Status, WebhookDelivery
from video.webhooks import endpoints, message

pytestmark = pytest.mark.django_db


def events() -> list[str]:
    return list(WebhookDelivery.objects.order_by("created_at", "message_id").values_list("event", flat=True))


def test_each_change_of_status_is_an_event_with_a_snapshot(user: AbstractBaseUser) -> None:
    endpoint, _ = endpoint_of(user)
    task = started(user, prompt="A secret garden")
    delivery = only()
    assert (delivery.event, delivery.endpoint_id, delivery.target) == ("task.started", endpoint.pk, endpoint.pk)
    assert delivery.facts == {
        "taskId": task.pk,
        "run": 1,
        "status": "running",
        "errorCode": None,
        "videoId": None,
        "createdAt": f"{task.created_at:%Y-%m-%dT%H:%M:%S.%fZ}",
        "startedAt": f"{task.started_at:%Y-%m-%dT%H:%M:%S.%fZ}",
        "finishedAt": None,
    }
    assert "garden" not in message.body(delivery.event, delivery.facts, delivery.created_at).decode()


def test_a_success_names_its_video(user: AbstractBaseUser) -> None:
    endpoint_of(user)
    task = saved(user)
    assert set(events()) == {"task.started", "task.succeeded"}
    facts = WebhookDelivery.objects.get(event="task.succeeded").facts
    assert (facts["status"], facts["videoId"]) == ("success", task.video_id)
    assert facts["finishedAt"]


def test_a_failure_a_retry_and_a_cancel_are_events(user: AbstractBaseUser) -> None:
    endpoint_of(user)
    task = make_task(user)
    assert transitions.fail_waiting(task, code="no_capacity", message="It waited too long.")
    assert events() == ["task.failed"]
    assert only().facts["errorCode"] == "no_capacity"
    retry.retry(task.pk, by=Unaudited("test"))
    cancel.cancel(task.pk, by=Unaudited("test"))
    found = {one.event: one.facts for one in WebhookDelivery.objects.all()}
    assert set(found) == {"task.failed", "task.resumed", "task.cancelled"}
    # As the API shows it: a cancelled task is a failed one with a code of its own.
    assert (found["task.cancelled"]["status"], found["task.cancelled"]["errorCode"]) == ("failed", "cancelled")


def test_the_documented_events_are_all_that_the_database_knows() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT video_webhook_event(a, b) FROM unnest(%s::text[]) a, unnest(%s::text[]) b WHERE a <> b",
            [Status.values, Status.values],
        )
        found = {row[0] for row in cursor.fetchall()}
    assert found - {None} == set(message.EVENTS)  # none for a way back to pending, which no task goes


def test_an_endpoint_gets_the_events_that_it_wants(user: AbstractBaseUser) -> None:
    all_of_them, _ = endpoint_of(user)
    some, _ = endpoint_of(user, events=["task.cancelled", "task.failed"])
    task = started(user)
    cancel.cancel(task.pk, by=Unaudited("test"))
    found = set(WebhookDelivery.objects.values_list("endpoint_id", "event"))
    assert found == {
        (all_of_them.pk, "task.started"),
        (all_of_them.pk, "task.cancelled"),
        (some.pk, "task.cancelled"),
    }
    ids = {one.message_id for one in WebhookDelivery.objects.filter(event="task.cancelled")}
    assert len(ids) == 1  # one event has one id, whoever gets it


def test_endpoints_of_others_and_those_that_are_off_or_gone_get_nothing(
    user: AbstractBaseUser, stranger: AbstractBaseUser
) -> None:
    endpoint_of(stranger)
    off, gone = endpoint_of(user)[0], endpoint_of(user)[0]
    endpoints.change(off.pk, user.pk, enabled=False)
    endpoints.delete(gone.pk, user.pk)
    started(user)
    assert not WebhookDelivery.objects.exists()


def test_a_task_s_own_url_gets_its_events_and_no_other_s(user: AbstractBaseUser) -> None:
    started(user, webhook_url="https://Hooks.Example.com:443/x?token=1")
    make_task(user)
    delivery = only()
    assert (delivery.endpoint_id, delivery.url) == (None, "https://Hooks.Example.com:443/x?token=1")
    assert delivery.target == f"{user.pk} hooks.example.com:443"


def test_a_change_costs_no_statement_whether_or_not_somebody_is_told(user: AbstractBaseUser) -> None:
    def statements(owner: AbstractBaseUser) -> int:
        task = make_task(owner)
        with CaptureQueriesContext(connection) as captured:
            cancel.cancel(task.pk, by=Unaudited("test"))
        return len(captured)

    endpoint_of(user)
    assert statements(user) == statements(make_user())
    assert WebhookDelivery.objects.count() == 1


def test_a_change_that_is_undone_tells_nobody(user: AbstractBaseUser) -> None:
    endpoint_of(user)
    task = make_task(user)
    with transaction.atomic():
        cancel.cancel(task.pk, by=Unaudited("test"))
        assert WebhookDelivery.objects.count() == 1
        transaction.set_rollback(True)
    assert not WebhookDelivery.objects.exists()
    assert reload(task).status == "pending"


def test_what_is_no_change_of_status_is_no_event(user: AbstractBaseUser) -> None:
    endpoint_of(user)
    task = make_task(user)
    admitted(task)
    claim = claimed(task)
    assert transitions.wait_for_slot(claim, delay_s=0, reason="another key")
    cancel.cancel(task.pk, by=Unaudited("test"))
    cancel.cancel(task.pk, by=Unaudited("test"))
    assert events() == ["task.cancelled"]


def test_many_endpoints_and_a_url_each_get_the_event_once(user: AbstractBaseUser) -> None:
    for _ in range(3):
        endpoint_of(user)
    started(user, webhook_url="https://example.com/")
    found = list(WebhookDelivery.objects.all())
    assert len(found) == 4
    assert len({one.pk for one in found}) == 4
    assert len({one.message_id for one in found}) == 1
