"""What becomes of a task whose file is odd: fetched once more, delivered with a warning, and only then failed.

A finished job is paid for. So a file that is damaged, cut off or shorter than ordered is fetched a second time, in case
that came of the way; then what is there is made into a video.
"""

from __future__ import annotations

from media_pipeline.encode.probe import MediaInfo
from video.engine.claims import Claim
from video.engine.outcomes import Advance, Fail, Outcome, Park, TryAgain
from video.models import Generation, Stage, TaskEvent, VideoTask

#: Shares of the ordered seconds below which a video is called short, and far too short.
SHORT, MUCH_TOO_SHORT = 0.9, 0.5
#: For so long a second fetch may wait for its host: the first file can be delivered already.
SECOND_FETCH_S = 120.0


def was_fetched_again(task: VideoTask) -> bool:
    """Whether the file of the task's last attempt was doubted before, and fetched a second time; or can't be fetched,
    since the task is a render.
    """
    if task.render_of_id is not None:
        return True
    return bool(task.fetched_again_of) and task.fetched_again_of == _last_attempt(task)


def fetch_again(task: VideoTask, why: str) -> Advance:
    """Back to the download, once for each attempt at a provider. The first file is kept until there is another."""
    return Advance(
        Stage.DOWNLOAD,
        detail=f"{why}; fetching the file again",
        fields={"fetched_again_of": _last_attempt(task), "warnings": []},
    )


def instead(claim: Claim, outcome: Outcome) -> Advance | None:
    """For a second fetch that fails, or waits for its host too long: what the first one brought is made into a video.

    None for every other outcome, and where the first file is gone.
    """
    task = claim.task
    if claim.stage is not Stage.DOWNLOAD or not task.source_key or not task.fetched_again_of:
        return None
    match outcome:
        case Fail():
            is_over = True
        # Not a stop of this worker, nor trouble of this installation.
        case Park(code=code) if code:
            is_over = _waited_s(claim) > SECOND_FETCH_S
        case TryAgain(counts=True):
            is_over = _waited_s(claim) > SECOND_FETCH_S
        case _:
            is_over = False
    if not is_over or not was_fetched_again(task):
        return None
    return Advance(Stage.TRANSCODE, detail="the file could not be fetched again; the first one is used")


def _waited_s(claim: Claim) -> float:
    """Seconds since the file was doubted."""
    doubted = TaskEvent.objects.filter(task=claim.task, stage=Stage.TRANSCODE).order_by("-id").first()
    return (claim.claimed_at - doubted.finished_at).total_seconds() if doubted is not None else 0.0


def how_short(info: MediaInfo, ordered_s: float) -> str:
    """That a video is shorter than ordered, in words; empty if it is long enough."""
    if info.duration_s >= SHORT * ordered_s:
        return ""
    return f"the file has {info.duration_s:.1f} s of the ordered {ordered_s:g} s"


def length_warnings(info: MediaInfo, ordered_s: float) -> list[str]:
    """Codes of `media_pipeline.warnings` for a video that is shorter than ordered."""
    found = ["shorter_than_ordered"] if info.duration_s < SHORT * ordered_s else []
    return found + (["much_shorter_than_ordered"] if info.duration_s < MUCH_TOO_SHORT * ordered_s else [])


def _last_attempt(task: VideoTask) -> str:
    found = Generation.objects.filter(task=task).order_by("-attempt").values_list("pk", flat=True).first()
    return str(found or "")
