"""A process that publishes files, in children that are killed at it; for test_killed_publish.py.

It reads one JSON line a publish (`Order`), forks, and says how the child ended: its status, steps, and seconds.
A child kills itself with SIGKILL at step `die_at` of the publish. Steps are the calls that change something outside the
process, each before and after: those of the operating system for a disk, and for a bucket every piece that goes into a
connection and every answer. -1: it lives.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from botocore.httpsession import URLLib3Session
from django.conf import settings

if not settings.configured:
    settings.configure()

from media_pipeline.storage import s3 as s3_storage
from media_pipeline.storage.base import MediaStorage
from media_pipeline.storage.local import LocalStorage
from media_pipeline.storage.s3 import S3Storage
from media_pipeline.storage.s3_address import S3Address, S3Keys

PART_BYTES = 5 * 1024**2


class Order(TypedDict):
    bucket: dict[str, str] | None  # the fields of its S3Address; None: the folder `root`
    keys: list[str]
    root: str
    far: bool  # as if the file were on another filesystem than the storage
    path: str
    key: str
    die_at: int
    kill_after_s: float | None  # by its parent, wherever it is then


class Steps:
    """Counts in memory that the parent reads, and dies in time."""

    def __init__(self, die_at: int, counted: mmap.mmap) -> None:
        self._die_at, self._counted, self._at = die_at, counted, 0

    def step(self) -> None:
        if self._at == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._at += 1
        self._counted[:8] = struct.pack("q", self._at)

    def around(self, owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **named: Any) -> Any:
            self.step()
            try:
                return real(*args, **named)
            finally:
                self.step()

        setattr(owner, name, call)


@cache
def storage(spec: str) -> MediaStorage:
    """Made before the fork, and without a connection: a client's making takes longer than a publish."""
    order: Order = json.loads(spec)
    if order["bucket"] is None:
        store = LocalStorage(location=Path(order["root"]))
        return MediaStorage(store, scratch_root=store.scratch_root)
    bucket = S3Storage(S3Address(**order["bucket"]), S3Keys(*order["keys"]))  # type: ignore[arg-type]
    assert bucket.client
    return MediaStorage(bucket, scratch_root=Path(order["root"]))


def publish(order: Order, media: MediaStorage, counted: mmap.mmap) -> None:
    steps = Steps(order["die_at"], counted)
    if order["bucket"] is None:
        if order["far"]:
            _put_far_away(order["path"], steps)
        for name in ("link", "fsync", "fchmod", "mkdir", "unlink"):
            steps.around(os, name)
    else:
        steps.around(socket.socket, "sendall")
        steps.around(URLLib3Session, "send")
    media.put_file(Path(order["path"]), order["key"])


def _put_far_away(path: str, steps: Steps) -> None:
    """Its copy can be cut in the middle, too."""
    real_link = os.link

    def link(src: Any, dst: Any) -> None:
        if str(src) == path:
            raise OSError(errno.EXDEV, "another filesystem")
        real_link(src, dst)

    def copyfile(src: Path, dst: Path) -> None:
        data = src.read_bytes()
        with dst.open("xb", buffering=0) as file:
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                steps.step()
                file.write(part)
        steps.step()

    os.link = link  # type: ignore[assignment]
    shutil.copyfile = copyfile  # type: ignore[assignment]


def main() -> None:
    s3_storage.PART_BYTES = PART_BYTES
    counted = mmap.mmap(-1, 8)
    for line in sys.stdin:
        order: Order = json.loads(line)
        place: Any = {name: order[name] for name in ("bucket", "keys", "root")}  # type: ignore[literal-required]
        media = storage(json.dumps(place))
        counted[:8] = bytes(8)
        pid = os.fork()
        if not pid:
            status = 1
            try:
                publish(order, media, counted)
                status = 0
            except FileExistsError:
                status = 17
            finally:
                os._exit(status)
        begun = time.monotonic()
        if order["kill_after_s"] is not None:
            time.sleep(order["kill_after_s"])
            os.kill(pid, signal.SIGKILL)  # the number stays the child's until it was waited for
        _, status = os.waitpid(pid, 0)
        took_s = time.monotonic() - begun
        print(os.waitstatus_to_exitcode(status), struct.unpack("q", counted[:8])[0], took_s, flush=True)


if __name__ == "__main__":
    main()
