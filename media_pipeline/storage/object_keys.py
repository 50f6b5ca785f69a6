"""Keys: the names under which files are stored, on a disk or in a bucket alike.

A key names one file for ever: files are written once, never changed, and never renamed to dodge a collision. So a retry
is harmless and a cache may keep what it has.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

MAX_KEY_LENGTH = 255

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)


def check_key(key: str) -> str:
    """The key, if it is relative, of plain characters, and without hidden or parent parts; else ValueError."""
    if len(key) > MAX_KEY_LENGTH or not all(is_part(part) for part in key.split("/")):
        raise ValueError("not a storage key")
    return key


def video_key(user_id: object, video_id: str) -> str:
    """`{userId}/videos/{videoId}.mp4`"""
    return check_key(f"{one_part(user_id)}/videos/{one_part(video_id)}.mp4")


def thumbnail_key(user_id: object, video_id: str) -> str:
    """`{userId}/videos/{videoId}_thumb.jpg`"""
    return check_key(f"{one_part(user_id)}/videos/{one_part(video_id)}_thumb.jpg")


def original_key(user_id: object, video_id: str, suffix: str) -> str:
    """`{userId}/videos/{videoId}_original.mp4`: the provider's own file, with the suffix of its kind."""
    return check_key(f"{one_part(user_id)}/videos/{one_part(video_id)}_original{suffix}")


def extra_key(video_key: str, name: str) -> str:
    """`{userId}/videos/{videoId}_{name}`: a file that was made beside the video of that key."""
    return check_key(f"{video_key.removesuffix('.mp4')}_{one_part(name)}")


def upload_key(user_id: object, upload_id: str, suffix: str) -> str:
    """`{userId}/uploads/{uploadId}.{suffix}`"""
    return check_key(f"{one_part(user_id)}/uploads/{one_part(upload_id)}.{one_part(suffix)}")


def work_prefix(task_id: str) -> str:
    """The folder of a task's work files; they go when the task is over."""
    return f"work/{one_part(task_id)}/"


def work_key(task_id: str, fence: int, name: str) -> str:
    """`work/{taskId}/{fence}-{name}`: each claim writes under its own name, so a late worker overwrites nothing."""
    return check_key(f"{work_prefix(task_id)}{int(fence)}-{one_part(name)}")


def without_fence(work_name: str) -> str:
    """The name that `work_key` was given, by the name of the work file."""
    return work_name.partition("-")[2]


def start_image_key(task_id: str) -> str:
    """`work/{taskId}/start-image`: the first claim that has fetched it wins, and the others take that one."""
    return check_key(f"{work_prefix(task_id)}start-image")


def is_part(text: str) -> bool:
    """Whether this may be between two slashes of a key."""
    return _PART.fullmatch(text) is not None


def one_part(part: object) -> str:
    """The part as text. Raises ValueError."""
    text = str(part)
    if not is_part(text):
        raise ValueError("not a part of a storage key")
    return text


def sha256_of(path: Path) -> str:
    """In hex; about 0.6 s a GB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
