"""Every fail point × kill | raise | outlive the lease: the task always ends, with at most one submit and one debit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.factories import age, end_lease, make_task, make_user, reload
from tests.pictures import picture
from tests.system import forks as work
from tests.system.forks import ForkServer
from tests.system.system import Simulator
from video.credits import ledger
from video.engine import stored_files
from video.infra.failpoints import POINTS
from video.models import CreditEntry, Generation, VideoTask
from video.scheduling import admission
from video.web import uploads

# Those of admission stand in test_crash_submit.py, those of removal in test_retention_live.py,
# those of render in test_render_live.py.
STAGE_POINTS = [
    point for point in POINTS if not point.startswith(("admit.", "removal.", "webhook.", "render.", "job."))
]
# Between the commit of `unknown` and the commit of the answer nobody can tell whether Runway has the job.
CANT_TELL = {"generate.after_mark_sent": 0, "generate.before_send": 0, "generate.after_send": 1}


def files(task: VideoTask) -> list[str]:
    """Keys in storage that belong to the task or its user."""
    root = Path(settings.STORAGE_LOCAL_PATH)
    found = [*root.glob(f"work/{task.pk}/**/*"), *root.glob(f"{task.user_id}/**/*")]
    return sorted(str(path.relative_to(root)) for path in found if path.is_file())


def check_success(task: VideoTask, simulator: Simulator) -> None:
    """Whole, delivered once, paid once; and the files that the row names are there."""
    task = reload(task)
    assert (task.status, task.error_code) == ("success", "")
    assert simulator.submits(task.prompt)["created"] == 1
    assert ledger.balance(task.user_id) == 990
    assert list(CreditEntry.objects.filter(task=task).values_list("kind", flat=True)) == ["debit"]
    assert list(Generation.objects.filter(task=task).values_list("state", flat=True)) == ["succeeded"]
    root = Path(settings.STORAGE_LOCAL_PATH)
    assert (root / task.output_key).stat().st_size == task.video_bytes
    assert (root / task.thumbnail_key).is_file()
    assert len(task.extra_files) == (2 if task.extras and not task.warnings else 0)
    for key in stored_files.extra_keys(task.output_key, task.extra_files):
        assert (root / key).is_file()
    assert task.output_key == f"{task.user_id}/videos/{task.video_id}.mp4"


def check_unknown(task: VideoTask, simulator: Simulator, submits: int) -> None:
    """Ended as unknown: one refund, the slot still taken, and never a second submit."""
    task = reload(task)
    assert (task.status, task.error_code) == ("failed", "outcome_unknown")
    assert simulator.submits(task.prompt)["received"] == submits
    assert ledger.balance(task.user_id) == 1000
    assert list(CreditEntry.objects.filter(task=task).order_by("id").values_list("kind", flat=True)) == [
        "debit",
        "refund",
    ]
    assert list(Generation.objects.filter(task=task).values_list("state", flat=True)) == ["unknown"]


def way_to(point: str) -> dict[str, Any]:
    """What a task is made with that comes by this point."""
    if point.endswith(".after_extra"):
        return {"extras": ["sprites"]}
    if point != "generate.after_image":
        return {}
    user = make_user()
    return {"user": user, "image_url": uploads.keep(user.pk, picture()).address}


def begin(forks: ForkServer, point: str, action: str) -> tuple[VideoTask, str]:
    """A task that stands in the point's stage."""
    task = make_task(prompt=f"crash {point} {action}.", **way_to(point))
    stage = point.split(".")[0]
    if stage == "generate":
        admission.admit()
    else:
        assert forks.call(work.drive, task.pk, stage) == stage
        age(task.pk)
    return task, stage


@pytest.mark.parametrize("point", STAGE_POINTS)
@pytest.mark.parametrize("action", ["kill", "raise"])
def test_a_worker_that_ends_at_a_point(forks: ForkServer, simulator: Simulator, point: str, action: str) -> None:
    task, stage = begin(forks, point, action)
    child = forks.start(work.run_stage, stage, task.pk, point, action)
    if action == "kill":
        assert child.died() == -signal.SIGKILL
    else:
        child.died()
    age(task.pk)
    forks.call(work.drive, task.pk)
    if point in CANT_TELL:
        check_unknown(task, simulator, CANT_TELL[point])
    else:
        check_success(task, simulator)


@pytest.mark.parametrize("point", STAGE_POINTS)
def test_a_worker_that_outlives_its_lease_at_a_point(forks: ForkServer, simulator: Simulator, point: str) -> None:
    task, stage = begin(forks, point, "freeze")
    frozen = forks.start(work.run_stage, stage, task.pk, point, "freeze")
    frozen.stands_still()
    end_lease(task)
    if point in CANT_TELL:
        # Another worker looks, finds that the answer may still come, and leaves it alone.
        assert forks.call(work.run_stage, stage, task.pk) is False
        assert reload(task).status == "running"
        frozen.thaw()
        frozen.died()
        assert Generation.objects.get(task=task).state == "accepted"  # the answer was kept
        forks.call(work.drive, task.pk)
    else:
        forks.call(work.drive, task.pk)
        frozen.thaw()
        frozen.died()
    check_success(task, simulator)
