"""AWS's client as we use it: it goes where it was told to and nowhere else, and it speaks to old servers, too."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from typing import Any

import boto3

from media_pipeline.errors import StorageRefused
from media_pipeline.storage.s3_address import S3Keys
from media_pipeline.storage.s3_errors import trouble
from media_pipeline.storage.s3_object import CHUNK_BYTES


def new_client(**options: Any) -> Any:
    """A client of AWS's library; `options` are those of its session."""
    client = session().client("s3", **options)
    client.meta.events.register("before-call.s3", _follow_nothing)
    client.meta.events.register("before-sign.s3.DeleteObjects", _add_md5)
    return client


def found_keys() -> S3Keys:
    """What AWS's library finds by itself, fresh: keys of a role change every few hours. Raises StorageRefused."""
    with trouble():
        found = session().get_credentials()
        if found is None:
            raise StorageRefused("no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        frozen = found.get_frozen_credentials()
    return S3Keys(frozen.access_key, frozen.secret_key, frozen.token or "")


@cache
def session() -> Any:
    """One for the process: it remembers a role's keys until they are about to expire."""
    return boto3.session.Session()


class Reading:
    """The bytes of an object as they come, for reading once. Whatever breaks is raised as `trouble` does."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; all that is left for -1. An object that ends too soon is a StorageDown."""
        with trouble():
            data: bytes = self._body.read(None if size < 0 else size)
        return data

    def chunks(self) -> Iterator[bytes]:
        """Everything, in pieces of CHUNK_BYTES; closed at the end."""
        with closing(self):
            while chunk := self.read(CHUNK_BYTES):
                yield chunk

    def close(self) -> None:
        self._body.close()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks()


def _follow_nothing(context: dict[str, Any], **_: Any) -> None:
    """The library signs a request anew for the region that an answer names. Our links would not follow; so the operator
    is told instead, and no answer of a stranger decides what is signed."""
    context.get("s3_redirect", {})["redirected"] = True


def _add_md5(request: Any, **_: Any) -> None:
    """Servers that don't know AWS's newer checksums want this one of a deletion; the library has dropped it."""
    del request.headers["Content-MD5"]
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()
