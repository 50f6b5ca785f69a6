"""Who sent a call-back, and which job it speaks of; without a network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import threading
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from providers import registry, webhooks
from providers.kling.callbacks import read_kling
from providers.pika import callbacks as pika_callbacks
from providers.pika.callbacks import FalKeys, parse_jwks, read_fal
from providers.webhooks import BadNotice, KeysUnavailable, Notice, Unverified

NOW_S = 1_764_000_000
BODY = json.dumps({"request_id": "job-1", "gateway_request_id": "other", "status": "OK", "payload": {}}).encode()
SECRET = "whsec_" + base64.b64encode(b"a secret of Kling's").decode()


def jwks(*keys: Ed25519PrivateKey) -> bytes:
    def x(key: Ed25519PrivateKey) -> str:
        return base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()

    return json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x(key)} for key in keys]}).encode()


def signed(key: Ed25519PrivateKey, body: bytes = BODY, *, at: int = NOW_S) -> dict[str, str]:
    message = "\n".join(("request", "user", str(at), hashlib.sha256(body).hexdigest()))
    return {
        "x-fal-webhook-request-id": "request",
        "x-fal-webhook-user-id": "user",
        "x-fal-webhook-timestamp": str(at),
        "x-fal-webhook-signature": key.sign(message.encode()).hex(),
    }


def reader_of(provider: str) -> Callable[[bytes], Notice]:
    callbacks = registry.BY_NAME[provider].callbacks
    assert callbacks is not None
    return callbacks.read


class Server:
    """fal's key server: what it serves, whether it is up, and how often it was asked."""

    def __init__(self, *keys: Ed25519PrivateKey) -> None:
        self.keys = keys
        self.down = False
        self.asked = 0
        self.clock_s = 0.0
        self.fal = FalKeys(self.fetch, now=lambda: self.clock_s)

    def fetch(self) -> bytes:
        self.asked += 1
        if self.down:
            raise ConnectionError("down")
        return jwks(*self.keys)

    def check(self, headers: dict[str, str], body: bytes = BODY) -> None:
        self.fal.check(headers, body, now_s=NOW_S)


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def server(key: Ed25519PrivateKey) -> Server:
    return Server(key)


# --- fal -----------------------------------------------------------------------------------------------------------


def test_a_signed_one_passes_and_the_keys_are_fetched_once(server: Server, key: Ed25519PrivateKey) -> None:
    for _ in range(3):
        server.check(signed(key))
    assert server.asked == 1


def test_any_key_of_the_set_will_do(server: Server, key: Ed25519PrivateKey) -> None:
    server.keys = (Ed25519PrivateKey.generate(), key)
    server.check(signed(key))


BROKEN: dict[str, tuple[Callable[[dict[str, str]], object], bytes]] = {
    "an altered body": (lambda h: None, BODY + b" "),
    "another request id": (lambda h: h.update({"x-fal-webhook-request-id": "x"}), BODY),
    "another user": (lambda h: h.pop("x-fal-webhook-user-id"), BODY),
    "another time": (lambda h: h.update({"x-fal-webhook-timestamp": str(NOW_S + 1)}), BODY),
    "a signature of nothing": (lambda h: h.update({"x-fal-webhook-signature": "0" * 128}), BODY),
}


@pytest.mark.parametrize(("spoil", "body"), BROKEN.values(), ids=BROKEN.keys())
def test_what_was_altered_is_refused(
    server: Server, key: Ed25519PrivateKey, spoil: Callable[[dict[str, str]], object], body: bytes
) -> None:
    headers = signed(key)
    spoil(headers)
    with pytest.raises(Unverified):
        server.check(headers, body)


MALFORMED = {
    "none": {"x-fal-webhook-signature": ""},
    "short": {"x-fal-webhook-signature": "ab"},
    "with spaces": {"x-fal-webhook-signature": "ab " * 64},
    "no hex": {"x-fal-webhook-signature": "z" * 128},
    "no time": {"x-fal-webhook-timestamp": ""},
    "no number": {"x-fal-webhook-timestamp": "now"},
    "not a number": {"x-fal-webhook-timestamp": "nan"},
    "other digits": {"x-fal-webhook-timestamp": "١٢"},
    "a huge time": {"x-fal-webhook-timestamp": "9" * 13},
    "too old": {"x-fal-webhook-timestamp": str(NOW_S - 301)},
    "from the future": {"x-fal-webhook-timestamp": str(NOW_S + 301)},
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED.keys())
def test_nonsense_is_refused_before_a_key_is_fetched(
    server: Server, key: Ed25519PrivateKey, change: dict[str, str]
) -> None:
    with pytest.raises(Unverified):
        server.check({**signed(key), **change})
    assert server.asked == 0


