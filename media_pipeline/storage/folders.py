"""Folders of a storage, and who may look into them."""

from __future__ import annotations

from pathlib import Path

#: Of a stored file: the owner writes, his group (a web server, a backup) reads, nobody else does.
FILE_MODE = 0o640


def folder_mode(file_mode: int) -> int:
    """The mode of a folder of such files: who may read them may enter and list it."""
    return file_mode | (file_mode & 0o444) >> 2


FOLDER_MODE = folder_mode(FILE_MODE)


def missing_folders(folder: Path) -> list[Path]:
    """Those of it and its parents that are not there, it first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def make_folder(folder: Path, mode: int) -> set[Path]:
    """Make it with all its parents, each of that mode whatever the umask is; which ones were missing.

    Raises FileNotFoundError when another process removes one of them meanwhile.
    """
    missing = missing_folders(folder)
    for each in reversed(missing):
        try:
            each.mkdir(mode)
        except FileExistsError:  # another process was quicker
            continue
        each.chmod(mode)
    return set(missing)
