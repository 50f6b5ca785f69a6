"""One line a stage, with its task and attempt, and its figures; none for a poll that finds its job still rendering."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.factories import accepted, claimed, make_task
from video.engine.outcomes import Advance, Fail, Park
from video.infra import log_context, metrics
from video.models import Stage
from video.pipeline import watched

pytestmark = pytest.mark.django_db


def counted(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"reelworks_{name}", labels) or 0.0


def test_a_stage_is_a_line_a_figure_and_what_its_lines_are_about(caplog: pytest.LogCaptureFixture) -> None:
    generation = accepted(make_task(prompt="canary"), "job-1")
    claim = claimed(generation.task, Stage.POLL)
    model = {"provider": generation.provider, "model": generation.model, "outcome": "failed"}
    before = counted("attempts_ended_total", **model), counted("stage_seconds_count", stage="poll", outcome="failed")
    with caplog.at_level(logging.INFO), watched.stage(claim) as seen:
        assert log_context.present() == {"task": generation.task_id, "generation": generation.pk}
        seen.ended(Fail("timeout", "Too long."), ours=True)
    assert log_context.present() == {}
    (line,) = (one for one in caplog.records if one.name == "reelworks.stages")
    facts: dict[str, Any] = line.__dict__["facts"]
    assert (facts["task"], facts["generation"]) == (generation.task_id, generation.pk)
    assert (facts["stage"], facts["outcome"]) == ("poll", "failed")
    assert line.getMessage().startswith(f"{generation.task_id} poll: failed after 0.")
    assert counted("attempts_ended_total", **model) == before[0] + 1
    assert counted("stage_seconds_count", stage="poll", outcome="failed") == before[1] + 1


def test_a_job_that_still_renders_is_no_line_and_a_move_that_was_not_ours_no_attempt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    generation = accepted(make_task(), "job-2")
    claim = claimed(generation.task, Stage.POLL)
    before = counted("stage_seconds_count", stage="poll", outcome="parked")
    with caplog.at_level(logging.INFO):
        watched.Watched(claim).ended(Park(5, "renders"), ours=True)
        assert caplog.records == []
        watched.Watched(claim).ended(Advance(Stage.DOWNLOAD), ours=False)
    assert counted("stage_seconds_count", stage="poll", outcome="parked") == before + 1
    assert "poll: not_ours" in caplog.text
