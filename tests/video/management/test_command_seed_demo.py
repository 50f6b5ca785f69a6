"""manage.py seed_demo: a past that adds up, once, and never beside real providers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from media_pipeline.storage import object_keys
from tests.video.presence import everybody
from video.credits import audit
from video.infra.toolkit import toolkit
from video.management.demo_data import history, live, stories
from video.management.demo_data.rows import MARK, Media
from video.models import (
    Circuit,
    CreditEntry,
    FailureText,
    Generation,
    ProviderAccount,
    Status,
    TaskEvent,
    VideoTask,
    WebhookTry,
)
from video.scheduling import admission

pytestmark = pytest.mark.django_db


def seed(*args: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("seed_demo", "--json", *args, stdout=out)
    return dict(json.loads(out.getvalue()))


def test_the_past_adds_up_and_every_task_of_it_is_over() -> None:
    found = seed("--fast", "--tasks", "160")
    made = VideoTask.objects.filter(idempotency_key__startswith=MARK)
    assert found["added"] == made.count() == 161
    assert audit.find() == []
    assert {status for (status,) in made.values_list("status").distinct()} == {"success", "failed", "cancelled"}
    assert not made.filter(finished_at__gt=timezone.now()).exists()
    assert not TaskEvent.objects.filter(finished_at__gt=timezone.now()).exists()
    codes = set(made.filter(status=Status.FAILED).values_list("error_code", flat=True))
    assert {"moderation", "outcome_unknown"} <= codes
    assert len(codes) > 4
    assert CreditEntry.objects.filter(kind="refund").count() >= made.filter(status=Status.FAILED).count()
    spread = made.dates("created_at", "day")
    assert len(spread) > 20
    assert made.exclude(warnings=[]).exists()
    assert made.filter(run__gt=1).exists()
    assert Generation.objects.filter(attempt=2).exists()
    assert len(set(Generation.objects.values_list("provider", "key_fingerprint"))) == 6
    assert Generation.objects.filter(reported_cost__gt=0).exists()


def test_what_stands_beside_the_tasks() -> None:
    seed("--fast", "--tasks", "40")
    assert Generation.objects.get(state=Generation.State.UNKNOWN).task.status == Status.FAILED  # the open case
    circuit = Circuit.objects.get(faults__gte=5)
    assert circuit.open_until
    assert circuit.open_until > timezone.now()
    assert ProviderAccount.objects.filter(closed_reason="model_forbidden").exists()
    assert set(WebhookTry.objects.values_list("outcome", flat=True)) == {"delivered", "refused", "timeout"}
    assert FailureText.objects.get().meaning == ""


def test_a_second_run_adds_nothing() -> None:
    first = seed("--fast", "--tasks", "30", "--operator")
    counts = [model.objects.count() for model in (VideoTask, TaskEvent, CreditEntry, WebhookTry)]
    again = seed("--fast", "--tasks", "99", "--operator")
    assert (again["added"], again["tasks"]) == (0, first["tasks"])
    assert counts == [model.objects.count() for model in (VideoTask, TaskEvent, CreditEntry, WebhookTry)]
    assert FailureText.objects.get().count == 1
    assert "password" not in again
    operator = authenticate(username="demo-operator", password=first["password"])
    assert operator is not None
    assert operator.has_perm("video.change_videotask")
    assert not operator.has_perm("auth.change_user")
    assert not operator.is_superuser


def test_equal_seeds_draw_the_same_past() -> None:
    assert stories.draw(60, 7) == stories.draw(60, 7) != stories.draw(60, 8)


def test_no_made_up_user_can_log_in() -> None:
    seed("--fast", "--tasks", "5")
    names = [person.name for person in stories.PEOPLE]
    users = get_user_model().objects.filter(username__in=names)
    assert len(users) == len(names)
    assert not any(user.has_usable_password() for user in users)


def test_without_simulation_nothing_is_made(settings: Any) -> None:
    settings.SIMULATE = False
    with pytest.raises(CommandError, match=r"REELWORKS_SIMULATE=1\. Nothing was made"):
        call_command("seed_demo")
    assert not get_user_model().objects.exists()


def test_the_newest_successes_have_the_files_of_real_videos(tmp_path: Path) -> None:
    """With the simulator's words in the picture, so the tasks ask for these."""
    storage, keys = toolkit().storage, (object_keys.video_key(1, "vid_a"), object_keys.thumbnail_key(1, "vid_a"))
    for key in keys:
        (tmp_path / "file").write_bytes(b"0123456789")
        storage.put_file(tmp_path / "file", key)
    media = Media("A kite above dunes", *keys, {"video_bytes": 10, "thumbnail_bytes": 10})
    history.write(60, 1, [media], lambda line: None)
    kept = VideoTask.objects.filter(status=Status.SUCCESS, gone_why="")
    assert kept
    assert {task.prompt for task in kept} == {media.prompt}
    for task in kept:
        assert storage.size_bytes(task.output_key) == storage.size_bytes(task.thumbnail_key) == 10
    gone = VideoTask.objects.filter(status=Status.SUCCESS).exclude(gone_why="")
    assert gone
    assert {task.output_key for task in gone} == {""}


def test_jobs_of_now_are_made_once_and_by_what_the_simulator_knows() -> None:
    everybody()
    history.write(5, 1, [], lambda line: None)
    made = live.jobs()
    assert live.jobs() == made
    assert len(made) == len(live.JOBS)
    assert VideoTask.objects.filter(pk__in=made, status=Status.CANCELLED).count() == 1
    assert len(admission.admit()) >= 5
    assert audit.find() == []
