"""Links to stored files, and the view behind them: a signed link gives the file to anyone, until it expires.

The view reads no login and no database. In a bucket files are served by S3 itself, under links that are signed for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import IO
from urllib.parse import urlencode

from django.conf import settings
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotModified,
    HttpResponseRedirect,
)
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header, http_date

from media_pipeline.errors import MediaError
from media_pipeline.storage import links, ranges, s3_links
from media_pipeline.storage.content_types import UNKNOWN, content_type
from media_pipeline.storage.s3_address import S3Address
from video.web import playlists
from video.web.answers import plain

PREFIX = "/storage/"
#: RFC 9110 §15.4.5; the cache has the others.
KEPT_BY_304 = ("Cache-Control", "ETag", "Last-Modified")

log = logging.getLogger(__name__)


def link(key: str, *, base: str = "") -> str:
    """The address of a stored file, good for LINK_LIFETIME_SECONDS at least, and the same for a quarter of that.

    `base` is our own origin, for files that we serve; those in a bucket have S3's. Nothing is asked of S3.
    """
    bucket = settings.OBJECT_STORAGE_FOR_CLIENTS
    # What refers to other files needs a link for each of them, which only we can write.
    if bucket is None or playlists.refers(key):
        return base + signed_path(key)
    return _bucket_link(bucket, key)


def links_to_save(key: str) -> dict[str, str]:
    """`downloadUrl`, whose file a browser saves. Of a bucket alone: there what a file is opened as is signed, too, so
    `&download=1` can't be added to a link.
    """
    bucket = settings.OBJECT_STORAGE_FOR_CLIENTS
    return {} if bucket is None else {"downloadUrl": _bucket_link(bucket, key, to_save=True)}


def _bucket_link(bucket: S3Address, key: str, *, to_save: bool = False) -> str:
    from video.infra.toolkit import bucket_keys  # lazily: it brings HTTP clients and media code

    lifetime_s = settings.LINK_LIFETIME_SECONDS
    return s3_links.link(bucket, key, bucket_keys, now=time.time(), lifetime_s=lifetime_s, to_save=to_save)


def signed_path(key: str) -> str:
    """A link to our own view, without its origin."""
    expires, signature = links.sign(
        key, secret=settings.SECRET_KEY, now=time.time(), lifetime_s=settings.LINK_LIFETIME_SECONDS
    )
    return f"{PREFIX}{key}?{urlencode({'expires': expires, 'signature': signature})}"


def media(request: HttpRequest, key: str) -> HttpResponseBase:
    """GET or HEAD /storage/{key}?expires=…&signature=…[&download=1]. The link is checked before the disk is touched."""
    now = time.time()
    expires = request.GET.get("expires", "")
    if not _is_ours(key, expires, request.GET.get("signature", ""), now):
        return plain(403, "This link is not valid, or no longer: ask for the video's status to get a fresh one.")
    try:
        if playlists.refers(key):
            return _with_links(request, key, int(expires), now)
        if settings.OBJECT_STORAGE_FOR_CLIENTS is not None:  # a link from before the files moved into the bucket
            to_save = request.GET.get("download") == "1"
            where = _bucket_link(settings.OBJECT_STORAGE_FOR_CLIENTS, key, to_save=to_save)
            return HttpResponseRedirect(where, headers={"Cache-Control": "no-store"})
        return _answer(request, key, kept_s=int(expires) - int(now))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
        return plain(404, "This file is not there any more.")
    except (OSError, MediaError) as err:
        log.warning("%s can't be sent: %s", key, err.strerror if isinstance(err, OSError) else err)
        return plain(503, "This file can't be read just now. Please try again in a moment.", {"Retry-After": "5"})


def _is_ours(key: str, expires: str, signature: str, now: float) -> bool:
    """Whether the present SECRET_KEY or a former one signed this link, and it has not ended."""
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return any(links.verify(key, expires, signature, secret=secret, now=now) for secret in secrets)


def _answer(request: HttpRequest, key: str, *, kept_s: int) -> HttpResponseBase:
    """What is said of a stored file, by its size and age; the bytes, where they are asked for."""
    from video.infra.toolkit import toolkit  # lazily: it brings HTTP clients and media code

    offload = settings.STORAGE_OFFLOAD
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(toolkit().storage.open(key))
        about = os.fstat(file.fileno())
        etag, modified = f'"{PurePosixPath(key).name}"', int(about.st_mtime)  # strong, as a key names one file for ever
        headers = _headers(request, key, kept_s) | {"ETag": etag, "Last-Modified": http_date(modified)}
        if offload is None:
            unmet = get_conditional_response(request, etag, modified)
            if unmet is not None:
                return _unmet(unmet.status_code, headers)
        ranged = ranges.decide(
            request.headers.get("Range") if request.method == "GET" else None,  # RFC 9110: Range is for GET alone
            about.st_size,
            if_range=request.headers.get("If-Range") if offload is None else None,
            etag=etag,
            modified=modified,
        )
        if ranged.status == 416:
            told = {"Content-Range": str(ranged.content_range), "Accept-Ranges": "bytes"}
            return plain(416, "The file is shorter than that.", told)
        if offload is not None:  # conditions and ranges are the other server's: nginx has an ETag of its own
            return HttpResponse(headers=headers | offload.headers(key))
        headers |= {"Accept-Ranges": "bytes", "Content-Length": str(ranged.length)}
        if request.method == "HEAD":
            return HttpResponse(headers=headers)
        if ranged.content_range:
            headers["Content-Range"] = ranged.content_range
        file.seek(ranged.start)
        opened.pop_all()  # the server closes it
        return _FileAnswer(_Span(file, ranged.length), status=ranged.status, headers=headers)


def _with_links(request: HttpRequest, key: str, expires: int, now: float) -> HttpResponseBase:
    """A file that refers to others, with links to them that end when its own does."""
    from video.infra.toolkit import toolkit  # lazily: it brings HTTP clients and media code

    with toolkit().storage.open(key) as file:
        text = file.read(playlists.MOST_BYTES).decode()
    body = playlists.linked(text, key, lambda beside: _link_until(beside, expires, now)).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = _headers(request, key, kept_s=expires - int(now)) | {"ETag": etag, "Content-Length": str(len(body))}
    unmet = get_conditional_response(request, etag, None)
    if unmet is not None:
        return _unmet(unmet.status_code, headers)
    return HttpResponse(b"" if request.method == "HEAD" else body, headers=headers)


def _link_until(key: str, expires: int, now: float) -> str:
    """From one file to another of the same folder: relative where both are ours."""
    bucket = settings.OBJECT_STORAGE_FOR_CLIENTS
    if bucket is not None and not playlists.refers(key):
        from video.infra.toolkit import bucket_keys  # lazily, as above

        return s3_links.link_until(bucket, key, bucket_keys, now=now, expires=expires)
    signature = links.sign_until(key, expires, secret=settings.SECRET_KEY)
    return f"{PurePosixPath(key).name}?{urlencode({'expires': expires, 'signature': signature})}"


def _unmet(status: int, headers: Mapping[str, str]) -> HttpResponseBase:
    """304 or 412: a condition of the request does not hold."""
    if status == 412:
        return plain(412, "The file is not the one that If-Match or If-Unmodified-Since names.")
    return HttpResponseNotModified(headers={name: headers[name] for name in KEPT_BY_304 if name in headers})


def _headers(request: HttpRequest, key: str, kept_s: int) -> dict[str, str]:
    """What GET and HEAD say, whoever sends the bytes. A cache may keep the file as long as the link is good."""
    kind, name = content_type(key), PurePosixPath(key).name
    is_saved = kind == UNKNOWN or request.GET.get("download") == "1"
    return {
        "Content-Type": kind,
        "Content-Disposition": content_disposition_header(is_saved, name) or "attachment",
        "Cache-Control": f"private, max-age={max(0, kept_s)}",
    }


class _Span:
    """`length` bytes of an open file from its position, as a file of its own."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file, self._left = file, length
        self.name = file.name
        self.tell = file.tell
        self.close = file.close

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes of what is left; all of it for -1."""
        chunk = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(chunk)
        return chunk


class _FileAnswer(FileResponse):
    """A part of a file. The server reads it as its client does, and no thread of ours waits (see `video.web.front`)."""

    def set_headers(self, filelike: object) -> None:
        """They are the view's."""
