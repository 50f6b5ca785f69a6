"""A web process that dies while it makes a render, and the client that asks again with the same key."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.system import forks as work
from tests.system.forks import ForkServer
from tests.video.storing import with_extras
from video.infra.toolkit import toolkit
from video.models import Generation, VideoTask
from video.processes import storage_sweep


@pytest.mark.parametrize("point", ["render.after_copy", "render.committed"])
def test_a_killed_render_is_made_once_and_leaves_nothing_unknown(forks: ForkServer, settings: Any, point: str) -> None:
    settings.KEEP_SOURCE_DAYS = 7
    before = copies()
    first = with_extras()
    assert forks.start(work.render, first.user_id, first.pk, point, "kill").died() == -signal.SIGKILL
    renders = VideoTask.objects.filter(render_of=first)
    assert renders.count() == (0 if point == "render.after_copy" else 1)
    task_id = forks.call(work.render, first.user_id, first.pk)
    assert [one.pk for one in renders] == [task_id]
    forks.call(work.drive, task_id)
    task = renders.get()
    assert task.status == "success"
    assert not Generation.objects.filter(task=task).exists()
    assert len(copies() - before) == (1 if point == "render.after_copy" else 0)


def copies() -> set[str]:
    """Copies of originals that no row names."""
    left = storage_sweep.find(toolkit().storage, storage_sweep.Seen(), now=4e9)
    return {one.key for one in left if one.key.endswith("/0-source.mp4")}
