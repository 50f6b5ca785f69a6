"""Warnings of a task: a closed list, merged over stages, shown wherever the task is shown, counted by code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.test import Client

from media_pipeline import warnings
from media_pipeline.warnings import KINDS, as_rows
from tests.factories import accepted, claimed, make_task, make_user, reload
from tests.video.conftest import client_of
from video.actions.retry import retry
from video.attempts import records, task_moves
from video.audit.actors import Unaudited
from video.engine import transitions
from video.models import Generation, Stage, VideoTask
from video.monitoring import delivered, overview

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[3]


def test_a_step_keeps_what_earlier_ones_found_and_drops_the_rest() -> None:
    found = warnings.after("transcode", [], ["damaged", "sound_cut", "damaged"])
    assert [one["code"] for one in found] == ["damaged", "sound_cut"]
    both = warnings.after("thumbnail", found, ["cover_is_black"])
    assert [one["code"] for one in both] == ["damaged", "sound_cut", "cover_is_black"]
    assert warnings.after("thumbnail", both, []) == found
    assert warnings.after("transcode", both, ["truncated"]) == as_rows(["truncated"])
    with pytest.raises(KeyError):
        as_rows(["made_up"])


def test_the_page_has_every_code_with_its_stage() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \|", (ROOT / "docs" / "media.md").read_text(), re.MULTILINE)
    assert dict(rows) == {kind.code: kind.step for kind in KINDS.values()}
    assert all(kind.message.endswith(".") for kind in KINDS.values())


@pytest.mark.parametrize("value", ["{}", '"damaged"', "null", "3"])
def test_the_column_holds_a_list_and_nothing_else(value: str) -> None:
    task = make_task()
    with pytest.raises(IntegrityError, match="task_warnings_is_array"), connection.cursor() as cursor:
        cursor.execute("UPDATE video_videotask SET warnings = %s::jsonb WHERE id = %s", [value, task.pk])


def done_with(*codes: str, user: Any = None) -> VideoTask:
    """A finished task whose transcode found these."""
    task = make_task(user or make_user())
    generation = accepted(task, job_id=task.pk)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)
    assert transitions.advance(claimed(task, Stage.DOWNLOAD), Stage.TRANSCODE, source_key="work/s.mp4")
    assert transitions.advance(claimed(task, Stage.TRANSCODE), Stage.THUMBNAIL, warnings=as_rows(codes))
    assert transitions.advance(claimed(task, Stage.THUMBNAIL), Stage.SAVE)
    claim = claimed(task, Stage.SAVE)
    assert claim.task.warnings == as_rows(codes)
    made = {"video_id": f"vid_{task.pk}", "output_key": "v.mp4", "thumbnail_key": "t.jpg"}
    assert transitions.succeed(claim, generation_id=generation.pk, **made)
    return reload(task)


def test_clients_see_them() -> None:
    user = make_user()
    odd, plain = done_with("damaged", "sound_cut", user=user), done_with(user=user)
    api = client_of(user)
    expected = as_rows(["damaged", "sound_cut"])
    assert api.get("/api/video/status", {"taskId": odd.pk}).json()["data"]["warnings"] == expected
    assert "warnings" not in api.get("/api/video/status", {"taskId": plain.pk}).json()["data"]
    listed = api.get("/api/video/tasks").json()["data"]["tasks"]
    assert {one["taskId"]: one.get("warnings") for one in listed} == {odd.pk: expected, plain.pk: None}
    assert api.get(f"/api/queues/tasks/{odd.pk}").json()["data"]["warnings"] == expected
    assert api.get(f"/api/queues/tasks/{plain.pk}").json()["data"]["warnings"] == []


def test_operators_see_and_count_them() -> None:
    odd = done_with("much_shorter_than_ordered", "truncated")
    other = done_with("truncated")
    plain = done_with()
    assert delivered.warnings_by_code() == {"truncated": 2, "much_shorter_than_ordered": 1}
    found = overview.read()
    assert found.warnings == delivered.warnings_by_code()
    (problem,) = (one for one in found.problems if one.code == "much_too_short")
    assert "1 video of the last day has less than half" in problem.sentence
    assert not problem.needs_person
    client = Client()
    client.force_login(make_user(is_staff=True, is_superuser=True))
    page = client.get("/admin/queues/").content.decode()
    assert "much_shorter_than_ordered" in page
    assert "?warning=truncated" in page
    for code, shown in (("truncated", {odd, other}), ("much_shorter_than_ordered", {odd}), ("damaged", set())):
        listed = client.get("/admin/video/videotask/", {"warning": code}).context["cl"].result_list
        assert {task.pk for task in listed} == {task.pk for task in shown}
    with_one, without = (
        client.get(f"/admin/video/videotask/{task.pk}/change/").content.decode() for task in (odd, plain)
    )
    assert "ends too early, also after it was fetched again" in with_one
    assert "<code>truncated" not in without


def test_a_new_attempt_begins_without_any() -> None:
    task = make_task()
    generation = accepted(task, job_id=task.pk)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert transitions.advance(claimed(task, Stage.POLL), Stage.DOWNLOAD)
    assert transitions.advance(claimed(task, Stage.DOWNLOAD), Stage.TRANSCODE, source_key="work/s.mp4")
    assert transitions.advance(claimed(task, Stage.TRANSCODE), Stage.THUMBNAIL, warnings=as_rows(["damaged"]))
    assert task_moves.fail(claimed(task, Stage.THUMBNAIL), code="not_a_video", message="No.")
    retry(task.pk, by=Unaudited("somebody"))
    assert reload(task).warnings == as_rows(["damaged"])
    assert transitions.advance(claimed(task, Stage.TRANSCODE), Stage.DOWNLOAD, warnings=[])
    assert reload(task).warnings == []
    VideoTask.objects.filter(pk=task.pk).update(warnings=as_rows(["damaged"]))
    assert task_moves.fail(claimed(task, Stage.DOWNLOAD), code="not_a_video", message="No.")
    retry(task.pk, by=Unaudited("somebody"), regenerate=True)
    assert reload(task).warnings == []
