"""Links to stored files, and the view behind them: a signed link gives the file to anyone, until it expires.

The view reads no login and no database. In a bucket files are served by S3 itself, under links that are signed for it.
"""

from __future__ import annotations

import os
import time
from pathlib import PurePosixPath
from typing import IO
from urllib.parse import urlencode

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.utils.http import parse_etags

from media_pipeline.storage import links, ranges, s3_links
from media_pipeline.storage.s3_address import S3Address
from video.web.answers import plain

PREFIX = "/storage/"
TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg"}


def link(key: str, *, base: str = "") -> str:
    """The address of a stored file, good for LINK_LIFETIME_SECONDS at least, and the same for a quarter of that.

    `base` is our own origin, for files that we serve; those in a bucket have S3's. Nothing is asked of S3.
    """
    bucket = settings.OBJECT_STORAGE_FOR_CLIENTS
    return base + signed_path(key) if bucket is None else _bucket_link(bucket, key)


def _bucket_link(bucket: S3Address, key: str) -> str:
    from video.infra.toolkit import bucket_keys  # lazily: it brings HTTP clients and media code

    return s3_links.presign(bucket, key, bucket_keys(), now=time.time(), lifetime_s=settings.LINK_LIFETIME_SECONDS)


def signed_path(key: str) -> str:
    """A link to our own view, without its origin."""
    expires, signature = links.sign(
        key, secret=settings.SECRET_KEY, now=time.time(), lifetime_s=settings.LINK_LIFETIME_SECONDS
    )
    return f"{PREFIX}{key}?{urlencode({'expires': expires, 'signature': signature})}"


def media(request: HttpRequest, key: str) -> HttpResponseBase:
    """GET or HEAD /storage/{key}?expires=…&signature=…[&download=1]. The link is checked before the disk is touched."""
    if request.method not in ("GET", "HEAD"):
        return plain(405, "Only GET and HEAD are answered here.", {"Allow": "GET, HEAD"})
    now = time.time()
    expires = request.GET.get("expires", "")
    if not _is_ours(key, expires, request.GET.get("signature", ""), now):
        return plain(403, "This link is not valid, or no longer: ask for the video's status to get a fresh one.")
    if settings.OBJECT_STORAGE_FOR_CLIENTS is not None:  # a link from before the files moved into the bucket
        where = _bucket_link(settings.OBJECT_STORAGE_FOR_CLIENTS, key)
        return HttpResponseRedirect(where, headers={"Cache-Control": "no-store"})
    from video.infra.toolkit import toolkit  # lazily: it brings HTTP clients and media code

    try:
        file = toolkit().storage.open(key)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
        return plain(404, "This file is not there any more.")
    response = _answer(request, key, file, os.fstat(file.fileno()).st_size)
    # A key names one file for ever, but the link's holder may keep it only as long as the link is good.
    response["Cache-Control"] = f"private, max-age={max(0, int(expires) - int(now))}"
    return response


def _is_ours(key: str, expires: str, signature: str, now: float) -> bool:
    """Whether the present SECRET_KEY or a former one signed this link, and it has not ended."""
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return any(links.verify(key, expires, signature, secret=secret, now=now) for secret in secrets)


def _answer(request: HttpRequest, key: str, file: IO[bytes], size_bytes: int) -> HttpResponseBase:
    name = key.rpartition("/")[2]
    etag = f'"{name}"'  # strong, since it holds the video's id
    if _has_it(request, etag):
        file.close()
        return HttpResponse(status=304, headers={"ETag": etag})
    decision = ranges.decide(
        request.headers.get("Range") if request.method == "GET" else None,  # RFC 9110: Range is for GET alone
        size_bytes,
        if_range=request.headers.get("If-Range"),
        etag=etag,
    )
    if decision.status == 416:
        file.close()
        response: HttpResponseBase = plain(416, "The file is shorter than that.")
    elif request.method == "HEAD":
        file.close()
        response = HttpResponse(headers={"Content-Length": str(size_bytes)})
    else:
        file.seek(decision.start)
        response = _FileAnswer(_Span(file, decision.length), status=decision.status)
        response["Content-Length"] = str(decision.length)
    if decision.content_range:
        response["Content-Range"] = decision.content_range
    response["Accept-Ranges"] = "bytes"
    if decision.status == 416:
        return response
    kind = TYPES.get(PurePosixPath(name).suffix)
    inline = kind is not None and request.GET.get("download") != "1"
    response["Content-Type"] = kind or "application/octet-stream"
    response["Content-Disposition"] = f'{"inline" if inline else "attachment"}; filename="{name}"'
    response["ETag"] = etag
    return response


def _has_it(request: HttpRequest, etag: str) -> bool:
    known = parse_etags(request.headers.get("If-None-Match", ""))
    return "*" in known or etag in {one.removeprefix("W/") for one in known}


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
