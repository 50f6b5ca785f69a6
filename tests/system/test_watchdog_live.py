"""A real worker that hears nothing any more."""

from __future__ import annotations

from celery import current_app

from tests.factories import make_task, reload
from tests.system.system import System, until
from video.models import WorkerSign


def test_a_worker_that_lost_its_consumer_exits_with_70_and_its_successor_goes_on(system: System) -> None:
    system.env["WATCHDOG_SECONDS"] = "2"
    deaf = system.worker("deaf")
    until("it shows a sign of life", lambda: WorkerSign.objects.filter(name__endswith=f":{deaf.pid}").exists())
    system.sweeper()
    # What Celery's lost consumer looks like: connected, and asking for no message.
    current_app.control.cancel_consumer("videoQueue", reply=True, timeout=10)
    task = make_task(prompt="unheard.")
    until("the worker ends by itself", lambda: not deaf.alive)
    assert deaf.returncode == 70, deaf.log()[-2000:]
    assert "hears nothing any more" in deaf.log()
    assert not WorkerSign.objects.filter(name__endswith=f":{deaf.pid}").exists()
    system.worker("successor")
    until("it is done", lambda: reload(task).status == "success")
