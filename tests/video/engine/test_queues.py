"""Names at the broker are said once: Celery, the Procfile and the stages agree on them."""

from __future__ import annotations

import re
from pathlib import Path

from celery import current_app

from video.engine import dispatch, queues
from video.models import Stage

ROOT = Path(__file__).resolve().parents[3]


def test_the_workers_of_the_procfile_take_from_these_queues() -> None:
    found = re.findall(r"(?<= -Q )\S+", (ROOT / "Procfile").read_text())
    assert sorted(found) == sorted(queues.ALL_QUEUES)


def test_celery_routes_each_stage_to_its_queue() -> None:
    current_app.loader.import_default_modules()
    assert tuple(queue.name for queue in current_app.amqp.queues.values()) == queues.ALL_QUEUES
    assert list(queues.QUEUE_OF) == list(dispatch.CHAIN) == [stage for stage in Stage if stage is not Stage.DONE]
    for stage, queue in queues.QUEUE_OF.items():
        assert current_app.amqp.router.route({}, queues.task_of(stage))["queue"].name == queue
        assert queues.task_of(stage) in current_app.tasks
    for name in (queues.ADMIT, queues.CHECK):
        assert current_app.amqp.router.route({}, name)["queue"].name == queues.VIDEO_QUEUE
        assert name in current_app.tasks
    assert current_app.amqp.router.route({}, queues.DELIVER)["queue"].name == queues.WEBHOOK_QUEUE
    assert queues.DELIVER in current_app.tasks


def test_each_stage_is_of_one_queue() -> None:
    stages = [stage for queue in queues.QUEUES for stage in queues.stages_of(queue)]
    assert sorted(stages) == sorted(queues.QUEUE_OF)
    assert set(queues.PRIORITY_OF.values()) | {queues.URGENT} == set(queues.PRIORITIES)
