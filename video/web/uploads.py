"""Pictures that users send us for their videos: kept for a while, in storage, under an address for their owner alone.

An address is `upload://` and the begin of the SHA-256 of what was sent. So the same picture of the same user is one
row and one file, and an order that is sent again with the same picture is the same order.

Kept is what `media_pipeline.pictures` made of it: upright, without metadata. File first, row second; and at the end the
row is marked, then the file goes, then the row. A process that dies in between leaves a file that `cleanup_storage`
finds, or a marked row that the next sweep ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from media_pipeline.errors import MediaError
from media_pipeline.pictures.headers import HEAD_BYTES, kind_of
from media_pipeline.storage import object_keys
from media_pipeline.storage.base import MediaStorage
from video import ids
from video.infra import database
from video.infra.errors import Refusal
from video.models import Upload
from video.models.uploads import SCHEME

log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"upload://([0-9a-f]{40})", re.ASCII)
_NAME_LENGTH = 40
#: Pictures that one process has decoded at once, and those that wait for their turn and hold a thread meanwhile.
_AT_ONCE, _MOST_WAITING = 2, 2
_WAITS_S = 10.0
#: A picture counts as so much against the quota at least, so that a row is never free.
_LEAST_BYTES = 64 * 1024
#: A task that was made a moment ago may use an upload for so long, whatever is left of its time.
_HOLD = timedelta(hours=1)
SWEEP_BATCH = 500
_TRIES = 3

_decoding = threading.BoundedSemaphore(_AT_ONCE)
_under_way = threading.BoundedSemaphore(_AT_ONCE + _MOST_WAITING)


class NoSuchUpload(Refusal):
    """There is no such upload of this user, or no longer."""

    code = "no_such_upload"

    def __init__(self) -> None:
        super().__init__("there is no such upload of yours, or its time is over; send the picture again")


class UploadsFull(Refusal):
    """The user's uploads are as many as may be kept."""

    code = "too_many_uploads"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"Your uploads fill the {settings.UPLOAD_QUOTA_BYTES:,} bytes that are kept for you; each goes when its "
            f"time is over, the next in {max(1, retry_after_s // 60)} minutes."
        )
        self.retry_after_s = retry_after_s


class UploadsBusy(Refusal):
    """Too many pictures are being read at once."""

    code = "overloaded"
    retry_after_s = 2

    def __init__(self) -> None:
        super().__init__("Too many pictures are being read at once. Please try again in a moment.")


def is_address(url: str) -> bool:
    """Whether a task's image is an upload. Its form is judged by `hold`."""
    return url.startswith("upload:")


def address_of(data: bytes) -> str:
    """The address that these bytes have for whoever sends them."""
    return f"{SCHEME}{_name_of(data)}"


def _name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_NAME_LENGTH]


def keep(user_id: int, data: bytes) -> Upload:
    """The user's upload of this picture; its time begins anew. A second run finds the first one's.

    Raises PictureRefused, UploadsFull, UploadsBusy, and DiskFull, StorageDown, StorageRefused.
    """
    name = _name_of(data)
    if found := _renewed(user_id, name):
        return found
    kind_of(data[:HEAD_BYTES])  # before anything dearer
    if used_bytes(user_id) + _LEAST_BYTES > settings.UPLOAD_QUOTA_BYTES:
        raise _full(user_id)
    made = _stored(user_id, name, data)
    for _ in range(_TRIES):
        _insert(made)
        found = _of(user_id, name).first()
        if found is None:
            break
        if found.deleted_at is None:
            if found.key != made.key:  # another request with the same picture was faster
                _storage().delete(made.key)
            return found
        _finish(found)
    _storage().delete(made.key)
    raise _full(user_id)


def _stored(user_id: int, name: str, data: bytes) -> Upload:
    """The file in storage, and what its row will be."""
    from media_pipeline.pictures.prepare import prepare
    from video.infra.toolkit import toolkit  # lazily: it brings HTTP clients and media code

    storage = toolkit().storage
    with _turn(), storage.scratch_dir(f"upload-{user_id}") as folder:
        sent, kept = folder / "sent", folder / "kept"
        sent.write_bytes(data)
        picture = prepare(sent, prober=toolkit().picture_reader, max_bytes=settings.UPLOAD_MAX_BYTES)
        kept.write_bytes(picture.data)
        key = object_keys.upload_key(user_id, ids.upload_id(), picture.suffix)
        storage.put_file(kept, key, move=True)
    return Upload(
        user_id=user_id,
        name=name,
        key=key,
        media_type=str(picture.kind),
        size_bytes=len(picture.data),
        width_px=picture.width_px,
        height_px=picture.height_px,
    )


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """One of the few that have a picture decoded. Raises UploadsBusy."""
    if not _under_way.acquire(blocking=False):
        raise UploadsBusy
    try:
        if not _decoding.acquire(timeout=_WAITS_S):
            raise UploadsBusy
        try:
            yield
        finally:
            _decoding.release()
    finally:
        _under_way.release()


