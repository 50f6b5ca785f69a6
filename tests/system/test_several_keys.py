"""Several keys with few slots each: limits hold across processes, a revoked key strands nobody, no key shows."""

from __future__ import annotations

from datetime import timedelta

import pytest
import requests
from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client

from providers.api_keys import fingerprint
from tests.factories import accepted, make_task, make_user, reload
from tests.system.system import Simulator, System, broker, until
from video.actions import cancel
from video.attempts import poll_policy, records
from video.audit.actors import Unaudited
from video.credits import ledger
from video.models import Generation, ProviderAccount, ProviderKey, VideoTask

KEYS = ("key_of_tests_one", "key_of_tests_two", "key_of_tests_three")


@pytest.fixture
def system_with_keys(system: System, simulator: Simulator) -> System:
    """Real keys (to the simulator), two slots each, and rows of no earlier test."""
    requests.post(f"{simulator.url}/_sim/reset", timeout=30)
    system.env.update(
        REELWORKS_SIMULATE="0",
        RUNWAY_API_KEY=",".join(KEYS),
        RUNWAY_BASE_URL=simulator.url,
        SLOTS_PER_KEY="2",
        CIRCUIT_FAULTS="100000",
    )
    return system


def runway(prompt: str, user: object) -> VideoTask:
    return make_task(user, prompt, model_requested="gen4.5")  # type: ignore[arg-type]


def longest_idle_s() -> list[float]:
    """For each slot that was freed while somebody waited: seconds until its account was given the next job."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT extract(epoch FROM next.planned_at - g.ended_at)::float8
            FROM video_generation g
            JOIN LATERAL (
                SELECT n.planned_at, n.task_id FROM video_generation n
                WHERE n.account_id = g.account_id AND n.planned_at > g.ended_at ORDER BY n.planned_at LIMIT 1
            ) next ON true
            JOIN video_videotask t ON t.id = next.task_id AND t.created_at < g.ended_at
            """
        )
        return sorted(row[0] for row in cursor.fetchall())


def learnt(render_s: float) -> None:
    """Jobs of before that took so long; else the first look at a real provider's job comes after half a minute."""
    for number in range(poll_policy.FEWEST):
        task = make_task()
        generation = accepted(task, f"job-of-before-{number}")
        records.record_ended(generation.pk, Generation.State.SUCCEEDED)
        assert cancel.cancel(task.pk, by=Unaudited("its user")).changed
        Generation.objects.filter(pk=generation.pk).update(
            simulated=False, accepted_at=F("ended_at") - timedelta(seconds=render_s)
        )


