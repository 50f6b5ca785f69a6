"""kill -9 at any point of a publish: under the key is the old file or the new one, whole, or none; and a repeat ends
well. On a disk, with moto and with rclone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from media_pipeline.storage import s3 as s3_storage
from media_pipeline.storage.base import MediaStorage
from media_pipeline.storage.local import LocalStorage
from media_pipeline.storage.s3 import S3Storage
from media_pipeline.storage.s3_address import S3Address
from tests.media_pipeline.storage.publisher import PART_BYTES, Order
from tests.s3 import KEYS

ROOT = Path(__file__).resolve().parents[3]
TAKEN = 17  # the publisher's word for FileExistsError
SMALL, IN_PARTS = 200_000, PART_BYTES + 1_000_000


class Publisher:
    """The other process; one for all tests here, since its libraries are slow to load."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.media_pipeline.storage.publisher"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def publish(self, order: Order) -> tuple[int, int, float]:
        """(exit status, steps, seconds); a killed child's status is -9."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        status, steps, took_s = self._process.stdout.readline().split()
        return int(status), int(steps), float(took_s)

    def stop(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    yield made
    made.stop()


class Place:
    """A storage, and orders to publish into it."""

    def __init__(self, bucket: S3Address | None, tmp_path: Path, *, far: bool = False) -> None:
        root = tmp_path / "storage"
        if bucket is None:
            store = LocalStorage(location=root)
            self.media = MediaStorage(store, scratch_root=store.scratch_root)
        else:
            self.media = MediaStorage(S3Storage(bucket, KEYS), scratch_root=root)
        self._bucket, self._root, self._far, self._tmp_path = bucket, root, far, tmp_path
        self._number = 0
        self.most_steps = 40 if bucket is None else 9  # on a disk: all of them

    def order(self, content: bytes, *, die_at: int = -1, key: str = "", kill_after_s: float | None = None) -> Order:
        """To publish this under a new key, or under `key`."""
        self._number += 1
        path = self._tmp_path / f"source-{self._number}"
        path.write_bytes(content)
        about: Any = None
        if self._bucket is not None:
            about = {name: value for name, value in asdict(self._bucket).items() if name not in {"cdn", "plain_links"}}
        return {
            "bucket": about,
            "keys": [KEYS.access_key_id, KEYS.secret_access_key],
            "root": str(self._root),
            "far": self._far,
            "path": str(path),
            "key": key or f"work/t{self._number}/1-a",
            "die_at": die_at,
            "kill_after_s": kill_after_s,
        }

    def look(self, key: str) -> bytes | None:
        """What is there under a key."""
        try:
            with self.media.open(key) as file:
                return file.read()
        except FileNotFoundError:
            return None


@pytest.fixture(params=["local", "local from afar", "s3", "rclone"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(s3_storage, "PART_BYTES", PART_BYTES)
    if request.param.startswith("local"):
        return Place(None, tmp_path, far="afar" in request.param)
    return Place(request.getfixturevalue(request.param).bucket("reels"), tmp_path)


def some(steps: int, most: int) -> list[int]:
    """Steps from the first to the last, all of them if they are few."""
    return sorted({round(number * (steps - 1) / (most - 1)) for number in range(most)})


@pytest.mark.parametrize("size_bytes", [SMALL, IN_PARTS])
def test_killed_at_every_step(place: Place, publisher: Publisher, size_bytes: int) -> None:
    content = os.urandom(size_bytes)
    steps = 0
    for _ in range(2):  # the first one makes folders that the others find
        whole = place.order(content)
        status, steps, _ = publisher.publish(whole)
        assert (status, place.look(whole["key"]) == content) == (0, True)
    seen = set()
    for die_at in some(steps, place.most_steps):
        order = place.order(content, die_at=die_at)
        status, *_ = publisher.publish(order)
        assert status == -signal.SIGKILL, die_at
        found = place.look(order["key"])
        assert found in (None, content), die_at
        seen.add(found is None)
        place.media.put_file(Path(order["path"]), order["key"])
        assert place.look(order["key"]) == content
    assert seen == {True, False}  # before it was there, and after


def test_killed_at_a_key_that_is_taken(place: Place, publisher: Publisher) -> None:
    old, new = os.urandom(SMALL), os.urandom(SMALL)
    first = place.order(old)
    publisher.publish(first)
    status, steps, _ = publisher.publish(place.order(new, key=first["key"]))
    assert status == TAKEN
    for die_at in some(steps, place.most_steps):
        status, *_ = publisher.publish(place.order(new, key=first["key"], die_at=die_at))
        assert status == -signal.SIGKILL
        assert place.look(first["key"]) == old


def test_killed_at_any_moment(place: Place, publisher: Publisher) -> None:
    content = os.urandom(IN_PARTS)
    _, _, took_s = publisher.publish(place.order(content))
    dice = random.Random(7)
    killed = 0
    for _ in range(6):
        order = place.order(content, kill_after_s=took_s * dice.random())
        status, *_ = publisher.publish(order)
        killed += status == -signal.SIGKILL
        found = place.look(order["key"])
        assert found == content or (found is None and status == -signal.SIGKILL)
        place.media.put_file(Path(order["path"]), order["key"])
        assert place.look(order["key"]) == content
    assert killed


def test_what_killed_publishes_left_on_a_disk_goes_with_the_next_sweep(tmp_path: Path, publisher: Publisher) -> None:
    place = Place(None, tmp_path, far=True)
    _, steps, _ = publisher.publish(place.order(b"content"))
    assert place.media.sweep_scratch(older_than_s=0, now=time.time() + 1) == 0
    for die_at in range(steps):
        publisher.publish(place.order(b"content", die_at=die_at))
    left = list(place.media.scratch_root.iterdir())
    assert left
    assert place.media.sweep_scratch(older_than_s=0, now=time.time() + 1) == len(left)
    assert {place.look(key) for key in place.media.list("")} == {b"content"}
