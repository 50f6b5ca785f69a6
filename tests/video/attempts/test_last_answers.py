"""What is kept of a provider's answer that was not routine, and what is not."""

from __future__ import annotations

import json

import pytest

from providers.contract import HttpReply, JobState, JobStatus
from providers.errors import Busy, JobFailed, RequestRejected
from tests.factories import accepted, admitted, claimed, make_task
from video.attempts import deleted_tasks, last_answers, observe
from video.models import Generation, VideoTask
from video.pipeline import provider_stages

PROMPT = 'A "red" fox\ncrosses the snowy road and looks back'
KEY = "access-key-1234:secret-key-5678"


def of(body: object, **more: object) -> str:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return last_answers.of(HttpReply(400, {}, raw), **{"key": KEY, "written": [PROMPT], **more})  # type: ignore[arg-type]


def test_says_the_status_and_the_body() -> None:
    assert of({"code": 1301, "message": "no"}) == 'HTTP 400: {"code": 1301, "message": "no"}'
    assert of("<html>502 Bad Gateway</html>") == "HTTP 400: <html>502 Bad Gateway</html>"
    assert of("") == "HTTP 400"


@pytest.mark.parametrize(
    "body",
    [
        {"error": f"the prompt '{PROMPT}' is refused"},
        {"input": {"prompt": PROMPT.upper()}},
        f"Refused: {PROMPT}",
        {"message": "bad key access-key-1234", "sent": f"Bearer {KEY}"},
        {"video": {"url": "https://cdn.example/v/abc.mp4?X-Amz-Signature=f00f00"}},
        "see https://cdn.example/signed/f00f00/abc.mp4 for it",
        {"access_token": "f00f00", "Authorization": {"f00f00": 1}},
        {"jwt": "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJmMDAifQ.f00f00"},
    ],
)
def test_never_keeps_keys_signatures_and_the_prompt(body: object) -> None:
    kept = of(body)
    for secret in ("snowy road", "SNOWY ROAD", "access-key-1234", "secret-key-5678", "f00f00", "abc.mp4"):
        assert secret not in kept
    assert kept.startswith("HTTP 400: ")


def test_is_bounded_and_survives_anything() -> None:
    assert len(of("x " * 100_000)) <= last_answers.LONGEST
    assert len(of({str(n): "y" * 500 for n in range(500)})) <= last_answers.LONGEST
    assert of("[" * 100_000).startswith("HTTP 400: [")
    assert "\x00" not in of("a\x00b\x1b[31m")


def test_of_an_answer_about_several_jobs_keeps_the_part_of_one() -> None:
    body = {"data": [{"task_id": "1", "prompt": "another's"}, {"task_id": "2", "status": "failed", "msg": "sorry"}]}
    assert of(body, job_id="2", alone=False) == 'HTTP 400: {"task_id": "2", "status": "failed", "msg": "sorry"}'
    assert of(body, job_id="3", alone=False) == "HTTP 400"
    assert of("boom: another's prompt", job_id="2", alone=False) == "HTTP 400"


@pytest.mark.django_db
class TestKept:
    def test_with_a_job_that_ended_badly(self) -> None:
        generation = accepted(make_task())
        error = JobFailed("INTERNAL", another_model_could=True)
        observe.note(generation, JobStatus(JobState.FAILED, "failed", error=error, answer="HTTP 200: {…}"))
        generation.refresh_from_db()
        assert generation.last_answer == "HTTP 200: {…}"
        assert generation.last_answer_at is not None

    def test_with_a_submit_that_was_refused(self) -> None:
        task = make_task()
        generation = admitted(task)
        refused = RequestRejected("no")
        refused.answer = "HTTP 400: no"
        provider_stages._answered(claimed(task), generation, refused, again=False)
        assert Generation.objects.get(pk=generation.pk).last_answer == "HTTP 400: no"

    def test_with_polls_that_failed_until_another_is(self) -> None:
        generation = accepted(make_task())
        for text in ("HTTP 429: slow down", "HTTP 429: slower"):
            busy = Busy("busy")
            busy.answer = text
            observe.note_failed([generation], {generation.pk: busy})
        observe.note(generation, JobStatus(JobState.RUNNING, "running"))  # routine
        assert Generation.objects.get(pk=generation.pk).last_answer == "HTTP 429: slower"

    def test_nothing_of_a_task_that_its_owner_deletes(self) -> None:
        generation = accepted(make_task())
        last_answers.keep({generation.pk: "HTTP 400: before"})
        deleted_tasks.forget_texts(generation.task_id)
        assert Generation.objects.get(pk=generation.pk).last_answer == ""
        VideoTask.objects.filter(pk=generation.task_id).update(
            status="cancelled", next_run_at=None, lease_until=None, finished_at=generation.planned_at,
            gone_at=generation.planned_at, gone_why="deleted", prompt="",
        )  # fmt: skip
        last_answers.keep({generation.pk: "HTTP 400: after"})
        assert Generation.objects.get(pk=generation.pk).last_answer == ""

    def test_routine_costs_no_statement(self, django_assert_num_queries: object) -> None:
        with django_assert_num_queries(0):  # type: ignore[operator]
            last_answers.keep({"gen_x": ""})
