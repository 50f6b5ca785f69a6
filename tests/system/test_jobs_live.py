"""A sweeper that is killed in the middle of an operator's job: another one goes on, and no task is paid for twice."""

from __future__ import annotations

import signal
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from tests.factories import make_task, make_user, reload
from tests.system import forks as work
from tests.system.forks import ForkServer
from video.actions import cancel, jobs
from video.audit.actors import Unaudited, of_command
from video.models import CreditEntry, OperatorJob


@pytest.mark.parametrize("point", ["job.item_done", "job.item_committed"])
def test_a_job_whose_sweeper_is_killed_is_ended_by_another_and_no_task_is_paid_twice(
    forks: ForkServer, point: str
) -> None:
    user = make_user()
    tasks = [make_task(user) for _ in range(3)]
    for task in tasks:
        cancel.cancel(task.pk, by=Unaudited("a test"))
    kind = OperatorJob.Kind.RETRY
    arguments = jobs.of_tasks(kind, {"status__exact": "cancelled", "user": user.get_username()})
    job, _ = jobs.ask(kind, arguments, by=of_command())
    assert forks.start(work.do_jobs, point, "kill").died() == -signal.SIGKILL
    job.refresh_from_db()
    assert (job.state, job.done) == ("running", 0 if point == "job.item_done" else 1)
    assert sum(reload(task).run == 2 for task in tasks) == job.done
    assert forks.call(work.do_jobs) == 0  # the dead one's lease holds
    OperatorJob.objects.filter(pk=job.pk).update(lease_until=Now() - timedelta(seconds=1))
    assert forks.call(work.do_jobs) == 1
    job.refresh_from_db()
    assert (job.state, job.done, job.refused) == ("done", 3, 0)
    assert CreditEntry.objects.filter(task__in=tasks, kind="debit").count() == 6
