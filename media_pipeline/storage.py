"""Where files live: keys, publishing whole files, and getting at them again.

A key names one file for ever: files are written once, never changed, and never renamed to dodge a collision. So a retry
is harmless, a cache may keep what it has, and a hard link is as good as a copy.

`MediaStorage` speaks to any Django storage. On `LocalStorage` nothing is copied within one filesystem: publishing is a
link or a rename, reading is the file itself. Other storages get plain saves and downloads; one with a server-side copy
should override `MediaStorage.copy`.

Order for callers: file first, database row second. A crash between them leaves an orphan, never a row without a file.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage

from media_pipeline.errors import disk_full_as_media_error

#: Folder inside local storage for unfinished work: on the same filesystem, so that publishing never copies.
SCRATCH = ".scratch"
FILE_MODE = 0o644
MAX_KEY_LENGTH = 255
_COPY_BYTES = 1 << 20

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)


# Keys


def check_key(key: str) -> str:
    """The key, if it is relative, of plain characters, and without hidden or parent parts; else ValueError."""
    if len(key) > MAX_KEY_LENGTH or not all(_PART.fullmatch(part) for part in key.split("/")):
        raise ValueError("not a storage key")
    return key


def video_key(user_id: object, video_id: str) -> str:
    """`{userId}/videos/{videoId}.mp4`"""
    return check_key(f"{_one(user_id)}/videos/{_one(video_id)}.mp4")


def thumbnail_key(user_id: object, video_id: str) -> str:
    """`{userId}/videos/{videoId}_thumb.jpg`"""
    return check_key(f"{_one(user_id)}/videos/{_one(video_id)}_thumb.jpg")


def work_prefix(task_id: str) -> str:
    """The folder of a task's work files; they go when the task is over."""
    return f"work/{_one(task_id)}/"


def work_key(task_id: str, fence: int, name: str) -> str:
    """`work/{taskId}/{fence}-{name}`: each claim writes under its own name, so a late worker harms nobody."""
    return check_key(f"{work_prefix(task_id)}{int(fence)}-{_one(name)}")


def _one(part: object) -> str:
    text = str(part)
    if not _PART.fullmatch(text):
        raise ValueError("not a part of a storage key")
    return text


