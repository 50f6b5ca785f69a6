"""What follows a stage, as a table: stage, outcome, and whether the move was written."""

from __future__ import annotations

import pytest

from media_pipeline.errors import StorageDown
from video.engine.outcomes import Advance, Dropped, Fail, Outcome, Park, Succeed, TryAgain, WaitForSlot
from video.models import Stage
from video.pipeline import media_stages, wakes
from video.pipeline.wakes import (
    ContinueChain,
    DropResult,
    DropWorkFiles,
    GrantCores,
    RequestAdmission,
    RequestCheck,
    Resume,
    Wake,
)
from video.scheduling import transcode_slots

T, G = "task_1", "gen_1"
ON, ADMIT = ContinueChain(), RequestAdmission()
FAIL, PARK, AGAIN, WAIT, DONE, DROPPED = (
    Fail("x", "X."),
    Park(5, "later"),
    TryAgain("x", "X.", "x"),
    WaitForSlot("again"),
    Succeed({"output_key": "a"}),
    Dropped(),
)
GENERATE, POLL, DOWNLOAD, TRANSCODE, THUMBNAIL, SAVE = (stage for stage in Stage if stage is not Stage.DONE)

HELD: list[tuple[Stage, Outcome, list[Wake]]] = [
    (GENERATE, Advance(POLL), [ON]),
    (GENERATE, Advance(POLL, delay_s=5), []),
    (GENERATE, PARK, []),
    (GENERATE, AGAIN, []),
    (GENERATE, WAIT, [ADMIT]),
    (GENERATE, FAIL, [ADMIT]),
    (POLL, Advance(DOWNLOAD), [ADMIT, ON]),  # the job ended: its slot is free
    (POLL, PARK, []),
    (POLL, AGAIN, [ADMIT]),
    (POLL, WAIT, [ADMIT]),
    (POLL, FAIL, [ADMIT]),
    (DOWNLOAD, Advance(TRANSCODE), [GrantCores(chained=T)]),
    (DOWNLOAD, PARK, []),
    (DOWNLOAD, AGAIN, []),
    (DOWNLOAD, FAIL, [ADMIT]),
    (TRANSCODE, Advance(THUMBNAIL), [ON]),  # on the core that it has
    (TRANSCODE, Advance(DOWNLOAD), [Resume(T, DOWNLOAD), GrantCores()]),
    (TRANSCODE, PARK, [GrantCores()]),
    (TRANSCODE, AGAIN, [GrantCores()]),
    (TRANSCODE, FAIL, [ADMIT, GrantCores()]),
    (THUMBNAIL, Advance(SAVE), [GrantCores(), ON]),
    (THUMBNAIL, Advance(TRANSCODE), [GrantCores()]),
    (THUMBNAIL, AGAIN, [GrantCores()]),
    (THUMBNAIL, FAIL, [ADMIT, GrantCores()]),
    (SAVE, Advance(TRANSCODE), [GrantCores()]),
    (SAVE, AGAIN, []),
    (SAVE, FAIL, [ADMIT]),
    (SAVE, DONE, [DropWorkFiles(T)]),
]
MADE = Advance(TRANSCODE, fields={"source_key": "a"})
LOST: list[tuple[Stage, Outcome, list[Wake]]] = [
    (GENERATE, Advance(POLL), [DropResult(Advance(POLL)), RequestCheck(G)]),
    (GENERATE, DROPPED, [DropResult(DROPPED), RequestCheck(G)]),
    (GENERATE, FAIL, [DropResult(FAIL), RequestCheck(G), ADMIT]),
    (POLL, Advance(DOWNLOAD), [DropResult(Advance(DOWNLOAD)), ADMIT]),
    (POLL, DROPPED, [DropResult(DROPPED), ADMIT]),
    (DOWNLOAD, MADE, [DropResult(MADE)]),
    (TRANSCODE, Advance(THUMBNAIL), [DropResult(Advance(THUMBNAIL)), GrantCores()]),
    (TRANSCODE, DROPPED, [DropResult(DROPPED), GrantCores()]),
    (THUMBNAIL, Advance(SAVE), [DropResult(Advance(SAVE)), GrantCores()]),
    (SAVE, DONE, [DropResult(DONE)]),
]


@pytest.mark.parametrize(("stage", "outcome", "expected"), HELD)
def test_what_follows_a_move_that_was_written(stage: Stage, outcome: Outcome, expected: list[Wake]) -> None:
    assert wakes.after(stage, outcome, task_id=T, held=True, generation_id=G) == expected


@pytest.mark.parametrize(("stage", "outcome", "expected"), LOST)
def test_what_follows_a_move_that_another_worker_or_a_cancel_forestalled(
    stage: Stage, outcome: Outcome, expected: list[Wake]
) -> None:
    assert wakes.after(stage, outcome, task_id=T, held=False, generation_id=G) == expected


@pytest.mark.parametrize(("stage", "outcome", "expected"), LOST)
def test_a_move_that_may_have_been_written_drops_no_file_and_stops_no_job(
    stage: Stage, outcome: Outcome, expected: list[Wake]
) -> None:
    found = wakes.after(stage, outcome, task_id=T, held=False, sure=False, generation_id=G)
    assert found == [wake for wake in expected if not isinstance(wake, DropResult | RequestCheck)]


def test_no_job_is_stopped_where_no_attempt_was_begun() -> None:
    assert wakes.after(GENERATE, DROPPED, task_id=T, held=False) == [DropResult(DROPPED)]


@pytest.mark.parametrize("granted", [[], [("task_2", TRANSCODE)], [(T, TRANSCODE), ("task_2", TRANSCODE)]])
def test_the_chain_goes_on_only_with_a_core_of_its_own(
    monkeypatch: pytest.MonkeyPatch, granted: list[tuple[str, Stage]]
) -> None:
    sent: list[tuple[str, Stage]] = []
    monkeypatch.setattr(transcode_slots, "grant", lambda *, one_waits: granted)
    monkeypatch.setattr(wakes.dispatch, "resume_all", sent.extend)
    assert wakes.send([GrantCores(chained=T)]) is ((T, TRANSCODE) in granted)
    assert sent == [one for one in granted if one[0] != T]


def test_files_that_the_storage_keeps_for_now_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(_: object) -> None:
        raise StorageDown("503")

    monkeypatch.setattr(media_stages, "drop_work_files", down)
    assert wakes.send([DropWorkFiles(T), ON])
