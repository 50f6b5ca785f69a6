"""manage.py reconcile, over HTTP against the simulator."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import ManagementUtility, call_command
from django.core.management.base import CommandError

from providers.api_keys import ApiKey
from tests.factories import admitted, age, claimed, make_task, reload
from tests.system.system import Simulator
from video.attempts import configured_keys, provider_calls, records, task_moves
from video.engine import transitions
from video.engine.claims import Claim
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, Status, TaskEvent, VideoTask

pytestmark = pytest.mark.django_db
SECRETS = ["key_reconcile_runway_0001", "fal-reconcile-0001:abcdef", "kling-reconcile-0001"]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    found = Simulator(tmp_path_factory.mktemp("simulator"), "--render-seconds", "0", "--canned", "--fps", "30")
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def _wired(settings: Any, simulator: Simulator) -> Iterator[None]:
    settings.PROVIDER_BASE_URLS = dict.fromkeys(settings.PROVIDER_BASE_URLS, simulator.url)
    names = ("runway", "pika", "kling")
    settings.PROVIDER_KEYS = {name: (ApiKey(value),) for name, value in zip(names, SECRETS, strict=True)}
    settings.KEY_ACCOUNTS = {}
    settings.READ_TIMEOUT_SECONDS = 5
    toolkit.cache_clear()
    configured_keys.sync()
    yield
    toolkit.cache_clear()


def run(*args: str) -> tuple[int, str]:
    """Exit code, and everything that was printed."""
    out = io.StringIO()
    code = 0
    try:
        call_command("reconcile", *args, stdout=out, stderr=out)
    except SystemExit as err:
        code = int(err.code or 0)
    except CommandError as err:
        code = err.returncode
        out.write(str(err))
    assert not any(secret in out.getvalue() for secret in SECRETS)
    return code, out.getvalue()


def as_json(*args: str) -> tuple[int, dict[str, Any]]:
    code, said = run(*args, "--json")
    return code, json.loads(said)


def started(script: str = "", **more: Any) -> tuple[VideoTask, Generation, Claim]:
    """A task whose job was made at the simulator; nothing of the answer is written down yet."""
    task = make_task(prompt=f"A cat [[sim {script}]]" if script else "A cat", **more)
    generation = admitted(task)
    claim = claimed(task)
    assert records.mark_sent(claim, generation)
    return task, generation, claim


def overdue(script: str = "") -> tuple[VideoTask, Generation]:
    """A job that outlived its task: not due for a look before an hour is over."""
    task, generation, claim = started(script)
    submitted = provider_calls.Submission(task, generation).send()
    assert records.record_accepted(generation.pk, submitted)
    assert task_moves.fail(claim, code="timeout", message="Too long.", generation_id=generation.pk)
    return task, generation


def unknown(model: str = "gen4.5") -> tuple[VideoTask, Generation]:
    """A job was made, its answer was lost, and the task has ended."""
    task, generation, claim = started(model_requested=model)
    provider_calls.Submission(task, generation).send()
    records.record_unknown(generation.pk)
    assert task_moves.fail(claim, code="outcome_unknown", message="Nobody knows.", generation_id=generation.pk)
    return task, generation


def test_nothing_open() -> None:
    assert run() == (0, "Nothing is open.\n")
    assert as_json()[1]["cases"] == []


def test_a_pass_gives_up_what_is_past_its_time_and_says_so() -> None:
    task, generation = unknown()
    code, said = run()
    assert code == 1
    assert "its task has ended; keeps its slot, then is lost" in said
    age(task.pk, 3600)
    code, said = run()
    assert code == 0
    assert "unknown → lost" in said
    assert "Nothing is open." in said
    assert Generation.objects.get(pk=generation.pk).state == "lost"


def test_a_pass_leaves_what_is_not_due() -> None:
    _, generation = overdue()
    code, said = as_json()
    assert code == 1
    assert [case["state"] for case in said["cases"]] == ["accepted"]
    assert Generation.objects.get(pk=generation.pk).polls == 0


def test_a_chosen_one_is_looked_at_at_once_and_its_late_video_delivered() -> None:
    (task, generation), (_, other) = overdue(), overdue()
    code, said = as_json(generation.pk)
    assert code == 0
    (case,) = said["cases"]
    assert (case["id"], case["stateBefore"], case["state"], case["done"]) == (
        generation.pk, "accepted", "succeeded", "looked at",
    )  # fmt: skip
    assert (reload(task).status, reload(task).stage) == (Status.RUNNING, Stage.DOWNLOAD)
    assert Generation.objects.get(pk=other.pk).polls == 0


def test_a_job_that_still_runs_stays_open() -> None:
    _, generation = overdue("render=600")
    code, said = as_json(generation.pk)
    assert (code, said["open"], said["cases"][0]["open"]) == (1, 1, True)
    assert Generation.objects.get(pk=generation.pk).polls == 1


def test_a_job_of_kling_is_found_by_our_reference() -> None:
    task, generation = unknown("kling-2.5-turbo")
    code, said = as_json("--provider", "kling")
    assert code == 0
    assert said["cases"][0]["done"] == "found by our reference; looked at"
    assert said["cases"][0]["state"] == "succeeded"
    assert Generation.objects.get(pk=generation.pk).job_id
    assert reload(task).stage == Stage.DOWNLOAD


def test_filters_choose() -> None:
    (old, first), (_, second) = overdue("render=600"), overdue("render=600")
    age(old.pk, 7200)
    Generation.objects.filter(pk=first.pk).update(look_at=None)
    assert [case["id"] for case in as_json("--older-than", "1h")[1]["cases"]] == [first.pk]
    assert Generation.objects.get(pk=second.pk).polls == 0
    code, said = as_json("--older-than", "3h")
    assert (code, said["cases"]) == (0, [])


def test_a_dry_run_changes_and_asks_nothing() -> None:
    task, generation = unknown()
    _, open_job = overdue()
    age(task.pk, 3600)
    events = TaskEvent.objects.count()
    code, said = as_json("--dry-run")
    assert (code, said["open"], said["dryRun"]) == (1, 2, True)
    assert {case["done"] for case in said["cases"]} == {None}
    assert Generation.objects.get(pk=generation.pk).state == "unknown"
    assert Generation.objects.get(pk=open_job.pk).polls == 0
    assert TaskEvent.objects.count() == events


def test_shows_the_money_and_whose_it_is() -> None:
    task, generation = unknown()
    Generation.objects.filter(pk=generation.pk).update(simulated=False)
    expected = Generation.objects.get(pk=generation.pk).expected_usd
    assert expected is not None
    code, said = run("--dry-run")
    assert code == 1
    for part in (generation.pk, task.pk, task.user.get_username(), "runway gen4.5", generation.key_fingerprint):
        assert part in said
    assert f"1 open: {expected.normalize():f} USD at stake." in said


def test_a_job_that_a_running_task_follows_is_left_to_it() -> None:
    task, generation, claim = started()
    assert records.record_accepted(generation.pk, provider_calls.Submission(task, generation).send())
    assert transitions.advance(claim, Stage.POLL)
    code, said = as_json(generation.pk)
    assert (code, said["cases"][0]["done"]) == (0, "left to its task")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["gen_nothing"], "There is no attempt gen_nothing."),
        (["gen_nothing", "--provider", "runway"], "not both"),
        (["--older-than", "soon"], "is no length of time"),
        (["--provider", "sora"], "invalid choice"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_ends_with_2(args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ManagementUtility(["manage.py", "reconcile", *args]).execute()
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
