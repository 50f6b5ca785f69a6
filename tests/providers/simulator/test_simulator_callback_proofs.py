"""Call-backs, further: a judge of ED25519 that is no library, and moments that plans, queues and resets change."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator

import pytest
import requests

from tests.providers.simulator.client import KlingClient, PikaClient, Receiver, start, wait_for

# --- ED25519 as RFC 8032 writes it down: slow, and shared with nobody who signs ---

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]


def _add(a: Point, b: Point) -> Point:
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    i, j, k, m = f - e, h - g, h + g, f + e
    return i * j % P, k * m % P, j * k % P, i * m % P


def _times(number: int, point: Point) -> Point:
    found: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            found = _add(found, point)
        point, number = _add(point, point), number >> 1
    return found


def _point(data: bytes) -> Point:
    y = int.from_bytes(data, "little")
    odd, y = y >> 255, y & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    assert (x * x - square) % P == 0, "no point of the curve"
    x = P - x if x & 1 != odd else x
    return x, y, 1, x * y % P


BASE = _point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_is_good(public: bytes, message: bytes, signature: bytes) -> bool:
    r, s = _point(signature[:32]), int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    left, right = _times(s, BASE), _add(r, _times(h, _point(public)))
    return all((left[n] * right[2] - right[n] * left[2]) % P == 0 for n in (0, 1))


def test_the_judge_itself_by_a_vector_of_the_rfc() -> None:
    """RFC 8032 section 7.1, test 2."""
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert ed25519_is_good(public, b"\x72", signature)
    assert not ed25519_is_good(public, b"\x73", signature)


def test_fals_signature_before_that_judge(pika: PikaClient, receiver: Receiver) -> None:
    pika.job("judged [[sim render=0]]", query=hook(receiver))
    receiver.wait(1)
    _, headers, body = receiver.got[0]
    names = ("x-fal-webhook-request-id", "x-fal-webhook-user-id", "x-fal-webhook-timestamp")
    (key,) = pika.http.get(f"{pika.base}/.well-known/jwks.json", timeout=30).json()["keys"]
    public = base64.urlsafe_b64decode(key["x"] + "=")
    signature = bytes.fromhex(headers["x-fal-webhook-signature"])
    for content, good in ((body, True), (body + b" ", False)):
        message = "\n".join([*(headers[name] for name in names), hashlib.sha256(content).hexdigest()])
        assert ed25519_is_good(public, message.encode(), signature) is good


# --- moments ---


@pytest.fixture
def quiet(receiver: Receiver) -> Iterator[Receiver]:
    """A receiver that must not get more than the test has waited for."""
    yield receiver
    seen = len(receiver.got)
    time.sleep(0.15)
    assert len(receiver.got) == seen


def hook(receiver: Receiver) -> str:
    return f"?fal_webhook={receiver.url}"


def test_a_job_whose_answer_was_lost_tells_all_the_same(pika: PikaClient, quiet: Receiver) -> None:
    with pytest.raises(requests.exceptions.ConnectionError):
        pika.create("lost [[sim lost_reply render=0.1]]", query=hook(quiet))
    (told,) = quiet.wait(1)
    assert pika.sim(f"jobs?reference={quiet.url}")["jobs"][0]["id"] == told["request_id"]


def test_what_waits_in_the_queue_tells_when_it_has_ended(pika: PikaClient, quiet: Receiver) -> None:
    pika.sim("config", limits={"fal-ai/pika": 1})
    first, second = (pika.job(f"queue {n} [[sim render=100]]", query=hook(quiet)) for n in range(2))
    pika.sim("config", advance_s=101)
    assert quiet.wait(1)[0]["request_id"] == first["request_id"]
    assert pika.call("GET", second["status_url"]).json()["status"] == "IN_PROGRESS"
    pika.sim("config", advance_s=100)
    assert quiet.wait(2)[1]["request_id"] == second["request_id"]


def test_a_changed_plan_changes_the_moment(pika: PikaClient, quiet: Receiver) -> None:
    job = pika.job("forced [[sim render=0.3]]", query=hook(quiet))
    pika.sim(f"jobs/{job['request_id']}", state="running", seconds=60)
    time.sleep(0.5)
    assert quiet.got == []
    pika.sim(f"jobs/{job['request_id']}", state="failed", code="no_media_generated")
    assert quiet.wait(1)[0]["status"] == "ERROR"
    lost = pika.job("forgotten [[sim render=0.3]]", query=hook(quiet))
    pika.sim(f"jobs/{lost['request_id']}", state="lost")
    time.sleep(0.5)
    assert len(quiet.got) == 1


def test_a_fast_task_tells_both_changes(kling: KlingClient, quiet: Receiver) -> None:
    kling.newer("fast [[sim render=0]]", options={"callback_url": quiet.url})
    assert {told["status"] for told in quiet.wait(2)} == {"processing", "succeeded"}


def test_reset_forgets_what_waits_and_the_end_waits_for_nobody(receiver: Receiver) -> None:
    process, base = start("--canned", "--render-seconds", "0.5")
    client = PikaClient(base)
    client.job("forgotten", query=hook(receiver))
    client.sim("reset")
    client.job("told", query=hook(receiver))
    assert len(receiver.wait(1)) == 1  # the forgotten one would have come first
    client.job("on its way [[sim render=0 callback=late:60]]", query=hook(receiver))
    process.terminate()
    assert process.wait(60) == 0


def test_the_call_of_a_job_that_ends_first_waits_for_no_other(receiver: Receiver) -> None:
    """One timer for all: a thousand that end much later are not in its way."""
    process, base = start("--canned", "--render-seconds", "2400")
    try:
        client = KlingClient(base)
        for number in range(1000):
            client.newer(f"load {number}", options={"callback_url": receiver.url})
        client.newer("first [[sim render=0]]", options={"callback_url": receiver.url, "external_task_id": "first"})
        # A slow machine may see some of the thousand begin; this one must end without waiting for them.
        ended = wait_for(lambda: [told for told in receiver.bodies() if told["status"] == "succeeded"])
        assert [told["external_id"] for told in ended] == ["first"]
    finally:
        process.terminate()
        assert process.wait(60) == 0
