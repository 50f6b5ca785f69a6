"""The security headers of every kind of answer: the whole set, nothing more and nothing less."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIEnvironment

import pytest
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.test import Client, RequestFactory
from pytest_django import Settings

from media_pipeline.storage.s3_address import parse
from video.api.views.models import ModelsView
from video.infra import outage, toolkit
from video.web import headers, media
from video.web.front import heads
from video.web.front.refusals import refusal

pytestmark = pytest.mark.django_db

SITE = "https://video.example.com"
PROXIED = {"HTTP_X_FORWARDED_PROTO": "https"}
PAGE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "connect-src 'self'; "
    "img-src 'self'; media-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
SEALED = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
FILE = {
    **PAGE,
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
#: What an address says for its own reasons.
PLAIN = {"Content-Type", "Content-Length", "Vary", "Location", "Allow", "WWW-Authenticate", "Last-Modified", "ETag"}
PLAIN |= {"Accept-Ranges", "Content-Range", "Content-Disposition", "Retry-After", "Content-Language", "Expires"}
PLAIN |= {"X-Request-Id", "RateLimit", "RateLimit-Policy"}
NO_STORE, DJANGOS = "no-store", "max-age=0, no-cache, no-store, must-revalidate, private"
KEY = "7/videos/vid_1.mp4"


@pytest.fixture
def web(settings: Settings, tmp_path: Path) -> Iterator[Client]:
    """An operator's browser, and one stored file."""
    settings.STORAGE_LOCAL_PATH = tmp_path
    (tmp_path / "7/videos").mkdir(parents=True)
    (tmp_path / KEY).write_bytes(b"x" * 300_000)
    toolkit.toolkit.cache_clear()
    client = Client(raise_request_exception=False)
    client.force_login(get_user_model().objects.create_superuser("olga"))
    yield client
    toolkit.toolkit.cache_clear()


def security(reply: Any) -> dict[str, str]:
    """The headers of an answer, without those of its own."""
    return {name: value for name, value in reply.headers.items() if name not in PLAIN}


def checked(reply: Any, status: int, wanted: dict[str, str], cache: str) -> None:
    found = security(reply)
    policy = found.pop("Permissions-Policy", "")
    assert (reply.status_code, set(found.pop("Cache-Control").split(", "))) == (status, set(cache.split(", ")))
    assert found == wanted
    assert ("camera=()" in policy and "fullscreen" not in policy) == ("Cross-Origin-Opener-Policy" in wanted)


PAGES = {
    "front page": ("GET", "/", 200, NO_STORE),
    "admin": ("GET", "/admin/", 200, DJANGOS),
    "queues": ("GET", "/admin/queues/", 200, DJANGOS),
    "login": ("GET", "/admin/login/", 302, DJANGOS),
    "unknown": ("GET", "/nothing", 404, NO_STORE),
    "unknown in the admin": ("GET", "/admin/nothing/", 404, NO_STORE),
    "bad": ("GET", "/?q=%00", 400, NO_STORE),
    "another method": ("PUT", "/admin/", 405, NO_STORE),
    "options": ("OPTIONS", "/", 405, NO_STORE),
}
PROGRAMS = {
    "api": ("GET", "/api/models", 401, NO_STORE),
    "unknown in the api": ("GET", "/api/nothing", 404, NO_STORE),
    "login": ("POST", "/api/auth/login", 400, NO_STORE),
    "options": ("OPTIONS", "/api/models", 405, NO_STORE),
    "alive": ("GET", "/healthz", 200, NO_STORE),
    "ready": ("GET", "/readyz", 200, NO_STORE),
}


@pytest.mark.parametrize("case", PAGES)
def test_a_page_has_these(web: Client, case: str) -> None:
    method, path, status, cache = PAGES[case]
    checked(web.generic(method, path), status, PAGE, cache)


@pytest.mark.parametrize("case", PROGRAMS)
def test_what_programs_ask_has_these(web: Client, case: str) -> None:
    method, path, status, cache = PROGRAMS[case]
    checked(web.generic(method, path, content_type="application/json"), status, SEALED, cache)


