"""Every way by which a stranger's text or number reaches a row: nothing breaks, no paid job is lost, rows are clean."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction
from django.test import Client
from pytest_django import Settings

from providers.contract import HttpReply, HttpRequest
from providers.errors import ProviderError
from providers.untrusted import printable
from tests import hostile
from tests.factories import accepted, admitted, make_task, reload
from tests.hostile import encoded
from video.attempts import callbacks, configured_keys, provider_calls, reconcile
from video.credits import ledger
from video.infra.toolkit import toolkit
from video.models import (
    ApiKey,
    AttachRequest,
    Circuit,
    CreditEntry,
    FailureText,
    Generation,
    LoginSession,
    ModelSetting,
    ProviderAccount,
    ProviderKey,
    Stage,
    TaskEvent,
    UserShare,
    VideoTask,
)
from video.pipeline import runner
from video.routing import accounts
from video.routing.accounts import AccountAnswer
from video.scheduling import admission

pytestmark = pytest.mark.django_db

MODELS = {"runway": "gen4.5", "pika": "pika-2.2", "kling": "kling-2.5-turbo"}
JSON = "application/json"
VIDEO = "https://v.example/a.mp4"
HEADERS = ("retry-after", "retry-after-ms", "date", "content-type", "location", "x-fal-error-type")


@contextmanager
def undone() -> Iterator[None]:
    """Rows are as before afterwards."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture(autouse=True)
def _no_pauses() -> Iterator[None]:
    provider_calls._paused_until.clear()
    yield
    provider_calls._paused_until.clear()


def test_the_look_at_rows_finds_what_is_not_clean() -> None:
    generation = admitted(make_task())
    for column, value in (("provider_status", "\x1b[2J"), ("error_code", "\u202e"), ("job_urls", {"a": ["\u200b"]})):
        with undone():
            Generation.objects.filter(pk=generation.pk).update(**{column: value})
            assert [one.partition(":")[0] for one in hostile.unclean()] == [f"Generation.{column}"]
    Generation.objects.filter(pk=generation.pk).update(provider_progress=math.nan)
    assert hostile.unclean() == ["Generation.provider_progress: 'NaN'"]


# --- what providers answer -----------------------------------------------------------------------------------------


def submit_bodies(text: str, number: Any) -> dict[str, list[tuple[int, Any]]]:
    """Answers to a submit of each provider, with this text and number in all of their members."""
    return {
        "runway": [
            (200, {"id": "job-ok", "estimatedCost": {"credits": number}, "status": text}),
            (200, {"id": text, "estimatedCost": {"credits": number}}),
            (400, {"error": text, "issues": [{"path": [text, number], "message": text}]}),
            (401, {"error": text}),
            (429, {"error": text}),
            (500, {"error": text}),
        ],
        "pika": [
            (200, {"request_id": "job-ok", "status_url": text, "response_url": text, "cancel_url": text}),
            (200, {"request_id": text, "status_url": number}),
            (422, {"detail": [{"type": text, "msg": text, "loc": ["body", text, number]}]}),
            (403, {"detail": text}),
            (500, {"detail": text, "error_type": text}),
        ],
        "kling": [
            (200, {"code": 0, "message": text, "data": {"id": "job-ok", "task_status_msg": text}}),
            (200, {"code": 0, "data": {"id": text, "task_id": number}}),
            (400, {"code": 1201, "message": text}),
            (429, {"code": 1303, "message": text}),
            (200, {"code": number, "message": text}),
        ],
    }


def poll_bodies(job: str, text: str, number: Any) -> dict[str, list[tuple[int, Any]]]:
    """The same of answers to a poll of this job."""
    return {
        "runway": [
            (200, {"id": job, "status": text, "progress": number}),
            (200, {"id": job, "status": "RUNNING", "progress": number, "cost": {"credits": number}}),
            (200, {"id": job, "status": "FAILED", "failure": text, "failureCode": text, "cost": {"credits": number}}),
            (200, {"id": job, "status": "SUCCEEDED", "output": [text, number], "cost": {"credits": number}}),
            (
                200,
                {"id": job, "status": "SUCCEEDED", "output": ["https://v.example/a.mp4"], "cost": {"credits": number}},
            ),
            (200, {"id": text, "status": number}),
            (404, {"error": text}),
        ],
        "pika": [
            (200, {"request_id": job, "status": text, "queue_position": number}),
            (200, {"request_id": job, "status": "COMPLETED", "error": text, "error_type": text}),
            (200, {"request_id": text, "status": "IN_PROGRESS", "logs": [{"message": text}]}),
            (422, {"detail": text, "error_type": text}),
        ],
        "kling": [
            (200, {"code": 0, "data": [{"id": job, "status": text, "message": text}]}),
            (200, {"code": 0, "data": [{"id": job, "status": "failed", "message": text, "billing": number}]}),
            (
                200,
                {
                    "code": 0,
                    "data": [
                        {
                            "id": job,
                            "status": "succeed",
                            "outputs": [{"type": "video", "url": VIDEO}],
                            "billing": [{"charge_type": "unit", "amount": number}],
                        }
                    ],
                },
            ),
            (200, {"code": 0, "data": [{"id": text, "status": number}]}),
            (200, {"code": number, "message": text}),
        ],
    }


