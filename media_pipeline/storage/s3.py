"""Files in a bucket, at AWS or any server that speaks S3: uploads that overwrite nothing, copies made by the server.

Importing this module loads AWS's library (about 0.7 s and 50 MB), so only what uses a bucket imports it.

Every call may be repeated without harm, and the library repeats one that failed on its way up to twice: an upload goes
to a key that no other process writes, and only if nothing is there; a copy, a read and a deletion end the same, however
often they are done. Uploads are signed over their SHA-256, so the server refuses one that was damaged on its way; the
sum is stored beside the object, and a download that doesn't match it is thrown away.

An answer without an ETag is no success, whatever its status: a proxy's page has none.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from s3transfer.utils import ReadFileChunk

from media_pipeline.errors import MediaError, StorageDown
from media_pipeline.storage.s3_address import S3Address, S3Keys
from media_pipeline.storage.s3_bucket import S3Bucket
from media_pipeline.storage.s3_create_only import CreateOnly, keeps_to_it
from media_pipeline.storage.s3_errors import NotOffered, Taken, needed
from media_pipeline.storage.s3_object import SHA256, ObjectOptions, Sums, differ, sum_in, sums_of

#: Larger files go in parts; a repeat then costs one part.
PART_BYTES = 64 * 1024**2
#: S3 copies no more in one call.
MOST_COPIED_BYTES = 5 * 1024**3
MOST_PARTS = 10_000
#: Keys that were written to try out the server.
PROBES = "work/probe"

_PLAIN = ObjectOptions()

log = logging.getLogger(__name__)


class S3Storage(S3Bucket):
    """What the pipeline needs of a bucket: create-only uploads, copies, checks, deletion in sets."""

    def __init__(self, address: S3Address, keys: S3Keys | None = None, *, options: ObjectOptions = _PLAIN) -> None:
        """`keys` as of `S3Bucket`."""
        super().__init__(address, keys)
        self.options = options
        self._uploads = CreateOnly("uploads", address, lambda: self._is_create_only(self._put_probe))
        self._uploads_in_parts = CreateOnly(
            "uploads in parts", address, lambda: self._is_create_only(self._put_probe_in_parts)
        )

    def publish(self, path: Path, name: str) -> None:
        """Upload. A repeat whose first try arrived is recognised by the object's sum."""
        part_bytes = _part_bytes(path.stat().st_size)
        sums = sums_of(path, part_bytes)
        about = self.options.headers(name) | {"Metadata": {SHA256: sums.sha256}}
        try:
            if sums.size_bytes > part_bytes:
                self._publish_in_parts(path, name, about, sums, part_bytes)
                return
            condition = self._only_if_free(self._uploads, name)
            with path.open("rb") as file:
                answer = self._ask("put_object", name, **about, Body=file, **condition)
            self._check(name, answer, sums, answer)
        except Taken:
            self._same_or_refuse(name, sums.size_bytes, sums.sha256)

    def duplicate(self, src_name: str, dst_name: str) -> None:
        """A copy by the server. The destination is looked at first: few servers make copies create-only."""
        source = self._head(src_name)
        size_bytes, digest = int(source["ContentLength"]), sum_in(source)
        if self._is_taken(dst_name):
            self._same_or_refuse(dst_name, size_bytes, digest or self._stored_sum(src_name)[0])
            return
        # Said anew: the copy has another key, and a copy in parts or to another class would lose them.
        about = self.options.headers(dst_name) | ({"Metadata": {SHA256: digest}} if digest else {})
        from_there = {"CopySource": self._of(src_name)}
        if size_bytes > MOST_COPIED_BYTES:
            self._copy_in_parts(from_there, dst_name, about, size_bytes, digest)
            return
        answer = self._ask("copy_object", dst_name, **from_there, **about, MetadataDirective="REPLACE")
        made = needed(answer, "CopyObjectResult")
        needed(made, "ETag")
        if differ(made["ETag"], source["ETag"], answer, source):
            self._compare(dst_name, made["ETag"], digest or self._stored_sum(src_name)[0])

    @contextmanager
    def fetch(self, name: str, folder: Path) -> Iterator[Path]:
        """Download into the folder, in small pieces, and compare with what was uploaded."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"fetch-{secrets.token_hex(8)}"
        try:
            found = self._get(name)
            stored = sum_in(found)
            # A server that keeps no metadata has the MD5 in its ETag, as a rule.
            digest = hashlib.sha256() if stored else hashlib.md5(usedforsecurity=False)
            with path.open("xb") as file:
                for chunk in found["Body"].chunks():
                    digest.update(chunk)
                    file.write(chunk)
            came = digest.hexdigest()
            if stored != came if stored else differ(found["ETag"], came, found):
                raise StorageDown("a stored file arrived damaged")
            yield path
        finally:
            path.unlink(missing_ok=True)

    def open_to_read(self, name: str) -> IO[bytes]:
        return cast(IO[bytes], self._get(name)["Body"])

    def exists(self, name: str) -> bool:
        try:
            self._head(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        return int(self._head(name)["ContentLength"])

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            answer = self._ask("delete_object", name)
            if answer["ResponseMetadata"]["HTTPStatusCode"] != 204:  # which has no body and no ETag to tell it by
                raise StorageDown("the storage's answer is none to a deletion")

    def keys(self, folder: str) -> Iterator[str]:
        for page in self._pages(folder):
            yield from (name for name, _ in page)

    def delete_folder(self, folder: str) -> int:
        """A page of keys a call; a key a call where the server knows no such set."""
        deleted = 0
        for page in self._pages(folder):
            names = [name for name, _ in page]
            try:
                self._delete_set(names)
            except NotOffered:
                for name in names:
                    self.delete(name)
            deleted += len(names)
        return deleted

    def sweep(self, *, older_than_s: float, now: float) -> int:
        """Probes of a process that was killed. An upload that was cut leaves no object, and its parts go by the
        bucket's own rule.
        """
        old = [
            name
            for page in self._pages(PROBES)
            for name, entry in page
            if now - needed(entry, "LastModified").timestamp() >= older_than_s
        ]
        for name in old:
            self.delete(name)
        return len(old)

    def shortcomings(self) -> list[str]:
        """See `MediaStorage.shortcomings`. Tries both kinds of upload, unless that was done already."""
        tried = {"an upload": self._uploads, "an upload in parts": self._uploads_in_parts}
        return [
            f"it does not refuse {kind} to a key that is taken (If-None-Match)"
            for kind, condition in tried.items()
            if not condition.holds()
        ]

    def _only_if_free(self, condition: CreateOnly, name: str) -> dict[str, str]:
        """What makes a write to a free key create-only; where the server has no such thing, the key is looked at.

        Keys are of one claim of one task, so nobody else writes between look and write. Raises Taken.
        """
        if condition.holds():
            return {"IfNoneMatch": "*"}
        if self._is_taken(name):
            raise Taken("the key is taken")
        return {}

    def _publish_in_parts(self, path: Path, name: str, about: dict[str, Any], sums: Sums, part_bytes: int) -> None:
        def send(upload: dict[str, Any], begin: int) -> Any:
            with ReadFileChunk.from_filename(str(path), begin, part_bytes) as chunk:
                return self._ask("upload_part", name, **upload, Body=chunk)

        begins = range(0, sums.size_bytes, part_bytes)
        answer = self._in_parts(name, about, begins, send, size_bytes=sums.size_bytes, digest=sums.sha256)
        if answer is not None:
            self._check(name, answer, sums, answer)

    def _copy_in_parts(
        self, from_there: dict[str, Any], name: str, about: dict[str, Any], size_bytes: int, digest: str
    ) -> None:
        part_bytes = _part_bytes(size_bytes)

        def copy(upload: dict[str, Any], begin: int) -> Any:
            last = min(begin + part_bytes, size_bytes) - 1
            answer = self._ask(
                "upload_part_copy", name, **upload, **from_there, CopySourceRange=f"bytes={begin}-{last}"
            )
            return needed(answer, "CopyPartResult")

        self._in_parts(name, about, range(0, size_bytes, part_bytes), copy, size_bytes=size_bytes, digest=digest)

    def _in_parts(
        self,
        name: str,
        about: dict[str, Any],
        begins: range,
        one: Callable[[dict[str, Any], int], Any],
        *,
        size_bytes: int,
        digest: str,
    ) -> Any:
        """An object of parts; `one` makes the part that begins there and gives its answer. The object appears whole.

        Gives the last answer, or None where that was lost and the object is there.
        """
        with self._begun(name, about) as upload:
            parts = [
                {"PartNumber": number, "ETag": needed(one({**upload, "PartNumber": number}, begin), "ETag")}
                for number, begin in enumerate(begins, 1)
            ]
            condition = self._only_if_free(self._uploads_in_parts, name)
            try:
                return self._complete(name, upload, parts, condition)
            except StorageDown:
                # The parts may have been joined and the answer lost; a repeat then finds no upload any more.
                if digest and self._is_there(name, size_bytes, digest):
                    return None
                raise

    @contextmanager
    def _begun(self, name: str, about: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """An upload in parts. If the block fails the parts are freed, now or by the bucket's own rule."""
        upload = {"UploadId": needed(self._ask("create_multipart_upload", name, **about), "UploadId")}
        try:
            yield upload
        except BaseException:
            with suppress(MediaError, FileNotFoundError):
                self._ask("abort_multipart_upload", name, **upload)
            raise

    def _complete(self, name: str, upload: dict[str, Any], parts: list[Any], condition: dict[str, str]) -> Any:
        answer = self._ask("complete_multipart_upload", name, **upload, MultipartUpload={"Parts": parts}, **condition)
        needed(answer, "ETag")
        return answer

    def _check(self, name: str, answer: Any, sums: Sums, *about: Mapping[str, Any]) -> None:
        """That the server has what was sent, as far as its answer tells."""
        etag = needed(answer, "ETag")
        if differ(etag, sums.etag, *about):
            self._compare(name, etag, sums.sha256)

    def _compare(self, name: str, etag: str, digest: str) -> None:
        """The ETag is odd: some servers' are no sums. So the object is read; one that is damaged goes again."""
        stored, its_etag = self._stored_sum(name)
        if stored == digest:
            return
        if its_etag == etag:  # what we have just written, and nobody else's
            self.delete(name)
        raise StorageDown("a file arrived damaged in the storage")

    def _is_there(self, name: str, size_bytes: int, digest: str) -> bool:
        try:
            self._same_or_refuse(name, size_bytes, digest)
        except (MediaError, OSError):
            return False
        return True

    def _same_or_refuse(self, name: str, size_bytes: int, digest: str) -> None:
        try:
            there = self._head(name)
            same = there["ContentLength"] == size_bytes and (sum_in(there) or self._stored_sum(name)[0]) == digest
        except FileNotFoundError:
            raise StorageDown("a key was taken, and is free again") from None
        if not same:
            raise FileExistsError(errno.EEXIST, "another file has this key", name)

    def _is_create_only(self, put: Callable[[str, bytes, dict[str, str]], None]) -> bool:
        """Tries `put` on a key of its own, which goes again."""
        key = _Probe(self, put)
        try:
            return keeps_to_it(key)
        finally:
            if key.is_written:
                self._remove_probe(key.name)

    def _remove_probe(self, name: str) -> None:
        try:
            self.delete(name)
        except MediaError as err:
            log.warning("%s/%s is left until the next sweep: %s", self.address, name, err)

    def _put_probe(self, name: str, content: bytes, condition: dict[str, str]) -> None:
        needed(self._ask("put_object", name, **self.options.headers(name), Body=content, **condition), "ETag")

    def _put_probe_in_parts(self, name: str, content: bytes, condition: dict[str, str]) -> None:
        with self._begun(name, self.options.headers(name)) as upload:
            part = self._ask("upload_part", name, **upload, PartNumber=1, Body=content)
            self._complete(name, upload, [{"PartNumber": 1, "ETag": needed(part, "ETag")}], condition)


class _Probe:
    """A key to try a kind of upload on."""

    def __init__(self, storage: S3Storage, put: Callable[[str, bytes, dict[str, str]], None]) -> None:
        self.name = f"{PROBES}/{secrets.token_hex(12)}"
        self._storage, self._put = storage, put
        self.is_written = False

    def write(self, content: bytes, *, create_only: bool) -> None:
        try:
            self._put(self.name, content, {"IfNoneMatch": "*"} if create_only else {})
        except Taken:
            self.is_written = True
            raise
        self.is_written = True

    def read(self) -> bytes:
        with self._storage.open_to_read(self.name) as file:
            return file.read()


def _part_bytes(size_bytes: int) -> int:
    return max(PART_BYTES, math.ceil(size_bytes / MOST_PARTS))