def test_a_static_file_has_these(web: Client) -> None:
    for path in ("/static/reelworks/console.js", "/static/admin/css/base.css"):
        reply = web.get(path)
        reply.close()
        checked(reply, 200, SEALED, "max-age=60, public")
    checked(web.get("/static/nothing.js"), 404, SEALED, NO_STORE)


def test_a_stored_file_has_these_whatever_becomes_of_it(web: Client) -> None:
    link = media.signed_path(KEY)
    for status, asked in ((200, {}), (206, {"HTTP_RANGE": "bytes=0-9"}), (304, {"HTTP_IF_NONE_MATCH": "*"})):
        reply = web.get(link, **asked)
        list(reply)
        cache = reply["Cache-Control"]
        assert cache.startswith("private, max-age=")
        checked(reply, status, FILE, cache)
    checked(web.get(link, HTTP_RANGE="bytes=400000-"), 416, FILE, NO_STORE)
    checked(web.get(link, HTTP_IF_MATCH='"x"'), 412, FILE, NO_STORE)
    checked(web.get(f"/storage/{KEY}"), 403, FILE, NO_STORE)
    checked(web.get(media.signed_path("7/videos/vid_2.mp4")), 404, FILE, NO_STORE)
    checked(web.post(link), 405, FILE, NO_STORE)
    checked(web.get("/storage/"), 404, FILE, NO_STORE)
    checked(web.get("/storage/%00"), 400, FILE, NO_STORE)
    checked(web.get(link, HTTP_HOST="stranger.example"), 400, FILE, NO_STORE)


def test_an_error_is_kept_by_no_cache_whatever_its_view_meant(web: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> HttpResponse:
        return HttpResponse(status=503, headers={"Cache-Control": "public, max-age=3600"})

    monkeypatch.setattr("video.web.media._answer", lambda *_, **__: failing())
    checked(web.get(media.signed_path(KEY)), 503, FILE, NO_STORE)


def test_an_error_of_the_server_has_them_too(web: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr("video.admin.queues.overview.read", broken)
    checked(web.get("/admin/queues/"), 500, PAGE, NO_STORE)
    monkeypatch.setattr(ModelsView, "get", broken)
    checked(web.get("/", HTTP_HOST="stranger.example"), 400, PAGE, NO_STORE)
    checked(web.get("/api/models", HTTP_HOST="stranger.example"), 400, SEALED, NO_STORE)
    monkeypatch.setattr(outage.gate, "lets_through", lambda: False)
    checked(web.get("/admin/"), 503, PAGE, NO_STORE)


def test_a_form_without_its_token_has_them_too() -> None:
    reply = Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "x", "password": "y"})
    checked(reply, 403, PAGE, NO_STORE)
    assert b"CSRF" in reply.content


def test_what_is_refused_before_django_has_them_too() -> None:
    environ: WSGIEnvironment = RequestFactory().get("/api/x", HTTP_X_LONG="x" * 20_000).environ
    told: dict[str, str] = {}
    heads.bounded(lambda *_: [])(environ, lambda _status, found, *_: told.update(found) or (lambda _: None))  # type: ignore[func-returns-value]
    assert SEALED.items() <= told.items()


@pytest.mark.parametrize("path", ["/api/video/create", f"/storage/{KEY}"])
@pytest.mark.parametrize("origin", ["https://app.example.com", "https://other.example", None])
def test_a_page_of_our_front_ends_may_read_what_is_refused_before_django(
    settings: Settings, path: str, origin: str | None
) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
    told, _ = refusal(path, 503, "overloaded", "Please try again.", origin=origin)
    assert (told["Vary"].lower(), told["Cache-Control"]) == ("origin", NO_STORE)
    assert told["Content-Type"] == ("application/json" if path.startswith("/api") else "text/plain; charset=utf-8")
    allowed = {name: value for name, value in told.items() if name.lower() == "access-control-allow-origin"}
    assert list(allowed.values()) == [origin] * (origin == "https://app.example.com")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/api/video/create", ("error", "code")),
        ("/v1/videos", ("error", "code")),
        ("/api/v1/videos", ("error", "metadata", "code")),
        ("/api/v1/videos/task_1/content", ("error", "metadata", "code")),
        ("/mcp", ("error", "data", "code")),
    ],
)
def test_what_is_refused_beside_the_views_has_the_shape_of_its_address(
    web: Client, monkeypatch: pytest.MonkeyPatch, path: str, place: tuple[str, ...]
) -> None:
    monkeypatch.setattr(outage.gate, "lets_through", lambda: False)
    away = web.post(path, {}, content_type="application/json")
    assert away.status_code == 503
    assert away["Content-Security-Policy"] == headers.CSP_NOTHING
    _, early = refusal(path, 503, "overloaded", "Please try again.", origin=None)
    for told, code in ((away.json(), "unavailable"), (json.loads(early), "overloaded")):
        for name in place:
            told = told[name]
        assert told == code


