"""Started by root, each server runs as a user of its own, whom no other process has: so no other program reads its
data, its socket or its memory, and a hole in a server is not root's.

Such a user is a number. Making one by name (`useradd`) would change the machine, and may not be possible. Who wants a
name gives the data to a user of his own: a server runs as the owner of its data.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from config.embedded.places import ELSEWHERE, Place, reachable_by_all

#: (uid, gid)
User = tuple[int, int]

#: Numbers that no system gives away (https://systemd.io/UIDS-GIDS/), and below 65,536, since a container may have no
#: others.
PRIVATE = range(60706, 61184)


def user_of(where: Place) -> User | None:
    """Who has to run the server when we are root: the data's owner, unless that is root or a user whom others share.
    None: ourselves. Call it with the alive lock held, or the next caller may find another one."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(FileNotFoundError):
        owner = where.data.stat()
        if owner.st_uid not in {0, nobody()[0]}:
            return owner.st_uid, owner.st_gid
    return _unused(where)


def nobody() -> User:
    """The user whom other programs share, too."""
    try:
        found = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return found.pw_uid, found.pw_gid


def _unused(where: Place) -> User:
    """A number of our own; `nobody`'s where a container has no such numbers."""
    taken = set(_of_processes())
    first = int(hashlib.sha256(os.fsencode(where.data)).hexdigest(), 16) % len(PRIVATE)
    for number in (*PRIVATE[first:], *PRIVATE[:first]):
        if number not in taken and not _has_name(number) and _is_there("uid", number) and _is_there("gid", number):
            return number, number
    return nobody()


def _of_processes() -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found = process.stat()
            yield from (found.st_uid, found.st_gid)


def _has_name(number: int) -> bool:
    for ask in (pwd.getpwuid, grp.getgrgid):
        with contextlib.suppress(KeyError):
            ask(number)
            return True
    return False


def _is_there(kind: str, number: int) -> bool:
    """Whether this user namespace has the number: lines of first number inside, first outside, how many."""
    try:
        lines = Path(f"/proc/self/{kind}_map").read_text().splitlines()
    except OSError:
        return True  # no Linux, no namespaces
    return any(first <= number < first + many for first, _, many in (map(int, line.split()) for line in lines))


def folder_for(where: Place, user: User | None) -> Path:
    """Where the data is or will be: in the home, or elsewhere if the user can't get there. Opens no folder of others.

    The home lets him pass (its name is known to him, and the rest of the home is private).
    """
    if user is None:
        return where.data
    home = where.home
    if reachable_by_all(home.parent):
        home.chmod(stat.S_IMODE(home.stat().st_mode) | 0o011)
    if reachable_by_all(home):
        return where.data
    folder = where.elsewhere
    folder.parent.mkdir(parents=True, exist_ok=True)
    for each in (ELSEWHERE, folder.parent):
        each.chmod(0o711)
    return folder


def give(folder: Path, user: User) -> None:
    """All in this folder becomes the user's, the folder itself last: who was interrupted begins anew.

    Only what belonged to the folder's owner: he may have put links to the files of others there.
    """
    before = folder.stat().st_uid
    for _, folders, files, fd in os.fwalk(folder, topdown=False):
        for name in (*folders, *files):
            if os.stat(name, dir_fd=fd, follow_symlinks=False).st_uid == before:
                os.chown(name, *user, dir_fd=fd, follow_symlinks=False)
    os.chown(folder, *user)


def shared_copy(package: Path, *parts: str, name: str) -> Path:
    """Copy these parts of a package to where any user can run them, under this name; returns the copy of the package.

    Its libraries must lie beside it: programs look there.
    """
    copy = ELSEWHERE / name
    if not copy.exists():
        draft = copy.with_name(f"{copy.name}.{os.getpid()}")
        for part in parts:
            shutil.copytree(package / part, draft / package.name / part, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        for path in (ELSEWHERE, draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
        try:
            draft.rename(copy)
        except OSError:  # another home of root's was quicker
            shutil.rmtree(draft)
    return copy / package.name
