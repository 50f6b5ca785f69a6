"""What a worker that stops does with messages that still reach it."""

from __future__ import annotations

import threading

import pytest

from tests.factories import accepted, admitted, claimed, make_task, park_one, reload
from video.engine import due, shutdown
from video.models import Generation, Stage
from video.processes import tasks

pytestmark = pytest.mark.django_db


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    begun.set()
    monkeypatch.setattr(shutdown, "_begun", begun)


def test_a_stopping_worker_begins_nothing_and_the_sweeper_rings_again_at_once(stopping: None) -> None:
    task = make_task()
    admitted(task)  # rung just now: without a word the sweeper would wait ten seconds
    assert due.enqueue_due(10) == []
    tasks.generate(task.pk)
    assert reload(task).claimed_at is None
    assert due.enqueue_due(10) == [(Stage.GENERATE, [task.pk])]


def test_the_same_for_a_wave_of_looks(stopping: None) -> None:
    task = make_task()
    accepted(task)
    assert due.enqueue_due(10) == []
    tasks.poll([task.pk])
    assert due.enqueue_due(10) == [(Stage.POLL, [task.pk])]


def test_a_stopping_worker_admits_nobody(stopping: None) -> None:
    task = make_task()
    tasks.admit()
    assert not Generation.objects.filter(task=task).exists()


def test_a_message_for_a_task_that_somebody_holds_takes_nothing_from_its_holder(stopping: None) -> None:
    task = make_task()
    admitted(task)
    claim = claimed(task)
    tasks.generate(task.pk)
    assert park_one(claim, delay_s=0, reason="it is still ours")
