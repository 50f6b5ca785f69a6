"""Whether a server keeps to "only if nothing is there" (`If-None-Match: *`), found out by trying.

It can't be read off an answer to one upload: some servers answer 501 or 400 (Alibaba's OSS), and some say 200 and
overwrite (`rclone serve s3`). So a key is written twice, and read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from media_pipeline.errors import StorageRefused
from media_pipeline.storage.s3_errors import NotOffered, Taken

FIRST, SECOND = b"reelworks: first", b"reelworks: second"

log = logging.getLogger(__name__)


class ProbeKey(Protocol):
    """A key of its own for one try."""

    def write(self, content: bytes, *, create_only: bool) -> None:
        """Raises Taken, StorageRefused, StorageDown."""

    def read(self) -> bytes: ...


class CreateOnly:
    """The answer for one kind of write to one bucket: tried at first use, and remembered by this process.

    Threads that ask meanwhile wait for the same try. A try that broke off is not remembered.
    """

    def __init__(self, kind: str, place: object, tried: Callable[[], bool]) -> None:
        """`kind` and `place` are for the log; `tried` makes the try, see `keeps_to_it`."""
        self._kind, self._place, self._tried = kind, place, tried
        self._lock = threading.Lock()
        self._holds: bool | None = None

    def holds(self) -> bool:
        """Whether the condition may be relied on. Raises StorageDown, StorageRefused when that can't be found out."""
        with self._lock:
            if self._holds is None:
                self._holds = self._tried()
                if not self._holds:
                    log.warning(
                        "%s does not keep to If-None-Match for %s; each is preceded by a look whether the key is taken",
                        self._place,
                        self._kind,
                    )
            return self._holds


def keeps_to_it(key: ProbeKey) -> bool:
    """Whether a second create-only write to the key is refused, and changes nothing.

    Raises what the storage raises without the condition: then it refuses more than that.
    """
    try:
        key.write(FIRST, create_only=True)
    except Taken:
        # The library repeats a write whose answer was lost; then it is our own that is there.
        if not _is_first(key):
            key.write(FIRST, create_only=False)
            return False
    except StorageRefused as err:
        if not _may_mean_the_condition(err):
            raise
        key.write(FIRST, create_only=False)
        return False
    try:
        key.write(SECOND, create_only=True)
    except Taken:
        return _is_first(key)
    except StorageRefused as err:
        if not _may_mean_the_condition(err):
            raise
    return False


def _may_mean_the_condition(err: StorageRefused) -> bool:
    """Not a refusal of the key or the bucket."""
    return isinstance(err, NotOffered) or err.http_status in {400, 405}


def _is_first(key: ProbeKey) -> bool:
    try:
        return key.read() == FIRST
    except FileNotFoundError:
        return False
