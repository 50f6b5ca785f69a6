"""A key that was derived from what was asked for: it stands for one task at a time, for a while."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from tests.factories import make_user
from video.actions import create
from video.credits import ledger
from video.models import VideoTask
from video.models.order import Order

ORDER = Order("A cat", 5, "16:9", model_requested="gen4.5", fallback=False)


def run(user_id: int) -> tuple[str, bool]:
    try:
        task, is_new = create.create(user_id, ORDER, idempotency_key="repeat of this", repeat_within_s=60)
        return task.pk, is_new
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_an_old_one", [False, True])
def test_many_at_once_make_one_task(has_an_old_one: bool) -> None:
    user = make_user()
    old = run(user.pk)[0] if has_an_old_one else ""
    VideoTask.objects.update(created_at=timezone.now() - timedelta(seconds=61))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(run, [user.pk] * 16))
    assert len({task_id for task_id, _ in found}) == 1
    assert [is_new for _, is_new in found].count(True) == 1
    assert found[0][0] != old
    assert VideoTask.objects.count() == 1 + has_an_old_one
    assert VideoTask.objects.filter(idempotency_key__isnull=False).count() == 1
    assert ledger.balance(user.pk) == 990 - 10 * has_an_old_one