def _insert(made: Upload) -> None:
    """The row, if the user's quota has room for it and no row of the same picture is there. Renews one that is."""
    database.execute(
        """
        INSERT INTO video_upload (user_id, name, key, media_type, size_bytes, width_px, height_px, expires_at)
        SELECT %(user_id)s, %(name)s, %(key)s, %(media_type)s, %(size_bytes)s, %(width_px)s, %(height_px)s,
            statement_timestamp() + %(life)s
        FROM (SELECT coalesce(sum(greatest(size_bytes, %(least)s)), 0) AS bytes FROM video_upload
            WHERE user_id = %(user_id)s AND deleted_at IS NULL) used
        WHERE used.bytes + greatest(%(size_bytes)s, %(least)s) <= %(quota)s
        ON CONFLICT (user_id, name) DO UPDATE SET expires_at = excluded.expires_at
            WHERE video_upload.deleted_at IS NULL
        """,
        {
            **{name: getattr(made, name) for name in ("user_id", "name", "key", "media_type")},
            **{name: getattr(made, name) for name in ("size_bytes", "width_px", "height_px")},
            "life": _life(),
            "least": _LEAST_BYTES,
            "quota": settings.UPLOAD_QUOTA_BYTES,
        },
    )


def _life() -> timedelta:
    return timedelta(hours=settings.UPLOAD_KEEP_HOURS)


def _of(user_id: int, name: str) -> QuerySet[Upload]:
    return Upload.objects.filter(user_id=user_id, name=name)


def _renewed(user_id: int, name: str) -> Upload | None:
    own = _of(user_id, name).filter(deleted_at__isnull=True)
    return own.first() if own.update(expires_at=Now() + _life()) else None


def _full(user_id: int) -> UploadsFull:
    wait_s = database.value(
        """
        SELECT ceil(extract(epoch FROM min(expires_at) - statement_timestamp()))::int FROM video_upload
        WHERE user_id = %s AND deleted_at IS NULL AND expires_at > statement_timestamp()
        """,
        [user_id],
    )
    return UploadsFull(wait_s or 60)


def hold(user_id: int, address: str) -> None:
    """The user's own upload stays long enough for a task that is about to be made. Raises NoSuchUpload."""
    match = _ADDRESS.fullmatch(address)
    held = match and database.changed(
        """
        UPDATE video_upload SET expires_at = greatest(expires_at, statement_timestamp() + %s)
        WHERE user_id = %s AND name = %s AND deleted_at IS NULL AND expires_at > statement_timestamp()
        """,
        [_HOLD, user_id, match[1]],
    )
    if not held:
        raise NoSuchUpload


def hold_all(user_id: int, addresses: Iterable[str]) -> set[str]:
    """The same for many at once: those of the addresses that are there. One statement."""
    names = [match[1] for match in map(_ADDRESS.fullmatch, addresses) if match]
    rows = database.fetch(
        """
        UPDATE video_upload SET expires_at = greatest(expires_at, statement_timestamp() + %s)
        WHERE id IN (
            SELECT id FROM video_upload
            WHERE user_id = %s AND name = ANY(%s) AND deleted_at IS NULL AND expires_at > statement_timestamp()
            ORDER BY id FOR UPDATE
        ) RETURNING name
        """,
        [_HOLD, user_id, names],
    )
    return {f"{SCHEME}{name}" for (name,) in rows}


def find(user_id: int, address: str) -> Upload:
    """The upload that a task of this user began with; also past its time, while it is there. Raises NoSuchUpload."""
    match = _ADDRESS.fullmatch(address)
    found = _of(user_id, match[1]).filter(deleted_at__isnull=True).first() if match else None
    if found is None:
        raise NoSuchUpload
    return found


def used_bytes(user_id: int) -> int:
    """What the user's uploads count against the quota."""
    found: int = database.value(
        """
        SELECT coalesce(sum(greatest(size_bytes, %s)), 0)::bigint FROM video_upload
        WHERE user_id = %s AND deleted_at IS NULL
        """,
        [_LEAST_BYTES, user_id],
    )
    return found


# --- the end ---------------------------------------------------------------------------------------------------------


def sweep() -> int:
    """Delete uploads whose time is over and that no task will need. How many went; at most SWEEP_BATCH. Repeatable."""
    database.execute(
        """
        UPDATE video_upload SET deleted_at = statement_timestamp() WHERE id IN (
            SELECT id FROM video_upload u
            WHERE deleted_at IS NULL AND expires_at < statement_timestamp() AND NOT EXISTS (
                SELECT FROM video_videotask t
                WHERE t.user_id = u.user_id AND t.finished_at IS NULL AND t.image_url = 'upload://' || u.name)
            ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)
        """,
        [SWEEP_BATCH],
    )
    gone = 0
    for upload in Upload.objects.filter(deleted_at__isnull=False).order_by("deleted_at")[:SWEEP_BATCH]:
        try:
            _finish(upload)
        except MediaError as err:
            log.warning("sweeper: uploads that are over stay in storage for now: %s", err)
            break  # what is wrong with the storage is wrong for the others too; the next sweep deletes them
        gone += 1
    return gone


def erase_of(user_id: int) -> int:
    """Delete all uploads of a user, at once. How many went. Safe to repeat.

    No address of theirs works from the first moment on. Raises StorageDown and StorageRefused, after which the sweep
    goes on with the files that are left.
    """
    Upload.objects.filter(user_id=user_id, deleted_at__isnull=True).update(deleted_at=Now())
    gone = 0
    while batch := list(Upload.objects.filter(user_id=user_id, deleted_at__isnull=False)[:SWEEP_BATCH]):
        for upload in batch:
            _finish(upload)
        gone += len(batch)
    return gone


def _finish(upload: Upload) -> None:
    """The end of a row that is marked deleted: its file first."""
    _storage().delete(upload.key)
    with transaction.atomic():
        Upload.objects.filter(pk=upload.pk, key=upload.key, deleted_at__isnull=False).delete()


def _storage() -> MediaStorage:
    from video.infra.toolkit import toolkit

    return toolkit().storage
