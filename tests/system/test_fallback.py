"""When one model can't, another may: by proof only, within bounds, and only where the client allows it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest
import requests

from tests.factories import make_task, make_user, reload
from tests.system.system import Simulator, System, until
from video.credits import ledger
from video.models import Generation, ModelSetting, ProviderKey, VideoTask


@pytest.fixture
def working(system: System, simulator: Simulator) -> System:
    """One worker and the sweeper, with circuits that stay out of the way."""
    system.env.update(CIRCUIT_FAULTS="100000", LOOKUP_SECONDS="0.2,0.4,0.6")
    system.worker(threads=8)
    system.sweeper()
    return system


def ended(task: VideoTask) -> VideoTask:
    found: VideoTask = until(f"{task.pk} ends", lambda: (now := reload(task)).finished_at and now)
    return found


def way(task: VideoTask) -> list[tuple[str, str]]:
    """(provider, state) of its attempts, in order."""
    return list(Generation.objects.filter(task=task).order_by("attempt").values_list("provider", "state"))


def test_a_job_that_fails_after_acceptance_goes_to_another_model(working: System) -> None:
    chosen = make_task(prompt="back 1 [[sim only=kling fail=INTERNAL]]", model_requested="", fallback=True)
    named = make_task(prompt="back 2 [[sim only=runway fail=INTERNAL]]", fallback=True)
    named, chosen = ended(named), ended(chosen)
    assert (chosen.status, named.status) == ("success", "success")
    assert way(chosen)[0] == ("kling", "failed")
    assert way(chosen)[-1][1] == "succeeded"
    assert way(chosen)[-1][0] != "kling"
    assert way(named)[0] == ("runway", "failed")
    assert way(named)[-1][1] == "succeeded"
    assert ledger.balance(named.user_id) == 990


def test_every_attempt_keeps_what_could_have_been_chosen_and_why_not(working: System) -> None:
    task = ended(make_task(prompt="back 3.", model_requested="", fallback=True, duration_s=7))
    candidates = Generation.objects.get(task=task).candidates
    assert [row["model"] for row in candidates if row["chosen"]] == [Generation.objects.get(task=task).model]
    assert all(row["reason"] for row in candidates)
    assert any(not row["usable"] and "7" in row["reason"] for row in candidates)


def test_the_client_may_refuse_another_model(working: System) -> None:
    task = ended(make_task(prompt="back 4 [[sim only=runway fail=INTERNAL]]", fallback=False))
    assert (task.status, task.error_code) == ("failed", "generation_failed")
    assert way(task) == [("runway", "failed")]


@pytest.mark.parametrize("directive", ["moderation", "fail=SAFETY.INPUT.TEXT"])
def test_what_no_model_could_get_past_is_not_tried_again(working: System, directive: str) -> None:
    task = ended(make_task(prompt=f"back 5 [[sim {directive}]]", fallback=True))
    assert (task.status, task.error_code) == ("failed", "moderation")
    assert len(way(task)) == 1


def test_an_unknown_outcome_never_falls_back(working: System) -> None:
    task = ended(make_task(prompt="back 6 [[sim only=runway lost_reply]]", fallback=True))
    assert (task.status, task.error_code) == ("failed", "outcome_unknown")
    assert way(task) == [("runway", "unknown")]


def test_a_named_model_whose_key_is_refused_gives_way_to_another(working: System) -> None:
    task = ended(make_task(prompt="back 7 [[sim only=runway status=401]]", fallback=True))
    assert task.status == "success"
    assert way(task)[0] == ("runway", "rejected")
    assert way(task)[-1][0] != "runway"
    ProviderKey.objects.update(state="active")


def test_a_model_that_an_operator_switched_off_is_not_used(working: System) -> None:
    ModelSetting.objects.create(model="gen4.5", enabled=False)
    try:
        task = ended(make_task(prompt="back 8.", fallback=True))
        assert task.status == "success"
        assert "gen4.5" not in Generation.objects.filter(task=task).values_list("model", flat=True)
    finally:
        ModelSetting.objects.all().delete()


@pytest.fixture
def refusing_provider() -> Iterator[tuple[str, list[str]]]:
    """A provider's address where every call is answered with 500; and what was called."""
    calls: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(self.path)
            self.send_error(500)

        do_GET = do_POST

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", calls
    server.shutdown()


def test_with_one_real_key_nothing_is_ever_simulated(
    system: System, simulator: Simulator, refusing_provider: tuple[str, list[str]]
) -> None:
    """A fallback must not deliver a simulated video to somebody who paid."""
    url, calls = refusing_provider
    before = requests.get(f"{simulator.url}/_sim/submits", timeout=30).json()["received"]
    del system.env["REELWORKS_SIMULATE"]
    system.env.update(RUNWAY_API_KEY="key_only_one", RUNWAY_BASE_URL=url, REELWORKS_SIMULATOR_URL=simulator.url)
    system.worker()
    system.sweeper()
    user = make_user()
    named = ended(make_task(user, "real 1.", fallback=True))
    chosen = ended(make_task(user, "real 2.", model_requested="", fallback=True, duration_s=5))
    assert [(task.status, task.error_code) for task in (named, chosen)] == [("failed", "outcome_unknown")] * 2
    assert not Generation.objects.filter(task__user=user).exclude(simulated=False, provider="runway").exists()
    assert requests.get(f"{simulator.url}/_sim/submits", timeout=30).json()["received"] == before
    assert calls.count("/v1/text_to_video") == 2
