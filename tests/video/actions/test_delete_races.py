"""Delete against everything that may happen at the same moment: whoever wins, nothing of the prompt is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.factories import accepted, claimed, make_task, make_user, reload
from tests.video.racing import together
from tests.video.storing import days_pass, files, saved
from tests.video.traces import tables_with
from video.actions import cancel, retry
from video.actions.delete import delete
from video.actions.task_rows import ActionRefused, TaskDeleted
from video.attempts import records, task_moves
from video.audit.actors import Unaudited
from video.engine import stored_files, transitions
from video.models import Generation, Stage, UserStorage, VideoTask
from video.processes import retention
from video.scheduling import storage_quota

pytestmark = pytest.mark.django_db(transaction=True)
WORD = "zebrafinch"
ROUNDS = 6


def deleting(task: VideoTask) -> Callable[[], Any]:
    return lambda: delete(task.pk)


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_two_deletes(turn: int) -> None:
    task = saved(prompt=WORD)
    done = together(turn, deleting(task), deleting(task))
    assert sorted(one.changed for one in done) == [False, True]
    assert files(task) == []
    assert UserStorage.objects.get(pk=task.user_id).bytes == 0


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_delete_and_retry(turn: int) -> None:
    task = make_task(prompt=WORD)
    cancel.cancel(task.pk, by=Unaudited("its user"))
    gone, again = together(turn, deleting(task), lambda: retry.retry(task.pk, by=Unaudited("its user")))
    found = reload(task)
    if isinstance(again, ActionRefused):
        assert isinstance(again, TaskDeleted)
        assert (found.gone_why, found.prompt) == ("deleted", "")
    else:
        assert isinstance(gone, ActionRefused)
        assert gone.code == "task_active"
        assert (found.gone_why, found.prompt) == ("", WORD)


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_delete_and_a_video_that_comes_late(turn: int) -> None:
    task = make_task(prompt=WORD)
    generation = accepted(task, f"job-{task.pk}")
    assert task_moves.fail(claimed(task, Stage.POLL), code="timeout", message="Too long.")
    gone, revived = together(turn, deleting(task), lambda: transitions.revive(task.pk, 1, generation.pk))
    assert revived is isinstance(gone, ActionRefused)
    assert reload(task).prompt == (WORD if revived else "")


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_delete_and_the_end_of_its_job(turn: int) -> None:
    task = make_task(prompt=WORD)
    generation = accepted(task, f"job-{task.pk}")
    cancel.cancel(task.pk, by=Unaudited("its user"))

    def end() -> bool:
        return records.record_ended(generation.pk, Generation.State.FAILED, message=WORD, provider_status=WORD)

    together(turn, deleting(task), end)
    assert Generation.objects.get(pk=generation.pk).state == "failed"
    assert tables_with(WORD) == set()


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_delete_and_the_end_of_its_time(turn: int) -> None:
    task = saved(prompt=WORD, expires_in_s=1)
    days_pass(task, 1)
    together(turn, deleting(task), retention.sweep, retention.sweep)
    assert reload(task).gone_why == "deleted"
    assert (files(task), stored_files.unfinished(10)) == ([], [])
    assert UserStorage.objects.get(pk=task.user_id).bytes == 0


@pytest.mark.parametrize("turn", range(3))
def test_the_count_of_bytes_holds_when_many_change_it(turn: int) -> None:
    user = make_user()
    tasks = [saved(user) for _ in range(4)]
    together(turn, *map(deleting, tasks[:3]))
    use = storage_quota.of_user(user.pk)
    assert (use.bytes, use.videos) == (30, 1)
