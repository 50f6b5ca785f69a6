"""Where files live: publishing whole files, and getting at them again, on a disk or in a bucket.

`MediaStorage` is what the pipeline uses. It checks keys and keeps scratch; the rest is done by a store: `LocalStorage`,
where publishing is a link and reading is the file itself, or `S3Storage`, where it is an upload and a download.
Scratch, where work is done before it is published, is always a local folder.

Order for callers: file first, database row second. A crash between them leaves an orphan, never a row without a file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from media_pipeline.errors import disk_full_as_media_error
from media_pipeline.storage.folders import FOLDER_MODE, make_folder
from media_pipeline.storage.object_keys import check_key, one_part


class Store(Protocol):
    """What a kind of storage has to offer, as `MediaStorage` promises it. Names are keys that were checked."""

    def publish(self, path: Path, name: str) -> None:
        """See `put_file`; all or nothing."""

    def duplicate(self, src_name: str, dst_name: str) -> None:
        """See `copy`."""

    def fetch(self, name: str, folder: Path) -> AbstractContextManager[Path]:
        """See `fetch_to`."""

    def open_to_read(self, name: str) -> IO[bytes]: ...

    def exists(self, name: str) -> bool: ...

    def size(self, name: str) -> int: ...

    def delete(self, name: str) -> None: ...

    def keys(self, folder: str) -> Iterator[str]:
        """See `list`; the folder has no slash at its end."""

    def delete_folder(self, folder: str) -> int: ...

    def sweep(self, *, older_than_s: float, now: float) -> int:
        """Remove what a crash left of unfinished publishing; how many went."""

    def shortcomings(self) -> list[str]:
        """See `MediaStorage.shortcomings`."""


class MediaStorage:
    """What the pipeline needs of a storage. Keys are checked on every call; a bad one is a ValueError.

    `scratch_root` is where unfinished work goes: a local folder, on the filesystem of a local storage if publishing is
    not to copy.
    """

    def __init__(self, store: Store, *, scratch_root: Path, folder_mode: int = FOLDER_MODE) -> None:
        """`folder_mode`: of the folders above `scratch_root`, where they are missing."""
        self._store = store
        self.scratch_root = scratch_root
        self._folder_mode = folder_mode

    def put_file(self, path: Path, key: str, *, move: bool = False) -> None:
        """Publish a whole file under a new key; on return it is durable. With `move` the file at `path` is gone then.

        Repeating it with the same bytes is a no-op; other bytes under the key are a FileExistsError. Raises DiskFull,
        StorageDown, StorageRefused.
        """
        with disk_full_as_media_error():
            self._store.publish(path, check_key(key))
        if move:
            path.unlink(missing_ok=True)

    def open(self, key: str) -> IO[bytes]:
        """The bytes, for reading; the caller closes. Raises FileNotFoundError, StorageDown, StorageRefused."""
        return self._store.open_to_read(check_key(key))

    def size_bytes(self, key: str) -> int:
        """Raises FileNotFoundError, StorageDown, StorageRefused."""
        return self._store.size(check_key(key))

    def exists(self, key: str) -> bool:
        """Raises StorageDown, StorageRefused: what can't be asked about is not gone."""
        return self._store.exists(check_key(key))

    def delete(self, key: str) -> None:
        """Deleting what is not there is fine. Raises StorageDown, StorageRefused."""
        self._store.delete(check_key(key))

    def copy(self, src_key: str, dst_key: str) -> None:
        """A second, independent key for the same bytes, made by the storage itself.

        Raises FileNotFoundError, FileExistsError, DiskFull, StorageDown, StorageRefused.
        """
        with disk_full_as_media_error():
            self._store.duplicate(check_key(src_key), check_key(dst_key))

    @contextmanager
    def fetch_to(self, key: str, scratch_dir: Path) -> Iterator[Path]:
        """The file as a local path, for reading only, until the block ends.

        Local storage gives the stored file itself; others download it into `scratch_dir`. Raises FileNotFoundError,
        DiskFull, StorageDown, StorageRefused.
        """
        with contextlib.ExitStack() as stack:
            with disk_full_as_media_error():
                path = stack.enter_context(self._store.fetch(check_key(key), scratch_dir))
            yield path

    @contextmanager
    def scratch_dir(self, name: str) -> Iterator[Path]:
        """A private folder for one piece of work, gone with everything in it when the block ends."""
        folder = self.make_scratch_root() / f"{one_part(name)}-{secrets.token_hex(6)}"
        with disk_full_as_media_error():
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def make_scratch_root(self) -> Path:
        """The folder of scratch, made if it is missing. Raises DiskFull."""
        with disk_full_as_media_error():
            make_folder(self.scratch_root, self._folder_mode)
        return self.scratch_root

    def sweep_scratch(self, *, older_than_s: float, now: float) -> int:
        """Remove what killed workers left: entries untouched for `older_than_s` at Unix time `now`. How many went."""
        swept = sweep_folder(self.scratch_root, older_than_s=older_than_s, now=now)
        return swept + self._store.sweep(older_than_s=older_than_s, now=now)

    def shortcomings(self) -> list[str]:
        """What this storage can't promise and is made up for, in words for an operator. It is tried out.

        Raises StorageDown, StorageRefused.
        """
        return self._store.shortcomings()

    def list(self, prefix: str) -> Iterator[str]:
        """Every key under a folder such as `work/task_1/`, in no certain order; scratch is never in it."""
        folder = prefix.rstrip("/")
        return self._store.keys(check_key(folder) if folder else "")

    def delete_prefix(self, prefix: str) -> int:
        """Delete every key under a folder; how many files went. Never the root. Raises StorageDown, StorageRefused."""
        return self._store.delete_folder(check_key(prefix.rstrip("/")))


def sweep_folder(folder: Path, *, older_than_s: float, now: float) -> int:
    """Remove the entries of a folder that were not touched for `older_than_s` seconds at Unix time `now`."""
    removed = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in list(os.scandir(folder)):
            with contextlib.suppress(FileNotFoundError):
                if now - _newest_mtime(entry) < older_than_s:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink()
                removed += 1
    return removed


def _newest_mtime(entry: os.DirEntry[str]) -> float:
    newest = entry.stat(follow_symlinks=False).st_mtime
    if entry.is_dir(follow_symlinks=False):
        for inner in os.scandir(entry.path):
            newest = max(newest, inner.stat(follow_symlinks=False).st_mtime)
    return newest
