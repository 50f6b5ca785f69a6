"""Files on a local (or mounted) disk: create-only, crash-safe, and never copied within one filesystem."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

from media_pipeline.errors import disk_full_as_media_error
from media_pipeline.storage.base import sweep_folder
from media_pipeline.storage.folders import FILE_MODE, folder_mode, make_folder, missing_folders
from media_pipeline.storage.object_keys import is_part

#: Folder inside the storage for unfinished files: on the same filesystem, so that publishing never copies.
SCRATCH = ".scratch"


class LocalStorage(FileSystemStorage):
    """Django's file storage, made create-only and crash-safe: temp file, fsync, link, fsync of the folder.

    Where Django would save under another name, this raises FileExistsError; where it would leave half a file after a
    crash, this leaves none under the key.
    """

    def __init__(self, location: str | Path, *, file_mode: int = FILE_MODE) -> None:
        """`file_mode`: of each stored file, whatever the umask is; folders follow from it."""
        super().__init__(location=location)
        self._file_mode = file_mode
        self._folder_mode = folder_mode(file_mode)

    @property
    def scratch_root(self) -> Path:
        return Path(self.location) / SCRATCH

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        if max_length is not None and len(name) > max_length:
            raise ValueError("the key is too long")
        return name

    def _save(self, name: str, content: File[Any]) -> str:
        with disk_full_as_media_error(), self._temp() as temp:
            with temp.open("xb") as out:
                for chunk in content.chunks():
                    out.write(chunk.encode() if isinstance(chunk, str) else chunk)
            self._publish_near(temp, name)
        return str(name).replace("\\", "/")

    def publish(self, path: Path, name: str) -> None:
        """A second name for the file at `path`, or its copy if that is on another filesystem."""
        try:
            self._publish_near(path, name)
        except OSError as err:
            # EPERM, EMLINK: a filesystem without (enough) hard links. Copy once, then link within the filesystem's
            # scratch.
            if err.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            with self._temp() as temp:
                shutil.copyfile(path, temp)
                self._publish_near(temp, name)

    def duplicate(self, src_name: str, dst_name: str) -> None:
        """A second key for the same bytes, as a hard link. Raises FileNotFoundError, FileExistsError."""
        self._link(Path(self.path(src_name)), Path(self.path(dst_name)))

    @contextmanager
    def fetch(self, name: str, folder: Path) -> Iterator[Path]:
        """The stored file itself."""
        path = Path(self.path(name))
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such key", name)
        yield path

    def open_to_read(self, name: str) -> IO[bytes]:
        return Path(self.path(name)).open("rb")

    def keys(self, folder: str) -> Iterator[str]:
        pending = [folder]
        while pending:
            current = pending.pop()
            try:
                folders, files = self.listdir(current)
            except (FileNotFoundError, NotADirectoryError):
                continue
            inside = f"{current}/" if current else ""
            yield from (inside + file for file in files if is_part(file))
            pending += [inside + name for name in folders if is_part(name)]

    def delete_folder(self, folder: str) -> int:
        """Folders that are empty then go as well."""
        found = list(self.keys(folder))
        for name in found:
            self.delete(name)
        root = Path(self.path(folder))
        for inner in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
            _remove_if_empty(inner)
        _remove_if_empty(root)
        return len(found)

    def sweep(self, *, older_than_s: float, now: float) -> int:
        return sweep_folder(self.scratch_root, older_than_s=older_than_s, now=now)

    def shortcomings(self) -> list[str]:
        """None: a link to a name that is taken is refused by every filesystem."""
        return []

    @contextmanager
    def _temp(self) -> Iterator[Path]:
        """The path of a file that is not there yet, and gone when the block ends."""
        make_folder(self.scratch_root, self._folder_mode)
        temp = self.scratch_root / f"save-{secrets.token_hex(8)}"
        try:
            yield temp
        finally:
            temp.unlink(missing_ok=True)

    def _publish_near(self, path: Path, name: str) -> None:
        with path.open("rb") as file:
            os.fchmod(file.fileno(), self._file_mode)
            os.fsync(file.fileno())
        self._link(path, Path(self.path(name)))

    def _link(self, src: Path, dst: Path) -> None:
        made: set[Path] = set()
        # Another worker's delete_prefix may remove the folder at any time.
        for last in (*[False] * 9, True):
            try:
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
            if arrived := self._arrive_with_folders(src, dst):
                made = arrived
                break
        for folder in {dst.parent, *(new.parent for new in made)}:
            # Gone again already: then so is what we put there, and on purpose.
            with contextlib.suppress(FileNotFoundError):
                _fsync_folder(folder)

    def _arrive_with_folders(self, src: Path, dst: Path) -> set[Path]:
        """Put the folders of `dst` that are missing there with the file in them, in one step; which ones they are.

        Made empty and filled afterwards, another worker that removes empty folders would win as often as it tries.
        Empty when somebody else has made one of them meanwhile.
        """
        missing = missing_folders(dst.parent)
        if not missing:
            return set()
        top = missing[-1]
        make_folder(self.scratch_root, self._folder_mode)
        with tempfile.TemporaryDirectory(prefix="folder-", dir=self.scratch_root) as scratch:
            near = Path(scratch, top.name)
            make_folder(near / dst.parent.relative_to(top), self._folder_mode)
            os.link(src, near / dst.relative_to(top))
            try:
                near.rename(top)  # onto an empty folder, too; never onto one with files
            except OSError as err:
                if err.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    raise
                return set()
        return set(missing)


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


def _remove_if_empty(folder: Path) -> None:
    # Not empty: another process has put a new file there, and it stays.
    with contextlib.suppress(OSError):
        folder.rmdir()
