"""manage.py pause, resume and why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import CommandError, call_command

from tests.factories import accepted, make_task
from video.models import AuditRecord, Pause
from video.scheduling import admission

pytestmark = pytest.mark.django_db


def run(capsys: Any, *words: str) -> str:
    call_command(*words)
    return str(capsys.readouterr().out)


def test_pause_list_and_resume(capsys: Any, user: AbstractBaseUser) -> None:
    admission.admit()
    assert "Nothing is paused." in run(capsys, "pause")
    assert "Everything is paused since" in run(capsys, "pause", "--everything", "--reason", "fire", "--for", "2h")
    assert "It was paused already" in run(capsys, "pause", "--everything", "--until", "2999-01-01T00:00")
    made = json.loads(run(capsys, "pause", "--user", user.get_username(), "--json"))
    assert (made["kind"], made["subject"]) == ("user", user.get_username())
    assert len(run(capsys, "pause").splitlines()) == 2
    assert len(json.loads(run(capsys, "pause", "--json"))["pauses"]) == 2
    assert "Resumed: everything." in run(capsys, "resume", "--everything")
    assert json.loads(run(capsys, "resume", "--id", str(made["id"]), "--json"))["endedAt"]
    with pytest.raises(CommandError, match=r"This is not paused\."):
        call_command("resume", "--everything")
    assert set(AuditRecord.objects.values_list("via", flat=True)) == {"command"}


@pytest.mark.parametrize(
    "words",
    [
        ("pause", "--model", "acme"),
        ("pause", "--everything", "--model", "gen4.5"),
        ("pause", "--account", "studio"),
        ("pause", "--everything", "--until", "soon"),
        ("pause", "--everything", "--until", "2020-01-01"),
        ("pause", "--everything", "--for", "1s"),
        ("resume",),
        ("resume", "--id", "1", "--everything"),
        ("resume", "--id", "99"),
        ("why", "task_nobody"),
    ],
)
def test_wrong_words_change_nothing(words: tuple[str, ...]) -> None:
    with pytest.raises((CommandError, SystemExit)):
        call_command(*words)
    assert not Pause.objects.exists()


def test_why_tells_place_wait_and_each_account(capsys: Any, user: AbstractBaseUser) -> None:
    task = make_task(user)
    call_command("pause", "--provider", "runway", "--reason", "the bill", "--for", "1h")
    text = run(capsys, "why", task.pk)
    assert f"{task.pk} waits for gen4.5: paused by the operators" in text
    assert "Place in the line: 1. Expected wait: no slot can be foreseen now." in text
    assert "the bill" in text
    found = json.loads(run(capsys, "why", task.pk, "--json"))
    assert (found["position"], found["waitsForCode"], found["isSlow"]) == (1, "paused", False)
    assert {one["reasonCode"] for one in found["accounts"]} == {"paused"}


def test_why_of_a_task_that_waits_for_no_slot(capsys: Any, user: AbstractBaseUser) -> None:
    task = make_task(user)
    accepted(task)
    assert "waits for no slot" in run(capsys, "why", task.pk)