def test_three_keys_of_two_slots_never_hold_more_than_two_jobs_each(
    system_with_keys: System, simulator: Simulator
) -> None:
    system = system_with_keys
    learnt(0.5)
    workers = [system.worker(f"w{number}") for number in range(4)]
    system.sweeper()
    user = make_user()
    tasks = [runway(f"three keys {number}. [[sim render=0.5]]", user) for number in range(40)]
    until("some are done", lambda: VideoTask.objects.filter(user=user, status="success").count() >= 8)
    for worker in workers:  # nobody is left, and no slot is freed by that
        worker.kill()
    live = Generation.objects.filter(task__user=user, state__in=Generation.LIVE).count()
    assert live > 0
    for number in range(4):
        system.worker(f"again{number}")
    for task in tasks:
        until(f"{task.pk} ends", lambda task=task: reload(task).finished_at)
    ends = {(task.status, task.error_code) for task in VideoTask.objects.filter(user=user)}
    assert ends <= {("success", ""), ("failed", "outcome_unknown")}  # one was perhaps just being sent when they died
    assert VideoTask.objects.filter(user=user, status="success").count() >= 36
    lanes = requests.get(f"{simulator.url}/_sim/stats", timeout=30).json()["lanes"]
    assert {lane["key"]: lane["maxLive"] for lane in lanes} == {lane["key"]: 2 for lane in lanes}
    assert len(lanes) == len(KEYS)
    for task in tasks:
        assert simulator.submits(task.prompt)["created"] <= 1
    assert set(Generation.objects.filter(task__user=user).values_list("key_fingerprint", flat=True)) == {
        fingerprint(key) for key in KEYS
    }
    idle = longest_idle_s()
    assert idle[len(idle) * 8 // 10] < 1.0


def test_a_key_revoked_midway_strands_nobody(system_with_keys: System, simulator: Simulator) -> None:
    system = system_with_keys
    system.env["RUNWAY_API_KEY"] = ",".join(KEYS[:2])
    system.worker()
    system.sweeper()
    user = make_user()
    ProviderAccount.objects.update(slots_override=5)  # a submit of the test before may be unknown, and hold a slot
    slow = [runway(f"revoked slow {number}. [[sim render=600]]", user) for number in range(4)]
    until("all four are accepted", lambda: Generation.objects.filter(task__user=user, state="accepted").count() == 4)
    simulator.config(disabled_keys=[fingerprint_at_simulator(simulator, slow[0])])
    first = Generation.objects.get(task=slow[0]).key_fingerprint
    until("the key is refused", lambda: "401" in reload(slow[0]).park_reason)
    assert all(reload(task).is_active for task in slow)  # they wait for it
    VideoTask.objects.filter(user=user).update(deadline_at=Now(), next_run_at=Now())
    for task in slow:
        until(f"{task.pk} ends", lambda task=task: reload(task).finished_at)
    for task in slow:
        task = reload(task)
        assert (task.status, task.error_code) == ("failed", "timeout")
        assert task.generations.count() == 1  # an accepted job is never tried again elsewhere
        assert not task.events.filter(error_code="internal_error").exists()
    assert ledger.balance(user.pk) == 1000
    ProviderAccount.objects.update(slots_override=50)  # the four still hold their slots
    quick = [runway(f"revoked quick {number}. [[sim render=0]]", user) for number in range(4)]
    for task in quick:
        until(f"{task.pk} ends", lambda task=task: reload(task).finished_at)
        assert reload(task).status == "success"
    refused = ProviderKey.objects.get(fingerprint=first)
    assert refused.refusals > 0  # it is left alone, and tried again after growing pauses


def fingerprint_at_simulator(simulator: Simulator, task: VideoTask) -> str:
    """How the simulator names the key that this task was submitted with."""
    jobs = requests.get(
        f"{simulator.url}/_sim/jobs", params={"contains": task.prompt.split(" [[")[0]}, timeout=30
    ).json()
    return str(jobs["jobs"][0]["key"])


def test_no_key_is_in_any_row_log_message_or_page(system_with_keys: System, simulator: Simulator) -> None:
    system = system_with_keys
    system.worker()
    system.sweeper()
    user = make_user()
    prompts = (
        "clean.",
        "[[sim status=401x1]]",
        "[[sim status=500]]",
        "[[sim poll_status=503x1]]",
        "[[sim fail=INTERNAL]]",
    )
    tasks = [runway(f"grep {number} {prompt}", user) for number, prompt in enumerate(prompts)]
    for task in tasks:
        until(f"{task.pk} ends", lambda task=task: reload(task).finished_at)

    found: list[str] = []
    for model in apps.get_models():
        with connection.cursor() as cursor:
            cursor.execute(f'SELECT t::text FROM "{model._meta.db_table}" t')
            found += [f"{model.__name__}: {row[0]}" for row in cursor.fetchall()]
    for log in system.folder.glob("*.log"):
        found.append(f"{log.name}: {log.read_text(errors='replace')}")
    found += broker_contents()
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("grep-operator"))
    pages = ["videotask", "generation", "provideraccount", "providerkey", "taskevent", "creditentry", "account"]
    found += [client.get(f"/admin/video/{page}/").content.decode() for page in pages]
    found += [client.get(f"/admin/video/videotask/{task.pk}/change/").content.decode() for task in tasks]
    assert len(found) > 50
    for text in found:
        for key in KEYS:
            assert key not in text
            assert key[4:] not in text
        assert "_jwt=" not in text  # a signed link of the provider


def broker_contents() -> list[str]:
    """Everything that stands in the test's Valkey."""
    valkey = broker()
    found = []
    for key in valkey.keys("*"):
        kind = valkey.type(key)
        if kind == b"list":
            found += [str(item) for item in valkey.lrange(key, 0, -1)]
        elif kind == b"hash":
            found += [str(item) for item in valkey.hgetall(key).values()]
    return found
