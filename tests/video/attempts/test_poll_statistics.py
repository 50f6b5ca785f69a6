"""What is learnt of models and accounts from their rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from providers import catalogue
from tests.factories import accepted, admitted, claimed, make_task
from video.attempts import poll_statistics, provider_calls, records
from video.attempts.poll_policy import FEWEST
from video.models import Generation, VideoTask

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    poll_statistics._measured = None
    yield
    poll_statistics._measured = None


def job(number: int, model: str = "gen4.5") -> Generation:
    return accepted(make_task(model_requested=model), f"job-{number}")


def ended(number: int, seconds: float, model: str = "gen4.5", **changes: object) -> Generation:
    """A success that took that long."""
    generation = job(number, model)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_generation SET accepted_at = ended_at - %s * interval '1 second' WHERE id = %s",
            [seconds, generation.pk],
        )
    if changes:
        Generation.objects.filter(pk=generation.pk).update(**changes)
    return Generation.objects.get(pk=generation.pk)


def test_what_is_usual_is_learnt_per_model_and_real_jobs_teach_nothing_about_simulated_ones() -> None:
    for number in range(FEWEST):
        ended(number, 300)
        ended(100 + number, 50, "kling-2.6", simulated=False)
    usual = poll_statistics.policy_of(job(200)).usual
    assert usual is not None
    assert usual.middle_s == pytest.approx(300)
    assert poll_statistics.render_s("gen4.5") == pytest.approx(300)
    assert poll_statistics.policy_of(job(201, "kling-2.6")).usual is None
    assert poll_statistics.render_s("kling-2.6") == catalogue.BY_ID["kling-2.6"].typical_render_s


def test_the_catalogues_guess_is_for_real_providers_only(settings: Settings) -> None:
    generation = job(1)
    assert poll_statistics.policy_of(generation).prior_s is None
    settings.SIMULATE = False
    assert poll_statistics.policy_of(generation).prior_s == catalogue.BY_ID["gen4.5"].typical_render_s


def test_a_call_back_is_believed_in_only_while_most_that_were_asked_for_came() -> None:
    waiting = job(1, "pika-2.2")
    Generation.objects.filter(pk=waiting.pk).update(expects_call=True)
    waiting.refresh_from_db()
    assert not poll_statistics.policy_of(waiting).call_expected
    for number in range(2, 6):
        generation = ended(number, 60, "pika-2.2", expects_call=True)
        VideoTask.objects.filter(pk=generation.task_id).update(hinted_at=generation.ended_at)
    poll_statistics._measured = None
    assert poll_statistics.policy_of(waiting).call_expected
    assert not poll_statistics.policy_of(job(7, "pika-2.2")).call_expected  # was not asked to be called about
    for number in range(8, 11):
        ended(number, 60, "pika-2.2", expects_call=True)
    poll_statistics._measured = None
    assert not poll_statistics.policy_of(waiting).call_expected


def test_the_budget_is_shared_by_all_models_of_an_account(settings: Settings) -> None:
    settings.POLL_REQUESTS_PER_SECOND = {"runway": 0.5, "pika": 1, "kling": 0.5}
    clips = [job(1, "kling-2.6"), job(2, "kling-2.6"), job(3, "kling-2.5-turbo")]
    assert poll_statistics.policy_of(job(4)).share_s == 1 / 0.5
    assert [poll_statistics.policy_of(clip).share_s for clip in clips] == [
        3 / 20 / 0.5
    ] * 3  # 20 jobs a request, as Kling takes them


def test_all_that_is_known_costs_two_statements_in_half_a_minute() -> None:
    generation = job(1)
    with CaptureQueriesContext(connection) as captured:
        for _ in range(50):
            poll_statistics.next_look_s(generation, 30)
            poll_statistics.render_s("pika-2.2")
    assert len(captured) == 2


def test_a_submit_that_asks_to_be_called_back_is_marked(settings: Settings) -> None:

    settings.PUBLIC_BASE_URL = "https://videos.example.com"
    for model, expected in (("pika-2.2", True), ("gen4.5", False)):
        task = make_task(model_requested=model)
        generation = admitted(task)
        claim = claimed(task)
        submission = provider_calls.Submission(claim.task, generation)
        assert records.mark_sent(claim, generation, expects_call=submission.expects_call)
        assert Generation.objects.get(pk=generation.pk).expects_call is expected


def test_when_a_finished_video_dies_is_written_down() -> None:
    generation = job(1)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED, result_life_s=3600)
    generation.refresh_from_db()
    assert generation.result_dies_at is not None
    assert generation.ended_at is not None
    assert (generation.result_dies_at - generation.ended_at).total_seconds() == 3600
