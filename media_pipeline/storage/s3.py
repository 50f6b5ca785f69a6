"""Files in a bucket, at AWS or any server that speaks S3: uploads that overwrite nothing, copies made by the server.

Importing this module loads AWS's library (about 0.7 s and 50 MB), so only what uses a bucket imports it.

Every call may be repeated without harm, and the library repeats one that failed on its way up to twice: an upload goes
to a key that no other process writes, and only if nothing is there; a copy, a read and a deletion end the same, however
often they are done. Uploads are signed over their SHA-256, so the server refuses one that was damaged on its way; the
sum is stored beside the object, and a download that doesn't match it is thrown away.
"""

from __future__ import annotations

import errno
import hashlib
import math
import secrets
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as boto
from botocore.config import Config
from s3transfer.exceptions import S3CopyFailedError
from s3transfer.utils import ReadFileChunk
from storages.backends import s3

from media_pipeline.errors import StorageDown, StorageRefused
from media_pipeline.storage.object_keys import sha256_of
from media_pipeline.storage.s3_address import S3Address, S3Keys

CONTENT_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg"}
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30  # without a byte
MOST_ATTEMPTS = 3
#: Larger files go in parts; a repeat then costs one part.
PART_BYTES = 64 * 1024**2
#: S3 copies no more in one call.
MOST_COPIED_BYTES = 5 * 1024**3
MOST_PARTS = 10_000
CHUNK_BYTES = 1 << 20
#: The most keys that one call lists or deletes.
PAGE_KEYS = 1000
#: Metadata of each object.
SHA256 = "sha256"

#: Answers that mean "not now", beside every 5xx.
_PASSING = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "NoSuchUpload"})
_PASSING_STATUS = frozenset({408, 409, 425, 429})
_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.UnauthorizedSSOTokenError,
    boto.ProfileNotFound,
)
_NETWORK = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    S3CopyFailedError,
)


