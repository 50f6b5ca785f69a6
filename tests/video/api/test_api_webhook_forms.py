"""Call-backs in the forms that senders and proxies give them: compressed, in pieces, in an envelope, with a slash."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import responses
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from providers.dialect.signing import standard_webhook_headers
from providers.pika.callbacks import keys_at
from tests.factories import accepted, admitted, claimed, make_task, park_one, reload
from video.attempts import callbacks, records
from video.models import Generation, VideoTask

pytestmark = pytest.mark.django_db

ANY = "/api/video/webhook"
PIKA = f"{ANY}/pika"
KLING = f"{ANY}/kling"
JOB = "893605946402811985"
SECRET = "whsec_" + base64.b64encode(b"a secret of Kling's").decode()
MOST = 64 * 1024
TASK = {"id": JOB, "status": "succeed", "create_time": 1, "external_id": "", "outputs": [], "billing": []}
BODY = json.dumps(TASK).encode()
FAL = json.dumps({"request_id": JOB, "gateway_request_id": JOB, "status": "OK", "payload": {}}).encode()


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip by its old name": ("X-GZip", gzip.compress),
    "gzip that is not told": ("", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without zlib's head": ("deflate", raw_deflate),
    "unpacked on the way": ("gzip", bytes),
    "none": ("identity", bytes),
}
EACH_PACKING = pytest.mark.parametrize(("encoding", "pack"), PACKED.values(), ids=PACKED.keys())


def post(address: str, raw: bytes, encoding: str = "", headers: dict[str, str] | None = None, **more: Any) -> Any:
    headers = {**(headers or {}), **({"Content-Encoding": encoding} if encoding else {})}
    client = Client(raise_request_exception=False)
    return client.post(address, raw, content_type="application/json", headers=headers, **more)


def code_of(reply: Any, status: int) -> str:
    assert reply.status_code == status, reply.content
    return str(reply.json()["error"]["code"])


@pytest.fixture
def fal(settings: Settings) -> Iterator[Callable[[bytes], dict[str, str]]]:
    """Signs as fal does, and serves its key."""
    key = Ed25519PrivateKey.generate()
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()

    def sign(raw: bytes) -> dict[str, str]:
        stamp = str(int(time.time()))
        message = "\n".join(("request", "user", stamp, hashlib.sha256(raw).hexdigest()))
        return {
            "X-Fal-Webhook-Request-Id": "request",
            "X-Fal-Webhook-User-Id": "user",
            "X-Fal-Webhook-Timestamp": stamp,
            "X-Fal-Webhook-Signature": key.sign(message.encode()).hex(),
        }

    keys_at.cache_clear()
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.get(settings.PIKA_WEBHOOK_JWKS_URL, json={"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]})
        yield sign
    keys_at.cache_clear()


def waiting(provider: str) -> Generation:
    """A job that is looked at next in an hour."""
    generation = accepted(make_task(), JOB)
    hour = timedelta(hours=1)
    VideoTask.objects.filter(pk=generation.task_id).update(next_run_at=timezone.now() + hour, rung_at=None)
    Generation.objects.filter(pk=generation.pk).update(provider=provider, last_polled_at=timezone.now() - hour)
    return generation


def is_due(generation: Generation) -> bool:
    next_run_at = reload(generation.task).next_run_at
    return next_run_at is not None and next_run_at <= timezone.now()


# --- compressed ----------------------------------------------------------------------------------------------------


@EACH_PACKING
@pytest.mark.parametrize("address", [KLING, ANY])
def test_a_compressed_one_is_taken(address: str, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    generation = waiting("kling")
    assert post(address, pack(BODY), encoding).status_code == 200
    assert is_due(generation)


@EACH_PACKING
def test_kling_may_sign_before_or_after_it_compresses(
    settings: Settings, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    settings.KLING_WEBHOOK_SECRET = SECRET
    packed = pack(BODY)
    for signed in {BODY, packed}:
        generation = waiting("kling")
        assert post(KLING, packed, encoding, standard_webhook_headers(SECRET, "msg_1", signed)).status_code == 200
        assert is_due(generation)
        Generation.objects.all().delete()
    for wrong in (BODY + b" ", packed + b"x"):
        reply = post(KLING, packed, encoding, standard_webhook_headers(SECRET, "msg_1", wrong))
        assert code_of(reply, 401) == "bad_signature"


@EACH_PACKING
def test_fal_may_sign_before_or_after_it_compresses(
    fal: Callable[[bytes], dict[str, str]], encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(FAL)
    for signed in {FAL, packed}:
        assert post(PIKA, packed, encoding, fal(signed)).status_code == 200
    assert code_of(post(PIKA, packed, encoding, fal(FAL + b" ")), 401) == "bad_signature"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", ""])
def test_a_bomb_is_refused_by_its_unpacked_size(encoding: str) -> None:
    packed = gzip.compress(b" " * 50_000_000, 9) if encoding != "deflate" else zlib.compress(b" " * 50_000_000, 9)
    assert len(packed) < MOST
    for address in (KLING, PIKA, ANY):
        assert code_of(post(address, packed, encoding), 413) == "body_too_large"


def test_the_limit_is_that_of_the_unpacked_body() -> None:
    generation = waiting("kling")
    assert code_of(post(KLING, gzip.compress(BODY.ljust(MOST + 1)), "gzip"), 413) == "body_too_large"
    assert not is_due(generation)
    assert post(KLING, gzip.compress(BODY.ljust(MOST)), "gzip").status_code == 200
    assert is_due(generation)


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (gzip.compress(BODY, mtime=0)[:-9], "gzip"),
        (gzip.compress(BODY, mtime=0)[:20], "gzip"),
        (b"\x1f\x8b", ""),
        (gzip.compress(b"{}", mtime=0) + b"more", "gzip"),
        (b"garbage", "gzip"),
        (b"", "gzip"),
        (b"\x00\xff", "deflate"),
        (b"\x1b\x00", "br"),
    ],
)
def test_what_cannot_be_unpacked_is_refused_like_other_garbage(settings: Settings, raw: bytes, encoding: str) -> None:
    assert code_of(post(KLING, raw, encoding), 400) == "invalid_request"
    assert code_of(post(ANY, raw, encoding), 400) == "unknown_provider"
    settings.KLING_WEBHOOK_SECRET = SECRET
    assert code_of(post(KLING, raw, encoding), 401) == "bad_signature"


# --- in pieces -----------------------------------------------------------------------------------------------------


def test_one_without_a_length_is_refused_by_a_server_that_does_not_receive_bodies_whole() -> None:
    """Ours does, and gives each its length: see tests/video/web/test_front.py."""
    assert code_of(post(KLING, b"", HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH=""), 411) == "length_required"


# --- the address ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [f"{KLING}/", f"{ANY}/"])
def test_a_slash_at_the_end_is_passed_over(address: str) -> None:
    generation = waiting("kling")
    assert post(address, BODY).status_code == 200
    assert is_due(generation)


@pytest.mark.parametrize("place", ["path", "query", "both"])
def test_a_slash_in_the_address_of_a_lost_submit_loses_nothing(
    fal: Callable[[bytes], dict[str, str]], settings: Settings, place: str
) -> None:
    settings.PUBLIC_BASE_URL = "https://video.example"
    generation = admitted(make_task())
    claim = claimed(generation.task)
    assert records.mark_sent(claim, generation)
    assert park_one(claim, delay_s=3600, reason="the answer may still come")
    Generation.objects.filter(pk=generation.pk).update(provider="pika")
    url = str(callbacks.callback_url(generation.pk, "pika")).removeprefix("https://video.example")
    if place != "query":
        url = url.replace("?", "/?")
    if place != "path":
        url += "/"
    assert post(url, FAL, headers=fal(FAL)).status_code == 200
    assert Generation.objects.get(pk=generation.pk).job_id == JOB


# --- the body ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"code": 0, "message": "SUCCEED", "request_id": "r", "data": TASK},
        {"code": 0, "message": "SUCCEED", "request_id": "r", "data": [TASK]},
        TASK | {"id": int(JOB)},
        {"task_id": int(JOB), "task_status": "succeed"},
    ],
    ids=["an envelope", "a list in it", "a number", "a number, older"],
)
@pytest.mark.parametrize("address", [KLING, ANY])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "with a byte-order mark"])
def test_envelopes_and_numbers_are_read(address: str, body: object, mark: bytes) -> None:
    generation = waiting("kling")
    assert post(address, mark + json.dumps(body).encode()).status_code == 200
    assert is_due(generation)
