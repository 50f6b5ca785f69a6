"""A process of this host that died: what it held may be taken over at once, and only what is certain counts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from django.db import connection

from tests.factories import accepted, claim_one, claimed, make_task, reload
from tests.video.presence import sign
from video.engine import dead_workers, transitions, workers
from video.models import Stage, VideoTask, WorkerSign
from video.monitoring.workers import workers as workers_shown
from video.scheduling import transcode_slots

pytestmark = pytest.mark.django_db


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that runs."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


def name_of(process: subprocess.Popen[bytes]) -> str:
    return f"{socket.gethostname()}:{process.pid}"


def signed(process: subprocess.Popen[bytes], space: str | None = None) -> WorkerSign:
    space = workers.pid_space() if space is None else space
    return sign(name_of(process), "mediaQueue", pid_space=space, pid=process.pid)


def held_by(process: subprocess.Popen[bytes]) -> VideoTask:
    """A task in transcode that this process has claimed."""
    task = make_task()
    accepted(task, f"job-{task.pk}")
    transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD, has_work_files=True)
    transitions.advance(claimed(task, Stage.DOWNLOAD), Stage.TRANSCODE, source_key="work/x")
    claimed(task, Stage.TRANSCODE)
    VideoTask.objects.filter(pk=task.pk).update(claimed_by=name_of(process))
    return task


def is_held(task: VideoTask) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT lease_until > statement_timestamp() FROM video_videotask WHERE id = %s", [task.pk])
        return bool(cursor.fetchone()[0])


def test_what_a_dead_process_held_is_taken_over_at_once(process: subprocess.Popen[bytes]) -> None:
    sign("elsewhere:1", "mediaQueue", threads=1)
    gone, mine = signed(process), make_task()
    accepted(mine)
    claimed(mine, Stage.POLL)
    task = held_by(process)
    fence = reload(task).fence
    process.kill()
    process.wait()
    assert dead_workers.release_dead() == 1
    assert not is_held(task)
    assert is_held(mine)
    gone.refresh_from_db()
    assert gone.gone_at is not None
    assert [other.name for other in workers_shown() if other.alive] == ["elsewhere:1"]
    assert transcode_slots.grant() == [(task.pk, Stage.TRANSCODE)]
    claim = claim_one(task.pk, Stage.TRANSCODE)
    assert claim is not None
    assert claim.fence == fence + 1
    assert dead_workers.release_dead() == 0


def test_a_process_that_its_parent_has_not_reaped_is_dead(process: subprocess.Popen[bytes]) -> None:
    signed(process)
    task = held_by(process)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is over, and still to be reaped
    assert dead_workers.release_dead() == 1
    assert not is_held(task)


def test_a_process_that_lives_keeps_what_it_holds(process: subprocess.Popen[bytes]) -> None:
    signed(process)
    task = held_by(process)
    assert dead_workers.release_dead() == 0
    assert is_held(task)


@pytest.mark.parametrize("space", ["", "another-boot/4026531836"])
def test_ids_of_another_boot_container_or_system_prove_nothing(process: subprocess.Popen[bytes], space: str) -> None:
    signed(process, space)
    task = held_by(process)
    process.kill()
    process.wait()
    assert dead_workers.release_dead() == 0
    assert is_held(task)


def test_a_worker_of_a_version_that_wrote_no_process_id_keeps_its_lease(process: subprocess.Popen[bytes]) -> None:
    signed(process)
    WorkerSign.objects.update(pid=None)
    task = held_by(process)
    process.kill()
    process.wait()
    assert dead_workers.release_dead() == 0
    assert is_held(task)


def test_where_ids_cannot_be_told_apart_leases_run_out_by_themselves(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "pid_space", lambda: "")
    signed(process)
    task = held_by(process)
    process.kill()
    process.wait()
    assert dead_workers.release_dead() == 0
    assert is_held(task)


def test_a_sign_that_is_written_again_counts_again() -> None:
    own = workers.Presence(WorkerSign.Kind.WORKER, queues=["mediaQueue"])
    own.write()
    WorkerSign.objects.update(gone_at="2026-01-01T00:00:00Z")
    assert [shown.alive for shown in workers_shown()] == [False]
    own.write()
    assert [shown.alive for shown in workers_shown()] == [True]
    found = WorkerSign.objects.get()
    assert found.pid_space == workers.pid_space() != ""
    assert found.pid == os.getpid()
