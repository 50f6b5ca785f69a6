"""Room on the disk, checked before a download or a transcode starts, and files that appear only when complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from media_pipeline.errors import DiskFull, disk_full_as_media_error

#: Source, transcoded copy, and the rewrite of `+faststart` may be on disk at the same time.
SPACE_FACTOR = 2.5


def free_bytes(path: Path) -> int:
    """Bytes an unprivileged writer may still use on the filesystem of `path`, or of its nearest existing parent."""
    probe = path.absolute()
    while not probe.exists() and probe != probe.parent:
        probe = probe.parent
    return shutil.disk_usage(probe).free


def require_free(path: Path, *, expected_bytes: int, reserve_bytes: int) -> None:
    """Raise DiskFull unless `expected_bytes` x SPACE_FACTOR fit and `reserve_bytes` stay free after that."""
    free = free_bytes(path)
    needed = int(expected_bytes * SPACE_FACTOR) + reserve_bytes
    if free < needed:
        raise DiskFull(f"{free} bytes free, {needed} needed ({reserve_bytes} of them in reserve)")


def require_room(path: Path, size_bytes: int, *, reserve_bytes: int) -> None:
    """Raise DiskFull unless a file of `size_bytes` fits and `reserve_bytes` stay free beside it."""
    if reserve_bytes and (free := free_bytes(path)) < size_bytes + reserve_bytes:
        raise DiskFull(f"{free} bytes free, {size_bytes} needed beside a reserve of {reserve_bytes}")


@contextmanager
def complete_file(dest: Path) -> Iterator[Path]:
    """Where to write what becomes `dest` at the end of the block; after an error nothing is left. Raises DiskFull."""
    part = dest.with_name(f".{dest.name}.part")
    try:
        with disk_full_as_media_error():
            yield part
            part.replace(dest)
    finally:
        part.unlink(missing_ok=True)
