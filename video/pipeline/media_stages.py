"""Download, transcode, thumbnail, save: from a finished job to a stored video.

Stages hand over through storage keys, never through a local path, so that any worker on any host runs the next one.
Every file is named after the fence that made it: a late worker's file is never mistaken for the winner's.

What goes wrong with a file, the disk or the storage is raised as a MediaError; `trouble` says what it means for the
task.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

from django.conf import settings

from media_pipeline import errors, warnings
from media_pipeline.disk import require_free
from media_pipeline.encode.as_it_came import deliver_as_it_came
from media_pipeline.encode.cover import FIRST_FRAME
from media_pipeline.encode.plan import Target
from media_pipeline.encode.probe import MediaInfo
from media_pipeline.encode.provenance import Label
from media_pipeline.encode.thumbnail import make_black_cover, make_thumbnail
from media_pipeline.encode.transcode import Transcoded
from media_pipeline.encode.transcode import transcode as encode
from media_pipeline.fetch import parts
from media_pipeline.fetch.download import Fetched
from media_pipeline.fetch.download import download as fetch
from media_pipeline.fetch.parts import Part
from media_pipeline.storage import object_keys
from providers.errors import Busy, JobNotFound
from providers.untrusted import safe_share
from video import ids
from video.attempts import fetches, provider_calls, records
from video.engine import shutdown
from video.engine.claims import Claim
from video.engine.leases import heartbeat
from video.engine.outcomes import Advance, Dropped, Fail, Outcome, Park, Succeed, TryAgain
from video.engine.transitions import PROGRESS_AT, next_stage
from video.infra.failpoints import failpoint
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, VideoTask
from video.models.order import fps_of
from video.pipeline import extras, odd_media
from video.pipeline.file_hosts import file_hosts
from video.pipeline.patience import Cause, cause_of, fetch_again
from video.routing import key_labels

log = logging.getLogger(__name__)

# Reserve that must stay free on the disk, beside what a job is expected to need.
DISK_RESERVE_BYTES = 512 * 1024**2
DISK_FULL_DELAY_S = 10.0
STORAGE_DOWN_DELAY_S = 10.0
STORAGE_REFUSED_DELAY_S = 60.0
NO_VIDEO = errors.DownloadFailed.code
NO_LINK = "The provider gave no link to the finished video."
# One more download for a file that can't be read, in case it was damaged on its way; then it is the provider's fault.
TRIES_OF_A_BAD_FILE = 2
SOURCE_GONE = "the source is gone from storage; fetching it again"
RENDER_SOURCE_GONE = "The stored original of the first video, from which this one was to be rendered, is gone."


def download(claim: Claim) -> Outcome:
    """Fetch the provider's file into storage, and make sure that it is a video."""
    generation = claim.attempt
    if generation is None or generation.state != Generation.State.SUCCEEDED:
        raise RuntimeError(f"{claim.task.pk} downloads without a finished job")
    claim.generation_id = generation.pk
    try:
        url = provider_calls.result_url(generation)
    except JobNotFound as err:
        gone = "The video is no longer available at its provider."
        return fetch_again(claim, Cause("source_gone", gone, str(err), ends_as="source_gone"))
    except provider_calls.READ_TROUBLE as err:
        asked_s = provider_calls.asked_wait_s(err) if isinstance(err, Busy) else 0
        return fetch_again(claim, Cause("provider_down", NO_LINK, str(err), NO_VIDEO, asked_s))
    except provider_calls.KeyGone:
        label = key_labels.of(generation.provider, generation.key_fingerprint)
        log.error(  # noqa: TRY400 - the traceback tells nothing
            '%s: key "%s" is gone before the download; put it back', claim.task.pk, label
        )
        reason = f'key "{label}" is gone: put it back'
        return fetch_again(claim, Cause("key_gone", NO_LINK, reason, NO_VIDEO))
    with _part(claim, generation) as part:
        require_free(part.path.parent, expected_bytes=0, reserve_bytes=DISK_RESERVE_BYTES)
        fetched = _fetch(claim, url, part)
        try:
            origin = toolkit().prober.probe(part.path).provenance
        except errors.NotAVideo as err:
            if not fetched.is_whole:
                # Cut, perhaps: the next fetch asks for what is missing, and learns how long the file is.
                raise errors.DownloadFailed(f"{err}; nothing tells whether all of it came") from err
            raise
        records.record_provenance(generation.pk, aigc_tag=origin.aigc_tag, has_c2pa=origin.has_c2pa)
        failpoint("download.after_work")
        key = object_keys.work_key(claim.task.pk, claim.fence, "source.mp4")
        toolkit().storage.put_file(part.path, key, move=True)
    failpoint("download.after_put")
    if generation.fetch_errors:
        fetches.restart_count(generation.pk)
    return Advance(Stage.TRANSCODE, fields={"source_key": key})


