"""Every fault can be called by name, and a doubled submit cannot hide."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from providers.dialect import faults
from tests.providers.simulator.client import RunwayClient

LOST = requests.exceptions.ConnectionError


@pytest.mark.parametrize(("status", "text"), [("401", ""), ("429", ""), ("500", ""), ("502", ""), ("503", "")])
def test_refused_with_a_status_and_no_job(client: RunwayClient, status: str, text: str) -> None:
    prompt = f"refused [[sim status={status} retry_after=3]]"
    before = client.submits(prompt)
    reply = client.create(prompt)
    assert reply.status_code == int(status)
    assert reply.headers["Retry-After"] == "3"
    assert "error" in reply.json()
    after = client.submits(prompt)
    assert after["received"] == before["received"] + 1
    assert after["created"] == 0


def test_out_of_credits_by_script(client: RunwayClient) -> None:
    reply = client.create("poor [[sim status=400-credits]]")
    assert reply.status_code == 400
    assert reply.json() == {"error": "You do not have enough credits to run this task."}


def test_moderation_at_submit(client: RunwayClient) -> None:
    reply = client.create("bad words [[sim moderation]]")
    assert reply.status_code == 400
    assert "moderation" in reply.json()["error"]


def test_a_count_limits_a_fault_to_the_first_submits(client: RunwayClient) -> None:
    prompt = "twice [[sim status=429x2]]"
    assert [client.create(prompt).status_code for _ in range(3)] == [429, 429, 200]
    assert client.submits(prompt) == {"received": 3, "created": 1, "doubled": 0}


def test_a_group_for_one_model_or_the_first_submits(client: RunwayClient) -> None:
    prompt = "other [[sim only=gen4_turbo status=500]]"
    assert client.create(prompt).status_code == 200
    image = {"path": "/v1/image_to_video", "promptImage": "runway://a", "model": "gen4_turbo"}
    assert client.create(prompt, **image).status_code == 500
    prompt = "first [[sim first=1 fail=INTERNAL]]"
    client.wait(client.job(prompt), "FAILED")
    client.wait(client.job(prompt), "SUCCEEDED")


@pytest.mark.parametrize("status", ["500", "503"])
def test_an_error_after_the_job_was_made(client: RunwayClient, status: str) -> None:
    prompt = f"made [[sim status_after={status}]]"
    assert client.create(prompt).status_code == int(status)
    assert client.submits(prompt)["created"] == 1


@pytest.mark.parametrize(("fault", "made"), [("reset", 0), ("lost_reply", 1), ("lost_reply_reset", 1)])
def test_a_cut_connection_without_an_answer(client: RunwayClient, fault: str, made: int) -> None:
    prompt = f"cut [[sim {fault}=1]]"
    with pytest.raises(LOST) as caught:
        client.create(prompt)
    assert ("reset" in str(caught.value).lower()) == ("reset" in fault)
    assert client.submits(prompt)["created"] == made
    assert client.create(prompt).status_code == 200  # only the first


def test_a_late_answer_finds_the_job_made(client: RunwayClient) -> None:
    prompt = "late [[sim hang=30]]"
    with pytest.raises(requests.exceptions.ReadTimeout):
        client.call("POST", "/v1/text_to_video", timeout=0.2, json={
            "model": "gen4.5", "promptText": prompt, "ratio": "1280:720", "duration": 2})  # fmt: skip
    assert client.submits(prompt)["created"] == 1
    assert client.create("soon [[sim hang=0.05]]").status_code == 200


def test_a_client_that_left_before_gets_no_job(client: RunwayClient) -> None:
    prompt = "left [[sim hang_before=0.5]]"
    with pytest.raises(requests.exceptions.ReadTimeout):
        client.call("POST", "/v1/text_to_video", timeout=0.1, json={
            "model": "gen4.5", "promptText": prompt, "ratio": "1280:720", "duration": 2})  # fmt: skip
    time.sleep(0.5)
    assert client.submits(prompt) == {"received": 1, "created": 0, "doubled": 0}
    assert client.create("stayed [[sim hang_before=0.05]]").status_code == 200


def test_garbage_instead_of_an_answer(client: RunwayClient) -> None:
    reply = client.create("unreadable [[sim garbage]]")
    assert reply.status_code == 200
    with pytest.raises(ValueError):
        reply.json()
    assert client.submits("unreadable [[sim garbage]]")["created"] == 1


def test_polls_that_go_wrong(client: RunwayClient) -> None:
    job_id = client.job("gone [[sim not_found=2]]")
    assert [client.poll(job_id).status_code for _ in range(3)] == [404, 404, 200]
    job_id = client.job("down [[sim poll_status=503x2 retry_after=7]]")
    assert client.poll(job_id).headers["Retry-After"] == "7"
    assert [client.poll(job_id).status_code for _ in range(2)] == [503, 200]
    job_id = client.job("strange [[sim unknown_status=5 render=30]]")
    assert client.view(job_id)["status"] == "AWAITING_REVIEW"
    client.sim("config", advance_s=6)
    assert client.view(job_id)["status"] == "RUNNING"
    job_id = client.job("cut [[sim poll_reset=1]]")
    with pytest.raises(LOST):
        client.poll(job_id)
    assert client.poll(job_id).status_code == 200
    job_id = client.job("html [[sim poll_garbage=1 poll_hang=0.05]]")
    with pytest.raises(ValueError):
        client.poll(job_id).json()
    assert client.view(job_id)["id"] == job_id


def test_held_back_by_script(client: RunwayClient) -> None:
    job_id = client.job("held [[sim throttled=10 render=10]]")
    assert client.view(job_id)["status"] == "THROTTLED"
    client.sim("config", advance_s=11)
    assert client.view(job_id)["status"] == "RUNNING"


@pytest.mark.parametrize(
    "directive",
    [
        "nonsense", "status=abc", "render=fast", "file=strange", "status=200", "status=307", "first=x", "redirect=304",
        "redirect=503", "poll_redirect=404", "interim=200", "interim=103;102", "interim=", "poll_interim=x2",
        "retry_after=", "cancel=soon", "retry_after=date:soon", "retry_after=date:60",
    ],
)  # fmt: skip
def test_a_typing_error_in_a_directive_is_loud(client: RunwayClient, directive: str) -> None:
    reply = client.create(f"typo [[sim {directive}]]")
    assert reply.status_code == 400
    assert "simulator" in reply.json()["error"]


def test_rules_from_outside(client: RunwayClient) -> None:
    client.sim("config", faults=[{"match": "victim", "directives": "status=503x1 render=60"}])
    assert client.create("a victim of rules").status_code == 503
    job_id = client.job("a victim of rules")
    time.sleep(0.1)
    assert client.view(job_id)["status"] == "PENDING"
    client.wait(client.job("somebody else"), "SUCCEEDED")
    bad = client.http.post(
        f"{client.base}/_sim/config", json={"faults": [{"match": "", "directives": "x=1"}]}, timeout=30
    )
    assert bad.status_code == 400
    assert client.http.post(f"{client.base}/_sim/config", json={"unknown": 1}, timeout=30).status_code == 400


def test_an_outage_hits_what_it_is_meant_to(client: RunwayClient) -> None:
    job_id = client.job("outage")
    client.sim("config", outage={"answer": 503, "where": ["submit"]})
    assert client.create("outage").status_code == 503
    assert client.poll(job_id).status_code == 200
    client.sim("config", outage={"answer": "reset", "where": ["poll"]})
    assert client.create("outage").status_code == 200
    with pytest.raises(LOST):
        client.poll(job_id)
    client.sim("config", outage=None)
    assert client.poll(job_id).status_code == 200


def test_counters_tell_a_doubled_submit(client: RunwayClient) -> None:
    client.job("paid twice [[sim render=60]]")
    client.job("paid twice [[sim render=60]]")
    assert client.submits("paid twice [[sim render=60]]") == {"received": 2, "created": 2, "doubled": 1}
    assert "paid twice [[sim render=60]]" in client.sim("submits")["doubled"]
    failed = client.job("tried again [[sim render=60]]")
    client.sim(f"jobs/{failed}", state="failed", code="INTERNAL")
    client.job("tried again [[sim render=60]]")
    assert client.submits("tried again [[sim render=60]]") == {"received": 2, "created": 2, "doubled": 0}


def test_a_job_can_be_looked_at_and_forced(client: RunwayClient) -> None:
    job_id = client.job("forced [[sim render=60]]")
    client.poll(job_id)
    shown = client.sim(f"jobs?id={job_id}")["jobs"][0]
    assert shown["polls"] == 1
    assert shown["phase"] == "pending"
    assert shown["ended"] is False
    client.sim(f"jobs/{job_id}", state="running", seconds=60)
    assert client.view(job_id)["status"] == "RUNNING"
    client.sim(f"jobs/{job_id}", state="succeeded")
    assert client.download(client.view(job_id)["output"][0]).status_code == 200
    client.sim(f"jobs/{job_id}", state="lost")
    assert client.poll(job_id).status_code == 404
    lane = next(one for one in client.sim("stats")["lanes"] if one["key"] == shown["key"])
    assert lane["live"] == 0
    assert lane["maxLive"] == 1
    assert client.http.post(f"{client.base}/_sim/jobs/none", json={"state": "lost"}, timeout=30).status_code == 404


def test_live_and_most_live_are_counted(client: RunwayClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = list(
            pool.map(lambda n: RunwayClient(client.base, client.key).job(f"many {n} [[sim render=60]]"), range(20))
        )
    assert len(set(jobs)) == 20
    key = client.sim(f"jobs?id={jobs[0]}")["jobs"][0]["key"]
    for job_id in jobs[:5]:
        client.call("DELETE", f"/v1/tasks/{job_id}")
    lane = next(one for one in client.sim("stats")["lanes"] if one["key"] == key)
    assert (lane["live"], lane["maxLive"], lane["created"]) == (15, 20, 20)
    client.sim("config", advance_s=61)
    lane = next(one for one in client.sim("stats")["lanes"] if one["key"] == key)
    assert lane["live"] == 0


def test_later_groups_win_and_rules_lie_below() -> None:
    text, groups = faults.split_prompt("a [[sim render=1 status=500x1]] b [[sim render=2]]")
    assert text == "a   b"
    first, second = (faults.resolve(groups, "runway", "gen4.5", nth) for nth in (1, 2))
    assert first.render == 2
    assert first.status == "500"
    assert second.status is None
    assert faults.merge(faults.Faults(render=9, fail="X"), second) == faults.Faults(render=2, fail="X")
    assert faults.resolve([], "runway", "gen4.5", 1) is faults.NO_FAULTS


def test_every_directive_has_a_field_and_a_word_of_help() -> None:
    assert set(faults.DIRECTIVES) == set(faults.Faults.__slots__)
    assert all(one.help for one in faults.DIRECTIVES.values())
