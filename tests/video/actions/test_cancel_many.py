"""Several tasks cancelled or retried at once, by several callers: each once, and nobody waits for ever."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
from django.db import connection

from tests.factories import accepted, make_task, make_user
from video.actions import cancel, retry
from video.actions.cancel import Cancelled
from video.audit.actors import Unaudited
from video.credits import ledger
from video.infra.errors import Refusal
from video.models import CreditEntry, TaskEvent, VideoTask


def together(*calls: Callable[[], object]) -> None:
    barrier = threading.Barrier(len(calls))
    failed: list[BaseException] = []

    def one(call: Callable[[], object]) -> None:
        try:
            barrier.wait(60)
            call()
        except Exception as err:  # told below: an error of a thread is otherwise only printed
            failed.append(err)
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []


@pytest.mark.django_db(transaction=True)
def test_the_same_tasks_in_any_order_by_many_callers_end_once() -> None:
    user = make_user()
    tasks = [make_task(user) for _ in range(20)]
    job = accepted(tasks[0], "job")
    ids = [task.pk for task in tasks]
    done: list[Cancelled] = []

    def several(seed: int) -> None:
        mixed = random.Random(seed).sample(ids, len(ids))
        found = cancel.cancel_many(mixed, by=Unaudited("them"), user_id=user.pk)
        done.extend(one for one in found.values() if isinstance(one, Cancelled) and one.changed)

    def one_by_one() -> None:
        for task_id in reversed(ids):
            one = cancel.cancel(task_id, by=Unaudited("them"))
            done.extend([one] if one.changed else [])

    together(*(lambda seed=seed: several(seed) for seed in range(4)), one_by_one)  # type: ignore[misc]
    assert sorted(one.task_id for one in done) == sorted(ids)
    assert TaskEvent.objects.filter(outcome="cancelled").count() == 20
    assert CreditEntry.objects.filter(kind=CreditEntry.Kind.REFUND).count() == 19
    assert ledger.balance(user.pk) == 990  # the job's own is decided when it has ended
    assert ledger.differences() == []
    job.refresh_from_db()
    assert job.cancel_wanted_at is not None


@pytest.mark.django_db(transaction=True)
def test_a_retry_of_several_meets_another_and_a_cancel() -> None:
    user = make_user()
    ids = [make_task(user).pk for _ in range(8)]
    cancel.cancel_many(ids, by=Unaudited("them"), user_id=user.pk)
    runs: list[str] = []

    def several(order: list[str]) -> None:
        found = retry.retry_many(order, by=Unaudited("them"), user_id=user.pk)
        runs.extend(one for one, outcome in found.items() if not isinstance(outcome, Refusal))

    together(
        lambda: several(ids),
        lambda: several(ids[::-1]),
        lambda: cancel.cancel_many(ids[::-1], by=Unaudited("them"), user_id=user.pk),
    )
    assert len(runs) == TaskEvent.objects.filter(outcome="resumed").count() >= 8
    assert ledger.differences() == []
    active = VideoTask.objects.filter(finished_at=None).count()
    assert ledger.balance(user.pk) == 1000 - 10 * active
