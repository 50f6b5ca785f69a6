"""Webhooks in processes that die, in threads that race, and through the real system."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from pytest_django import Settings
from standardwebhooks import Webhook

from tests.factories import make_task, make_user
from tests.receiver import HANG, Receiver, receiving
from tests.system import forks as work
from tests.system.forks import ForkServer
from tests.system.system import System, until
from tests.video.racing import together
from tests.video.webhooks.hooks import endpoint_of, outcomes, pass_time, started, sweep
from video.infra.failpoints import POINTS
from video.models import VideoTask, WebhookDelivery
from video.webhooks import deliveries

WEBHOOK_POINTS = [point for point in POINTS if point.startswith("webhook.")]
#: What is left of the first try, and how often the receiver got the message in the end.
LEFT = {
    "webhook.claimed": (["", "delivered"], 1),
    "webhook.after_send": (["", "delivered"], 2),
    "webhook.recorded": (["delivered"], 1),
}


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    with receiving() as one:
        settings.WEBHOOK_PRIVATE_HOSTS = [one.host]
        yield one


def written(receiver: Receiver) -> tuple[WebhookDelivery, str]:
    """A delivery to the receiver, and the secret of its endpoint."""
    user = make_user()
    endpoint, secret = endpoint_of(user, receiver.url)
    started(user)
    return WebhookDelivery.objects.get(endpoint=endpoint), secret


@pytest.mark.parametrize("point", WEBHOOK_POINTS)
def test_a_deliverer_that_is_killed_loses_no_message(forks: ForkServer, receiver: Receiver, point: str) -> None:
    delivery, secret = written(receiver)
    assert forks.start(work.deliver, delivery.pk, receiver.host, point, "kill").died() == -signal.SIGKILL
    sweep()  # nothing: the lease holds, or it is delivered
    pass_time(120)
    sweep()
    delivery.refresh_from_db()
    tried, times = LEFT[point]
    assert (delivery.state, outcomes(delivery), len(receiver.got)) == ("delivered", tried, times)
    for one in receiver.got:
        Webhook(secret).verify(one.body, one.headers)
        assert one.headers["webhook-id"] == delivery.message_id


def test_a_deliverer_that_dies_while_the_receiver_is_silent_loses_no_message(
    forks: ForkServer, receiver: Receiver
) -> None:
    delivery, secret = written(receiver)
    receiver.answers = [HANG, 200]
    child = forks.start(work.deliver, delivery.pk, receiver.host)
    until("the receiver has the message", lambda: len(receiver.got) == 1)
    child.process.kill()
    child.died()
    pass_time(120)
    assert sweep() == [delivery.pk]
    assert outcomes(delivery) == ["", "delivered"]
    Webhook(secret).verify(receiver.got[1].body, receiver.got[1].headers)


@pytest.mark.parametrize("turn", range(3))
def test_of_workers_that_take_one_delivery_at_once_one_gets_it(receiver: Receiver, turn: int) -> None:
    delivery, _ = written(receiver)
    found = together(turn, *[lambda: deliveries.claim(delivery.pk)] * 4)
    assert [one.number for one in found if one is not None] == [1]
    assert delivery.tries_made.count() == 1
    delivery.delete()


def test_of_sweepers_at_once_one_sends_a_message(receiver: Receiver) -> None:
    delivery, _ = written(receiver)
    found = together(2, *[deliveries.enqueue_due] * 4)
    assert [one for each in found for one in each].count(delivery.pk) == 1


def test_a_task_s_events_arrive_while_its_video_is_made(system: System, receiver: Receiver) -> None:
    system.env["WEBHOOK_PRIVATE_HOSTS"] = receiver.host
    WebhookDelivery.objects.all().delete()
    user = make_user()
    _, secret = endpoint_of(user, receiver.url)
    task = make_task(user)
    system.worker("all", queues="videoQueue,mediaQueue,webhookQueue")
    system.sweeper()
    until("both events have arrived", lambda: len(receiver.got) >= 2, seconds=90)
    assert VideoTask.objects.get(pk=task.pk).status == "success"
    said = [Webhook(secret).verify(one.body, one.headers) for one in receiver.got]
    assert {one["type"] for one in said} == {"task.started", "task.succeeded"}
    until("they are recorded", lambda: WebhookDelivery.objects.filter(state="delivered").count() == 2, seconds=30)
