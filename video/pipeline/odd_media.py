"""What becomes of a task whose file is odd: fetched once more, delivered with a warning, and only then failed.

A finished job is paid for. So a file that is damaged, cut off or shorter than ordered is fetched a second time, in case
that came of the way; then what is there is made into a video.
"""

from __future__ import annotations

from media_pipeline.encode.probe import MediaInfo
from video.engine.claims import Claim
from video.engine.outcomes import Advance
from video.models import Generation, Stage, VideoTask

#: Shares of the ordered seconds below which a video is called short, and far too short.
SHORT, MUCH_TOO_SHORT = 0.9, 0.5


def was_fetched_again(task: VideoTask) -> bool:
    """Whether the file of the task's last attempt was doubted before, and fetched a second time."""
    return bool(task.fetched_again_of) and task.fetched_again_of == _last_attempt(task)


def fetch_again(task: VideoTask, why: str) -> Advance:
    """Back to the download, once for each attempt at a provider. The first file is kept until there is another."""
    return Advance(
        Stage.DOWNLOAD,
        detail=f"{why}; fetching the file again",
        fields={"fetched_again_of": _last_attempt(task), "warnings": []},
    )


def instead_of_failing(claim: Claim) -> Advance | None:
    """For a second fetch that failed: what the first one brought is made into a video."""
    task = claim.task
    if claim.stage is not Stage.DOWNLOAD or not task.source_key or not was_fetched_again(task):
        return None
    return Advance(Stage.TRANSCODE, detail="the file could not be fetched again; the first one is used")


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
