"""manage.py failure_texts: the list, and decisions from the command line."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from providers.contract import JobState, JobStatus
from providers.errors import JobFailed
from tests.factories import accepted, make_task
from video.attempts import observe
from video.audit.actors import of_command
from video.models import FailureText

pytestmark = pytest.mark.django_db


def seen(signature: str) -> FailureText:
    """A text with which a job ended."""
    error = JobFailed(f"Said {signature}", another_model_could=True, is_known=False, signature=signature)
    observe.note(accepted(make_task(), f"job {signature}"), JobStatus(JobState.FAILED, "FAILED", error=error))
    return FailureText.objects.get(signature=signature)


def run(*args: str) -> tuple[str, int]:
    """What it prints, and its exit code."""
    out = StringIO()
    try:
        call_command("failure_texts", *args, stdout=out)
    except SystemExit as err:
        return out.getvalue(), int(str(err.code))
    return out.getvalue(), 0


def test_nothing_to_decide_is_told_with_0() -> None:
    assert run() == ("Nothing waits for a decision.\n", 0)
    assert json.loads(run("--json")[0]) == {"undecided": 0, "texts": []}


def test_the_list_names_each_text_with_its_task_and_ends_with_1() -> None:
    row = seen("odd")
    text, code = run()
    assert code == 1
    for part in (str(row.pk), "runway gen4.5", "Said odd", row.last_task, "undecided", "1 text to be decided."):
        assert part in text, part
    assert "failure_texts decide ID moderation|bad_request|another_model|failed" in text


def test_json_has_every_fact() -> None:
    row = seen("odd")
    text, code = run("--json")
    assert code == 1
    (found,) = json.loads(text)["texts"]
    assert found["id"] == row.pk
    assert found["provider"] == "runway"
    assert (found["signature"], found["sample"], found["count"]) == ("odd", "Said odd", 1)
    assert (found["model"], found["lastTask"]) == ("gen4.5", row.last_task)
    assert found["firstSeen"].endswith("Z")
    assert (found["meaning"], found["decidedBy"], found["decidedAt"]) == (None, None, None)


def test_decide_says_it_and_the_list_is_empty_but_for_all() -> None:
    row = seen("odd")
    text, code = run("decide", str(row.pk), "another_model", "--by", "olga")
    assert (text, code) == ("runway: odd: this model failed; another may try. Tasks do so from now on.\n", 0)
    row.refresh_from_db()
    assert (row.meaning, row.decided_by) == ("another_model", "olga")
    assert run()[1] == 0
    assert "by olga" in run("--all")[0]
    assert run("decide", str(row.pk), "undecided")[1] == 0
    row.refresh_from_db()
    assert (row.meaning, row.decided_by) == ("", "")


def test_who_decides_is_who_runs_the_command_unless_said() -> None:
    row = seen("odd")
    run("decide", str(row.pk), "failed")
    row.refresh_from_db()
    assert row.decided_by == of_command().name


def test_forget_drops_texts() -> None:
    rows = [seen("a"), seen("b")]
    assert run("forget", *(str(row.pk) for row in rows)) == ("Forgotten: runway: a\nForgotten: runway: b\n", 0)
    assert not FailureText.objects.exists()


@pytest.mark.parametrize("args", [("decide", "999", "failed"), ("forget", "999")])
def test_a_text_that_is_not_there_is_named(args: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="There is no failure text 999") as caught:
        run(*args)
    assert caught.value.returncode == 2


@pytest.mark.parametrize("args", [("decide", "1"), ("decide", "1", "fine"), ("decide", "x", "failed"), ("forget",)])
def test_wrong_usage_is_refused(args: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run(*args)
