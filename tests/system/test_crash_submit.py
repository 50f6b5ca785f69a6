"""Around the submit, where money is at stake: every point × kill | raise | outlive the lease, for Pika and both Klings.

(Runway, and all other stages, stand in test_crash_matrix.py.) Never a doubled submit, and always an end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.factories import age, end_lease, make_task, reload
from tests.system import forks as work
from tests.system.forks import ForkServer
from tests.system.system import Simulator, environment
from tests.system.test_crash_matrix import check_success, way_to
from video.credits import ledger
from video.infra.failpoints import POINTS
from video.models import CreditEntry, Generation, VideoTask

SUBMIT_POINTS = [point for point in POINTS if point.startswith("generate.")]
# Where the answer was never written down, and whether a job exists then.
JOB_EXISTS = {"generate.after_mark_sent": False, "generate.before_send": False, "generate.after_send": True}


@dataclass
class Variant:
    """A provider, as one of its standards speaks."""

    name: str
    model: str
    forks: ForkServer

    def can_tell(self, point: str) -> bool:
        """Whether the truth comes out in the end: Kling is asked by our reference, and the older one is sent again."""
        return self.name == "kling-older" or (self.name == "kling" and JOB_EXISTS[point])


@pytest.fixture(scope="module", params=["pika", "kling", "kling-older"])
def variant(request: pytest.FixtureRequest, database: str, simulator: Simulator) -> Iterator[Variant]:
    before = dict(os.environ)
    env = environment(simulator)
    if request.param == "kling-older":
        env |= {
            "REELWORKS_SIMULATE": "0",
            "KLING_API_KEY": "access-key-of-tests:secret-key-of-tests",
            "KLING_BASE_URL": simulator.url,
            "SLOTS_PER_KEY": "100",
        }
    model = "pika-2.2" if request.param == "pika" else "kling-2.5-turbo"
    forks = ForkServer(database, env)
    yield Variant(request.param, model, forks)
    forks.close()
    os.environ.clear()
    os.environ.update(before)


def begin(variant: Variant, point: str, action: str) -> VideoTask:
    task = make_task(prompt=f"crash {variant.name} {point} {action}.", model_requested=variant.model, **way_to(point))
    assert variant.forks.call(work.admit) == 1
    return task


def check(variant: Variant, task: VideoTask, simulator: Simulator, point: str) -> None:
    if point not in JOB_EXISTS or variant.can_tell(point):
        check_success(task, simulator)
        return
    task = reload(task)
    assert (task.status, task.error_code) == ("failed", "outcome_unknown")
    assert simulator.submits(task.prompt)["received"] == int(JOB_EXISTS[point])
    assert ledger.balance(task.user_id) == 1000
    kinds = list(CreditEntry.objects.filter(task=task).order_by("id").values_list("kind", flat=True))
    assert kinds == ["debit", "refund"]
    assert Generation.objects.get(task=task).state in {"unknown", "lost"}


@pytest.mark.parametrize("point", SUBMIT_POINTS)
@pytest.mark.parametrize("action", ["kill", "raise"])
def test_a_worker_that_ends_around_the_submit(variant: Variant, simulator: Simulator, point: str, action: str) -> None:
    task = begin(variant, point, action)
    child = variant.forks.start(work.run_stage, "generate", task.pk, point, action)
    ended = child.died()
    assert action == "raise" or ended == -signal.SIGKILL
    age(task.pk)
    variant.forks.call(work.drive, task.pk)
    check(variant, task, simulator, point)


@pytest.mark.parametrize("point", SUBMIT_POINTS)
def test_a_worker_that_outlives_its_lease_around_the_submit(variant: Variant, simulator: Simulator, point: str) -> None:
    task = begin(variant, point, "freeze")
    frozen = variant.forks.start(work.run_stage, "generate", task.pk, point, "freeze")
    frozen.stands_still()
    end_lease(task)
    if point in JOB_EXISTS:
        assert variant.forks.call(work.run_stage, "generate", task.pk) is False
        frozen.thaw()
        frozen.died()
        assert Generation.objects.get(task=task).state == "accepted"  # the answer was kept
        variant.forks.call(work.drive, task.pk)
    else:
        variant.forks.call(work.drive, task.pk)
        frozen.thaw()
        frozen.died()
    check_success(task, simulator)


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("admit.")])
@pytest.mark.parametrize("action", ["kill", "raise"])
def test_an_admission_that_ends_before_or_after_the_attempts_row(
    variant: Variant, simulator: Simulator, point: str, action: str
) -> None:
    task = make_task(prompt=f"crash {variant.name} {point} {action}.", model_requested=variant.model)
    child = variant.forks.start(work.admit, point, action)
    ended = child.died()
    assert action == "raise" or ended == -signal.SIGKILL
    assert Generation.objects.filter(task=task).count() == (0 if point == "admit.before_commit" else 1)
    age(task.pk)
    variant.forks.call(work.drive, task.pk)
    check_success(task, simulator)