def _fetch(claim: Claim, url: str, part: Part) -> Fetched:
    """One fetch of the video. Raises as `fetch` does."""

    def on_progress(done: int, total: int | None) -> None:
        silence.end()
        _report(claim, done / total if total else 0)

    with file_hosts.fetching(url, anyway=claim.is_past_deadline) as silence:
        return fetch(
            url,
            part.path,
            max_bytes=settings.MAX_SOURCE_BYTES,
            deadline_s=settings.DOWNLOAD_TIMEOUT_SECONDS,
            trusted_origins=toolkit().trusted_origins,
            on_progress=on_progress,
            cancelled=claim.lost,
            part=part,
            reserve_bytes=DISK_RESERVE_BYTES,
        )


@contextmanager
def _part(claim: Claim, generation: Generation) -> Iterator[Part]:
    """Where the video is fetched to: what came before an interruption, if that was on this host.

    It stays for the next fetch as long as there may be one, and nothing is wrong with the file or the disk.
    """
    root = toolkit().storage.make_scratch_root()
    with (
        errors.disk_full_as_media_error(),
        parts.hold(root, claim.task.pk, job=generation.pk, name="source.mp4") as part,
    ):
        try:
            yield part
        except Exception as err:
            is_bad = isinstance(err, errors.DiskFull) or (
                isinstance(err, errors.NotAVideo) and not isinstance(err, errors.NotMedia)
            )
            is_lost = isinstance(err, errors.Cancelled) and not claim.released
            if is_bad or is_lost or claim.is_past_deadline:
                part.give_up()
            if part.grew:
                fetches.restart_count(generation.pk)
            raise
        part.give_up()


def transcode(claim: Claim) -> Outcome:
    """Make the MP4 that was asked for; a source that already is one is only repacked."""
    task = claim.task
    storage = toolkit().storage
    with _scratch(claim) as folder, ExitStack() as fetched:
        try:
            source = fetched.enter_context(storage.fetch_to(task.source_key, folder))
        except FileNotFoundError:
            if task.render_of_id is not None:
                return Fail("source_gone", RENDER_SOURCE_GONE)
            return Advance(Stage.DOWNLOAD, detail=SOURCE_GONE, fields={"source_key": ""})
        path = folder / "video.mp4"
        is_second = odd_media.was_fetched_again(task)
        try:
            info = toolkit().prober.probe(source)
            if not is_second and (short := odd_media.how_short(info, task.duration_s)):
                return odd_media.fetch_again(task, short)
            require_free(folder, expected_bytes=info.size_bytes, reserve_bytes=DISK_RESERVE_BYTES)
            made = _made(claim, source, path, info, accept_damage=is_second)
        except errors.NotAVideo as err:
            if is_second:
                raise
            return odd_media.fetch_again(task, str(err))
        failpoint("transcode.after_work")
        key = object_keys.work_key(task.pk, claim.fence, "video.mp4")
        storage.put_file(path, key, move=True)
    failpoint("transcode.after_put")
    return Advance(
        Stage.THUMBNAIL,
        detail=made.plan.reason,
        fields={
            "output_key": key,
            "video_bytes": made.info.size_bytes,
            "video_width_px": made.info.width_px,
            "video_height_px": made.info.height_px,
            "video_duration_s": made.info.duration_s,
            "video_fps": round(float(made.info.fps), 3),
            "video_has_sound": made.info.audio_codec is not None,
            "warnings": warnings.after(
                "transcode", task.warnings, [*made.warnings, *odd_media.length_warnings(info, task.duration_s)]
            ),
        },
    )


