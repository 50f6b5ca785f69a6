"""What kind of file a key names, by its ending alone: the one table for our own answers and for objects in a bucket.

A file's type is fixed with its key, since what is written under a key never changes. A browser that is told a type with
`nosniff` does not guess, so nothing a provider sends can pass for a page.

Sources: IANA's media types (https://www.iana.org/assignments/media-types), RFC 8216 §4 for playlists, RFC 9559 for
Matroska; read 2026-11-28.
"""

from __future__ import annotations

from pathlib import PurePosixPath

#: Of a key whose ending is not in the table; a browser then saves the file, and shows nothing.
UNKNOWN = "application/octet-stream"

_BY_ENDING = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".m4s": "video/mp4",  # a piece of an HLS stream, whose registered type is iso.segment; players ask for this one
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/matroska",
    ".avi": "video/vnd.avi",
    ".ts": "video/mp2t",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".vtt": "text/vtt",
    ".m4a": "audio/mp4",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".avif": "image/avif",
}


def content_type(key: str) -> str:
    """The Content-Type of the file under this key."""
    return _BY_ENDING.get(PurePosixPath(key).suffix, UNKNOWN)
