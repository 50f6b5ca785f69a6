"""The start image of a task, in the form in which its provider takes it, before anything is sent.

It is had once, from where the client said that it is, and kept under the task's name: a later try, another provider
and a retry begin with the kept one. Fetched from an https address through the guarded fetcher, or copied from an
upload of the task's own user. What is kept is upright and without metadata; decoding is the decoder child's.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from media_pipeline import errors
from media_pipeline.disk import require_free
from media_pipeline.fetch.download import download
from media_pipeline.pictures.headers import Kind, kind_of
from media_pipeline.pictures.prepare import Picture, prepare
from media_pipeline.storage import object_keys
from providers import catalogue
from providers.contract import StartImage
from providers.models import ImageLimits, image_problem
from video.attempts import provider_calls
from video.engine import transitions
from video.engine.claims import Claim
from video.engine.outcomes import bounded_s
from video.infra.failpoints import failpoint
from video.infra.toolkit import toolkit
from video.routing.private_hosts import origins_allowed
from video.web import uploads

# Reserve that must stay free on the disk, beside the picture.
DISK_RESERVE_BYTES = 256 * 1024**2
#: A host that can't be reached is asked so often: with the growing pauses within two minutes and a half.
TRIES = 4
#: Until a task that found too many at it tries again.
WAITS_S = 3.0
#: Bytes that the pictures of all submits of this process may take in memory, in all their forms.
MOST_BYTES = 128 * 1024**2
#: A picture, the same in base64, in JSON, and in the body of its submit: 5 times its bytes.
_FORMS = 5


class ImageRefused(Exception):
    """The task can't begin with this image. `code` and `message` are for its owner, the text for operators."""

    def __init__(self, code: str, message: str, detail: str, *, another_model_could: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.message = message
        self.another_model_could = another_model_could


class ImageUnreachable(Exception):
    """Its host gives no answer that decides anything: to be asked again, not before `retry_after_s`."""

    code = "image_unreachable"
    message = "The start image could not be fetched: its host does not answer as it should."

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class ImageWaits(Exception):
    """As many start images are being fetched here as may be; nothing was asked."""

    code = "image_waits"

    def __init__(self) -> None:
        super().__init__("waits until fewer start images are being fetched")


#: Codes of ImageRefused that no other model gets past.
FINAL_CODES = frozenset(
    {
        *("image_forbidden_address", "image_not_found", "image_too_large", "image_unreachable", "image_unreadable"),
        "image_upload_gone",
    }
)


def start_image(claim: Claim, model: str) -> StartImage | None:
    """What this model gets as the task's start image; None for a video from text.

    Raises ImageRefused, ImageUnreachable, ImageWaits, and of MediaError: Cancelled, DiskFull, StorageDown,
    StorageRefused.
    """
    if not claim.task.image_url:
        return None
    try:
        picture = _kept(claim) or _had(claim)
        row = catalogue.BY_ID.get(model)
        if row is None:  # it has left the catalogue: the submit is refused for that
            return StartImage(str(picture.kind), picture.data)
        problem = image_problem(row, picture.width_px, picture.height_px)
        if problem is not None:
            message = f"The start image does not fit: {problem.text}."
            raise ImageRefused("image_unsuitable", message, str(problem), another_model_could=True)
        fitted = _fitted(claim, picture, row.image_limits)
    except errors.PictureRefused as err:
        raise ImageRefused(err.code, err.user_message, str(err)) from None
    return StartImage(str(fitted.kind), fitted.data)


def _kept(claim: Claim) -> Picture | None:
    """What an earlier try has kept."""
    key, storage = object_keys.start_image_key(claim.task.pk), toolkit().storage
    try:
        with _scratch(claim) as folder, storage.fetch_to(key, folder) as path:
            return Picture.of(path.read_bytes())
    except FileNotFoundError:
        return None


def _had(claim: Claim) -> Picture:
    """The image from where it is, kept from now on."""
    task, storage = claim.task, toolkit().storage
    key = object_keys.start_image_key(task.pk)
    transitions.note_work_files(claim)  # first, so that a sweep knows of the file
    try:
        if uploads.is_address(task.image_url):
            storage.copy(uploads.find(task.user_id, task.image_url).key, key)
        else:
            with _fetching.one_of(task.user_id), _scratch(claim) as folder:
                storage.put_file(_fetched(claim, folder), key, move=True)
    except FileExistsError:
        pass  # a claim that was given up meanwhile was faster: the first one counts
    except (uploads.NoSuchUpload, FileNotFoundError):
        message = "The upload that this video was to begin with is gone; upload the picture again for a new video."
        raise ImageRefused("image_upload_gone", message, "the upload is gone") from None
    failpoint("generate.after_image")
    picture = _kept(claim)
    if picture is None:
        raise errors.StorageDown("the start image was stored a moment ago, and is not there")
    return picture


def _fetched(claim: Claim, folder: Path) -> Path:
    """The image at the task's address, checked, as a file in `folder`."""
    sent, made = folder / "sent", folder / "made"
    require_free(folder, expected_bytes=settings.UPLOAD_MAX_BYTES, reserve_bytes=DISK_RESERVE_BYTES)
    try:
        download(
            claim.task.image_url,
            sent,
            max_bytes=settings.UPLOAD_MAX_BYTES,
            deadline_s=settings.IMAGE_TIMEOUT_SECONDS,
            trusted_origins=origins_allowed(claim.task.image_url),
            cancelled=claim.lost,
            judge=kind_of,
        )
    except errors.ForbiddenAddress as err:
        message = "The start image's address does not lead to a public https address."
        raise ImageRefused("image_forbidden_address", message, str(err)) from None
    except errors.DownloadTooLarge as err:
        message = f"The start image has more than {settings.UPLOAD_MAX_BYTES:,} bytes."
        raise ImageRefused("image_too_large", message, str(err)) from None
    except errors.LinkExpired as err:
        message = f"The start image is not at its address: its host answered {err.http_status or 'that'}."
        raise ImageRefused("image_not_found", message, str(err)) from None
    except (errors.DownloadFailed, errors.MediaTimeout) as err:
        wait_s = bounded_s(err.retry_after_s or 0, provider_calls.LONGEST_PAUSE_S)
        raise ImageUnreachable(f"the start image: {err}", wait_s) from None
    made.write_bytes(prepare(sent, prober=toolkit().picture_reader, max_bytes=settings.UPLOAD_MAX_BYTES).data)
    return made


def _fitted(claim: Claim, picture: Picture, limits: ImageLimits) -> Picture:
    """The picture as this model takes it; the kept one itself where that will do."""
    if str(picture.kind) in limits.types and len(picture.data) <= limits.max_bytes:
        return picture
    with _scratch(claim) as folder:
        kept = folder / "kept"
        kept.write_bytes(picture.data)
        types = [Kind(one) for one in limits.types]
        return prepare(kept, prober=toolkit().picture_reader, types=types, max_bytes=limits.max_bytes)


def _scratch(claim: Claim) -> contextlib.AbstractContextManager[Path]:
    return toolkit().storage.scratch_dir(f"{claim.task.pk}-{claim.fence}")


class _Fetching:
    """How many threads of this process wait for hosts of pictures: a quarter, and two of one user.

    A host may take all the time that it is given. So slow hosts keep neither other users' pictures nor the polls of
    this worker waiting, however many tasks name them.
    """

    SHARE, OF_ONE_USER = 4, 2

    def __init__(self) -> None:
        self._lock, self._of_user = threading.Lock(), Counter[int]()

    @contextlib.contextmanager
    def one_of(self, user_id: int) -> Iterator[None]:
        """Raises ImageWaits at once."""
        most = max(1, settings.VIDEO_CONCURRENCY // self.SHARE)
        with self._lock:
            if self._of_user.total() >= most or self._of_user[user_id] >= self.OF_ONE_USER:
                raise ImageWaits
            self._of_user[user_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._of_user[user_id] -= 1
                if not self._of_user[user_id]:
                    del self._of_user[user_id]


_fetching = _Fetching()


class _Memory:
    """A bound for what several threads hold at once. Who would break it waits, but for the only one."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self._changed = most, 0, threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._most)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


_memory = _Memory(MOST_BYTES)


def memory_for(image: StartImage | None) -> contextlib.AbstractContextManager[None]:
    """Hold the memory that a submit with this image takes, while the block runs."""
    return contextlib.nullcontext() if image is None else _memory.taken(_FORMS * len(image.data))