def _made(claim: Claim, source: Path, path: Path, info: MediaInfo, *, accept_damage: bool) -> Transcoded:
    """The video as ordered; after a second failure the provider's own stream, if players take that."""
    task, tools = claim.task, toolkit()
    try:
        return encode(
            source,
            path,
            info=info,
            target=_target(task),
            ffmpeg=tools.ffmpeg,
            prober=tools.prober,
            threads=settings.FFMPEG_THREADS,
            on_progress=lambda fraction: _report(claim, fraction),
            cancelled=claim.lost,
            deadline_s=settings.TRANSCODE_TIMEOUT_SECONDS,
            accept_damage=accept_damage,
        )
    except (errors.TranscodeFailed, errors.MediaTimeout, errors.NotAVideo) as err:
        # A file that is at fault is fetched again first; anything else is tried again first.
        is_file = isinstance(err, errors.NotAVideo)
        has_chance = not accept_damage if is_file else task.tries + 1 < TRIES_OF_A_BAD_FILE
        if has_chance or heartbeat.was_suspended(claim):
            raise
        try:
            made = deliver_as_it_came(
                source,
                path,
                info=info,
                ffmpeg=tools.ffmpeg,
                prober=tools.prober,
                deadline_s=settings.TRANSCODE_TIMEOUT_SECONDS,
                cancelled=claim.lost,
            )
        except (errors.NotAVideo, errors.MediaTimeout) as other:
            log.warning("%s: %s", task.pk, other)
            raise err from None
        log.warning("%s is delivered as it came: %s", task.pk, err)
        return made


def _target(task: VideoTask) -> Target:
    return Target(
        # The columns' choices are the names that Target knows.
        quality=task.quality,  # type: ignore[arg-type]
        resolution=task.resolution,  # type: ignore[arg-type]
        fps=fps_of(task),
        keep_long_sound=settings.KEEP_LONG_SOUND,
        padded_to=Fraction(task.aspect_ratio.replace(":", "/")) if task.is_padded else None,
        label=Label(settings.LABEL_PRODUCER, task.pk, settings.LABEL_MARK, settings.LABEL_FONT),
    )


def thumbnail(claim: Claim) -> Outcome:
    """Cut the frame that was asked for; a video of which none can be decoded has a black cover."""
    storage = toolkit().storage
    with _scratch(claim) as folder, ExitStack() as fetched:
        try:
            video = fetched.enter_context(storage.fetch_to(claim.task.output_key, folder))
        except FileNotFoundError:
            return Advance(Stage.TRANSCODE, detail="the transcoded file is gone from storage; making it again")
        path = folder / "thumb.jpg"
        found = _cut_cover(claim, video, path)
        failpoint("thumbnail.after_work")
        key = object_keys.work_key(claim.task.pk, claim.fence, "thumb.jpg")
        storage.put_file(path, key, move=True)
        failpoint("thumbnail.after_put")
        made, left_out = extras.make(claim, video, folder, reserve_bytes=DISK_RESERVE_BYTES)
    odd = warnings.after("thumbnail", claim.task.warnings, [*found, *left_out])
    return Advance(Stage.SAVE, fields={"thumbnail_key": key, "extra_files": made, "warnings": odd})


def _cut_cover(claim: Claim, video: Path, path: Path) -> list[str]:
    """Write the cover, at the second try the first frame in place of one that can't be had, or a black picture; codes
    of warnings.
    """
    task = claim.task
    asked = extras.cover_of(task)
    for cover in dict.fromkeys((asked, FIRST_FRAME)):
        try:
            make_thumbnail(video, path, prober=toolkit().prober, cover=cover)
        except (errors.NotAVideo, errors.MediaTimeout) as err:
            if task.tries + 1 < TRIES_OF_A_BAD_FILE or heartbeat.was_suspended(claim):
                raise
            log.warning("%s has no cover as asked for: %s", task.pk, err)
        else:
            return [] if cover == asked else ["cover_is_first_frame"]
    make_black_cover(path)
    return ["cover_is_black"]


def save(claim: Claim) -> Outcome:
    """Give the files their final names, under a video id of this fence's own; the row then points to them."""
    task, storage = claim.task, toolkit().storage
    video_id = ids.video_id()
    video_key = object_keys.video_key(task.user_id, video_id)
    thumbnail_key = object_keys.thumbnail_key(task.user_id, video_id)
    try:
        storage.copy(task.output_key, video_key)
        failpoint("save.after_video")
        storage.copy(task.thumbnail_key, thumbnail_key)
        thumbnail_bytes = storage.size_bytes(thumbnail_key)
    except FileNotFoundError:
        storage.delete(video_key)
        return Advance(Stage.TRANSCODE, detail="a work file is gone from storage; making it again")
    failpoint("save.after_thumbnail")
    fields: dict[str, Any] = {"video_id": video_id, "output_key": video_key, "thumbnail_key": thumbnail_key}
    fields |= {"thumbnail_bytes": thumbnail_bytes, **extras.keep(task, video_key), **_kept_original(claim, video_id)}
    return Succeed(fields=fields)


