"""REELWORKS_HOME belongs to one user: others can neither list nor read what is in it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600
#: Started by root, the servers work as other users, who have to pass through to their data, and can do no more.
PASSAGE_MODE = 0o711

#: Folders whose files are all ours. The servers look after their own, and STORAGE_LOCAL_PATH may be in the home, too.
_OURS = ("log", "run", "simulator")
_SERVERS = ("pg", "valkey")


def make(home: Path) -> None:
    """The folder, private if it is new. Raises OSError."""
    home.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)


def mend(home: Path) -> None:
    """Make what others could read private, and say so, once: afterwards there is nothing to mend.

    A folder that holds anything else (somebody chose his own folder, or /tmp) stays open itself, and only what is ours
    in it is mended. What can't be changed stays, too: `manage.py check --deploy` tells of both.
    """
    try:
        mended = [path for path in (*_inside(home), *([home] if _is_ours_alone(home) else [])) if _mend(path, home)]
    except OSError:  # not there yet, or somebody else's
        return
    if mended:
        sys.stderr.write(f"REELWORKS_HOME ({home}) could be read by others. It is private now.\n")


def readable_by_others(home: Path) -> bool:
    """Whether another user could list the home or read a file of ours in it."""
    paths = [path for path in (home, *_inside(home)) if path.exists() and not path.is_symlink()]
    return any(path.stat().st_mode & 0o066 for path in paths)


def _is_ours_alone(home: Path) -> bool:
    names = {path.name for path in home.iterdir() if not path.name.startswith("secret_key")}
    return names <= {*_OURS, *_SERVERS, "storage"}


def _inside(home: Path) -> Iterator[Path]:
    yield from home.glob("secret_key*")
    for name in (*_OURS, *_SERVERS):
        if not (home / name).is_symlink() and (home / name).is_dir():
            yield home / name
            if name in _OURS:
                yield from (home / name).rglob("*")


def _mend(path: Path, home: Path) -> bool:
    found = path.lstat()
    if not _is_mine(found) or not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
        return False
    mode = stat.S_IMODE(found.st_mode)
    wanted = mode & (FOLDER_MODE if stat.S_ISDIR(found.st_mode) else FILE_MODE)
    if path == home and _others_pass_through(home):
        wanted |= mode & PASSAGE_MODE
    if mode == wanted:
        return False
    path.chmod(wanted)
    return True


def _others_pass_through(home: Path) -> bool:
    """Whether a server's data in there belongs to another user, or is about to: see `config.embedded.owners`."""
    return os.geteuid() == 0 and not all((home / name).is_symlink() for name in _SERVERS)


def _is_mine(found: os.stat_result) -> bool:
    return os.geteuid() in {0, found.st_uid}
