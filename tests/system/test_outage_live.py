"""Database or broker away for a while: answers that don't keep anybody waiting, and work that goes on by itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from django.conf import settings
from rest_framework_simplejwt.tokens import AccessToken

from tests.factories import make_task, make_user, reload
from tests.proxy import Proxy, postgres_behind, valkey_behind
from tests.system.system import Simulator, System, database_url, until
from video.credits import ledger
from video.models import Generation, VideoTask


@dataclass
class Apart:
    """A system that reaches its servers through proxies."""

    system: System
    database: Proxy
    broker: Proxy


@pytest.fixture
def apart(system: System) -> Iterator[Apart]:
    database, url = postgres_behind(database_url())
    broker, broker_url = valkey_behind(settings.CELERY_BROKER_URL)
    system.env.update(DATABASE_URL=url, CELERY_BROKER_URL=broker_url, STAGE_LEASE_SECONDS="3")
    yield Apart(system, database, broker)
    system.stop()
    database.close()
    broker.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_api_says_503_while_the_database_is_away_and_works_again_after(apart: Apart) -> None:
    port = free_port()
    apart.system.web(port)
    base = f"http://127.0.0.1:{port}"
    token = str(AccessToken.for_user(make_user()))

    def create() -> requests.Response:
        body = {"prompt": "away", "duration": 5, "aspectRatio": "16:9"}
        headers = {"Authorization": f"Bearer {token}"}
        return requests.post(f"{base}/api/video/create", json=body, headers=headers, timeout=30)

    def ready() -> requests.Response:
        return requests.get(f"{base}/readyz", timeout=30)

    assert create().status_code == 201
    assert ready().json() == {"success": True, "data": {"database": "ok", "migrations": "ok", "broker": "ok"}}

    apart.database.cut()
    for _ in range(20):  # each would wait for two seconds if it tried the database itself
        reply = create()
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "unavailable")
        assert reply.headers["Retry-After"]
    assert requests.get(f"{base}/healthz", timeout=30).status_code == 200
    assert requests.get(f"{base}/admin/", timeout=30).status_code == 503
    reply = ready()
    assert reply.status_code == 503
    parts = reply.json()["error"]["details"]
    assert parts["database"].startswith("can't be reached (")
    assert (parts["migrations"], parts["broker"]) == ("not known", "ok")
    apart.database.mend()
    until("the API is well again", lambda: create().status_code == 201)
    assert ready().status_code == 200

    apart.broker.cut()
    assert create().status_code == 201  # the row is what counts; the sweeper rings for it
    reply = ready()
    assert reply.status_code == 503
    assert reply.json()["error"]["details"]["broker"].startswith("can't be used (")
    apart.broker.mend()
    until("the API is ready again", lambda: ready().status_code == 200)


def test_work_goes_on_after_the_database_was_away_and_no_answer_to_a_submit_is_lost(
    apart: Apart, simulator: Simulator
) -> None:
    apart.system.worker(threads=8)
    apart.system.sweeper()
    user = make_user()
    running = [make_task(user, prompt=f"database away, running {n} [[sim render=1]]") for n in range(6)]
    until("some are under way", lambda: any(reload(task).stage != "generate" for task in running))
    # The database goes while these are being sent, and their answers come before it is back.
    sent = [make_task(user, prompt=f"database away, sent {n} [[sim hang=2]]") for n in range(2)]
    until("they are being sent", lambda: simulator.submits("database away, sent")["received"] == 2)
    apart.database.cut()
    until("the answers are out", lambda: simulator.submits("database away, sent")["created"] == 2)
    until("both workers have met the absence", lambda: "as soon as it can" in apart.system.logs())
    apart.database.mend()
    check_all_done([*running, *sent], simulator, "database away")


def test_work_goes_on_after_the_broker_was_away(apart: Apart, simulator: Simulator) -> None:
    apart.system.worker(threads=8)
    apart.system.sweeper()
    user = make_user()
    tasks = [make_task(user, prompt=f"broker away {n} [[sim render=1]]") for n in range(6)]
    until("some are under way", lambda: any(reload(task).stage != "generate" for task in tasks))
    apart.broker.cut()
    tasks += [make_task(user, prompt=f"broker away, made meanwhile {n}") for n in range(2)]
    until("the sweeper has met the absence", lambda: "the broker can't be used" in apart.system.logs())
    apart.broker.mend()
    check_all_done(tasks, simulator, "broker away")


def check_all_done(tasks: list[VideoTask], simulator: Simulator, prompt: str) -> None:
    for task in tasks:
        until(f"{task.pk} ends", lambda task=task: reload(task).finished_at)
    assert {reload(task).status for task in tasks} == {"success"}
    submits = simulator.submits(prompt)
    assert (submits["created"], submits["doubled"]) == (len(tasks), 0)
    assert Generation.objects.filter(task__in=tasks).count() == len(tasks)
    assert ledger.differences() == []
