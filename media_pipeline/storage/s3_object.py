"""What an object in a bucket says of itself: its headers, by its key and the settings.

A link leads straight to the object, so what our own server would say of a file has to be stored beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from media_pipeline.storage.content_types import UNKNOWN, content_type

#: Metadata of each object, in hex.
SHA256 = "sha256"
#: Keys of unfinished work begin so; nobody has a link to them.
WORK = "work/"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ObjectOptions:
    """How objects are stored: the settings of STORAGE_*. "" leaves it to the bucket."""

    encryption: str = ""  # AES256 or aws:kms
    kms_key_id: str = ""
    storage_class: str = ""
    kept_s: int = 3600  # how long a browser may keep a file without asking
    in_shared_caches: bool = False  # whether a CDN may, too

    def headers(self, name: str) -> dict[str, Any]:
        """Of the object of this name, as AWS's library calls them; the same for an upload and a copy."""
        kind, file_name = content_type(name), PurePosixPath(name).name
        who = "public" if self.in_shared_caches else "private"
        headers = {
            "ContentType": kind,
            "ContentDisposition": f'{"attachment" if kind == UNKNOWN else "inline"}; filename="{file_name}"',
            "CacheControl": f"{who}, max-age={self.kept_s}, immutable",
        }
        if self.encryption:
            headers["ServerSideEncryption"] = self.encryption
        if self.kms_key_id:
            headers["SSEKMSKeyId"] = self.kms_key_id
        if name.startswith(WORK):
            # Gone within the hour: the cheaper classes bill a month, and who may read it reads it once.
            return headers | {"CacheControl": "no-store"}
        return headers | ({"StorageClass": self.storage_class} if self.storage_class else {})


@dataclass(frozen=True)
class Sums:
    """Of a file's bytes, made in one pass: SHA-256 in hex, and the ETag of an upload that a server makes of MD5s."""

    sha256: str
    etag: str
    size_bytes: int


def sums_of(path: Path, part_bytes: int) -> Sums:
    """`part_bytes`: of an upload in parts, if the file is larger than one; its ETag is a sum of the parts' sums."""
    whole, parts, size_bytes = hashlib.sha256(), [_md5()], 0
    in_part = 0
    with path.open("rb") as file:
        while chunk := file.read(min(CHUNK_BYTES, part_bytes - in_part)):
            whole.update(chunk)
            parts[-1].update(chunk)
            size_bytes += len(chunk)
            in_part += len(chunk)
            if in_part == part_bytes:
                parts.append(_md5())
                in_part = 0
    if not in_part and len(parts) > 1:
        parts.pop()
    if len(parts) == 1:
        return Sums(whole.hexdigest(), parts[0].hexdigest(), size_bytes)
    joined = _md5(b"".join(part.digest() for part in parts)).hexdigest()
    return Sums(whole.hexdigest(), f"{joined}-{len(parts)}", size_bytes)


def sum_in(answer: Mapping[str, Any]) -> str:
    """The SHA-256 that was stored with an object; "" where the server keeps none. Some change the name's case."""
    return next((value for name, value in answer.get("Metadata", {}).items() if name.lower() == SHA256), "")


def differ(etag: str, expected: str, *answers: Mapping[str, Any]) -> bool:
    """Whether two ETags of one form differ though both are sums of the bytes. Those of a KMS key are not."""
    if any("kms" in answer.get("ServerSideEncryption", "") for answer in answers):
        return False
    mine, theirs = (text.strip('"').lower().partition("-") for text in (expected, etag))
    return (len(mine[0]), mine[2]) == (len(theirs[0]), theirs[2]) and mine[0] != theirs[0]


def _md5(data: bytes = b"") -> Any:
    return hashlib.md5(data, usedforsecurity=False)
