"""What a proxy in front of a provider says proves that no job exists at most, and nothing about key, model or job."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from providers import gateways
from providers.contract import GenerationRequest, HttpReply, HttpRequest, JobRef, JobStatus, Provider, Submitted
from providers.errors import (
    Busy,
    GatewayAnswer,
    JobNotFound,
    KeyRefused,
    ModelForbidden,
    ProviderDown,
    ProviderError,
    RequestRejected,
    SubmissionUnknown,
)
from providers.kling.adapter import Kling
from providers.pika.adapter import Pika
from providers.registry import PROVIDERS
from providers.runway.adapter import Runway

REF = "gen_1"
ALL: tuple[Provider, ...] = tuple(entry.adapter(entry.default_base_url) for entry in PROVIDERS)
RUNWAY, PIKA, KLING = ALL

NGINX = b"<html><head><title>403 Forbidden</title></head><body><center><h1>403 Forbidden</h1></center></body></html>"
CHALLENGE = b"<!DOCTYPE html><title>Just a moment...</title><script>setTimeout(f, 9)</script>Checking your browser"
NOT_THE_PROVIDERS = {
    "empty": b"",
    "blanks": b" \r\n",
    "nginx": NGINX,
    "challenge": CHALLENGE,
    "text": b"404 page not found",
    "json text": b'"Forbidden"',
    "json null": b"null",
    "json list": b'[{"error": "x", "detail": "x", "code": 1000}]',
    "api gateway": b'{"message": "Forbidden"}',
    "kong": b'{"message": "no Route matched with those values", "kong_id": "1"}',
    "azure": b'{"statusCode": 401, "message": "Access denied due to missing subscription key."}',
    "kubernetes": b'{"kind": "Status", "status": "Failure", "code": 403}',
    "problem": b'{"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "no", "error": "no"}',
    "spring": b'{"timestamp": "2026", "status": 404, "error": "Not Found", "path": "/v1/v1", "detail": "x"}',
    "cloudflare": b'{"cloudflare_error": true, "error_code": 1015, "detail": "rate limited", "error": "x"}',
    "code is the status": b'{"code": 403, "message": "Forbidden"}',
    "broken": b'{"error": "no", "detail": "no", "code": 10',
    "not utf-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
}
OWN = {
    "runway": {"error": "no"},
    "pika": {"detail": "no"},
    "kling": {"code": 1000, "message": "no"},
}


def named(provider: Provider) -> str:
    return provider.name


def answer(status: int, body: bytes = NGINX, **headers: str) -> HttpReply:
    return HttpReply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def refused(provider: Provider, reply: HttpReply) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        provider.parse_submit(reply)
    assert caught.value.http_status == reply.status
    return caught.value


def reads(provider: Provider) -> list[Callable[[HttpReply], Any]]:
    """Each read of a provider."""
    job = JobRef("7", "any", REF)
    several: list[Callable[[HttpReply], Any]] = [lambda reply: provider.parse_poll(reply, [job])]
    if isinstance(provider, Pika):
        several.append(lambda reply: provider.parse_result(reply, job))
    if provider.can_cancel:
        several.append(provider.parse_cancel)
    if provider.can_look_up:
        several.append(lambda reply: provider.parse_lookup(reply, REF))
    if provider.has_account_call:
        several.append(provider.parse_account)
    return several


# --- submits ---


REFUSED_AT_THE_DOOR = (
    300, 301, 302, 304, 307, 308, 400, 401, 402, 403, 404, 405, 407, 410, 411, 413, 414, 415, 418, 421, 422, 425, 426,
    428, 429, 431, 451, 463, 494,
)  # fmt: skip
MAY_FOLLOW_WORK = (
    200, 201, 202, 204, 303, 406, 408, 409, 424, 460, 500, 501, 502, 504, 520, 522, 524, 529, 530, 599,
)  # fmt: skip


@pytest.mark.parametrize("body", NOT_THE_PROVIDERS.values(), ids=NOT_THE_PROVIDERS)
@pytest.mark.parametrize("provider", ALL, ids=named)
def test_what_a_proxy_refused_made_no_job_and_blames_nobody(provider: Provider, body: bytes) -> None:
    for status in REFUSED_AT_THE_DOOR:
        assert type(refused(provider, answer(status, body))) is GatewayAnswer, status


@pytest.mark.parametrize("body", NOT_THE_PROVIDERS.values(), ids=NOT_THE_PROVIDERS)
@pytest.mark.parametrize("provider", ALL, ids=named)
def test_what_may_follow_work_proves_nothing(provider: Provider, body: bytes) -> None:
    for status in MAY_FOLLOW_WORK:
        assert type(refused(provider, answer(status, body))) is SubmissionUnknown, status


@pytest.mark.parametrize("provider", ALL, ids=named)
def test_a_client_that_went_away_proves_nothing(provider: Provider) -> None:
    assert type(refused(provider, answer(499))) is SubmissionUnknown


@pytest.mark.parametrize(
    "page",
    [
        b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>",
        b"<html><head><title>503 Service Temporarily Unavailable</title></head><body>nginx</body></html>",
        b"no healthy upstream",
        b'{"message": "Service Unavailable"}',
        CHALLENGE,
        b"<style>.reset { animation: x 1s timeout }</style><!-- timeout --><h1>Down for maintenance</h1>",
    ],
)
@pytest.mark.parametrize("provider", ALL, ids=named)
def test_a_503_of_a_proxy_that_passed_nothing_on_is_proof(provider: Provider, page: bytes) -> None:
    error = refused(provider, answer(503, page, retry_after="9"))
    assert type(error) is GatewayAnswer
    assert error.retry_after_s == 9


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"{}",
        b"<html><script>location.reload()</script></html>",  # no word of what happened
        b"upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        b"<h1>Error 503 Backend fetch failed</h1><h3>Guru Meditation:</h3><p>XID: 1</p>",
        b"<h1>Error 503 first byte timeout</h1><h3>Guru Mediation:</h3>",
        b"<h1>Error 503 backend read error</h1>",
        b"<title>503</title>connection&nbsp;timed&#32;out",
        b"The origin <b>timed</b> out",
        b"<title>Application error</title>An error occurred in the application",
        b"<h2>Our services aren't available right now</h2>",
        b"unable to service your request due to maintenance downtime or\n capacity problems",
        b'{"message": "upstream request timeout"}',
    ],
)
@pytest.mark.parametrize("provider", ALL, ids=named)
def test_a_503_that_may_have_been_passed_on_is_no_proof(provider: Provider, page: bytes) -> None:
    assert type(refused(provider, answer(503, page))) is SubmissionUnknown


@pytest.mark.parametrize("provider", ALL, ids=named)
def test_a_503_in_the_providers_own_words_is_no_proof(provider: Provider) -> None:
    own = json.dumps(OWN[provider.name]).encode()
    assert type(refused(provider, answer(503, own))) is SubmissionUnknown


@pytest.mark.parametrize(
    ("provider", "status", "expected"),
    [
        (RUNWAY, 401, KeyRefused),
        (RUNWAY, 403, ModelForbidden),
        (RUNWAY, 404, ModelForbidden),
        (RUNWAY, 429, Busy),
        (RUNWAY, 400, RequestRejected),
        (PIKA, 401, KeyRefused),
        (PIKA, 403, ModelForbidden),
        (PIKA, 404, ModelForbidden),
        (PIKA, 429, Busy),
        (PIKA, 422, RequestRejected),
        (KLING, 401, KeyRefused),
    ],
)
def test_the_providers_own_answers_keep_their_meaning(
    provider: Provider, status: int, expected: type[ProviderError]
) -> None:
    own = json.dumps(OWN[provider.name]).encode()
    assert type(refused(provider, answer(status, own))) is expected
    assert type(refused(provider, answer(status, b"\xef\xbb\xbf" + own))) is expected  # a byte-order mark


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://Login.example.com/SECRET?key=SECRET#SECRET", "https://login.example.com"),
        ("http://user:SECRET@login.example.com:8443/SECRET", "http://login.example.com"),
        ("/SECRET", "another path of the same host"),
        ("//login.example.com/SECRET", "an address that cannot be read"),
        ("https://", "an address that cannot be read"),
        ("https://[::1/SECRET", "an address that cannot be read"),
        ("https://x:SECRET/", "an address that cannot be read"),
        ("javascript:SECRET", "an address that cannot be read"),
        ("https://log\nin\x1b[0m/SECRET", "an address that cannot be read"),
        ("", "an address that cannot be read"),
    ],
)
@pytest.mark.parametrize("provider", ALL, ids=named)
def test_a_redirect_names_where_it_leads_and_the_setting_to_mend(provider: Provider, location: str, shown: str) -> None:
    redirect = answer(301, b"", location=location)
    errors = [refused(provider, redirect)]
    for parse in reads(provider):
        with pytest.raises(ProviderDown) as caught:
            parse(redirect)
        errors.append(caught.value)
    for error in errors:
        assert shown in error.message
        assert f"{provider.name.upper()}_BASE_URL" in error.message
        assert "SECRET" not in error.message


@pytest.mark.parametrize("provider", ALL, ids=named)
def test_a_page_that_quotes_the_request_shows_in_no_message(provider: Provider) -> None:
    page = answer(403, b"<p>Blocked. Your request: Authorization: Key abc</p>")
    assert "abc" not in str(refused(provider, page))


# --- reads ---


@pytest.mark.parametrize("body", NOT_THE_PROVIDERS.values(), ids=NOT_THE_PROVIDERS)
@pytest.mark.parametrize("provider", ALL, ids=named)
def test_a_proxy_says_nothing_about_a_key_or_a_job(provider: Provider, body: bytes) -> None:
    for status in (302, 303, 400, 401, 402, 403, 404, 408, 410, 500, 502, 503, 504, 524):
        for parse in reads(provider):
            with pytest.raises(ProviderDown) as caught:
                parse(answer(status, body))
            assert type(caught.value) is ProviderDown, status


@pytest.mark.parametrize("provider", ALL, ids=named)
def test_a_proxys_429_asks_reads_to_wait(provider: Provider) -> None:
    for parse in reads(provider):
        with pytest.raises(Busy) as caught:
            parse(answer(429, retry_after="3"))
        assert caught.value.retry_after_s == 3


# --- a provider that nobody wrote yet ---


class Fourth(Provider):
    """The least that an adapter is: one rule for everybody is not its business."""

    name = "fourth"
    title = "Fourth"

    def is_own(self, reply: HttpReply) -> bool:
        return "fourth" in reply.json_object_or_empty()

    def build_submit(self, request: GenerationRequest, *, key: str, reference: str) -> HttpRequest:
        return HttpRequest("POST", self.base_url)

    def read_submit(self, reply: HttpReply) -> Submitted:
        raise reply.error(KeyRefused, "its own word")

    def build_poll(self, jobs: Sequence[JobRef], *, key: str) -> HttpRequest:
        return HttpRequest("GET", self.base_url)

    def read_poll(self, reply: HttpReply, jobs: Sequence[JobRef]) -> dict[str, JobStatus | JobNotFound]:
        return {job.job_id: reply.error(JobNotFound, "its own word") for job in jobs}


def test_another_provider_gets_the_same_rule_without_a_line_of_its_own() -> None:
    fourth, job = Fourth("https://fourth.invalid"), JobRef("1", "any", REF)
    assert type(refused(fourth, answer(401))) is GatewayAnswer
    assert type(refused(fourth, answer(401, b'{"fourth": 1}'))) is KeyRefused
    with pytest.raises(ProviderDown):
        fourth.parse_poll(answer(404), [job])
    assert isinstance(fourth.parse_poll(answer(404, b'{"fourth": 1}'), [job])["1"], JobNotFound)


def test_the_adapters_here_are_those_of_the_registry() -> None:
    assert [type(one) for one in ALL] == [Runway, Pika, Kling]


@pytest.mark.parametrize("page", [b"<script" * 20_000, b"<!--" * 20_000, b"<" * 100_000, b"</script " * 9_000])
def test_a_page_made_to_be_slow_is_read_at_once(page: bytes) -> None:
    assert isinstance(gateways.page_text(page), str)
