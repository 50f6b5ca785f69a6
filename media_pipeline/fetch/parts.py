"""Parts of interrupted downloads, kept on the scratch disk so that a later try goes on where the last one stopped.

A part is a folder of one writer: the bytes so far, and beside them what they are a part of. Its writer holds a lock on
the folder (`flock`, which ends with the process), so a part is gone on with only after its writer has put it down or is
dead. A writer that is merely frozen keeps its part, and another one begins anew.

What the bytes belong to is written before the first of them, and the old bytes are gone before that. So a process that
dies at any moment leaves bytes that fit what stands beside them, or none. After the death of the whole machine the last
bytes may be missing though their length is there; parts of an earlier start of the machine are not gone on with.

A filesystem without locks has no parts that can be gone on with.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

#: Names one state of a file; a weak one (`W/"…"`) says nothing about bytes. RFC 9110, 8.8.3, as far as it is ASCII.
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,300}"')
_PREFIX = "part-"
_FOLDER = re.compile(rf"{_PREFIX}([A-Za-z0-9_]{{1,80}})-[0-9a-f]{{12}}")
_KNOWN = "known.json"
_BYTES = "bytes"
MOST_REFUSALS = 3  # in a row, before a part is given up


def strong_etag(value: str | None) -> str | None:
    """The ETag if it is a strong one that can be sent back as it is."""
    return value if value and _STRONG_ETAG.fullmatch(value) else None


@dataclass(frozen=True)
class Known:
    """What the bytes are a part of. `place`: host and path of the address that gave them; `total`: bytes of it all, if
    that was said."""

    etag: str
    total: int | None
    place: str
    refusals: int = 0  # answers in a row to the wish to go on that were errors


@dataclass(frozen=True)
class ResumePoint:
    """From which byte on the rest is asked for, and what it must be the rest of."""

    known: Known
    start: int


class Part:
    """The folder that this process writes to. `path` is for the whole file."""

    def __init__(self, folder: Path, name: str, job: str) -> None:
        self.path = folder / name
        self.bytes_path = folder / _BYTES
        self._known_path = folder / _KNOWN
        self._job = job
        self._given_up = False
        if self.path.exists():  # complete, and then its writer died before it was stored
            self.path.replace(self.bytes_path)
        self._size_before = self._size()

    def resume_point(self) -> ResumePoint | None:
        """Where to go on; None: from the first byte. At least one byte is left to be asked for, so that the server
        says whether the file is still the same."""
        known = self._read()
        if known is None:
            return None
        try:
            found = self.bytes_path.stat()
        except FileNotFoundError:
            return None
        # More names than one: stored by a writer that died then, so no byte of it may change.
        if found.st_nlink != 1 or (known.total is not None and found.st_size > known.total):
            return None
        is_open = known.total is not None and found.st_size < known.total
        start = found.st_size if is_open else found.st_size - 1
        return ResumePoint(known, start) if start > 0 else None

    def begin(self, known: Known | None) -> None:
        """Forget what is there. What comes now is a part of `known`; None: of nothing that can be gone on with."""
        self.bytes_path.unlink(missing_ok=True)
        self._known_path.unlink(missing_ok=True)
        if known is not None:
            self._write(known)

    def note_refusal(self) -> None:
        """The wish to go on was answered by an error: after MOST_REFUSALS of them the part is given up."""
        known = self._read()
        if known is None:
            return
        if known.refusals + 1 >= MOST_REFUSALS:
            self.begin(None)
        else:
            self._write(replace(known, refusals=known.refusals + 1))

    def note_rest(self) -> None:
        """The rest is coming."""
        known = self._read()
        if known is not None and known.refusals:
            self._write(replace(known, refusals=0))

    def complete(self) -> None:
        """All of it is there: under its name now."""
        self.bytes_path.replace(self.path)

    def give_up(self) -> None:
        """Nothing of it is kept."""
        self._given_up = True

    @property
    def is_worth_keeping(self) -> bool:
        """Whether there is something to go on with."""
        return not self._given_up and self._known_path.exists()

    @property
    def grew(self) -> bool:
        """Whether the next fetch has more to go on with than this one had when the part was taken up."""
        return self.is_worth_keeping and self._size() > self._size_before

    def _size(self) -> int:
        """Bytes that can be gone on with."""
        return self.bytes_path.stat().st_size if self.bytes_path.exists() and self._read() else 0

    def _read(self) -> Known | None:
        try:
            found = json.loads(self._known_path.read_bytes())
            known = Known(**found["known"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        texts = isinstance(known.place, str) and isinstance(known.etag, str) and strong_etag(known.etag)
        numbers = type(known.refusals) is int and (known.total is None or type(known.total) is int)
        same = found.get("job") == self._job and found.get("boot") == _boot()
        return known if texts and numbers and same else None

    def _write(self, known: Known) -> None:
        """In one step, so that half of it is never read."""
        new = self._known_path.with_suffix(".new")
        new.write_text(json.dumps({"job": self._job, "boot": _boot(), "known": asdict(known)}))
        new.replace(self._known_path)


@contextmanager
def hold(root: Path, owner: str, *, job: str, name: str) -> Iterator[Part]:
    """The part of this owner (a task's id) and job that nobody writes to, or a new one; kept afterwards if there is
    something to go on with.

    `name`: of the whole file; `root`: an existing folder on the scratch disk. Raises OSError.
    """
    with contextlib.ExitStack() as stack:
        folder = None
        for found in _folders(root, owner):
            if folder is None and _locked(found, stack):
                folder = found
        if folder is None:
            folder = _new(root, owner, stack)
        part = Part(folder, name, job)
        try:
            yield part
        finally:
            if not part.is_worth_keeping:
                shutil.rmtree(folder, ignore_errors=True)


def sweep(root: Path, of: Collection[str]) -> int:
    """Remove the parts of these owners, unless they are being written to; how many went."""
    removed = 0
    for entry in _entries(root):
        match = _FOLDER.fullmatch(entry.name)
        if match is None or match[1] not in of:
            continue
        with contextlib.ExitStack() as stack:
            if _locked(Path(entry.path), stack):
                shutil.rmtree(entry.path, ignore_errors=True)
                removed += 1
    return removed


def owners(root: Path) -> set[str]:
    """Whose parts are there."""
    matches = (_FOLDER.fullmatch(entry.name) for entry in _entries(root))
    return {match[1] for match in matches if match}


def _entries(root: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(root))
    except FileNotFoundError:
        return []


def _folders(root: Path, owner: str) -> list[Path]:
    """Of this owner, the one with the most bytes first."""
    found = [
        Path(entry.path) for entry in _entries(root) if (match := _FOLDER.fullmatch(entry.name)) and match[1] == owner
    ]
    return sorted(found, key=_size, reverse=True)


def _size(folder: Path) -> int:
    try:
        return (folder / _BYTES).stat().st_size
    except OSError:
        return 0


def _new(root: Path, owner: str, stack: contextlib.ExitStack) -> Path:
    """Locked before it bears a name under which others find it."""
    folder = root / f"{_PREFIX}{owner}-{secrets.token_hex(6)}"
    if not _FOLDER.fullmatch(folder.name):
        raise ValueError(f"{owner!r} is no owner of a part")
    nameless = root / f"new-{folder.name}"
    nameless.mkdir(mode=0o700)
    _locked(nameless, stack)
    return nameless.rename(folder)


def _locked(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Whether the folder is there and locked for us until the stack ends; False where locks don't work."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    with contextlib.ExitStack() as mine:
        mine.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(fd), folder.stat()):
                return False
        except OSError:
            return False
        stack.push(mine.pop_all())
        return True


@cache
def _boot() -> str:
    """Names this start of the machine; empty where the system has no such name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
