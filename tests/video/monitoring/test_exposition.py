"""`/metrics`: Prometheus's own parser reads it; the tables and all processes are in it, and no word of others."""

from __future__ import annotations

import re
import threading

import pytest
from django.db import OperationalError
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries, Settings

from tests.factories import accepted, make_task, make_user
from tests.video.conftest import client_of
from video.engine import transitions
from video.infra import database, metrics
from video.models import ProcessFigures, Stage
from video.monitoring import exposition, process_figures
from video.web import access

pytestmark = pytest.mark.django_db
TOKEN = "a-token-of-a-scraper"


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "_kept", exposition._Told(float("-inf"), [], []))


def scraped() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """(sample, labels) → value."""
    answer = Client().get("/metrics")
    assert answer.status_code == 200, answer.content
    assert answer["Cache-Control"] == "no-store"
    assert answer["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def value(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    """The sum of the samples of this name that have these labels."""
    hits = [number for (one, its), number in found.items() if one == name and set(labels.items()) <= its]
    assert hits, f"{name} {labels}"
    return sum(hits)


def test_the_tables_are_told_in_a_bounded_number_of_statements(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    user = make_user()
    accepted(make_task(user), "job-1")
    make_task(user)
    with django_assert_num_queries(18):
        found = scraped()
    assert value(found, "reelworks_database_up") == 1
    assert value(found, "reelworks_tasks_waiting", resource="slot") == 1
    assert value(found, "reelworks_tasks", stage="poll") == 1
    assert value(found, "reelworks_problem", code="no_sweeper", needs_person="yes") == 1
    assert value(found, "reelworks_workers_alive", queue="videoQueue") == 0
    assert value(found, "reelworks_credits_balance") == 980
    with django_assert_num_queries(0):
        scraped()  # a few seconds old at most


def test_an_end_of_a_task_is_counted_once(django_capture_on_commit_callbacks: object) -> None:
    name = "reelworks_tasks_ended_total"
    task = make_task()
    scraped()
    before = metrics.TASKS_ENDED.labels("failed", "no_capacity")._value.get()
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        assert transitions.fail_waiting(task, code="no_capacity", message="None was free.")
        assert not transitions.fail_waiting(task, code="no_capacity", message="None was free.")
    assert value(scraped(), name, status="failed", error_code="no_capacity") == before + 1


def test_what_other_processes_have_measured_is_told_as_theirs() -> None:
    metrics.STAGES.labels(Stage.SAVE.value, "succeeded").observe(0.3)
    process_figures.write("worker", ["videoQueue"])
    ProcessFigures.objects.update(name="another:1")
    process_figures.write("sweeper")
    ProcessFigures.objects.filter(kind="sweeper").update(name="another:2", samples=b"of a later release")
    found = scraped()
    theirs = {"process": "another:1", "role": "videoQueue", "stage": "save"}
    assert value(found, "reelworks_stage_seconds_count", **theirs) >= 1
    assert value(found, "reelworks_process_cpu_seconds_total", process="another:1") > 0
    assert not any(("process", "another:2") in labels for _, labels in found)


def test_figures_of_processes_that_have_ended_go() -> None:
    process_figures.write("web")
    process_figures.write("web")  # the same row
    database.execute("UPDATE video_processfigures SET written_at = now() - interval '4 minutes', name = 'gone:1'")
    assert process_figures.of_others()[1] == []
    assert process_figures.sweep() == 0
    database.execute("UPDATE video_processfigures SET written_at = now() - interval '6 minutes'")
    assert process_figures.sweep() == 1


def test_an_outage_of_the_database_is_a_figure_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise OperationalError("away")

    monkeypatch.setattr(exposition, "_told", fails)
    monkeypatch.setattr(exposition.connection, "close", lambda: None)
    found = scraped()
    assert value(found, "reelworks_database_up") == 0
    assert value(found, "reelworks_process_start_time_seconds") > 0


def test_only_this_machine_may_read_it_and_no_proxy_for_others(settings: Settings) -> None:
    settings.PUBLIC_BASE_URL = ""
    assert Client().get("/metrics", REMOTE_ADDR="::1").status_code == 200
    assert Client().get("/metrics", REMOTE_ADDR="::ffff:127.0.0.1").status_code == 200
    for asked in (
        {"REMOTE_ADDR": "10.0.0.4"},
        {"REMOTE_ADDR": ""},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"HTTP_VIA": "x"},
    ):
        refused = Client().get("/metrics", **asked)
        assert (refused.status_code, "METRICS_TOKEN" in refused.content.decode()) == (403, True), asked
    settings.PUBLIC_BASE_URL = "https://video.example.com"
    assert Client().get("/metrics").status_code == 403


def test_with_a_token_only_who_has_it_may_read_it(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN
    near = Client().get("/metrics")
    assert (near.status_code, near["WWW-Authenticate"]) == (401, 'Bearer realm="metrics"')
    for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer ", "Bearer ä"):
        assert Client().get("/metrics", HTTP_AUTHORIZATION=wrong).status_code == 401, wrong
    far = Client().get("/metrics", HTTP_AUTHORIZATION=f"Bearer {TOKEN}", REMOTE_ADDR="203.0.113.9", HTTP_VIA="a proxy")
    assert far.status_code == 200


def test_labels_are_names_of_ours_whatever_is_asked(user: object) -> None:
    client = client_of(user)  # type: ignore[arg-type]
    for number in range(20):
        client.get(f"/api/queues/tasks/task_{number}")
        client.get(f"/nothing/{number}?secret=canary")
        client.generic(f"CANARY{number}", "/api/models")
    found = {labels for name, labels in scraped() if name == "reelworks_http_request_seconds_count"}
    routes = {dict(labels)["route"] for labels in found}
    assert {"api-queues-task", access.NO_ROUTE} <= routes
    assert "canary" not in str(found).lower()
    assert not any("/" in one or re.search(r"task_\d", one) for one in routes)  # others in this process have asked, too
    assert {dict(labels)["method"] for labels in found} <= access.METHODS | {metrics.OTHER}
    assert [metrics.word(f"code_{number}") for number in range(300)][-1] == metrics.OTHER
    assert metrics.word("words of a user") == metrics.OTHER


@pytest.fixture(autouse=True)
def _words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_words", set())


def test_many_scrapers_at_once_ask_the_database_once(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    scraped()
    read = [0]
    monkeypatch.setattr(exposition.overview, "read", lambda: read.__setitem__(0, read[0] + 1))
    threads = [threading.Thread(target=exposition.text) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert read == [0]
