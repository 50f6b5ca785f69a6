"""The rows that the benchmark fills in are such as the product leaves, and its calls look and write nothing."""

from __future__ import annotations

import pytest

from bench import fill, queues
from video.attempts import configured_keys
from video.credits import audit
from video.models import TaskEvent, VideoTask
from video.monitoring import overview

pytestmark = pytest.mark.django_db


def test_filled_rows_hold_every_constraint_and_look_like_the_real_ones():
    configured_keys.sync()
    assert fill.active() == sum(number for number, _, _ in fill.ACTIVE)
    fill.finished(1, 60)
    fill.add_up()
    assert VideoTask.objects.get(pk=fill.task_id(60)).status == "failed"
    assert VideoTask.objects.filter(status="success").count() == 57
    assert TaskEvent.objects.filter(task_id=fill.task_id(7)).count() == 5
    assert audit.find() == []
    fill.freshen(-3600)
    fill.freshen(3600)
    found = overview.read()
    assert (found.waiting.number, found.waiting_for_core.number) == (600, 200)
    by_stage = {one.stage.value: one for one in found.stages}
    assert (by_stage["poll"].due, by_stage["poll"].parked) == (100, {"rendering": 1000})
    assert (by_stage["download"].held, by_stage["download"].parked_number) == (50, 50)
    assert by_stage["generate"].done.per_min[2] > 0


def test_every_call_is_answered_and_its_plans_are_read():
    configured_keys.sync()
    fill.active()
    fill.finished(1, queues.TASK_SHOWN)
    for name, ask in queues.asks().items():
        found = queues.plans(ask)
        assert sum(one["pages"] for one in found) > 0, name
        assert any(one["indexes"] for one in found), name