def test_five_minutes_off_is_still_good(server: Server, key: Ed25519PrivateKey) -> None:
    server.check(signed(key, at=NOW_S - 300))
    server.check(signed(key, at=NOW_S + 300))


def test_a_strangers_key_is_refused_and_costs_one_fetch_a_minute(server: Server, key: Ed25519PrivateKey) -> None:
    server.check(signed(key))
    server.clock_s = 100
    for _ in range(5):
        with pytest.raises(Unverified):
            server.check(signed(Ed25519PrivateKey.generate()))
    assert server.asked == 2
    server.check(signed(key))
    assert server.asked == 2


def test_rotated_keys_are_found(server: Server, key: Ed25519PrivateKey) -> None:
    server.check(signed(key))
    new = Ed25519PrivateKey.generate()
    server.keys = (new,)
    with pytest.raises(Unverified):
        server.check(signed(new))  # within a minute of the last fetch
    server.clock_s = 61
    server.check(signed(new))
    with pytest.raises(Unverified):
        server.check(signed(key))
    assert server.asked == 2


def test_keys_are_kept_for_a_day_and_not_longer(server: Server, key: Ed25519PrivateKey) -> None:
    server.check(signed(key))
    server.down = True
    server.clock_s = 24 * 3600
    server.check(signed(key))
    server.clock_s += 1
    with pytest.raises(KeysUnavailable):
        server.check(signed(key))
    server.down = False
    server.clock_s += 61
    server.check(signed(key))


def test_without_keys_nobody_can_say_and_the_server_is_asked_once_a_minute(
    server: Server, key: Ed25519PrivateKey
) -> None:
    server.down = True
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            server.check(signed(key))
    assert server.asked == 1
    server.down, server.clock_s = False, 61
    server.check(signed(key))


def test_with_the_server_down_an_unknown_key_may_be_a_new_one(server: Server, key: Ed25519PrivateKey) -> None:
    server.check(signed(key))
    server.down, server.clock_s = True, 61
    for _ in range(2):
        with pytest.raises(KeysUnavailable):
            server.check(signed(Ed25519PrivateKey.generate()))
    server.check(signed(key))  # the keys that were there stay
    assert server.asked == 2


def test_many_threads_fetch_once(server: Server, key: Ed25519PrivateKey) -> None:
    headers, failed = signed(key), []
    slow = threading.Event()
    fetch = server.fetch
    server.fal._fetch = lambda: (slow.wait(0.1), fetch())[1]

    def check() -> None:
        try:
            server.check(headers)
        except Exception as err:
            failed.append(err)

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert server.asked == 1


def test_who_waits_too_long_for_another_threads_fetch_is_told_to_come_again(
    server: Server, key: Ed25519PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pika_callbacks, "WAIT_FOR_KEYS_S", 0.01)
    with server.fal._lock, pytest.raises(KeysUnavailable):
        server.check(signed(key))


JWKS_WITHOUT_KEYS = {
    "not json": b"<html>",
    "a list": b"[]",
    "no keys": b"{}",
    "keys that are none": b'{"keys": [1, null, "x", {}]}',
    "another curve": b'{"keys": [{"kty": "OKP", "crv": "X25519", "x": "AAAA"}]}',
    "a short key": b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]}',
    "no base64": b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "!"}]}',
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("raw", JWKS_WITHOUT_KEYS.values(), ids=JWKS_WITHOUT_KEYS.keys())
def test_a_key_set_without_a_key_is_an_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        parse_jwks(raw)


def test_a_bad_key_set_does_not_replace_a_good_one(server: Server, key: Ed25519PrivateKey) -> None:
    server.check(signed(key))
    server.fal._fetch = lambda: b"{}"
    server.clock_s = 61
    with pytest.raises(KeysUnavailable):
        server.check(signed(Ed25519PrivateKey.generate()))
    server.check(signed(key))


