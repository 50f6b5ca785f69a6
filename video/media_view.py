"""Serves stored files to whoever holds a signed link, until it expires. Looks at no login and no database."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.http import parse_etags

from media_pipeline import links, ranges
from media_pipeline.storage import MediaStorage

PREFIX = "/storage/"
CHUNK_BYTES = 256 * 1024
TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg"}


def signed_path(key: str, *, now: float | None = None) -> str:
    """The address of a stored file, good for LINK_LIFETIME_SECONDS at least, and the same for a quarter of that."""
    expires, signature = links.sign(
        key,
        secret=settings.SECRET_KEY,
        now=time.time() if now is None else now,
        lifetime_s=settings.LINK_LIFETIME_SECONDS,
    )
    return f"{PREFIX}{key}?{urlencode({'expires': expires, 'signature': signature})}"


def media(request: HttpRequest, key: str) -> HttpResponseBase:
    """GET or HEAD /storage/{key}?expires=…&signature=…[&download=1]. The link is checked before the disk is touched."""
    if request.method not in ("GET", "HEAD"):
        refused = _plain(405, "Only GET and HEAD are answered here.")
        refused["Allow"] = "GET, HEAD"
        return refused
    now = time.time()
    expires = request.GET.get("expires", "")
    if not links.verify(key, expires, request.GET.get("signature", ""), secret=settings.SECRET_KEY, now=now):
        return _plain(403, "This link is not valid, or no longer: ask for the video's status to get a fresh one.")
    from video.kit import kit  # lazily: it brings HTTP clients and media code

    storage = kit().storage
    try:
        file = storage.open(key)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
        return _plain(404, "This file is not there any more.")
    size_bytes = _size_bytes(storage, key, file)
    response = _answer(request, key, file, size_bytes)
    # A key names one file for ever, but the link's holder may keep it only as long as the link is good.
    response["Cache-Control"] = f"private, max-age={max(0, int(expires) - int(now))}"
    return response


def _answer(request: HttpRequest, key: str, file: IO[bytes], size_bytes: int) -> HttpResponseBase:
    name = key.rpartition("/")[2]
    etag = f'"{name}"'  # strong, since it holds the video's id
    if _has_it(request, etag):
        file.close()
        response: HttpResponseBase = HttpResponse(status=304)
        response["ETag"] = etag
        return response
    decision = ranges.decide(
        request.headers.get("Range") if request.method == "GET" else None,  # RFC 9110: Range is for GET alone
        size_bytes,
        if_range=request.headers.get("If-Range"),
        etag=etag,
    )
    if decision.status == 416:
        file.close()
        response = _plain(416, "The file is shorter than that.")
    elif request.method == "HEAD":
        file.close()
        response = HttpResponse()
        response["Content-Length"] = str(size_bytes)
    else:
        file.seek(decision.start)
        response = StreamingHttpResponse(_Span(file, decision.length), status=decision.status)
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
    response["X-Content-Type-Options"] = "nosniff"
    response["ETag"] = etag
    return response


def _has_it(request: HttpRequest, etag: str) -> bool:
    known = parse_etags(request.headers.get("If-None-Match", ""))
    return "*" in known or etag in {one.removeprefix("W/") for one in known}


def _size_bytes(storage: MediaStorage, key: str, file: IO[bytes]) -> int:
    try:
        return os.fstat(file.fileno()).st_size  # of the very file that is open
    except (OSError, AttributeError):
        return storage.size_bytes(key)


def _plain(status: int, sentence: str) -> HttpResponse:
    response = HttpResponse(sentence + "\n", status=status, content_type="text/plain; charset=utf-8")
    response["Cache-Control"] = "no-store"
    response["X-Content-Type-Options"] = "nosniff"
    return response


class _Span(Iterator[bytes]):
    """`length` bytes of an open file from where it stands, in chunks; closes it, also when the client goes early."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file = file
        self._left = length

    def __next__(self) -> bytes:
        chunk: bytes = self._file.read(min(CHUNK_BYTES, self._left)) if self._left else b""
        if not chunk:
            self.close()
            raise StopIteration
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        self._file.close()