def sha256_of(path: Path) -> str:
    """In hex; about 0.6 s a GB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Local


class LocalStorage(FileSystemStorage):
    """Django's file storage, made create-only and crash-safe: temp file, fsync, link, fsync of the folder.

    Where Django would save under another name, this raises FileExistsError; where it would leave half a file after a
    crash, this leaves none under the key.
    """

    @property
    def scratch_root(self) -> Path:
        return Path(self.location) / SCRATCH

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        if max_length is not None and len(name) > max_length:
            raise ValueError("the key is too long")
        return name

    def _save(self, name: str, content: File[Any]) -> str:
        with disk_full_as_media_error():
            self.scratch_root.mkdir(parents=True, exist_ok=True)
            temp = self.scratch_root / f"save-{secrets.token_hex(8)}"
            try:
                with temp.open("xb") as out:
                    for chunk in content.chunks():
                        out.write(chunk.encode() if isinstance(chunk, str) else chunk)
                self.publish(temp, name)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    temp.unlink()
        return str(name).replace("\\", "/")

    def publish(self, path: Path, name: str) -> None:
        """Give the file at `path`, on this filesystem, the key `name` as a second name; durable on return.

        An identical file under the key counts as done (a retry of the same publishing), a different one raises
        FileExistsError. Raises OSError with EXDEV from another filesystem.
        """
        with path.open("rb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            os.fsync(file.fileno())
        self._link(path, Path(self.path(name)))

    def duplicate(self, src_name: str, dst_name: str) -> None:
        """A second key for the same bytes, as a hard link. Raises FileNotFoundError, FileExistsError."""
        self._link(Path(self.path(src_name)), Path(self.path(dst_name)))

    def _link(self, src: Path, dst: Path) -> None:
        made: set[Path] = set()
        # Another worker's delete_prefix may remove the folder between the two steps.
        for last in (*[False] * 9, True):
            try:
                made |= _make_folder(dst.parent)
                os.link(src, dst)
                break
            except FileExistsError:
                # Two keys of one inode, or the same bytes again; comparing happens on a collision only.
                if src.samefile(dst) or filecmp.cmp(src, dst, shallow=False):
                    break
                raise
            except FileNotFoundError:
                if last or not src.exists():
                    raise
        for folder in {dst.parent, *(new.parent for new in made)}:
            # Gone again already: then so is what we put there, and on purpose.
            with contextlib.suppress(FileNotFoundError):
                _fsync_folder(folder)


def _make_folder(folder: Path) -> set[Path]:
    """Make it with all its parents; which ones were missing."""
    missing = {parent for parent in (folder, *folder.parents) if not parent.exists()}
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as err:
        # Some network filesystems cannot; their server decides about durability anyway.
        if err.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


# Facade


class MediaStorage:
    """What the pipeline needs of a storage. Keys are checked on every call; a bad one is a ValueError.

    `scratch_root` is where unfinished work goes; on local storage it defaults to a folder inside it.
    """

    def __init__(self, storage: Storage, *, scratch_root: Path | None = None) -> None:
        self.storage = storage
        self._local = storage if isinstance(storage, LocalStorage) else None
        if scratch_root is None:
            if self._local is None:
                raise ValueError("a storage that is not local needs a scratch_root")
            scratch_root = self._local.scratch_root
        self.scratch_root = scratch_root

    @property
    def is_local(self) -> bool:
        return self._local is not None

    def put_file(self, path: Path, key: str, *, move: bool = False) -> None:
        """Publish a whole file under a new key; on return it is durable. With `move` the file at `path` is gone then.

        Repeating it with the same bytes is a no-op; other bytes under the key are a FileExistsError. On a storage
        that is not local the check for an existing key is not atomic: keys carry fences, so nobody else writes the
        same one. Raises DiskFull.
        """
        check_key(key)
        with disk_full_as_media_error():
            if self._local is not None:
                self._put_local(self._local, path, key)
            else:
                self._put_remote(path, key)
        if move:
            path.unlink(missing_ok=True)

    def _put_local(self, local: LocalStorage, path: Path, key: str) -> None:
        try:
            local.publish(path, key)
        except OSError as err:
            # EPERM, EMLINK: a filesystem without (enough) hard links. Copy once, then link within the filesystem's
            # scratch.
            if err.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            with self.scratch_dir("put") as folder:
                near = folder / "file"
                shutil.copyfile(path, near)
                local.publish(near, key)

    def _put_remote(self, path: Path, key: str) -> None:
        if self.storage.exists(key):
            with self.storage.open(key) as there, path.open("rb") as here:
                if not _same_bytes(there, here):
                    raise FileExistsError(errno.EEXIST, "another file has this key", key)
            return
        with path.open("rb") as file:
            saved = self.storage.save(key, File(file, name=key))
        if saved != key:
            self.storage.delete(saved)
            raise FileExistsError(errno.EEXIST, "the storage renamed a file", key)

    def open(self, key: str) -> IO[bytes]:
        """The bytes, for reading; the caller closes. Raises FileNotFoundError."""
        if self._local is not None:
            return Path(self._local.path(check_key(key))).open("rb")
        return self.storage.open(check_key(key), "rb")

    def size_bytes(self, key: str) -> int:
        """Raises FileNotFoundError."""
        return self.storage.size(check_key(key))

    def exists(self, key: str) -> bool:
        return self.storage.exists(check_key(key))

    def delete(self, key: str) -> None:
        """Deleting what is not there is fine."""
        self.storage.delete(check_key(key))

    def copy(self, src_key: str, dst_key: str) -> None:
        """A second, independent key for the same bytes. Raises FileNotFoundError, FileExistsError, DiskFull."""
        check_key(src_key), check_key(dst_key)
        with disk_full_as_media_error():
            if self._local is not None:
                self._local.duplicate(src_key, dst_key)
                return
            with self.fetch_to(src_key, self.scratch_root) as path:
                self._put_remote(path, dst_key)

    @contextmanager
    def fetch_to(self, key: str, scratch_dir: Path) -> Iterator[Path]:
        """The file as a local path, for reading only, until the block ends. Raises FileNotFoundError, DiskFull.

        Local storage gives the stored file itself; others download it into `scratch_dir`.
        """
        if self._local is not None:
            path = Path(self._local.path(check_key(key)))
            if not path.is_file():
                raise FileNotFoundError(errno.ENOENT, "no such key", key)
            yield path
            return
        path = scratch_dir / f"fetch-{secrets.token_hex(8)}"
        try:
            with disk_full_as_media_error():
                scratch_dir.mkdir(parents=True, exist_ok=True)
                with self.storage.open(check_key(key), "rb") as src, path.open("xb") as dst:
                    shutil.copyfileobj(src, dst, _COPY_BYTES)
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def scratch_dir(self, name: str) -> Iterator[Path]:
        """A private folder for one piece of work, gone with everything in it when the block ends."""
        folder = self.scratch_root / f"{_one(name)}-{secrets.token_hex(6)}"
        with disk_full_as_media_error():
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep_scratch(self, *, older_than_s: float, now: float) -> int:
        """Remove what killed workers left: entries untouched for `older_than_s` at Unix time `now`. How many went."""
        removed = 0
        with contextlib.suppress(FileNotFoundError):
            for entry in list(os.scandir(self.scratch_root)):
                with contextlib.suppress(FileNotFoundError):
                    if now - _newest_mtime(entry) < older_than_s:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        Path(entry.path).unlink()
                    removed += 1
        return removed

    def list(self, prefix: str) -> Iterator[str]:
        """Every key under a folder such as `work/task_1/`, in no certain order; scratch is never in it."""
        folder = prefix.rstrip("/")
        if folder:
            check_key(folder)
        pending = [folder]
        while pending:
            current = pending.pop()
            try:
                folders, files = self.storage.listdir(current)
            except (FileNotFoundError, NotADirectoryError):
                continue
            inside = f"{current}/" if current else ""
            yield from (inside + file for file in files if _PART.fullmatch(file))
            pending += [inside + name for name in folders if _PART.fullmatch(name)]

    def delete_prefix(self, prefix: str) -> int:
        """Delete every key under a folder, and on local storage the folder; how many files went. Never the root."""
        folder = check_key(prefix.rstrip("/"))
        keys = list_of(self.list(folder))
        for key in keys:
            self.delete(key)
        if self._local is not None:
            root = Path(self._local.path(folder))
            for inner in sorted((p for p in root.rglob("*") if p.is_dir()), reverse=True):
                _remove_if_empty(inner)
            _remove_if_empty(root)
        return len(keys)


#: `MediaStorage.list` shadows the built-in inside the class body's annotations and reads badly next to it.
list_of = list


def _newest_mtime(entry: os.DirEntry[str]) -> float:
    newest = entry.stat(follow_symlinks=False).st_mtime
    if entry.is_dir(follow_symlinks=False):
        for inner in os.scandir(entry.path):
            newest = max(newest, inner.stat(follow_symlinks=False).st_mtime)
    return newest


def _remove_if_empty(folder: Path) -> None:
    # Not empty: somebody has put a new file there, and it stays.
    with contextlib.suppress(OSError):
        folder.rmdir()


def _same_bytes(one: IO[bytes] | File[Any], other: IO[bytes]) -> bool:
    while True:
        left, right = one.read(_COPY_BYTES), other.read(_COPY_BYTES)
        if left != right:
            return False
        if not left:
            return True
