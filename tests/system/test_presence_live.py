"""Signs of life of real workers and sweepers."""

from __future__ import annotations

import signal

from django.conf import settings
from django.db import connection

from tests.factories import make_task, reload
from tests.system.system import Process, System, until
from video.engine import workers
from video.models import WorkerSign
from video.monitoring.workers import workers as workers_shown


def sign_of(process: Process) -> WorkerSign | None:
    return WorkerSign.objects.filter(name__endswith=f":{process.pid}").first()


def silent_for(sign: WorkerSign, seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_workersign SET seen_at = seen_at - %s * interval '1 second' WHERE name = %s",
            [seconds, sign.name],
        )


def test_workers_and_sweepers_show_signs_of_life_until_they_end(system: System) -> None:
    both = system.worker("both", threads=3)
    io = system.worker("io", queues="videoQueue", threads=2)
    sweeper = system.sweeper()
    for process in (both, io, sweeper):
        until("it shows a sign of life", lambda process=process: sign_of(process))
    first = sign_of(both)
    assert first is not None
    assert (first.kind, first.queues, first.threads) == ("worker", "mediaQueue,videoQueue", 3)
    assert (first.draining, first.disk_low) == (False, False)
    assert first.memory_bytes > 10_000_000
    assert first.disk_free_bytes > settings.MIN_FREE_BYTES
    assert [one.kind for one in workers_shown() if one.alive].count("sweeper") == 1
    assert workers.media_cores() == 3  # the other one takes no transcodes
    until("the sign is renewed", lambda: (sign_of(both) or first).seen_at > first.seen_at)
    assert (sign_of(both) or first).started_at == first.started_at
    for process in (both, io, sweeper):
        process.signal(signal.SIGTERM)
        until("it ends", lambda process=process: not process.alive)
        assert process.returncode == 0
        assert sign_of(process) is None
    assert workers.media_cores() == 0


def test_the_sign_of_a_killed_worker_is_not_counted_any_more_and_swept_after_a_day(system: System) -> None:
    worker = system.worker()
    until("it shows a sign of life", lambda: sign_of(worker))
    worker.kill()
    sign = sign_of(worker)
    assert sign is not None
    silent_for(sign, workers.ALIVE_S + 1)
    assert sign.name not in [other.name for other in workers_shown() if other.alive]
    assert workers.sweep_old() == 0
    silent_for(sign, 86_400)
    assert workers.sweep_old() == 1
    assert sign_of(worker) is None


def test_what_a_killed_worker_held_goes_on_at_once_on_the_same_host(system: System) -> None:
    system.env["STAGE_LEASE_SECONDS"] = "20"
    system.worker("video", queues="videoQueue")
    sweeper = system.sweeper()
    dying = system.worker("media", queues="mediaQueue", failpoint="transcode.after_work=kill")
    until("it shows a sign of life", lambda: sign_of(dying))
    task = make_task(prompt="outlived.")
    until("it dies in the middle of its work", lambda: not dying.alive)
    system.worker("media", queues="mediaQueue")
    until("another one has done it", lambda: reload(task).status == "success")
    sign = sign_of(dying)
    assert sign is not None
    assert sign.gone_at is not None
    assert f"{sign.name} died without a word" in sweeper.log()
    assert "may take over now: 1\n" in sweeper.log()  # before its lease had run out
