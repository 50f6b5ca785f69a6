"""The tasks that do not get on: which they are, in what order, and the whole reason of each."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import accepted, admitted, age, claimed, make_task, park_one
from video.models import Generation, Stage, VideoTask
from video.monitoring import stuck

pytestmark = pytest.mark.django_db


def found() -> dict[str, str]:
    return {one.task: one.kind for one in stuck.find()}


def moved(task: VideoTask, **columns: str) -> None:
    """Columns of the task as SQL has them."""
    with connection.cursor() as cursor:
        for column, value in columns.items():
            cursor.execute(f"UPDATE video_videotask SET {column} = {value} WHERE id = %s", [task.pk])


def test_what_gets_on_is_not_stuck() -> None:
    rendering, fresh, in_work = make_task(), make_task(), make_task()
    accepted(rendering)
    assert park_one(claimed(rendering, Stage.POLL), delay_s=60, reason="runway: running")
    admitted(in_work)
    claimed(in_work)
    assert found() == {}
    assert fresh.is_active


def test_each_kind_and_what_is_overdue_first() -> None:
    late, unheard, unknown, failing = (make_task() for _ in range(4))
    for number, task in enumerate((late, unheard, failing)):
        accepted(task, f"job-{number}")
    assert park_one(claimed(late, Stage.POLL), delay_s=60, reason="runway: running")
    moved(late, deadline_at="now() - interval '5 minutes'", claimed_at="now() - interval '10 minutes'")
    moved(unheard, next_run_at="now() - interval '3 minutes'")
    sent = admitted(unknown)
    assert park_one(claimed(unknown), delay_s=60, reason="no answer to the submit")
    Generation.objects.filter(pk=sent.pk).update(state="unknown", sent_at="2026-01-01T00:00:00Z")
    assert park_one(claimed(failing, Stage.POLL), delay_s=60, reason="runway: HTTP 500")
    Generation.objects.filter(task=failing).update(poll_errors=3)
    waiting = make_task()
    age(waiting.pk, 900)
    kinds = found()
    assert kinds == {
        late.pk: "overdue",
        unheard.pk: "due",
        unknown.pk: "outcome_unknown",
        failing.pk: "provider_trouble",
        waiting.pk: "slot",
    }
    assert list(kinds) == [late.pk, unheard.pk, unknown.pk, failing.pk, waiting.pk]


def test_the_reason_is_whole() -> None:
    task = make_task()
    accepted(task)
    why = "The storage can't be reached: " + "x" * 250
    assert park_one(claimed(task, Stage.POLL), delay_s=90, reason=why)
    Generation.objects.update(poll_errors=1)
    (one,) = stuck.find()
    assert one.reason.startswith(f"The provider could not be asked about the job. {why}. Next try in 1 min")
    assert one.user == task.user.get_username()


def test_a_wait_for_a_slot_names_its_models_and_one_of_a_user_who_is_off_says_so() -> None:
    task, off = make_task(), make_task()
    VideoTask.objects.filter(pk=task.pk).update(eligible_models=["gen4.5", "kling-v2"])
    age(task.pk, 1200)
    age(off.pk, 1200)
    get_user_model().objects.filter(pk=off.user_id).update(is_active=False)
    reasons = {one.task: one.reason for one in stuck.find()}
    assert "It has waited for a slot for 20 min" in reasons[task.pk]
    assert "It may run on gen4.5 or kling-v2." in reasons[task.pk]
    assert "switched off" in reasons[off.pk]


def test_ten_at_most_by_one_statement() -> None:
    for _ in range(12):
        age(make_task().pk, 900)
    with CaptureQueriesContext(connection) as captured:
        assert len(stuck.find()) == stuck.MOST
    assert len(captured) == 1