def _kept_original(claim: Claim, video_id: str) -> dict[str, Any]:
    """The provider's own file under its final name while KEEP_SOURCE_DAYS keeps it; else no source is left."""
    task, storage = claim.task, toolkit().storage
    if not (settings.KEEP_SOURCE_DAYS and task.source_key) or task.render_of_id is not None:
        return {"source_key": ""}
    key = object_keys.original_key(task.user_id, video_id, PurePosixPath(task.source_key).suffix)
    try:
        storage.copy(task.source_key, key)
        size_bytes = storage.size_bytes(key)
    except FileNotFoundError:
        log.warning("%s: the original is gone from storage and can't be kept; the video is stored", task.pk)
        return {"source_key": ""}
    return {"source_key": key, "original_bytes": size_bytes}


def drop_work_files(task_id: str) -> None:
    """Delete a task's work files; what is left by a crash is swept later. Raises StorageDown, StorageRefused."""
    toolkit().storage.delete_prefix(object_keys.work_prefix(task_id))


def drop_what_was_made(outcome: Outcome) -> None:
    """The task was cancelled or taken over, so no row will ever point to these files: their names are this fence's."""
    if isinstance(outcome, Advance | Succeed):
        for name in ("source_key", "output_key", "thumbnail_key"):
            if outcome.fields.get(name):
                toolkit().storage.delete(outcome.fields[name])
        for key in extras.keys_of(outcome.fields):
            toolkit().storage.delete(key)


def trouble(claim: Claim, err: errors.MediaError) -> Outcome:
    """What an error of the media work means for the task."""
    match err:
        case errors.Cancelled():
            return Park(0, shutdown.REASON) if claim.released else Dropped()
        case errors.DiskFull():
            log.error("%s: the disk is full; %s waits", claim.task.pk, claim.stage)
            return TryAgain(err.code, err.user_message, str(err), at_least_s=DISK_FULL_DELAY_S, counts=False)
        case errors.StorageDown():
            log.warning("%s: %s; %s waits", claim.task.pk, err, claim.stage)
            return TryAgain(err.code, err.user_message, str(err), at_least_s=STORAGE_DOWN_DELAY_S, counts=False)
        case errors.StorageRefused():
            log.error("%s: %s; %s waits until STORAGE_URL and AWS_* are right", claim.task.pk, err, claim.stage)
            return TryAgain(err.code, err.user_message, str(err), at_least_s=STORAGE_REFUSED_DELAY_S, counts=False)
        case errors.MediaTimeout() if heartbeat.was_suspended(claim):
            log.warning("%s: this process stood still; %s is begun anew", claim.task.pk, claim.stage)
            return TryAgain(err.code, err.user_message, f"this process stood still: {err}", counts=False)
        case (
            errors.DownloadFailed()
            | errors.LinkExpired()
            | errors.DownloadTooLarge()
            | errors.ForbiddenAddress()
            | errors.NotMedia()
            | errors.DownloadTimeout()
        ):
            return fetch_again(claim, cause_of(err))
        case errors.NotAVideo() | errors.TranscodeFailed() | errors.MediaTimeout():
            if claim.task.tries + 1 >= TRIES_OF_A_BAD_FILE:
                return Fail(err.code, err.user_message, str(err))
            return TryAgain(err.code, err.user_message, str(err))
        case _:
            return TryAgain(err.code, err.user_message, str(err))


def _report(claim: Claim, fraction: float) -> None:
    """Progress within a stage, written by the next heartbeat."""
    begin, end = PROGRESS_AT[claim.stage], PROGRESS_AT[next_stage(claim.stage)]
    claim.progress = max(claim.progress, begin + int((end - begin) * (safe_share(fraction) or 0)))


def _scratch(claim: Claim) -> AbstractContextManager[Path]:
    """A folder for this claim alone, gone afterwards whatever happened."""
    return toolkit().storage.scratch_dir(f"{claim.task.pk}-{claim.fence}")