# --- Kling ---------------------------------------------------------------------------------------------------------


def standard(body: bytes = BODY, *, secret: str = SECRET, at: int = NOW_S, before: str = "") -> dict[str, str]:
    mac = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), f"msg_1.{at}.".encode() + body, "sha256")
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(at),
        "webhook-signature": f"{before}v1,{base64.b64encode(mac).decode()}",
    }


def check_kling(headers: dict[str, str], body: bytes = BODY) -> None:
    webhooks.check_standard_webhook(headers, body, key=webhooks.webhook_key(SECRET), now_s=NOW_S)


def test_klings_signature_passes_also_among_others() -> None:
    check_kling(standard())
    check_kling(standard(before="v1,AAAA v2,BBBB v1,#### v1 "))
    check_kling(standard(at=NOW_S - 300))


def test_the_published_example_of_standard_webhooks_passes() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, spec: the same vector that its libraries test with."""
    webhooks.check_standard_webhook(
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
        key=webhooks.webhook_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        now_s=1614265330,
    )


def test_any_form_of_the_body_may_be_what_was_signed(server: Server, key: Ed25519PrivateKey) -> None:
    other = gzip.compress(BODY)
    secret = webhooks.webhook_key(SECRET)
    for forms in ((BODY,), (other, BODY), (BODY, other)):
        webhooks.check_standard_webhook(standard(), *forms, key=secret, now_s=NOW_S)
        server.fal.check(signed(key), *forms, now_s=NOW_S)
    for wrong in ((), (other,), (BODY + b" ", other)):
        with pytest.raises(Unverified):
            webhooks.check_standard_webhook(standard(), *wrong, key=secret, now_s=NOW_S)
        with pytest.raises(Unverified):
            server.fal.check(signed(key), *wrong, now_s=NOW_S)
    assert server.asked == 1


KLING_BROKEN = {
    "no signature": (standard() | {"webhook-signature": ""}, BODY),
    "another version": (standard() | {"webhook-signature": standard()["webhook-signature"].replace("v1", "v2")}, BODY),
    "another secret": (standard(secret="whsec_Zm9yZ2Vk"), BODY),
    "an altered body": (standard(), BODY + b" "),
    "another id": (standard() | {"webhook-id": "msg_2"}, BODY),
    "another time": (standard() | {"webhook-timestamp": str(NOW_S + 1)}, BODY),
    "no time": (standard() | {"webhook-timestamp": ""}, BODY),
    "too old": (standard(at=NOW_S - 301), BODY),
    "from the future": (standard(at=NOW_S + 301), BODY),
    "too many": (standard(before="v1,AAAA " * 50), BODY),
}


@pytest.mark.parametrize(("headers", "body"), KLING_BROKEN.values(), ids=KLING_BROKEN.keys())
def test_what_kling_did_not_sign_so_is_refused(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(Unverified):
        check_kling(headers, body)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_!", "whsec_abc", "whsec_eA==", "c2VjcmV0", "", "whsec_ä"])
def test_a_malformed_secret_is_named_and_not_shown(secret: str) -> None:
    with pytest.raises(webhooks.BadSecret) as caught:
        webhooks.webhook_key(secret)
    assert not secret or secret not in str(caught.value) or secret == "whsec_"


# --- reading -------------------------------------------------------------------------------------------------------

OLDER = {
    "task_id": "8123",
    "task_status": "succeed",
    "task_status_msg": "",
    "task_info": {"external_task_id": "gen_1"},
    "task_result": {"videos": [{"id": "1", "url": "https://evil.example/x.mp4"}]},
}
NEWER = {"id": "9123", "status": "succeeded", "external_id": "gen_2", "create_time": 1, "outputs": [], "billing": []}


def test_fals_job_is_the_queues_id() -> None:
    assert read_fal(BODY) == Notice("job-1")


def test_both_of_klings_shapes_are_read() -> None:
    assert read_kling(json.dumps(OLDER).encode()) == Notice("8123", "gen_1")
    assert read_kling(json.dumps(NEWER).encode()) == Notice("9123", "gen_2")
    assert read_kling(b'{"external_id": "gen_2"}') == Notice("", "gen_2")


def told(value: object) -> bytes:
    return json.dumps(value).encode()


WRAPPED: dict[str, Callable[[object], object]] = {
    "as the API's replies": lambda told: {"code": 0, "message": "SUCCEED", "request_id": "r-1", "data": told},
    "as the API's look-ups": lambda told: {"code": 0, "message": "SUCCEED", "request_id": "r-1", "data": [told]},
    "as an event": lambda told: {"id": "evt_1", "type": "task.updated", "data": told},
    "as a result": lambda told: {"ok": True, "result": told},
    "twice": lambda told: {"body": {"code": 0, "data": told}},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_envelopes_are_opened(wrap: Callable[[object], object]) -> None:
    assert read_kling(told(wrap(OLDER))) == Notice("8123", "gen_1")
    assert read_kling(told(wrap(NEWER))) == Notice("9123", "gen_2")
    assert registry.sender_of({}, told(wrap(OLDER))) == "kling"
    assert registry.sender_of({}, told(wrap(NEWER))) == "kling"
    assert read_fal(told(wrap(json.loads(BODY)))) == Notice("job-1")
    assert registry.sender_of({}, told(wrap(json.loads(BODY)))) == "pika"


def test_fals_request_may_be_named_inside_its_payload_only() -> None:
    assert read_fal(b'{"status": "OK", "payload": {"request_id": "job-1"}}') == Notice("job-1")
    assert read_fal(b'{"request_id": "job-1", "payload": {"request_id": "job-2"}}') == Notice("job-1")


def test_an_id_may_be_a_whole_number() -> None:
    assert read_fal(b'{"request_id": 893605946402811985}') == Notice("893605946402811985")
    assert read_kling(b'{"task_id": 893605946402811985, "task_info": {"external_task_id": 7}}') == Notice(
        "893605946402811985", "7"
    )
    assert read_kling(b'{"code": 0, "data": {"id": 9, "external_id": "gen_2"}}') == Notice("9", "gen_2")


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read_fal(b"\xef\xbb\xbf" + BODY) == Notice("job-1")


NO_NOTICE = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b"null",
    b"\xff\xfe",
    b"[" * 60_000,
    b'{"request_id": true, "task_id": 0, "id": -1}',
    b'{"request_id": 1.5, "task_id": 8e17, "id": false}',
    b'{"request_id": ' + b"9" * 41 + b', "id": ' + b"9" * 41 + b"}",
    b'{"data": [{"request_id": "a", "id": "a"}, {"request_id": "b", "id": "b"}]}',
    b'{"data": {"data": {"data": {"request_id": "a", "id": "a"}}}}',
    b'{"data": "{}", "payload": null, "result": [[{"request_id": "a", "id": "a"}]]}',
    b'{"request_id": "", "task_id": "", "id": ""}',
    b'{"request_id": "a b", "task_id": "a\\nb", "id": "../x"}',
    b'{"request_id": null, "task_info": [], "id": {}}',
    json.dumps({"request_id": "x" * 121, "task_id": "x" * 121}).encode(),
    b'{"request_id": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("body", NO_NOTICE, ids=range(len(NO_NOTICE)))
@pytest.mark.parametrize("provider", [one.name for one in registry.PROVIDERS if one.callbacks is not None])
def test_what_names_no_job_is_unreadable(provider: str, body: bytes) -> None:
    with pytest.raises(BadNotice):
        reader_of(provider)(body)


SENDERS: dict[str, tuple[dict[str, str], object, str | None]] = {
    "fal's headers": ({"x-fal-webhook-signature": "00"}, {}, "pika"),
    "Kling's headers": ({"webhook-signature": "v1,"}, {}, "kling"),
    "fal's shape": ({}, json.loads(BODY), "pika"),
    "Kling's older shape": ({}, OLDER, "kling"),
    "Kling's newer shape": ({}, NEWER, "kling"),
    "Runway's task": ({}, {"id": "x", "status": "SUCCEEDED", "createdAt": "2026-11-24"}, None),
    "something else": ({}, {"hello": 1}, None),
    "no object": ({}, [1], None),
}


@pytest.mark.parametrize(("headers", "body", "provider"), SENDERS.values(), ids=SENDERS.keys())
def test_the_sender_is_told_by_headers_or_shape(headers: dict[str, str], body: object, provider: str | None) -> None:
    assert registry.sender_of(headers, json.dumps(body).encode()) == provider
