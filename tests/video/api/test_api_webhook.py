"""POST /api/video/webhook: a call-back makes us look, and is believed in nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import responses
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve
from django.utils import timezone
from pytest_django import Settings

from providers.contract import JobState, JobStatus, Submitted
from providers.dialect.signing import FalSigner, standard_webhook_headers
from providers.pika.callbacks import keys_at
from tests.factories import accepted, admitted, age, claim_one, claimed, make_task, park_one, reload
from video.attempts import callbacks, provider_calls, records, task_moves
from video.engine import dispatch
from video.models import Generation, Stage, VideoTask
from video.pipeline import runner

pytestmark = pytest.mark.django_db

ANY = "/api/video/webhook"
PIKA = f"{ANY}/pika"
KLING = f"{ANY}/kling"
JOB = "0c5b2f3e-1111-4222-8333-444455556666"
SECRET = "whsec_" + base64.b64encode(b"a secret of Kling's").decode()
OK = {"success": True, "data": {}}
MOST_STATEMENTS = 4


class Fal:
    """fal, as far as its call-backs go: its key server and its signatures."""

    def __init__(self, mock: responses.RequestsMock, url: str) -> None:
        self.mock, self.url, self.clock_s = mock, url, 0.0
        self.key = Ed25519PrivateKey.generate()
        self.serve()
        keys_at(url, callbacks.fetch_keys)._now = lambda: self.clock_s

    def serve(self, status: int = 200) -> None:
        x = base64.urlsafe_b64encode(self.key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        self.mock.upsert("GET", self.url, status=status, json={"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]})

    @property
    def asked(self) -> int:
        return len(self.mock.calls)

    def headers(self, raw: bytes, *, key: Ed25519PrivateKey | None = None, at: float | None = None) -> dict[str, str]:
        stamp = str(int(time.time() if at is None else at))
        message = "\n".join(("request", "user", stamp, hashlib.sha256(raw).hexdigest()))
        return {
            "X-Fal-Webhook-Request-Id": "request",
            "X-Fal-Webhook-User-Id": "user",
            "X-Fal-Webhook-Timestamp": stamp,
            "X-Fal-Webhook-Signature": (key or self.key).sign(message.encode()).hex(),
        }

    def call(self, address: str = PIKA, job: str = JOB, *, sent: bytes | None = None, **more: Any) -> Any:
        raw = fal_body(job)
        return post(address, raw if sent is None else sent, self.headers(raw, **more))


def fal_body(job: str = JOB) -> bytes:
    """What fal says of a finished job; the address in it is a trap."""
    payload = {"video": {"url": "https://evil.example/x.mp4"}}
    return json.dumps({"request_id": job, "gateway_request_id": job, "status": "OK", "payload": payload}).encode()


def older(job: str = JOB, reference: str = "") -> bytes:
    """What Kling's older standard says."""
    return json.dumps(
        {
            "task_id": job,
            "task_status": "succeed",
            "final_unit_deduction": "999",
            "task_info": {"external_task_id": reference},
            "task_result": {"videos": [{"id": "1", "url": "https://evil.example/x.mp4", "duration": "5"}]},
        }
    ).encode()


def newer(job: str = JOB, reference: str = "") -> bytes:
    """What Kling's newer standard says."""
    return json.dumps(
        {
            "id": job,
            "status": "failed",
            "message": "risk control",
            "create_time": 1,
            "external_id": reference,
            "outputs": [{"type": "video", "url": "https://evil.example/x.mp4"}],
            "billing": [],
        }
    ).encode()


def post(address: str, raw: bytes, headers: dict[str, str] | None = None, **more: Any) -> Any:
    client = Client(raise_request_exception=False, **more.pop("client", {}))
    return client.post(address, raw, content_type=more.pop("content_type", "application/json"), headers=headers, **more)


def code_of(reply: Any, status: int) -> str:
    assert reply.status_code == status, reply.content
    assert reply["Cache-Control"] == "no-store"
    return str(reply.json()["error"]["code"])


@pytest.fixture(autouse=True)
def _fresh_keys() -> Iterator[None]:
    keys_at.cache_clear()
    yield
    keys_at.cache_clear()


