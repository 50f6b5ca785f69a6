"""What tests of webhooks share: endpoints that lead to a receiver, tasks that change, and time that passes."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import connection

from tests.factories import admitted, claimed, make_task
from video.attempts import records
from video.models import VideoTask, WebhookDelivery, WebhookEndpoint, WebhookTry
from video.webhooks import deliveries, endpoints
from video.webhooks.deliver import deliver


def endpoint_of(
    user: AbstractBaseUser, url: str = "https://hooks.example.com/x", **more: Any
) -> tuple[WebhookEndpoint, str]:
    """An endpoint, and its secret."""
    return endpoints.create(user.pk, url, **more)


def started(user: AbstractBaseUser, **more: Any) -> VideoTask:
    """A task whose first submit is about to be sent, which is its first event."""
    task = make_task(user, **more)
    generation = admitted(task)
    assert records.mark_sent(claimed(task), generation)
    return VideoTask.objects.get(pk=task.pk)


def only() -> WebhookDelivery:
    """The only delivery there is."""
    return WebhookDelivery.objects.get()


def outcomes(delivery: WebhookDelivery) -> list[str]:
    """Of its tries, in turn."""
    return list(WebhookTry.objects.filter(delivery=delivery).order_by("number").values_list("outcome", flat=True))


def pass_time(seconds: float) -> None:
    """Every clock of the webhooks' rows moves into the past."""
    with connection.cursor() as cursor:
        for table, columns in (
            ("video_webhookdelivery", ("due_at", "lease_until", "rung_at", "give_up_at", "settled_at")),
            ("video_webhookcircuit", ("open_until", "changed_at")),
            ("video_webhookendpoint", ("former_until", "ended_at")),
            ("video_webhooksecret", ("former_until",)),
        ):
            moved = ", ".join(f"{name} = {name} - %(s)s * interval '1 second'" for name in columns)
            cursor.execute(f"UPDATE {table} SET {moved}", {"s": seconds})


def sweep() -> list[str]:
    """What the sweeper and a worker do in one turn: the ids of what was tried."""
    found = deliveries.enqueue_due()
    return [one for one in found if deliver(one) is not None]
