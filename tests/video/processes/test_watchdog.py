"""When a worker takes itself for deaf, and when not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from celery.worker import state as celery_state

from tests.factories import admitted, age, claimed, make_task, make_user
from tests.video.webhooks.hooks import endpoint_of, pass_time, started
from video.engine import due
from video.infra import broker
from video.models import Stage, VideoTask, WebhookDelivery
from video.processes import watchdog
from video.webhooks import deliveries

pytestmark = pytest.mark.django_db


@dataclass
class Dog:
    """A watchdog on a clock of its own, beside a broker that tells what the test says."""

    now: float = 1000.0
    depth: int = 1
    barks: int = 0
    asked: list[str] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def bark(self) -> None:
        self.barks += 1

    def depth_of(self, queue: str) -> int:
        self.asked.append(queue)
        if self.depth < 0:
            raise broker.BrokerUnavailable("ConnectionError")
        return self.depth


@pytest.fixture
def dog(monkeypatch: pytest.MonkeyPatch) -> Dog:
    dog = Dog()
    monkeypatch.setattr(watchdog.time, "monotonic", dog.monotonic)
    monkeypatch.setattr(watchdog.broker, "depth", dog.depth_of)
    return dog


def watched(dog: Dog, *, queues: tuple[str, ...] = ("videoQueue", "mediaQueue"), looks: int = 3) -> int:
    """Barks of a worker that was idle all the time, after some looks past its limit."""
    dog.now = 1000.0
    watch = watchdog.Watchdog(queues, dog.bark)
    watch.check()
    for _ in range(looks):
        dog.now += 61
        watch.check()
    return dog.barks


def unheard_task() -> VideoTask:
    """Due for an hour, rung just now, and nobody came."""
    task = make_task()
    admitted(task)
    age(task.pk)
    assert due.enqueue_due(10) == [(Stage.GENERATE, [task.pk])]
    return task


def test_an_idle_worker_barks_when_its_messages_wait_at_the_second_look(dog: Dog) -> None:
    unheard_task()
    assert watched(dog, looks=1) == 0
    assert watched(dog, looks=2) == 1
    assert set(dog.asked) == {"videoQueue"}


def test_the_worker_of_webhooks_barks_for_its_own(dog: Dog) -> None:
    user = make_user()
    endpoint_of(user)
    started(user)
    pass_time(3600)
    assert len(deliveries.enqueue_due()) == 1
    assert watched(dog, queues=("videoQueue",)) == 0
    assert watched(dog, queues=("webhookQueue",), looks=2) == 1
    dog.barks = 0
    assert deliveries.claim(WebhookDelivery.objects.get().pk)
    assert watched(dog, queues=("webhookQueue",)) == 0


def test_a_worker_of_another_queue_does_not_bark(dog: Dog) -> None:
    unheard_task()
    assert watched(dog, queues=("mediaQueue",)) == 0


def test_nothing_due_nothing_rung_or_just_due_is_no_reason(dog: Dog) -> None:
    assert watched(dog) == 0
    task = make_task()
    admitted(task)  # due now
    assert watched(dog) == 0
    age(task.pk)  # due for an hour, but not rung for as long: the sweeper is away, or it waits for a core
    assert watched(dog) == 0
    assert dog.asked == []


def test_a_task_that_somebody_holds_is_no_reason(dog: Dog) -> None:
    task = unheard_task()
    claimed(task)
    assert watched(dog) == 0


def test_a_broker_that_is_away_or_has_handed_out_all_messages_is_no_reason(dog: Dog) -> None:
    unheard_task()
    dog.depth = -1
    assert watched(dog) == 0
    dog.depth = 0
    assert watched(dog) == 0


def test_a_message_that_comes_in_between_proves_that_it_hears(dog: Dog, monkeypatch: pytest.MonkeyPatch) -> None:
    unheard_task()
    heard = [5]
    monkeypatch.setattr(celery_state, "all_total_count", heard)
    watch = watchdog.Watchdog(("videoQueue",), dog.bark)
    watch.check()
    for _ in range(5):
        dog.now += 61
        watch.check()
        heard[0] += 1
        dog.now += 61
        watch.check()
    assert dog.barks == 0
    dog.now += 61
    watch.check()
    watch.check()
    assert dog.barks == 1
