"""Workers as on two hosts: each with folders of its own, nothing shared but database, broker and an S3 bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from pytest_django import Settings

from media_pipeline.storage.s3_address import S3Address
from tests.factories import make_task, reload
from tests.s3 import KEYS, S3Server, parts_of
from tests.system.system import Process, Simulator, System, until
from video.credits import ledger
from video.models import Stage, TaskEvent, VideoTask
from video.web import media

# Where a worker dies, in turn on this host and on that; each time with work done that no row names yet.
DEATHS = ("download.after_put", "transcode.after_work", "thumbnail.after_put", "save.after_video")


class Host(System):
    """A machine: folders that no other one sees."""

    def __init__(self, folder: Path, simulator: Simulator, environment: dict[str, str]) -> None:
        super().__init__(folder, simulator)
        self.root = folder / "disk"
        self.env |= {
            **environment,
            "REELWORKS_HOME": str(self.root / "home"),
            "STORAGE_LOCAL_PATH": str(self.root / "storage"),
        }

    def files(self) -> list[Path]:
        """What is left on its disk."""
        return [path for path in self.root.rglob("*") if path.is_file()]


@pytest.fixture
def bucket(s3: S3Server, settings: Settings) -> S3Address:
    """Shared by the hosts; this process makes links to it."""
    address = s3.bucket("reels")
    settings.OBJECT_STORAGE = settings.OBJECT_STORAGE_FOR_CLIENTS = address
    settings.OBJECT_STORAGE_KEYS = KEYS
    return address


@pytest.fixture
def hosts(
    database: str, simulator: Simulator, s3: S3Server, bucket: S3Address, tmp_path: Path
) -> Iterator[tuple[Host, Host]]:
    made = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        made.append(Host(tmp_path / name, simulator, s3.environment(bucket)))
    yield made[0], made[1]
    for host in made:
        host.stop()


def stages_of(task: VideoTask, worker: Process) -> set[str]:
    """The stages that a worker brought to their end."""
    events = TaskEvent.objects.filter(
        task=task, worker__endswith=f":{worker.pid}", outcome__in=["advanced", "succeeded"]
    )
    return set(events.values_list("stage", flat=True))


def check_delivered(task: VideoTask, s3: S3Server, bucket: S3Address, simulator: Simulator) -> None:
    """Whole, paid for once, served by S3 to who has a link, and nothing else of it is left in the bucket's work."""
    task = reload(task)
    assert (task.status, task.error_message) == ("success", "")
    assert simulator.submits(task.prompt)["created"] == 1
    assert ledger.balance(task.user_id) == 990
    link = media.link(task.output_key)
    whole = requests.get(link, timeout=30)
    assert (whole.status_code, len(whole.content)) == (200, task.video_bytes)
    assert whole.content[4:8] == b"ftyp"
    part = requests.get(link, headers={"Range": "bytes=4-7"}, timeout=30)
    assert (part.status_code, part.content) == (206, b"ftyp")
    picture = requests.get(media.link(task.thumbnail_key), timeout=30)
    assert (picture.status_code, picture.content[:2]) == (200, b"\xff\xd8")
    assert requests.get(parts_of(link)[0], timeout=30).status_code == 403
    stored = {f"reels/{task.output_key}", f"reels/{task.thumbnail_key}"}
    until("the work files are swept", lambda: not [name for name in s3.objects(bucket) if "/work/" in name])
    assert stored <= set(s3.objects(bucket))


def ended(task: VideoTask) -> bool:
    return reload(task).finished_at is not None


def test_each_stage_may_run_on_another_host(
    hosts: tuple[Host, Host], s3: S3Server, bucket: S3Address, simulator: Simulator
) -> None:
    here, there = hosts
    waits = here.worker("video", queues="videoQueue")
    works = there.worker("media", queues="mediaQueue")
    there.sweeper()
    task = make_task(prompt="Two hosts, one video.", fps=24, quality="low", resolution="480p")  # a real transcode
    until("the task ends", lambda: ended(task))
    check_delivered(task, s3, bucket, simulator)
    assert stages_of(task, waits) == {Stage.GENERATE, Stage.POLL, Stage.DOWNLOAD, Stage.SAVE}
    assert stages_of(task, works) == {Stage.TRANSCODE, Stage.THUMBNAIL}
    assert len(s3.objects(bucket)) == 2
    assert here.files() == there.files() == []


def test_a_host_goes_on_with_what_another_ones_worker_left_when_it_died(
    hosts: tuple[Host, Host], s3: S3Server, bucket: S3Address, simulator: Simulator
) -> None:
    hosts[1].sweeper()
    task = make_task(prompt="A host dies, another goes on.")
    workers: list[Process] = []
    for number, point in enumerate(DEATHS):
        dying = hosts[number % 2].worker(failpoint=f"{point}=kill")
        workers.append(dying)
        until(f"the worker dies at {point}", lambda dying=dying: not dying.alive)  # type: ignore[misc]
    last = hosts[len(DEATHS) % 2].worker()
    until("the task ends", lambda: ended(task))
    check_delivered(task, s3, bucket, simulator)
    assert reload(task).deaths == 0
    # Whoever finished a stage was on the other host than the one who died in it.
    assert [stages_of(task, worker) for worker in workers] == [
        {Stage.GENERATE, Stage.POLL},
        {Stage.DOWNLOAD},
        {Stage.TRANSCODE},
        {Stage.THUMBNAIL},
    ]
    assert stages_of(task, last) == {Stage.SAVE}
    # Only what a dead save had published stays, under a name of its own that no row points to.
    orphans = set(s3.objects(bucket)) - {f"reels/{reload(task).output_key}", f"reels/{reload(task).thumbnail_key}"}
    assert len(orphans) == 1
    assert orphans.pop().endswith(".mp4")
    assert os.listdir(hosts[0].root / "storage") == [".scratch"]