class S3Storage(s3.S3Storage):
    """django-storages' S3 with what the pipeline needs on top: create-only uploads, copies, checks, deletion in sets.

    One client serves all threads of the process. `keys` None: what AWS's library finds by itself (a role of the
    machine, a profile).
    """

    def __init__(self, address: S3Address, keys: S3Keys | None = None) -> None:
        self.address = address
        self._client_lock = threading.Lock()
        self._client: Any = None
        super().__init__(
            bucket_name=address.bucket,
            location=address.prefix,
            endpoint_url=address.endpoint,
            region_name=address.region,
            access_key=keys and keys.access_key_id,
            secret_key=keys and keys.secret_access_key,
            security_token=(keys and keys.session_token) or None,
            file_overwrite=False,
            client_config=Config(
                signature_version="s3v4",
                s3={"addressing_style": address.addressing, "payload_signing_enabled": True},
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": MOST_ATTEMPTS},
                max_pool_connections=32,
                tcp_keepalive=True,
                # Servers other than AWS's don't know its newer checksums; the signature covers the body anyway.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
            # In the calling thread: its bytes and its errors are bounded by the stage that it works for.
            transfer_config=TransferConfig(
                multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, use_threads=False
            ),
        )

    @property
    def client(self) -> Any:
        """The low-level client; unlike boto3's resources it may be shared between threads, its making may not."""
        if self._client is None:
            with self._client_lock, _trouble():
                if self._client is None:
                    self._client = _session().client(
                        "s3",
                        endpoint_url=self.endpoint_url,
                        region_name=self.region_name,
                        aws_access_key_id=self.access_key,
                        aws_secret_access_key=self.secret_key,
                        aws_session_token=self.security_token,
                        config=self.client_config,
                    )
        return self._client

    def publish(self, path: Path, name: str) -> None:
        """Upload. A repeat whose first try arrived is recognised by the object's sum."""
        size_bytes, digest = path.stat().st_size, sha256_of(path)
        kind = CONTENT_TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")
        about = {"ContentType": kind, "Metadata": {SHA256: digest}}
        try:
            with _trouble():
                if size_bytes > PART_BYTES:
                    self._upload_in_parts(path, size_bytes, name, about)
                else:
                    with path.open("rb") as file:
                        self.client.put_object(**self._of(name), **about, Body=file, IfNoneMatch="*")
        except _AlreadyThere:
            self._same_or_refuse(name, size_bytes, digest)

    def duplicate(self, src_name: str, dst_name: str) -> None:
        """A copy by the server. The destination is checked first: no server makes copies create-only."""
        with _trouble():
            source = self.client.head_object(**self._of(src_name))
        digest = source["Metadata"].get(SHA256, "")
        if self.exists(dst_name):
            self._same_or_refuse(dst_name, source["ContentLength"], digest)
            return
        with _trouble():
            if source["ContentLength"] <= MOST_COPIED_BYTES:
                self.client.copy_object(**self._of(dst_name), CopySource=self._of(src_name))
                return
            # Said again, since a copy in parts loses them.
            about = {"ContentType": source["ContentType"], "Metadata": source["Metadata"]}
            self.client.copy(
                self._of(src_name),
                self.bucket_name,
                self.address.object_name(dst_name),
                ExtraArgs={**about, "MetadataDirective": "REPLACE"},
                Config=self.transfer_config,
            )

    @contextmanager
    def fetch(self, name: str, folder: Path) -> Iterator[Path]:
        """Download into the folder, in small pieces, and compare with what was uploaded."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"fetch-{secrets.token_hex(8)}"
        try:
            with _trouble():
                found = self.client.get_object(**self._of(name))
                digest = hashlib.sha256()
                with closing(found["Body"]) as body, path.open("xb") as file:
                    for chunk in body.iter_chunks(CHUNK_BYTES):
                        digest.update(chunk)
                        file.write(chunk)
            if found["Metadata"].get(SHA256, digest.hexdigest()) != digest.hexdigest():
                raise StorageDown("a stored file arrived damaged")
            yield path
        finally:
            path.unlink(missing_ok=True)

    def open_to_read(self, name: str) -> IO[bytes]:
        with _trouble():
            body: IO[bytes] = self.client.get_object(**self._of(name))["Body"]
            return body

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        with _trouble():
            return int(self.client.head_object(**self._of(name))["ContentLength"])

    def delete(self, name: str) -> None:
        with _trouble():
            self.client.delete_object(**self._of(name))

    def keys(self, folder: str) -> Iterator[str]:
        for page in self._pages(folder):
            yield from page

    def delete_folder(self, folder: str) -> int:
        """A page of keys a call."""
        deleted = 0
        for page in self._pages(folder):
            objects = [{"Key": self.address.object_name(name)} for name in page]
            with _trouble():
                reply = self.client.delete_objects(Bucket=self.bucket_name, Delete={"Objects": objects, "Quiet": True})
            if reply.get("Errors"):
                raise _error_of(str(reply["Errors"][0].get("Code", "unknown")), 200)
            deleted += len(page)
        return deleted

    def sweep(self, *, older_than_s: float, now: float) -> int:
        """Nothing: an upload that was cut leaves no object, and its parts go by the bucket's own rule."""
        return 0

    def _of(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket_name, "Key": self.address.object_name(name)}

    def _pages(self, folder: str) -> Iterator[list[str]]:
        begin = self.address.object_name("")
        prefix = begin + (f"{folder}/" if folder else "")
        with _trouble():
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket_name, Prefix=prefix, PaginationConfig={"PageSize": PAGE_KEYS}
            )
            for page in pages:
                if found := [entry["Key"].removeprefix(begin) for entry in page.get("Contents", ())]:
                    yield found

    def _upload_in_parts(self, path: Path, size_bytes: int, name: str, about: dict[str, Any]) -> None:
        part_bytes = max(PART_BYTES, math.ceil(size_bytes / MOST_PARTS))
        upload = {
            **self._of(name),
            "UploadId": self.client.create_multipart_upload(**self._of(name), **about)["UploadId"],
        }
        try:
            parts = []
            for number, begin in enumerate(range(0, size_bytes, part_bytes), 1):
                with ReadFileChunk.from_filename(str(path), begin, part_bytes) as chunk:
                    tag = self.client.upload_part(**upload, PartNumber=number, Body=chunk)["ETag"]
                parts.append({"PartNumber": number, "ETag": tag})
            self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
        except Exception:
            self._abort(upload)
            raise

    def _abort(self, upload: dict[str, str]) -> None:
        """Free the parts; where that fails too, the bucket's rule for unfinished uploads does it."""
        try:
            self.client.abort_multipart_upload(**upload)
        except (boto.BotoCoreError, boto.ClientError):
            return

    def _same_or_refuse(self, name: str, size_bytes: int, digest: str) -> None:
        with _trouble():
            there = self.client.head_object(**self._of(name))
        if there["ContentLength"] != size_bytes or not digest or there["Metadata"].get(SHA256) != digest:
            raise FileExistsError(errno.EEXIST, "another file has this key", name)


class _AlreadyThere(Exception):
    """The key of a create-only upload is taken."""


def found_keys() -> S3Keys:
    """What AWS's library finds by itself, fresh: keys of a role change every few hours. Raises StorageRefused."""
    with _trouble():
        found = _session().get_credentials()
        if found is None:
            raise StorageRefused("no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        frozen = found.get_frozen_credentials()
    return S3Keys(frozen.access_key, frozen.secret_key, frozen.token or "")


@cache
def _session() -> Any:
    """One for the process: it remembers a role's keys until they are about to expire."""
    return boto3.session.Session()


@contextmanager
def _trouble() -> Iterator[None]:
    """Errors of AWS's library in the pipeline's words. Their texts hold addresses and are not repeated."""
    try:
        yield
    except boto.ClientError as err:
        code = str(err.response.get("Error", {}).get("Code", ""))
        status = int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        raise _error_of(code, status) from None
    except _CREDENTIALS as err:
        raise StorageRefused(f"no usable credentials ({type(err).__name__})") from None
    except _NETWORK as err:
        raise StorageDown(f"the storage can't be reached ({type(err).__name__})") from None


def _error_of(code: str, status: int) -> Exception:
    """What an error answer means. A HEAD has no body, and its code is the status."""
    if code in {"NoSuchKey", "404", "NotFound"}:
        return FileNotFoundError(errno.ENOENT, "no such key")
    if status == 412:
        return _AlreadyThere()
    said = f"{code} ({status})" if code != str(status) else code
    if status >= 500 or status in _PASSING_STATUS or code in _PASSING:
        return StorageDown(f"the storage answered {said}")
    return StorageRefused(f"the storage answered {said}")