def headers(text: str) -> dict[str, str]:
    return dict.fromkeys(
        ("retry-after", "retry-after-ms", "date", "content-type", "location", "x-fal-error-type"), text
    )


def is_settled(task: VideoTask) -> bool:
    row = reload(task)
    return row.lease_until is None and row.deaths == 0 and row.error_code != "worker_lost"


def send(monkeypatch: pytest.MonkeyPatch, provider: str, reply: HttpReply) -> VideoTask:
    """A task whose submit is answered so."""
    task = make_task(model_requested=MODELS[provider], prompt="A cat")
    monkeypatch.setattr(toolkit().sender(provider), "submit", lambda *a, **k: reply, raising=False)
    admitted(task)
    runner.run_stage(Stage.GENERATE, task.pk)
    return task


def poll(monkeypatch: pytest.MonkeyPatch, provider: str, reply: HttpReply, job: str) -> VideoTask:
    """A task whose accepted job is polled, and answered so."""
    task = make_task(model_requested=MODELS[provider], prompt="A cat")
    accepted(task, job)

    answer_reads(monkeypatch, provider, reply)
    runner.run_batch([task.pk])
    return task


def answer_reads(monkeypatch: pytest.MonkeyPatch, provider: str, reply: HttpReply) -> None:
    def read_many(wanted: Sequence[HttpRequest], *, deadline_s: float) -> list[HttpReply]:
        return [reply for _ in wanted]

    monkeypatch.setattr(toolkit().batch_reader(provider), "read_many", read_many, raising=False)
    provider_calls._paused_until.clear()


def chosen(bodies: Sequence[tuple[int, Any]], at: int) -> tuple[int, Any]:
    return bodies[at % len(bodies)]


