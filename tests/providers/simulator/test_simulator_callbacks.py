"""Call-backs: signed as the providers sign them, sent again when refused, and wrong in every way a script asks for."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.providers.simulator.client import Client, KlingClient, PikaClient, Receiver

SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-four b").decode()


def fal_job(client: PikaClient, receiver: Receiver, prompt: str, **body: Any) -> str:
    return str(client.job(prompt, query=f"?fal_webhook={quote(receiver.url, safe='')}", **body)["request_id"])


def older_job(client: KlingClient, receiver: Receiver, prompt: str, **body: Any) -> str:
    reply = client.older(prompt, callback_url=receiver.url, **body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["data"]["task_id"])


def newer_job(client: KlingClient, receiver: Receiver, prompt: str, **options: Any) -> str:
    reply = client.newer(prompt, options={"callback_url": receiver.url, **options})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["data"]["id"])


def is_fals(client: PikaClient, headers: dict[str, str], body: bytes) -> bool:
    """By the provider's description alone: any key of its key set fits."""
    names = ("request-id", "user-id", "timestamp")
    signed = [headers[f"x-fal-webhook-{name}"] for name in names]
    assert abs(int(signed[2]) - time.time()) < 300
    message = "\n".join([*signed, hashlib.sha256(body).hexdigest()]).encode()
    keys = client.call("GET", "/.well-known/jwks.json", headers={}).json()["keys"]
    for key in keys:
        assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "=" * (-len(key["x"]) % 4)))
        try:
            public.verify(bytes.fromhex(headers["x-fal-webhook-signature"]), message)
        except InvalidSignature:
            continue
        return True
    return False


