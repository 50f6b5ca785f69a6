"""Is there room? Asked before a download or a transcode starts, because running out halfway wastes both."""

from __future__ import annotations

import shutil
from pathlib import Path

from media_pipeline.errors import DiskFull

#: Source, transcoded copy, and the rewrite of `+faststart` may be on disk at the same time.
SPACE_FACTOR = 2.5


def free_bytes(path: Path) -> int:
    """Bytes an unprivileged writer may still use on the filesystem of `path`, or of its nearest existing parent."""
    probe = path.absolute()
    while not probe.exists() and probe != probe.parent:
        probe = probe.parent
    return shutil.disk_usage(probe).free


def require_free(path: Path, *, expected_bytes: int, reserve_bytes: int, factor: float = SPACE_FACTOR) -> None:
    """Raise DiskFull unless `expected_bytes` x `factor` fit and `reserve_bytes` stay free after that."""
    free = free_bytes(path)
    needed = int(expected_bytes * factor) + reserve_bytes
    if free < needed:
        raise DiskFull(f"{free} bytes free, {needed} needed ({reserve_bytes} of them in reserve)")