@pytest.fixture
def fal(settings: Settings) -> Iterator[Fal]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield Fal(mock, settings.PIKA_WEBHOOK_JWKS_URL)


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Stage]]:
    """Bells that were rung after the commit."""
    heard: list[tuple[str, Stage]] = []
    monkeypatch.setattr(dispatch, "resume", lambda task_id, stage: heard.append((task_id, stage)))
    return heard


@pytest.fixture(autouse=True)
def _public(settings: Settings) -> None:
    settings.PUBLIC_BASE_URL = "https://video.example"


def at(generation: Generation, provider: str, **columns: Any) -> Generation:
    """The same attempt, at that provider."""
    Generation.objects.filter(pk=generation.pk).update(provider=provider, **columns)
    return Generation.objects.select_related("task").get(pk=generation.pk)


def waiting(provider: str, **columns: Any) -> Generation:
    """A job that is looked at next in an hour, and was looked at an hour ago."""
    generation = accepted(make_task(), JOB)
    VideoTask.objects.filter(pk=generation.task_id).update(next_run_at=in_seconds(3600), rung_at=None)
    return at(generation, provider, **{"last_polled_at": in_seconds(-3600), **columns})


def unknown(provider: str) -> Generation:
    """A submit whose answer was lost; its task is parked for an hour."""
    generation = admitted(make_task())
    claim = claimed(generation.task)
    assert records.mark_sent(claim, generation)
    assert park_one(claim, delay_s=3600, reason="the answer may still come")
    return at(generation, provider)


def in_seconds(seconds: float) -> Any:
    return timezone.now() + timedelta(seconds=seconds)


def due_in_s(task: VideoTask) -> float:
    next_run_at = reload(task).next_run_at
    assert next_run_at is not None
    return float((next_run_at - timezone.now()).total_seconds())


def path_of(url: str | None) -> str:
    assert url is not None
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def nothing_moved(generation: Generation) -> bool:
    task, now = reload(generation.task), Generation.objects.get(pk=generation.pk)
    return (
        task.hinted_at is None
        and due_in_s(task) > 3000
        and (now.state, now.job_id, now.look_at) == (generation.state, generation.job_id, generation.look_at)
    )


# --- a hint --------------------------------------------------------------------------------------------------------


