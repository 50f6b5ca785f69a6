"""Every way in which handling a media file can fail; each class answers "what does the caller do now?".

MediaError
├── LinkExpired         the result link is no longer honoured         → ask for a fresh link, until the deadline
├── DownloadFailed      transient: cut, short, slow or 5xx            → ask again until the deadline; `retry_after_s`
├── DownloadTooLarge    more bytes than we accept                     → the same, rarely
├── ForbiddenAddress    not https, or not a public address            → the same, for another link; never dial it
├── PictureRefused      no picture that we take, or too large         → end the task; `code` says which
├── NotAVideo           corrupt, or a picture                         → fetch once more, then end the task
│   ├── NotMedia        nothing, a web page, JSON, a playlist, text   → ask again until the deadline
│   └── DamagedMedia    a part of it can't be decoded, or is missing  → fetch once more, then deliver what is there
├── TranscodeFailed     ffmpeg gave up, or its output is not right    → try again a few times; see `stderr_tail`
├── MediaTimeout        a step took longer than its deadline          → try again a few times
│   └── DownloadTimeout it was a download                             → go on with it until the task's deadline
├── DiskFull            no space (ENOSPC, EDQUOT, or a low reserve)   → park; uses up no attempt
├── StorageDown         the object storage can't be reached, or fails → park; uses up no attempt
├── StorageRefused      it refuses us: key, permission, bucket        → alert an operator, and park as above
└── Cancelled           our own cancel signal fired                   → stop quietly; nothing was left behind

Messages are safe to log and to store: never a URL's query, a header or a path in them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class MediaError(Exception):
    """Root of the tree.

    `message` is for operators; `user_message` is a plain sentence that a page may print; `code` is our own stable word.
    `http_status` and `retry_after_s` are the remote server's, where it gave them; `stderr_tail` is ffmpeg's, without
    paths.
    """

    code = "media_error"
    user_message = "The video could not be processed."

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        stderr_tail: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.stderr_tail = stderr_tail


class LinkExpired(MediaError):
    code = "link_expired"
    user_message = "The provider's link to the finished video has expired."


class DownloadFailed(MediaError):
    code = "download_failed"
    user_message = "The finished video could not be downloaded from the provider."


class DownloadTooLarge(MediaError):
    code = "download_too_large"
    user_message = "The provider's file of the finished video is larger than this server accepts."


class ForbiddenAddress(MediaError):
    code = "forbidden_address"
    user_message = "The provider's link to the finished video does not lead to a public https address."


class PictureRefused(MediaError):
    """The bytes are not a picture that we take. `code` is image_unreadable or image_too_large."""

    def __init__(self, message: str, *, code: str, user_message: str) -> None:
        super().__init__(message)
        self.code = code
        self.user_message = user_message


class NotAVideo(MediaError):
    """The bytes are not a video that we accept; a picture or a length beyond our limits counts, too."""

    code = "not_a_video"
    user_message = "The provider's file of the finished video is not a usable video."


class DamagedMedia(NotAVideo):
    """A video, but a part of it can't be decoded or is missing. The message says what."""

    code = "damaged_media"
    user_message = "The provider's file of the finished video is damaged."


class NotMedia(NotAVideo):
    """What came in place of the file is no media at all: nothing, a web page, JSON, a playlist, or other text."""

    user_message = "The provider sent something else in place of the finished video."


class TranscodeFailed(MediaError):
    code = "transcode_failed"
    user_message = "The video could not be converted."


class MediaTimeout(MediaError):
    """A step passed its wall-clock deadline, or made no progress for too long, and was stopped."""

    code = "media_timeout"
    user_message = "Processing the video took too long."


class DownloadTimeout(MediaTimeout):
    """The download passed its deadline; what has come by then may be gone on with."""

    code = "download_failed"
    user_message = "Downloading the finished video took too long."


class DiskFull(MediaError):
    code = "disk_full"
    user_message = "The server is short of disk space; the video will be finished as soon as there is room."


class StorageDown(MediaError):
    code = "storage_down"
    user_message = "The storage can't be reached; the video will be finished as soon as it is back."


class StorageRefused(MediaError):
    code = "storage_refused"
    user_message = "The storage refuses this server; the video will be finished as soon as that is put right."


class Cancelled(MediaError):
    code = "cancelled"
    user_message = "The video was cancelled."


@contextmanager
def disk_full_as_media_error() -> Iterator[None]:
    """Turn ENOSPC and EDQUOT raised inside the block into DiskFull; let every other OSError pass."""
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left: {errno.errorcode[err.errno or 0]}") from err
        raise