def test_an_outage_is_told_to_pages_of_our_front_ends(
    web: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
    monkeypatch.setattr(outage.gate, "lets_through", lambda: False)
    reply = web.get("/api/models", HTTP_ORIGIN="https://app.example.com")
    assert (reply.status_code, reply["Access-Control-Allow-Origin"]) == (503, "https://app.example.com")


def test_pictures_and_videos_may_come_from_the_bucket_where_there_is_one(web: Client, settings: Settings) -> None:
    settings.OBJECT_STORAGE_FOR_CLIENTS = parse("s3://reels?region=eu-central-1")
    policy = web.get("/admin/")["Content-Security-Policy"]
    origin = "https://reels.s3.eu-central-1.amazonaws.com"
    assert f"img-src 'self' {origin}; media-src 'self' {origin}; object-src 'none'" in policy
    assert origin not in web.get("/api/models")["Content-Security-Policy"]


@pytest.fixture
def tls(settings: Settings) -> Settings:
    """Settings as they are read with an https PUBLIC_BASE_URL and BEHIND_TLS_PROXY=1."""
    settings.PUBLIC_BASE_URL, settings.HSTS_SECONDS, settings.HTTPS_REDIRECT = SITE, 86400, True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    return settings


def test_browsers_keep_to_https_for_as_long_as_the_setting_says(web: Client, tls: Settings) -> None:
    for path in ("/", "/api/nothing", "/static/reelworks/console.js", "/healthz", f"/storage/{KEY}"):
        reply = web.get(path, **PROXIED)
        reply.close()
        assert reply["Strict-Transport-Security"] == "max-age=86400"
        assert "Strict-Transport-Security" not in web.get(path)  # RFC 6797, section 7.2: not over http
    tls.HSTS_INCLUDE_SUBDOMAINS, tls.HSTS_PRELOAD = True, True
    assert web.get("/", **PROXIED)["Strict-Transport-Security"] == "max-age=86400; includeSubDomains; preload"
    tls.HSTS_SECONDS = 0
    assert "Strict-Transport-Security" not in web.get("/", **PROXIED)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/admin/?q=1", "/api/video/create"])
def test_who_came_to_the_proxy_by_http_is_sent_on_to_https(web: Client, tls: Settings, method: str, path: str) -> None:
    reply = web.generic(method, path, HTTP_X_FORWARDED_PROTO="http", HTTP_HOST="stranger.example")
    assert (reply.status_code, reply["Location"]) == (308, SITE + path)
    assert reply["Cache-Control"] == NO_STORE


def test_nobody_else_is_redirected(web: Client, tls: Settings) -> None:
    """Probes of load balancers, programs beside the proxy, call-backs on the own net, `make up` itself."""
    for path in ("/healthz", "/readyz"):
        assert web.get(path, HTTP_X_FORWARDED_PROTO="http").status_code == 200
    for said in ({}, PROXIED):
        assert web.get("/", **said).status_code == 200
        assert web.post("/api/video/webhook/nobody", {}, "application/json", **said).status_code == 404
    tls.HTTPS_REDIRECT = False
    assert web.get("/", HTTP_X_FORWARDED_PROTO="http").status_code == 200


def test_a_path_of_two_slashes_leads_to_no_other_host(tls: Settings) -> None:
    assert headers.https_address("//stranger.example/x", "http") == f"{SITE}//stranger.example/x"