def is_klings(headers: dict[str, str], body: bytes, secret: str = SECRET) -> bool:
    """Standard Webhooks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    stamp = headers["webhook-timestamp"]
    assert abs(int(stamp) - time.time()) < 300
    mac = hmac.new(key, f"{headers['webhook-id']}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}" in headers["webhook-signature"].split(" ")


def answers(client: Client, job_id: str, count: int) -> list[tuple[int, str]]:
    return [(sent["try"], sent["answer"]) for sent in client.deliveries(job_id, count)]


# --- fal ---


def test_fal_says_once_that_it_is_done_and_signs_it(pika: PikaClient, receiver: Receiver) -> None:
    job_id = fal_job(pika, receiver, "done")
    (told,) = receiver.wait(1)
    (path, headers, body) = receiver.got[0]
    assert path == "/hook"
    assert headers["content-type"] == "application/json"
    assert headers["x-fal-webhook-request-id"] == job_id
    assert is_fals(pika, headers, body)
    assert not is_fals(pika, headers, body + b" ")
    assert not is_fals(pika, {**headers, "x-fal-webhook-user-id": "another"}, body)
    assert not is_fals(pika, {**headers, "x-fal-webhook-timestamp": str(int(time.time()) - 9)}, body)
    assert set(told) == {"request_id", "gateway_request_id", "status", "payload"}
    assert (told["request_id"], told["status"]) == (job_id, "OK")
    assert pika.download(told["payload"]["video"]["url"]).headers["content-type"] == "video/mp4"
    assert answers(pika, job_id, 1) == [(1, "200")]
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("prompt", "body", "status", "kind"),
    [
        ("bad [[sim fail=content_policy_violation]]", {}, 422, "content_policy_violation"),
        ("bad [[sim fail=internal_server_error]]", {}, 500, "internal_server_error"),
        ("bad field", {"duration": 7}, 422, "literal_error"),
    ],
)
def test_fal_tells_of_a_failure(
    pika: PikaClient, receiver: Receiver, prompt: str, body: dict[str, Any], status: int, kind: str
) -> None:
    fal_job(pika, receiver, prompt, **body)
    (told,) = receiver.wait(1)
    assert (told["status"], told["error"]) == ("ERROR", f"Invalid status code: {status}")
    assert told["payload"]["detail"][0]["type"] == kind
    assert is_fals(pika, *receiver.got[0][1:])


def test_fal_tells_of_a_cancelled_request(pika: PikaClient, receiver: Receiver) -> None:
    job_id = fal_job(pika, receiver, "cancel [[sim render=60]]")
    assert pika.call("PUT", f"/fal-ai/pika/requests/{job_id}/cancel").status_code == 202
    (told,) = receiver.wait(1)
    assert (told["request_id"], told["status"], told["error"]) == (job_id, "ERROR", "Invalid status code: 499")


# --- Kling ---


def test_the_older_standard_sends_the_task_without_an_envelope(kling: KlingClient, receiver: Receiver) -> None:
    name = f"gen-{kling.key}"
    job_id = older_job(kling, receiver, "told", external_task_id=name)
    told = {task["task_status"]: task for task in receiver.wait(2)}
    assert set(told) == {"processing", "succeed"}
    for task in told.values():
        assert (task["task_id"], task["task_info"]) == (job_id, {"external_task_id": name})
        assert not {"code", "message", "data"} & set(task)
    assert (told["processing"]["task_result"], "final_unit_deduction" in told["processing"]) == ({}, False)
    assert told["succeed"]["final_unit_deduction"] == "1.5"
    url = told["succeed"]["task_result"]["videos"][0]["url"]
    assert kling.download(url).headers["content-type"] == "video/mp4"
    assert not [name for _, headers, _ in receiver.got for name in headers if name.startswith("webhook-")]


def test_the_newer_standard_sends_its_own_words(kling: KlingClient, receiver: Receiver) -> None:
    name = f"gen-{kling.key}"
    job_id = newer_job(kling, receiver, "told", external_task_id=name)
    told = {task["status"]: task for task in receiver.wait(2)}
    assert set(told) == {"processing", "succeeded"}
    for task in told.values():
        assert (task["id"], task["external_id"], task["message"]) == (job_id, name, "")
        assert not {"code", "data", "task_id", "task_status"} & set(task)
    assert (told["processing"]["outputs"], told["processing"]["billing"]) == ([], [])
    assert told["succeeded"] == kling.tasks(task_ids=job_id)[0] | {"outputs": told["succeeded"]["outputs"]}
    assert kling.download(told["succeeded"]["outputs"][0]["url"]).headers["content-type"] == "video/mp4"


def test_kling_tells_of_a_failure(kling: KlingClient, receiver: Receiver) -> None:
    older_job(kling, receiver, "bad [[sim fail=risk]]")
    newer_job(kling, receiver, "bad [[sim fail=risk]]")
    ends = [task for task in receiver.wait(4) if "failed" in (task.get("task_status"), task.get("status"))]
    assert len(ends) == 2
    for task in ends:
        assert "risk control" in task.get("task_status_msg", "") + task.get("message", "")


@pytest.mark.parametrize("submit", [older_job, newer_job])
def test_with_a_secret_kling_signs(kling: KlingClient, receiver: Receiver, submit: Any) -> None:
    kling.sim("config", kling_webhook_secret=SECRET)
    submit(kling, receiver, "signed")
    receiver.wait(2)
    for _, headers, body in receiver.got:
        assert is_klings(headers, body)
        assert not is_klings(headers, body + b" ")
        assert not is_klings(headers, body, "whsec_" + base64.b64encode(b"another").decode())
        assert not is_klings({**headers, "webhook-id": "msg_other"}, body)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 2


def test_a_secret_that_is_none_is_refused_and_a_good_one_is_not_shown(kling: KlingClient) -> None:
    for secret in ("whsec_", "whsec_!!!", "not base64"):
        reply = kling.call("POST", "/_sim/config", json={"kling_webhook_secret": secret})
        assert reply.status_code == 400
    kling.sim("config", kling_webhook_secret=SECRET)
    assert kling.sim("config")["kling_webhook_secret"] is True


def test_no_address_no_call_back(kling: KlingClient, receiver: Receiver) -> None:
    silent = kling.older("silent").json()["data"]["task_id"]
    kling.wait_older(silent)
    told = newer_job(kling, receiver, "told [[sim render=0]]")
    assert {task["id"] for task in receiver.wait(2)} == {told}
    assert kling.sim(f"callbacks?job={silent}")["count"] == 0


# --- again ---


def test_what_is_refused_is_sent_again_until_it_is_taken(kling: KlingClient, pika: PikaClient) -> None:
    kling.sim("config", kling_webhook_secret=SECRET)
    one = Receiver(500, 404)
    try:
        job_id = fal_job(pika, one, "again")
        for tries in (1, 2, 3):
            pika.deliveries(job_id, tries)
            assert len(one.got) == tries
            pika.sim("config", advance_s=6)
        assert answers(pika, job_id, 3) == [(1, "500"), (2, "404"), (3, "200")]
        assert all(is_fals(pika, headers, body) for _, headers, body in one.got)
        assert len({body for _, _, body in one.got}) == 1
        one.got.clear()
        one.statuses = [503]
        task_id = newer_job(kling, one, "again [[sim render=60]]")
        kling.sim("config", advance_s=6)  # it begins to run
        kling.deliveries(task_id, 1)
        kling.sim("config", advance_s=2)
        assert answers(kling, task_id, 2) == [(1, "503"), (2, "200")]
        assert len({headers["webhook-id"] for _, headers, _ in one.got}) == 1  # the same message
        assert all(is_klings(headers, body) for _, headers, body in one.got)
    finally:
        one.close()


def test_after_three_tries_it_gives_up(pika: PikaClient) -> None:
    one = Receiver(*[500] * 9)
    try:
        job_id = fal_job(pika, one, "give up")
        for tries in (1, 2, 3):
            pika.deliveries(job_id, tries)
            pika.sim("config", advance_s=6)
        later = fal_job(pika, one, "a later one")
        pika.deliveries(later, 1)
        assert answers(pika, job_id, 3) == [(1, "500"), (2, "500"), (3, "500")]
    finally:
        one.close()


def test_a_redirect_is_not_followed_and_final(pika: PikaClient) -> None:
    one = Receiver(302)
    try:
        job_id = fal_job(pika, one, "redirect")
        assert answers(pika, job_id, 1) == [(1, "302")]
        pika.sim("config", advance_s=60)
        pika.deliveries(fal_job(pika, one, "a later one"), 1)
        assert answers(pika, job_id, 1) == [(1, "302")]
    finally:
        one.close()


def test_an_address_where_nobody_listens_is_tried_again_too(pika: PikaClient) -> None:
    one = Receiver()
    one.close()
    job_id = fal_job(pika, one, "nobody")
    pika.deliveries(job_id, 1)
    pika.sim("config", advance_s=2)
    sent = answers(pika, job_id, 2)
    assert [number for number, _ in sent] == [1, 2]
    assert all(answer.startswith("error: ") for _, answer in sent)
    assert pika.sim("callbacks")["answers"]["error"] >= 2


# --- by script ---


def test_a_late_call_back(pika: PikaClient, receiver: Receiver) -> None:
    job_id = fal_job(pika, receiver, "late [[sim render=0 callback=late:100]]")
    assert pika.call("GET", f"/fal-ai/pika/requests/{job_id}/status").json()["status"] == "COMPLETED"
    fal_job(pika, receiver, "in time [[sim render=0]]")
    assert receiver.wait(1)[0]["request_id"] != job_id
    assert pika.sim(f"callbacks?job={job_id}")["count"] == 0
    pika.sim("config", advance_s=101)
    assert receiver.wait(2)[1]["request_id"] == job_id
    assert is_fals(pika, *receiver.got[1][1:])  # with the time of its sending


def test_a_call_back_that_comes_more_than_once(pika: PikaClient, kling: KlingClient, receiver: Receiver) -> None:
    job_id = fal_job(pika, receiver, "copies [[sim callback=duplicate:3]]")
    assert answers(pika, job_id, 3) == [(1, "200")] * 3
    assert len({body for _, _, body in receiver.got}) == 1
    kling.sim("config", kling_webhook_secret=SECRET)
    receiver.got.clear()
    newer_job(kling, receiver, "copies [[sim callback=duplicate:2]]")
    states = [task["status"] for task in receiver.wait(4)]
    assert sorted(states) == ["processing"] * 2 + ["succeeded"] * 2
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 2  # one for each message, not each copy


def test_a_forged_call_back_comes_first_and_does_not_verify(pika: PikaClient, receiver: Receiver) -> None:
    job_id = fal_job(pika, receiver, "forged [[sim render=60 callback=forged]]")
    (told,) = receiver.wait(1)
    assert (told["request_id"], told["status"]) == (job_id, "OK")
    assert told["payload"]["video"]["url"].startswith("https://forged.invalid/")
    assert not is_fals(pika, *receiver.got[0][1:])
    (sent,) = pika.deliveries(job_id, 1)
    assert (sent["forged"], sent["event"]) == (True, "OK")
    pika.sim("config", advance_s=61)
    assert "forged" not in json.dumps(receiver.wait(2)[1])
    assert is_fals(pika, *receiver.got[1][1:])


@pytest.mark.parametrize("secret", [SECRET, ""])
def test_kling_forged(kling: KlingClient, receiver: Receiver, secret: str) -> None:
    kling.sim("config", kling_webhook_secret=secret)
    older_job(kling, receiver, "forged [[sim render=60 callback=forged,never]]")
    newer_job(kling, receiver, "forged [[sim render=60 callback=forged,never]]")
    receiver.wait(2)
    for _, headers, body in receiver.got:
        assert b"https://forged.invalid" in body
        assert b'"succeed' in body
        assert not secret or not is_klings(headers, body)
        assert secret or "webhook-signature" not in headers


def test_a_call_back_that_never_comes(kling: KlingClient, receiver: Receiver) -> None:
    silent = newer_job(kling, receiver, "never [[sim render=0 callback=never]]")
    assert kling.wait_newer(silent)["status"] == "succeeded"
    kling.sim("config", advance_s=10)
    told = newer_job(kling, receiver, "told [[sim render=0]]")
    assert {task["id"] for task in receiver.wait(2)} == {told}
    assert kling.sim(f"callbacks?job={silent}")["count"] == 0


@pytest.mark.parametrize(
    "value", ["", "late", "late:x", "late:-1", "duplicate:0", "duplicate:101", "never:1", "sometimes"]
)
def test_a_directive_that_cannot_be_read(kling: KlingClient, value: str) -> None:
    reply = kling.newer(f"typing error [[sim callback={value}]]")
    assert (reply.status_code, reply.json()["code"]) == (400, 1201)


# --- what tests can see and do ---


def test_the_counters_of_call_backs(kling: KlingClient, receiver: Receiver) -> None:
    before = kling.sim("callbacks")["answers"].get("200", 0)
    job_id = older_job(kling, receiver, "counted")
    sent = kling.deliveries(job_id, 2)
    assert {one["event"] for one in sent} == {"processing", "succeed"}
    for one in sent:
        event = one.pop("event")
        assert event
        assert one == {"job": job_id, "url": receiver.url, "answer": "200", "try": 1, "forged": False}
    assert kling.sim("callbacks")["answers"]["200"] == kling.sim("stats")["callbacks"]["200"] == before + 2
    port = receiver.url.split(":")[2]
    assert kling.sim(f"callbacks?contains=:{port}")["count"] == 2


def test_a_task_put_to_its_end_by_hand_is_told(kling: KlingClient, receiver: Receiver) -> None:
    failed = newer_job(kling, receiver, "by hand [[sim render=600]]")
    kling.sim(f"jobs/{failed}", state="failed", code="risk")
    ends = [task for task in receiver.wait(2) if task["status"] == "failed"]
    assert [task["id"] for task in ends] == [failed]
    lost = newer_job(kling, receiver, "lost [[sim render=600]]")
    kling.sim(f"jobs/{lost}", state="lost")
    kling.sim("config", advance_s=601)
    told = newer_job(kling, receiver, "told [[sim render=0]]")
    assert {task["id"] for task in receiver.wait(4)[2:]} == {told}