@pytest.mark.parametrize("provider", MODELS)
@pytest.mark.hypothesis  # so that `make fuzz` runs it
def test_whatever_a_submit_is_answered_it_is_settled_and_a_paid_job_kept(
    monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    def check(text: str, number: Any, at: int) -> None:
        status, body = chosen(submit_bodies(text, number)[provider], at)
        with undone():
            task = send(monkeypatch, provider, HttpReply(status, headers(text), encoded(body)))
            assert is_settled(task)
            assert hostile.unclean() == []
            generation = Generation.objects.get(task=task)
            assert generation.state != "planned"
            if any(leaf == "job-ok" for leaf in hostile.leaves(body)):
                assert (generation.state, generation.job_id) == ("accepted", "job-ok")

    hostile.sweep(check)


@pytest.mark.parametrize("provider", MODELS)
@pytest.mark.hypothesis  # so that `make fuzz` runs it
def test_whatever_a_poll_is_answered_it_is_settled_and_rows_are_clean(
    monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    def check(text: str, number: Any, at: int) -> None:
        status, body = chosen(poll_bodies("job-1", text, number)[provider], at)
        with undone():
            task = poll(monkeypatch, provider, HttpReply(status, headers(text), encoded(body)), "job-1")
            assert is_settled(task)
            assert hostile.unclean() == []
            assert Generation.objects.filter(task=task, job_id="job-1").exists(), "the paid job is known"

    hostile.sweep(check)


@pytest.mark.parametrize("provider", MODELS)
@pytest.mark.hypothesis  # so that `make fuzz` runs it
def test_whatever_the_job_of_an_ended_task_answers_reconcile_goes_on(
    monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    def check(text: str, number: Any, at: int) -> None:
        status, body = chosen(poll_bodies("job-1", text, number)[provider], at)
        with undone():
            task = make_task(model_requested=MODELS[provider])
            generation = accepted(task, "job-1")
            VideoTask.objects.filter(pk=task.pk).update(
                status="failed", error_code="x", error_message="x", next_run_at=None, finished_at=task.created_at
            )
            Generation.objects.filter(pk=generation.pk).update(look_at=task.created_at)
            answer_reads(monkeypatch, provider, HttpReply(status, headers(text), encoded(body)))
            assert reconcile.reconcile() == 1
            assert hostile.unclean() == []

    hostile.sweep(check)


@pytest.mark.parametrize("provider", ["runway", "kling"])
@pytest.mark.hypothesis  # so that `make fuzz` runs it
def test_whatever_an_account_call_is_answered_it_is_recorded(provider: str, settings: Settings) -> None:
    configured_keys.sync()
    adapter, key = toolkit().provider(provider), settings.PROVIDER_KEYS[provider][0]
    account = ProviderKey.objects.get(provider=provider).account

    def answers(text: str, number: Any) -> list[Any]:
        limits = {name: {"maxConcurrentGenerations": number} for name in (text, MODELS[provider])}
        used = {name: {"dailyGenerations": number} for name in limits}
        packs = [{"status": "online", "remaining_quantity": number, "resource_pack_name": text}]
        return [
            {"creditBalance": number, "tier": {"models": limits}, "usage": {"models": used}},
            {"code": 0, "data": {"resource_pack_subscribe_infos": packs}},
            {"error": text},
            {"code": 1000, "message": text},
        ]

    def check(text: str, number: Any, at: int) -> None:
        bodies = answers(text, number)
        body = bodies[at % len(bodies)]
        reply = HttpReply(401 if "error" in body else 200, headers(text), encoded(body))
        with undone():
            try:
                told = AccountAnswer(provider, key, account, info=adapter.parse_account(reply))
            except ProviderError as err:
                told = AccountAnswer(provider, key, account, error=err)
            accounts.record(told)
            assert hostile.unclean() == []

    hostile.sweep(check)


@pytest.mark.parametrize("provider", ["pika", "kling"])
@pytest.mark.hypothesis  # so that `make fuzz` runs it
def test_whatever_a_call_back_says_it_is_answered(client: Client, provider: str, settings: Settings) -> None:
    settings.PUBLIC_BASE_URL = "https://example.com"
    generation = accepted(make_task(model_requested=MODELS[provider]), "job-1")
    address = callbacks.callback_url(generation.pk, provider).removeprefix("https://example.com")  # type: ignore[union-attr]

    def check(text: str, number: Any, at: int) -> None:
        text = text[:60_000]
        bodies = [
            {"request_id": text, "gateway_request_id": text, "status": text, "payload": {"video": {"url": text}}},
            {"task_id": text, "task_status": text, "task_info": {"external_task_id": text}, "units": number},
            {"id": number, "status": text, "external_id": text, "outputs": [{"url": text}], "billing": number},
            {"data": {"task_id": number, "task_status": text}},
            {text: text, "request_id": "job-1", "payload": number},
        ]
        shown = {"HTTP_X_FAL_WEBHOOK_SIGNATURE": printable(text)[:500], "HTTP_USER_AGENT": printable(text)[:500]}
        reply = client.post(address, encoded(bodies[at % len(bodies)]), content_type=JSON, **shown)
        assert reply.status_code in (200, 400, 401, 413, 503), reply.content
        assert hostile.unclean() == []

    hostile.sweep(check)


# --- what clients send ---------------------------------------------------------------------------------------------


TEXTUAL = ("prompt", "negativePrompt", "imageUrl", "model", "policy", "quality", "resolution", "aspectRatio")
NUMERIC = ("duration", "fps", "seed", "fallback", "prompt")


@pytest.mark.hypothesis  # so that `make fuzz` runs it
def test_whatever_an_order_says_it_is_made_clean_or_refused(api: Client, order: dict[str, Any]) -> None:
    def check(text: str, number: Any, at: int) -> None:
        texts, numbers = (*TEXTUAL, text), (*NUMERIC, text)
        sent = {texts[at % len(texts)]: text}, {numbers[at % len(numbers)]: number}
        for fields in sent:
            with undone():
                reply = api.post("/api/video/create", encoded({**order, **fields}), content_type=JSON)
                assert reply.status_code in (200, 201, 400, 413, 422), reply.content
                assert hostile.unclean() == []
        asked = ("taskId", "status", "cursor", "limit")[at % 4]
        assert api.get(f"/api/video/{('status', 'tasks')[at % 2]}", {asked: printable(text)}).status_code < 500
        reply = api.post(f"/api/video/{('cancel', 'retry')[at % 2]}", encoded({"taskId": text}), content_type=JSON)
        assert reply.status_code in (400, 404, 413), reply.content

    hostile.sweep(check)


def test_whatever_a_header_says_rows_are_clean(api: Client, order: dict[str, Any], settings: Settings) -> None:
    """A server hands headers on as Latin-1 of the bytes."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.TRUSTED_PROXIES = ["203.0.113.0/24"]
    user = get_user_model().objects.create_user("ann", password="secret-secret")
    login = {"username": "ann", "password": "secret-secret"}
    for text in hostile.TEXTS:
        sent = text.encode("utf-8", "surrogatepass").decode("latin-1")
        with undone():
            reply = api.post("/api/video/create", order, content_type=JSON, HTTP_IDEMPOTENCY_KEY=sent)
            assert reply.status_code in (201, 400)
            more = {"HTTP_USER_AGENT": sent, "HTTP_X_FORWARDED_FOR": sent}
            reply = Client(REMOTE_ADDR="203.0.113.9").post("/api/auth/login", login, content_type=JSON, **more)
            assert reply.status_code == 200, text
            assert LoginSession.objects.filter(user=user).count() == 1
            body = encoded({"username": text, "password": text})
            assert Client().post("/api/auth/login", body, content_type=JSON).status_code in (400, 401)
            assert hostile.unclean() == []


def test_controls_of_a_prompt_are_left_out_and_all_else_is_its_authors(api: Client, order: dict[str, Any]) -> None:
    sent = "A\x1b[2J cat\x9b,\r\n\tline\x0b 👩\u200d🚀 \u202ex\u202c\u200f"
    assert api.post("/api/video/create", {**order, "prompt": sent}, content_type=JSON).status_code == 201
    assert VideoTask.objects.get().prompt == "A[2J cat,\r\n\tline 👩\u200d🚀 \u202ex\u202c\u200f"


# --- what operators type -------------------------------------------------------------------------------------------


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("olga"))
    return client


LISTS = ("videotask", "generation", "loginsession", "provideraccount", "failuretext", "creditentry", "apikey")


def test_whatever_is_typed_in_the_admin_rows_are_clean(operator: Client, user: AbstractBaseUser) -> None:
    generation = admitted(make_task(user))
    case, task = f"/admin/video/generation/open-cases/{generation.pk}/", generation.task_id
    for at, text in enumerate(hostile.TEXTS):
        typed = text.encode("utf-8", "replace").decode()  # no browser sends half a pair
        forms = {
            "/admin/video/account/grant/": {"users": user.get_username(), "amount": "5", "note": typed[:120]},
            "/admin/video/usershare/add/": {"user": user.pk, "weight": "2", "note": typed[:200]},
            "/admin/video/modelsetting/add/": {"model": "gen4.5", "enabled": "on", "note": typed[:200]},
            "/admin/video/apikey/add/": {
                "user": user.pk,
                "name": typed[:80],
                "scopes": "read",
                "addresses": typed[:50] if at % 4 else "",
            },
            case: {"action": "attach", "job_id": typed[:120]},
            "/admin/video/videotask/": {"action": "set_priority", "priority": typed, "_selected_action": task},
        }
        with undone():
            for address, form in list(forms.items())[at % 2 :: 2]:
                assert operator.post(address, form).status_code < 500, (address, text)
            if at % 3 == 0:
                assert operator.get(f"/admin/video/{LISTS[at % len(LISTS)]}/", {"q": typed}).status_code < 500
            assert hostile.unclean() == []
            assert not AttachRequest.objects.exists()


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "1e400", "-1", "9" * 5000, "999999.9999", "0x10", "٣" * 30, str(2**63)]
)
def test_whatever_number_is_typed_in_the_admin_it_is_in_its_bounds(
    operator: Client, user: AbstractBaseUser, number: str
) -> None:
    for address, form in (
        ("/admin/video/account/grant/", {"users": user.get_username(), "amount": number}),
        ("/admin/video/usershare/add/", {"user": user.pk, "weight": number, "most_waiting": number}),
        ("/admin/video/modelsetting/add/", {"model": "gen4_turbo", "enabled": "on", "price_usd_per_s": number}),
        *(
            ("/admin/video/apikey/add/", {"user": user.pk, "name": "a", "scopes": "read", limit: number})
            for limit in ("daily_credits", "requests_per_minute")
        ),
    ):
        assert operator.post(address, form).status_code == 200, address
    assert not ModelSetting.objects.exists()
    assert not UserShare.objects.exists()
    assert not ApiKey.objects.exists()
    assert ledger.balance(user.pk) == 1000


def test_a_price_beyond_all_bounds_of_an_older_version_stops_no_admission() -> None:
    ModelSetting.objects.create(model="gen4.5", price_usd_per_s="999999.9999")
    task = make_task()
    admission.admit()
    assert Generation.objects.get(task=task).expected_usd == admission.LARGEST_USD


#: An argument that is no UTF-8 comes as halves of pairs.
ARGUMENTS = ("\udcff\udcfe", "\x1b[2J\x1b]0;owned\x07", "a\0b", "\u202ex", "9" * 5000, "-1")
COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "generate": lambda text: ["generate", text, "--user", "olga"],
    "generate of": lambda text: ["generate", "A cat", "--user", text],
    "generate with": lambda text: [
        "generate",
        "A cat",
        "--user",
        "olga",
        f"--negative-prompt={text}",
        f"--model={text}",
    ],
    "grant to": lambda text: ["grant_credits", text, "5"],
    "grant": lambda text: ["grant_credits", "olga", "5", f"--note={text[:200]}"],
    "grant many": lambda text: ["grant_credits", "olga", text],
    "cancel": lambda text: ["cancel_tasks", text],
    "cancel of": lambda text: ["cancel_tasks", "--user", text],
    "retry": lambda text: ["retry_tasks", text],
    "reconcile": lambda text: ["reconcile", text],
    "reconcile of": lambda text: ["reconcile", "--provider", text],
    "decide": lambda text: ["failure_texts", "decide", text, "failed"],
    "decide by": lambda text: ["failure_texts", "decide", "1", "failed", f"--by={text}"],
    "queue_status": lambda text: ["queue_status", text],
    "check_ledger": lambda text: ["check_ledger", text],
    "check_providers": lambda text: ["check_providers", text],
    "reset": lambda text: ["reset_second_factor", text],
    "key": lambda text: ["api_key", "create", "olga", f"--name={text[:80]}", "--scopes=read"],
    "key from": lambda text: ["api_key", "create", "olga", "--name=a", "--scopes=read", f"--address={text}"],
    "roll": lambda text: ["api_key", "roll", text],
}


@pytest.mark.parametrize("text", ARGUMENTS, ids=range(len(ARGUMENTS)))
@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_an_argument_is_a_command_does_it_or_says_why_not(
    name: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    user = get_user_model().objects.create_superuser("olga")
    ledger.grant(user.pk, 1000)
    out = io.StringIO()
    with caplog.at_level(logging.CRITICAL):
        try:
            call_command(*COMMANDS[name](text), stdout=out, stderr=out)
        except CommandError as err:
            out.write(str(err))
        except SystemExit:
            pass
    said = out.getvalue()
    said.encode()
    assert printable(said) == said
    assert hostile.unclean() == []
    assert CreditEntry.objects.filter(kind="grant").count() <= 2


def test_pages_of_the_admin_show_rows_of_older_versions_without_what_is_obeyed(operator: Client) -> None:
    configured_keys.sync()
    text = "\x1b[2J\x9b31m\u202eowned\u202c\u200b \x07<b>"
    task = make_task(prompt=text)
    generation = accepted(task)
    for rows in (ProviderKey.objects, ProviderAccount.objects):
        rows.update(last_error=text)
    Circuit.objects.create(model="gen4.5", provider="runway", faults=9, last_error=text)
    Generation.objects.update(provider_status=text, error_message=text)
    TaskEvent.objects.update(detail=text)
    VideoTask.objects.update(park_reason=text)
    FailureText.objects.create(provider="pika", signature=text, sample=text, model="pika-2.2", last_task=task.pk)
    pages = [f"/admin/video/{name}/" for name in ("videotask", "generation", "providerkey", "circuit", "failuretext")]
    pages += [f"/admin/video/videotask/{quote(task.pk)}/change/", "/admin/queues/"]
    pages.append(f"/admin/video/generation/{quote(generation.pk)}/change/")
    shown = [operator.get(page).content.decode() for page in pages]
    assert sum("owned" in page for page in shown) >= 6
    assert all(printable(page) == page for page in shown)
