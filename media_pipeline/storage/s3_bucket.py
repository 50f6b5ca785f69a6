"""Calls to one bucket, each answer checked: what is missing, odd or a stranger's page is an error of the storage.

Importing this module loads AWS's library (about 0.7 s and 50 MB), so only what uses a bucket imports it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.config import Config
from storages.backends import s3

from media_pipeline.errors import StorageDown
from media_pipeline.storage.s3_address import S3Address, S3Keys
from media_pipeline.storage.s3_client import Reading, new_client
from media_pipeline.storage.s3_errors import error_in_list, needed, trouble

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30  # without a byte
MOST_ATTEMPTS = 3
#: The most keys that one call lists or deletes.
PAGE_KEYS = 1000
#: Content types of pages and errors; no file of ours has one.
_NO_FILE = ("text/html", "text/xml", "application/xml")


class S3Bucket(s3.S3Storage):
    """django-storages' S3 with one client for all threads of the process.

    `keys` None: what AWS's library finds by itself (a role of the machine, a profile).
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
        )

    @property
    def client(self) -> Any:
        """The low-level client; unlike boto3's resources it may be shared between threads, its making may not."""
        if self._client is None:
            with self._client_lock, trouble():
                if self._client is None:
                    self._client = new_client(
                        endpoint_url=self.endpoint_url,
                        region_name=self.region_name,
                        aws_access_key_id=self.access_key,
                        aws_secret_access_key=self.secret_key,
                        aws_session_token=self.security_token,
                        config=self.client_config,
                    )
        return self._client

    def _of(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket_name, "Key": self.address.object_name(name)}

    def _ask(self, call: str, name: str, **more: Any) -> Any:
        """One call about one key. Raises what `trouble` does."""
        with trouble():
            return getattr(self.client, call)(**self._of(name), **more)

    def _is_taken(self, name: str) -> bool:
        """Before a write, which tells whether it is the bucket that is missing."""
        try:
            needed(self._ask("head_object", name), "ETag")
        except FileNotFoundError:
            return False
        return True

    def _head(self, name: str) -> Any:
        """What is said of an object; with ETag and ContentLength. Raises FileNotFoundError."""
        try:
            found = self._ask("head_object", name)
        except FileNotFoundError:
            # A HEAD's 404 doesn't say what is missing: the key, the bucket, or the way to the storage. A GET's does.
            found = self._get(name)
            found["Body"].close()
        for each in ("ETag", "ContentLength"):
            needed(found, each)
        return found

    def _get(self, name: str) -> Any:
        found = self._ask("get_object", name)
        found["Body"] = Reading(found["Body"])
        if not found.get("ETag"):
            found["Body"].close()
        needed(found, "ETag")
        if str(found.get("ContentType", "")).partition(";")[0].strip().lower() in _NO_FILE:
            found["Body"].close()
            raise StorageDown("the storage answered with a page instead of the file")
        return found

    def _pages(self, folder: str) -> Iterator[list[tuple[str, Mapping[str, Any]]]]:
        """(name, what the list says of it), in pages."""
        begin = self.address.object_name("")
        prefix = begin + (f"{folder}/" if folder else "")
        with trouble():
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket_name, Prefix=prefix, PaginationConfig={"PageSize": PAGE_KEYS}
            )
            for page in pages:
                if needed(page, "IsTruncated"):
                    needed(page, "NextContinuationToken")  # else the list would seem to end here
                if found := [(entry["Key"].removeprefix(begin), entry) for entry in page.get("Contents", ())]:
                    yield found

    def _delete_set(self, names: list[str]) -> None:
        objects = [{"Key": self.address.object_name(name)} for name in names]
        with trouble():
            answer = self.client.delete_objects(Bucket=self.bucket_name, Delete={"Objects": objects})
        errors = [error for error in answer.get("Errors", ()) if error.get("Code") != "NoSuchKey"]
        if errors:
            raise error_in_list(str(errors[0].get("Code", "")))
        # Each is named, so that an empty answer of a proxy passes for no deletion.
        named = {entry.get("Key") for list_ in ("Deleted", "Errors") for entry in answer.get(list_, ())}
        if not {entry["Key"] for entry in objects} <= named:
            raise StorageDown("the storage's answer does not name what it deleted")

    def _stored_sum(self, name: str) -> tuple[str, str]:
        """(SHA-256, ETag) of an object, by reading it."""
        found, digest = self._get(name), hashlib.sha256()
        for chunk in found["Body"].chunks():
            digest.update(chunk)
        return digest.hexdigest(), found["ETag"]