def test_a_signed_call_back_makes_the_look_due_and_rings(
    fal: Fal, rung: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    generation = waiting("pika")
    with django_capture_on_commit_callbacks(execute=True):
        reply = fal.call()
    assert (reply.status_code, reply.json()) == (200, OK)
    assert due_in_s(generation.task) <= 0
    assert rung == [(generation.task_id, Stage.POLL)]
    assert claim_one(generation.task_id, Stage.POLL) is not None


@pytest.mark.parametrize("raw", [older(), newer()], ids=["older", "newer"])
def test_both_of_klings_shapes_are_hints_without_a_secret(raw: bytes) -> None:
    generation = waiting("kling")
    assert post(KLING, raw).json() == OK
    assert due_in_s(generation.task) <= 0


def test_nothing_in_it_is_believed(fal: Fal, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = waiting("kling")
    before = Generation.objects.filter(pk=generation.pk).values().get()
    post(KLING, newer())
    post(KLING, older())
    assert Generation.objects.filter(pk=generation.pk).values().get() == before
    task = reload(generation.task)
    assert (task.status, task.stage, task.error_code) == ("running", "poll", "")
    looked = []

    def look_many(asked: list[Generation], **_: object) -> dict[str, provider_calls.PollAnswer]:
        looked.extend(one.pk for one in asked)
        return {one.pk: JobStatus(JobState.RUNNING, "processing") for one in asked}

    monkeypatch.setattr(provider_calls, "poll_many", look_many)
    assert not runner.run_stage(Stage.POLL, task.pk)
    assert looked == [generation.pk]
    assert reload(task).stage == "poll"


def test_a_replay_only_makes_us_look_again_and_not_sooner_than_the_least_interval(
    fal: Fal, settings: Settings, rung: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    settings.SIMULATE = False
    looked_at = in_seconds(600)  # far enough ahead for the slowest machine to be asked before
    generation = waiting("pika", last_polled_at=looked_at)
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(3):
            assert fal.call().status_code == 200
    assert reload(generation.task).next_run_at == looked_at + timedelta(seconds=3)  # fal's least interval
    assert rung == []  # the sweeper rings when it is due


def test_a_bell_that_was_rung_just_now_is_not_rung_again(
    fal: Fal, rung: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    generation = waiting("pika")
    VideoTask.objects.filter(pk=generation.task_id).update(rung_at=timezone.now())
    with django_capture_on_commit_callbacks(execute=True):
        fal.call()
    assert reload(generation.task).hinted_at is not None
    assert rung == []


def test_one_that_comes_while_we_look_is_honoured_at_the_park(
    fal: Fal, rung: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    generation = waiting("pika")
    age(generation.task_id, 7200)
    claim = claimed(generation.task, Stage.POLL)
    with django_capture_on_commit_callbacks(execute=True):
        fal.call()
    assert rung == []  # a worker has it
    assert park_one(claim, delay_s=3600, hint_delay_s=5, reason="pika: in_progress")
    assert 3 < due_in_s(generation.task) <= 5


@pytest.mark.parametrize("stage", [Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL, Stage.SAVE])
def test_a_back_off_of_a_later_stage_is_not_cut_short(fal: Fal, stage: Stage) -> None:
    generation = waiting("pika")
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    VideoTask.objects.filter(pk=generation.task_id).update(stage=stage)
    assert fal.call().json() == OK
    assert nothing_moved(Generation.objects.select_related("task").get(pk=generation.pk))


@pytest.mark.parametrize("job", ["unknown-job", "", None])
def test_an_unknown_job_is_answered_like_a_known_one(job: str | None) -> None:
    generation = waiting("kling")
    known = post(KLING, newer())
    raw = newer(job or "x") if job is not None else older("y")
    unknown_job = post(KLING, raw)
    assert (unknown_job.status_code, unknown_job.content) == (known.status_code, known.content)
    assert sorted(unknown_job.headers) == sorted(known.headers)
    assert Generation.objects.count() == 1
    assert reload(generation.task).hinted_at is not None


def test_a_job_id_of_another_provider_is_no_job(fal: Fal) -> None:
    generation = waiting("runway")
    assert fal.call().json() == OK
    assert post(KLING, older()).json() == OK
    assert nothing_moved(generation)


def test_a_task_that_waits_for_a_slot_or_is_planned_is_left_alone() -> None:
    generation = at(admitted(make_task()), "kling")
    before = VideoTask.objects.filter(pk=generation.task_id).values().get()
    post(KLING, older("elsewhere", generation.pk))
    assert VideoTask.objects.filter(pk=generation.task_id).values().get() == before


# --- late truth ----------------------------------------------------------------------------------------------------


def ended(generation: Generation) -> Generation:
    age(generation.task_id, 7200)
    assert task_moves.fail(claimed(generation.task, Stage.POLL), code="timeout", message="Too long.")
    assert records.check_later(generation.pk, 3600)
    return Generation.objects.get(pk=generation.pk)


def test_a_job_of_an_ended_task_is_looked_at_out_of_turn(
    fal: Fal, rung: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    generation = ended(waiting("pika"))
    with django_capture_on_commit_callbacks(execute=True):
        assert fal.call().json() == OK
    look_at = Generation.objects.get(pk=generation.pk).look_at
    assert look_at is not None
    assert look_at <= timezone.now()
    assert rung == []
    assert reload(generation.task).status == "failed"


def test_a_lost_job_is_looked_at_again(fal: Fal) -> None:
    generation = ended(waiting("pika"))
    assert records.record_lost(generation.pk, code="job_lost")
    fal.call()
    found = Generation.objects.get(pk=generation.pk)
    assert found.state == "lost"
    assert found.look_at is not None


def test_a_settled_job_stays_settled(fal: Fal) -> None:
    generation = ended(waiting("pika"))
    assert records.record_ended(generation.pk, Generation.State.FAILED, code="x")
    assert fal.call().json() == OK
    assert Generation.objects.get(pk=generation.pk).look_at is None


# --- adoption ------------------------------------------------------------------------------------------------------


def test_a_signed_call_back_to_our_own_address_tells_the_job_of_a_lost_answer(fal: Fal) -> None:
    generation = unknown("pika")
    assert fal.call(path_of(callbacks.callback_url(generation.pk, "pika"))).json() == OK
    found = Generation.objects.get(pk=generation.pk)
    assert (found.state, found.job_id, found.reported_cost) == ("accepted", JOB, None)
    assert due_in_s(generation.task) <= 0
    assert runner.run_stage(Stage.GENERATE, generation.task_id)
    assert reload(generation.task).stage == "poll"  # where the job is asked how it really stands


def test_without_a_provider_in_the_path_it_is_the_same(fal: Fal) -> None:
    generation = unknown("pika")
    fal.call(path_of(callbacks.callback_url(generation.pk, "pika")).replace("/pika?", "?"))
    assert Generation.objects.get(pk=generation.pk).job_id == JOB


def test_an_ended_tasks_lost_answer_is_told_too_and_looked_at_at_once(fal: Fal) -> None:
    generation = unknown("pika")
    age(generation.task_id, 7200)
    assert task_moves.fail(claimed(generation.task), code="outcome_unknown", message="Nobody knows.")
    assert records.record_lost(generation.pk, code="outcome_unknown")
    fal.call(path_of(callbacks.callback_url(generation.pk, "pika")))
    found = Generation.objects.get(pk=generation.pk)
    assert (found.state, found.job_id) == ("accepted", JOB)
    assert found.look_at is not None
    assert found.look_at <= timezone.now()


def test_an_unverified_one_adopts_nothing(fal: Fal) -> None:
    generation = unknown("pika")
    address = path_of(callbacks.callback_url(generation.pk, "pika"))
    assert code_of(post(address, fal_body()), 401) == "bad_signature"
    assert code_of(fal.call(address, key=Ed25519PrivateKey.generate()), 401) == "bad_signature"
    assert nothing_moved(generation)


def test_a_signed_one_without_proof_of_our_address_adopts_nothing(fal: Fal) -> None:
    """fal signs for all its customers: anybody can have fal call us, with any query."""
    generation = unknown("pika")
    address = path_of(callbacks.callback_url(generation.pk, "pika"))
    other = path_of(callbacks.callback_url(unknown("pika").pk, "pika"))
    of_kling = path_of(callbacks.callback_url(generation.pk, "kling"))
    signature = address.rpartition("sig=")[2]
    for query in (
        f"ref={generation.pk}",
        f"ref={generation.pk}&sig=",
        f"ref={generation.pk}&sig={signature[:-1]}",
        f"ref={generation.pk}&sig={other.rpartition('sig=')[2]}",
        f"ref={generation.pk}&sig={of_kling.rpartition('sig=')[2]}",
        f"ref={generation.pk}&sig=a:{signature}",
        f"ref={generation.pk}%20&sig={signature}",
        "ref=gen_%00&sig=%00",
    ):
        assert fal.call(f"{PIKA}?{query}").json() == OK
    assert nothing_moved(generation)


def test_a_job_that_is_known_is_not_adopted_by_another_attempt(fal: Fal) -> None:
    known, lost = waiting("pika"), unknown("pika")
    fal.call(path_of(callbacks.callback_url(lost.pk, "pika")))
    assert nothing_moved(lost)
    assert reload(known.task).hinted_at is not None


def test_an_attempt_that_has_its_job_keeps_it(fal: Fal) -> None:
    generation = waiting("pika")
    fal.call(path_of(callbacks.callback_url(generation.pk, "pika")), "another-job")
    assert Generation.objects.get(pk=generation.pk).job_id == JOB


def test_kling_is_asked_by_our_reference_and_not_told_from_outside(settings: Settings) -> None:
    settings.KLING_WEBHOOK_SECRET = SECRET
    generation = unknown("kling")
    raw = newer("stranger", generation.pk)
    address = path_of(callbacks.callback_url(generation.pk, "kling"))
    assert post(address, raw, standard_webhook_headers(SECRET, "msg_1", raw)).json() == OK
    found = Generation.objects.get(pk=generation.pk)
    assert (found.state, found.job_id) == ("unknown", "")
    assert due_in_s(generation.task) <= 0  # the look-up is due


@pytest.mark.parametrize("shape", [older, newer], ids=["older", "newer"])
def test_klings_copy_of_our_reference_is_a_hint(shape: Any) -> None:
    generation = unknown("kling")
    assert post(KLING, shape("stranger", generation.pk)).json() == OK
    assert Generation.objects.get(pk=generation.pk).job_id == ""
    assert due_in_s(generation.task) <= 0


@pytest.mark.django_db(transaction=True)
def test_two_attempts_that_adopt_one_job_at_the_same_moment(monkeypatch: pytest.MonkeyPatch, fal: Fal) -> None:
    first, second = unknown("pika"), unknown("pika")
    find = callbacks._find

    def find_and_be_overtaken(*args: Any) -> Any:
        found = find(*args)
        assert records.record_accepted(first.pk, Submitted(JOB))
        return found

    monkeypatch.setattr(callbacks, "_find", find_and_be_overtaken)
    assert fal.call(path_of(callbacks.callback_url(second.pk, "pika"))).json() == OK
    assert Generation.objects.get(pk=second.pk).state == "unknown"


# --- who is refused ------------------------------------------------------------------------------------------------


def test_unsigned_forged_altered_and_old_ones_are_refused_and_nothing_happens(fal: Fal) -> None:
    generation = waiting("pika")
    raw = fal_body()
    good = fal.headers(raw)
    for reply in (
        post(PIKA, raw),
        post(ANY, raw),
        post(PIKA, raw, good | {"X-Fal-Webhook-Signature": "0" * 128}),
        post(PIKA, raw, FalSigner().headers("request", "user", raw)),  # another key
        post(PIKA, raw, good | {"X-Fal-Webhook-Timestamp": str(int(time.time()) + 1)}),
        fal.call(sent=raw + b" "),
        fal.call(at=time.time() - 310),
        fal.call(at=time.time() + 310),
    ):
        assert code_of(reply, 401) == "bad_signature"
    assert nothing_moved(generation)
    assert fal.asked == 1


def test_what_the_simulators_fal_signs_passes(fal: Fal) -> None:
    generation, signer = waiting("pika"), FalSigner()
    fal.mock.upsert("GET", fal.url, body=signer.jwks())
    raw = fal_body()
    assert post(PIKA, raw, signer.headers("request", "user", raw)).json() == OK
    assert due_in_s(generation.task) <= 0


def test_with_a_secret_kling_must_sign(settings: Settings) -> None:
    settings.KLING_WEBHOOK_SECRET = SECRET
    generation, raw = waiting("kling"), older()
    good = standard_webhook_headers(SECRET, "msg_1", raw)
    old = str(int(time.time()) - 310)
    mac = base64.b64encode(hmac.digest(b"a secret of Kling's", f"msg_1.{old}.".encode() + raw, "sha256")).decode()
    for address in (KLING, ANY):
        for reply in (
            post(address, raw),
            post(address, raw, standard_webhook_headers("whsec_Zm9yZ2Vk", "msg_1", raw)),
            post(address, raw + b" ", good),
            post(address, raw, good | {"webhook-id": "msg_2"}),
            post(address, raw, {"webhook-id": "msg_1", "webhook-timestamp": old, "webhook-signature": f"v1,{mac}"}),
        ):
            assert code_of(reply, 401) == "bad_signature"
    assert nothing_moved(generation)
    assert post(ANY, raw, good | {"webhook-signature": f"v1,AAAA {good['webhook-signature']}"}).json() == OK
    assert due_in_s(generation.task) <= 0


def test_new_keys_are_found_when_fal_changes_them(fal: Fal) -> None:
    generation = waiting("pika")
    fal.call(job="something-else")
    fal.key = Ed25519PrivateKey.generate()
    fal.serve()
    assert code_of(fal.call(), 401) == "bad_signature"  # within a minute of the last fetch
    fal.clock_s = 61
    assert fal.call().json() == OK
    assert due_in_s(generation.task) <= 0
    assert fal.asked == 2


def test_without_fals_keys_it_is_asked_to_come_again(fal: Fal) -> None:
    generation = waiting("pika")
    fal.serve(status=500)
    for _ in range(2):
        reply = fal.call()
        assert code_of(reply, 503) == "keys_unavailable"
        assert reply["Retry-After"]
    assert fal.asked == 1
    assert nothing_moved(generation)
    assert code_of(post(PIKA, fal_body()), 401) == "bad_signature"  # an unsigned one is refused all the same
    fal.serve()
    fal.clock_s = 61
    assert fal.call().json() == OK


@pytest.mark.parametrize("provider", ["pika", "kling"])
def test_a_provider_without_a_key_here_is_nobody_and_no_keys_are_fetched(
    fal: Fal, settings: Settings, provider: str
) -> None:
    settings.PROVIDER_KEYS = {**settings.PROVIDER_KEYS, provider: ()}
    raw = fal_body() if provider == "pika" else newer()
    for headers in (fal.headers(raw), fal.headers(raw, key=Ed25519PrivateKey.generate()), {}):
        headers = headers if provider == "pika" else {}
        assert code_of(post(f"{ANY}/{provider}", raw, headers), 404) == "not_found"
        assert code_of(post(ANY, raw, headers), 400) == "unknown_provider"
    assert fal.asked == 0


def test_many_forged_ones_fetch_keys_once_a_minute(fal: Fal) -> None:
    for second in (0, 20, 40, 59, 61, 80, 119, 122):
        fal.clock_s = second
        assert code_of(fal.call(key=Ed25519PrivateKey.generate()), 401) == "bad_signature"
    assert fal.asked == 3


def test_the_key_server_may_not_send_us_elsewhere(fal: Fal) -> None:
    fal.mock.upsert("GET", fal.url, status=302, headers={"Location": "https://evil.example/jwks.json"})
    assert code_of(fal.call(), 503) == "keys_unavailable"
    assert fal.asked == 1


def test_a_huge_key_set_is_not_read(fal: Fal) -> None:
    fal.mock.upsert("GET", fal.url, body=b" " * (callbacks.MAX_JWKS_BYTES + 1))
    assert code_of(fal.call(), 503) == "keys_unavailable"


@pytest.mark.parametrize(
    "address", [f"{ANY}/runway", f"{ANY}/nobody", f"{ANY}/%2e%2e", f"{ANY}//", f"{PIKA}//", f"{PIKA}/x"]
)
def test_who_calls_nobody_has_no_address(address: str) -> None:
    assert code_of(post(address, fal_body()), 404) == "not_found"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("address", [ANY, PIKA])
def test_only_post(method: str, address: str) -> None:
    assert code_of(Client().generic(method, address), 405) == "method_not_allowed"


def test_a_body_of_nobodys_shape_is_refused() -> None:
    for raw in (b"", b"{}", b"[]", b"hello", b"\x00", b"{", b'{"id": "x", "status": "SUCCEEDED"}', b"[" * 60_000):
        assert code_of(post(ANY, raw), 400) == "unknown_provider"


def test_garbage_is_refused_even_when_it_is_signed(fal: Fal) -> None:
    for raw in (b"", b"{", b"[]", b"{}", b"\xff", b'{"request_id": true}', b"[" * 60_000):
        assert code_of(post(PIKA, raw, fal.headers(raw)), 400) == "invalid_request"
        assert code_of(post(KLING, raw), 400) == "invalid_request"
        assert code_of(post(PIKA, raw), 401) == "bad_signature"


@pytest.mark.parametrize("address", [ANY, PIKA, KLING])
def test_what_is_too_long_is_refused_unread(address: str) -> None:
    assert code_of(post(address, b"x" * (64 * 1024 + 1)), 413) == "body_too_large"
    assert code_of(post(address, b"x" * (64 * 1024 + 1), CONTENT_LENGTH="5000000"), 413) == "body_too_large"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_any_content_type_will_do(fal: Fal, content_type: str) -> None:
    raw = fal_body()
    assert post(PIKA, raw, fal.headers(raw), content_type=content_type).json() == OK


def test_cookies_tokens_and_origins_are_not_looked_at(user: AbstractBaseUser) -> None:
    waiting("kling")
    client = Client(enforce_csrf_checks=True)
    client.cookies["token"] = "broken"
    headers = {"Origin": "https://evil.example", "Authorization": "Bearer broken"}
    assert client.post(KLING, newer(), content_type="application/json", headers=headers).json() == OK


# --- addresses, cost, log ------------------------------------------------------------------------------------------


def test_the_address_that_providers_are_told(settings: Settings) -> None:
    generation = unknown("pika")
    url = callbacks.callback_url(generation.pk, "pika")
    assert url is not None
    assert url.startswith(f"https://video.example{PIKA}?ref={generation.pk}&sig=")
    assert resolve(urlsplit(url).path).url_name == "api-webhook"
    assert resolve(ANY).url_name == "api-webhook-of-any"
    assert callbacks.callback_url(generation.pk, "runway") is None
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another " * 8
    query = dict(pair.split("=") for pair in urlsplit(url).query.split("&"))
    assert callbacks.proven_reference("pika", query) == generation.pk  # signed before the key was changed
    settings.PUBLIC_BASE_URL = ""
    assert callbacks.callback_url(generation.pk, "pika") is None


def test_the_providers_own_least_interval_holds_unless_simulated(settings: Settings) -> None:
    settings.POLL_INTERVAL_SECONDS = {"pika": 600.0, "kling": 0.5}
    assert callbacks.least_interval_s("kling") == 0.5
    settings.SIMULATE = False
    assert (callbacks.least_interval_s("pika"), callbacks.least_interval_s("kling")) == (3.0, 5.0)


@pytest.mark.django_db(transaction=True)
def test_it_costs_few_statements_whatever_it_does(fal: Fal, rung: list[Any]) -> None:
    def statements(address: str = PIKA, job: str = JOB) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert fal.call(address, job).json() == OK
        return len(captured)

    adopted = unknown("pika")
    assert statements(job="unknown-job") == 1
    # Two looks for the attempt and a hint; and a transaction of its own that holds the task while the job is adopted.
    assert statements(path_of(callbacks.callback_url(adopted.pk, "pika"))) == 3 + len(("BEGIN", "hold", "COMMIT"))
    assert statements() == 2
    for _ in range(10):
        unknown("pika")
    assert statements() == 2
    age(adopted.task_id, 7200)
    assert task_moves.fail(claimed(adopted.task), code="x", message="x")
    assert statements() == 2
    assert rung


def test_a_refused_one_costs_none(fal: Fal) -> None:
    with CaptureQueriesContext(connection) as captured:
        post(PIKA, fal_body())
        fal.call(key=Ed25519PrivateKey.generate())
        post(ANY, b"{}")
        post(KLING, b"x" * 70_000)
    assert len(captured) == 0


def test_the_search_uses_indexes() -> None:
    generation = waiting("pika")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        with CaptureQueriesContext(connection) as captured:
            found = callbacks._find("pika", JOB, "")
        cursor.execute("EXPLAIN " + captured.captured_queries[0]["sql"])
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert found is not None
    assert found.generation_id == generation.pk
    assert "generation_job_once" in plan
    assert "Seq Scan" not in plan


def test_the_log_names_the_request_and_shows_nothing_that_was_sent(
    fal: Fal, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    generation = waiting("pika")
    address = path_of(callbacks.callback_url(generation.pk, "pika"))
    good = fal.headers(fal_body())
    fal.call(address)
    post(PIKA, fal_body(), good | {"X-Fal-Webhook-User-Id": "somebody"})
    settings.KLING_WEBHOOK_SECRET = SECRET
    raw = newer()
    headers = standard_webhook_headers(SECRET, "msg_1", raw)
    post(KLING, raw, headers)
    post(KLING, raw)
    ours = [record.getMessage() for record in caplog.records if record.name == "video.api.views.webhook"]
    assert ours == [
        f"webhook: provider=pika outcome=hinted request={JOB}",
        "webhook: provider=pika outcome=refused: no key of fal's fits the signature request=-",
        f"webhook: provider=kling outcome=unknown_job request={JOB}",
        "webhook: provider=kling outcome=refused: no signature request=-",
    ]
    for secret in (
        "evil.example",
        "somebody",
        SECRET,
        address.rpartition("sig=")[2],
        good["X-Fal-Webhook-Signature"],
        headers["webhook-signature"],
    ):
        assert secret not in caplog.text


def test_an_address_that_is_found_with_a_stale_state_writes_nothing_wrong(fal: Fal, monkeypatch: Any) -> None:
    """Between the search and the write the job may end: each write carries what it believes."""
    generation = waiting("pika")
    find = callbacks._find
    monkeypatch.setattr(
        callbacks, "_find", lambda *args: replace(found, ended=True) if (found := find(*args)) else None
    )
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert fal.call().json() == OK
    assert Generation.objects.get(pk=generation.pk).look_at is None
