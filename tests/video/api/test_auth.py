"""Log in, log out, cookies, tokens, and pages of other sites."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from video.models import VideoTask

JSON = "application/json"
LOGIN, REFRESH, LOGOUT = "/api/auth/login", "/api/auth/refresh", "/api/auth/logout"
STATUS = "/api/video/status?taskId=task_00000000000000000000000000"
PASSWORD = "correct horse battery staple"


@pytest.fixture
def ann(db: None, settings: Settings) -> AbstractBaseUser:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return get_user_model().objects.create_user("ann", password=PASSWORD)


@pytest.fixture
def browser() -> Client:
    return Client(raise_request_exception=False)


def log_in(client: Client, name: str = "ann", password: str = PASSWORD, **headers: Any) -> Any:
    return client.post(LOGIN, {"username": name, "password": password}, content_type=JSON, **headers)


def signed(claims: dict[str, Any], settings: Settings, key: str | None = None) -> str:
    return jwt.encode(claims, key or settings.SIMPLE_JWT["SIGNING_KEY"], algorithm="HS256")


def in_an_hour() -> int:
    return int((timezone.now() + timedelta(hours=1)).timestamp())


def test_login_sets_both_cookies_out_of_reach_of_scripts(ann: AbstractBaseUser, browser: Client) -> None:
    reply = log_in(browser)
    assert reply.status_code == 200
    data = reply.json()["data"]
    assert data["user"] == {"id": ann.pk, "username": "ann"}
    assert set(data) == {"user", "accessToken", "expiresAt"}
    token, refresh = reply.cookies["token"], reply.cookies["refresh"]
    assert (token["httponly"], token["samesite"], token["path"], token["secure"]) == (True, "Lax", "/", "")
    assert token["max-age"] == 3600
    assert (refresh["httponly"], refresh["samesite"], refresh["path"]) == (True, "Lax", "/api/auth")
    assert reply["Cache-Control"] == "no-store"


def test_cookies_are_secure_under_tls(ann: AbstractBaseUser, browser: Client, settings: Settings) -> None:
    settings.COOKIE_SECURE, settings.COOKIE_SAMESITE = True, "None"
    reply = log_in(browser)
    for name in ("token", "refresh"):
        assert (reply.cookies[name]["secure"], reply.cookies[name]["samesite"]) == (True, "None")


def test_the_cookie_logs_in(ann: AbstractBaseUser, browser: Client) -> None:
    log_in(browser)
    assert browser.get(STATUS).json()["error"]["code"] == "not_found"


def test_the_token_in_the_body_works_as_bearer(ann: AbstractBaseUser, browser: Client) -> None:
    token = log_in(browser).json()["data"]["accessToken"]
    assert Client().get(STATUS, HTTP_AUTHORIZATION=f"Bearer {token}").json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(("name", "password"), [("ann", "wrong"), ("nobody", PASSWORD), ("ANN", PASSWORD)])
def test_wrong_name_and_wrong_password_look_the_same(
    ann: AbstractBaseUser, browser: Client, name: str, password: str
) -> None:
    reply = log_in(browser, name, password)
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_credentials")
    assert "token" not in reply.cookies


def test_inactive_user_cannot_log_in(ann: AbstractBaseUser, browser: Client) -> None:
    get_user_model().objects.update(is_active=False)
    assert log_in(browser).json()["error"]["code"] == "invalid_credentials"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"password": "x"}, "username"),
        ({"username": "ann"}, "password"),
        ({"username": "ann", "password": 12}, "password"),
        ({"username": ["ann"], "password": "x"}, "username"),
        ({"username": "a\0nn", "password": "x"}, "username"),
        ({"username": "ann", "password": "x", "remember": True}, "remember"),
    ],
)
def test_login_names_the_wrong_field(db: None, browser: Client, body: dict[str, Any], field: str) -> None:
    reply = browser.post(LOGIN, body, content_type=JSON)
    assert reply.status_code == 400
    assert [one["field"] for one in reply.json()["error"]["details"]] == [field]


def test_a_stale_cookie_is_not_in_the_way_of_login(ann: AbstractBaseUser, browser: Client) -> None:
    browser.cookies["token"] = "stale"
    assert log_in(browser).status_code == 200


def test_refresh_by_cookie_renews_both_tokens(ann: AbstractBaseUser, browser: Client) -> None:
    log_in(browser)
    del browser.cookies["token"]
    reply = browser.generic("POST", REFRESH)
    assert reply.status_code == 200
    assert {"token", "refresh"} <= set(reply.cookies)
    assert browser.get(STATUS).status_code == 404


def test_refresh_by_body_is_for_clients_without_cookies(ann: AbstractBaseUser, browser: Client) -> None:
    refresh = log_in(browser).cookies["refresh"].value
    reply = Client().post(REFRESH, {"refreshToken": refresh}, content_type=JSON)
    assert reply.json()["data"]["user"]["username"] == "ann"


def test_refresh_ends_with_the_password_and_with_the_user(ann: AbstractBaseUser, browser: Client) -> None:
    log_in(browser)
    ann.set_password("another one, quite long")
    ann.save()
    assert browser.generic("POST", REFRESH).status_code == 401
    log_in(browser, password="another one, quite long")
    get_user_model().objects.update(is_active=False)
    assert browser.generic("POST", REFRESH).status_code == 401


def test_refresh_without_a_token_is_401(db: None, browser: Client) -> None:
    assert browser.generic("POST", REFRESH).json()["error"]["code"] == "no_refresh_token"


def test_an_access_token_is_no_refresh_token(ann: AbstractBaseUser, browser: Client) -> None:
    reply = browser.post(REFRESH, {"refreshToken": str(AccessToken.for_user(ann))}, content_type=JSON)
    assert reply.status_code == 401


def test_logout_takes_both_cookies_back(ann: AbstractBaseUser, browser: Client) -> None:
    log_in(browser)
    reply = browser.generic("POST", LOGOUT)
    assert reply.status_code == 200
    for name, path in (("token", "/"), ("refresh", "/api/auth")):
        assert (reply.cookies[name].value, reply.cookies[name]["max-age"], reply.cookies[name]["path"]) == ("", 0, path)
    assert browser.get(STATUS).status_code == 401


def test_no_token_is_401_with_a_challenge(db: None, browser: Client) -> None:
    reply = browser.get(STATUS)
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "not_authenticated")
    assert reply["WWW-Authenticate"].startswith("Bearer")


def test_expired_token_says_so(ann: AbstractBaseUser, browser: Client) -> None:
    token = AccessToken.for_user(ann)
    token.set_exp(lifetime=timedelta(seconds=-1))
    browser.cookies["token"] = str(token)
    reply = browser.get(STATUS)
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "token_expired")


def test_token_of_inactive_or_deleted_user_is_401(ann: AbstractBaseUser, browser: Client) -> None:
    browser.cookies["token"] = str(AccessToken.for_user(ann))
    get_user_model().objects.update(is_active=False)
    assert browser.get(STATUS).status_code == 401
    get_user_model().objects.all().delete()
    assert browser.get(STATUS).status_code == 401


def test_a_wrong_bearer_is_401_also_beside_a_good_cookie(ann: AbstractBaseUser, browser: Client) -> None:
    log_in(browser)
    for header in ("Bearer nonsense", "Bearer", "bearer é", "Bearer a b"):
        assert browser.get(STATUS, HTTP_AUTHORIZATION=header).status_code == 401, header


def test_another_scheme_leaves_the_cookie_in_force(ann: AbstractBaseUser, browser: Client) -> None:
    log_in(browser)
    assert browser.get(STATUS, HTTP_AUTHORIZATION="Basic YTpi").status_code == 404


def test_a_login_that_shares_the_key_is_accepted(ann: AbstractBaseUser, browser: Client, settings: Settings) -> None:
    for user_id in (ann.pk, str(ann.pk)):
        browser.cookies["token"] = signed({"user_id": user_id, "exp": in_an_hour()}, settings)
        assert browser.get(STATUS).status_code == 404


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"user_id": None},
        {"user_id": True},
        {"user_id": "abc"},
        {"user_id": "1\0"},
        {"user_id": 10**40},
        {"user_id": [1]},
        {"exp": 10**18},
        {"token_type": "refresh"},
    ],
)
def test_odd_claims_are_401_and_never_500(
    ann: AbstractBaseUser, browser: Client, settings: Settings, claims: dict[str, Any]
) -> None:
    merged = {"user_id": ann.pk, "exp": in_an_hour(), **claims}
    browser.cookies["token"] = signed({name: value for name, value in merged.items() if value is not None}, settings)
    assert browser.get(STATUS).status_code == 401


def test_foreign_key_and_unsigned_tokens_are_refused(
    ann: AbstractBaseUser, browser: Client, settings: Settings
) -> None:
    claims = {"user_id": ann.pk, "exp": in_an_hour(), "token_type": "access", "jti": "1"}
    for token in (
        signed(claims, settings, key="k" * 40),
        jwt.encode(claims, None, algorithm="none"),
        str(RefreshToken.for_user(ann)),
    ):
        browser.cookies["token"] = token
        assert browser.get(STATUS).status_code == 401


# --- pages of other sites ------------------------------------------------------------------------------------------

OURS, PUBLIC, FRONTEND = "http://testserver", "https://videos.example.com", "https://app.example.com"
CSRF_MATRIX = [
    # headers, allowed
    ({}, True),  # curl
    ({"HTTP_ORIGIN": OURS}, True),
    ({"HTTP_ORIGIN": "http://testserver:80"}, True),
    ({"HTTP_ORIGIN": "https://testserver"}, True),  # a proxy in front ends TLS
    ({"HTTP_ORIGIN": PUBLIC}, True),
    ({"HTTP_ORIGIN": FRONTEND}, True),
    ({"HTTP_ORIGIN": FRONTEND, "HTTP_SEC_FETCH_SITE": "cross-site"}, True),  # the origin decides
    ({"HTTP_SEC_FETCH_SITE": "same-origin"}, True),
    ({"HTTP_SEC_FETCH_SITE": "none"}, True),
    ({"HTTP_ORIGIN": "https://evil.example"}, False),
    ({"HTTP_ORIGIN": "http://testserver.evil.example"}, False),
    ({"HTTP_ORIGIN": "http://testserver:8001"}, False),
    ({"HTTP_ORIGIN": "http://videos.example.com"}, False),
    ({"HTTP_ORIGIN": "null"}, False),
    ({"HTTP_ORIGIN": ""}, False),
    ({"HTTP_ORIGIN": "http://[bad"}, False),
    ({"HTTP_SEC_FETCH_SITE": "cross-site"}, False),
    ({"HTTP_SEC_FETCH_SITE": "same-site"}, False),
    ({"HTTP_ORIGIN": "https://evil.example", "HTTP_SEC_FETCH_SITE": "same-origin"}, False),
]


@pytest.fixture
def _origins(settings: Settings) -> None:
    settings.PUBLIC_BASE_URL, settings.FRONTEND_ORIGINS = PUBLIC, [FRONTEND]


@pytest.mark.usefixtures("_origins")
@pytest.mark.parametrize(("headers", "allowed"), CSRF_MATRIX)
def test_create_by_cookie_only_from_our_pages(
    api: Client, order: dict[str, Any], headers: dict[str, str], allowed: bool
) -> None:
    reply = api.post("/api/video/create", order, content_type=JSON, **headers)
    if allowed:
        assert reply.status_code == 201
    else:
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "csrf")
        assert not VideoTask.objects.exists()


@pytest.mark.usefixtures("_origins")
@pytest.mark.parametrize(("headers", "allowed"), CSRF_MATRIX)
@pytest.mark.parametrize("address", [LOGIN, REFRESH, LOGOUT])
def test_no_other_site_logs_anybody_in_or_out(
    ann: AbstractBaseUser, browser: Client, address: str, headers: dict[str, str], allowed: bool
) -> None:
    log_in(browser)
    body = {"username": "ann", "password": PASSWORD} if address == LOGIN else {}
    reply = browser.post(address, body, content_type=JSON, **headers)
    assert reply.status_code == (200 if allowed else 403)
    assert bool(reply.cookies) is allowed


def test_bearer_needs_no_origin_of_ours(user: AbstractBaseUser, order: dict[str, Any]) -> None:
    headers = {"HTTP_AUTHORIZATION": f"Bearer {AccessToken.for_user(user)}", "HTTP_ORIGIN": "https://evil.example"}
    assert Client().post("/api/video/create", order, content_type=JSON, **headers).status_code == 201


def test_reading_by_cookie_needs_no_origin(api: Client) -> None:
    assert api.get(STATUS, HTTP_ORIGIN="https://evil.example").status_code == 404


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize(("origin", "status"), [("https://evil.example", 403), (OURS, 415)])
def test_what_a_form_can_send_makes_nothing(
    api: Client, client_for: Callable[..., Client], kind: str, origin: str, status: int
) -> None:
    reply = api.generic("POST", "/api/video/create", b'{"prompt": "A cat"}', content_type=kind, HTTP_ORIGIN=origin)
    assert reply.status_code == status
    assert not VideoTask.objects.exists()


# --- CORS ----------------------------------------------------------------------------------------------------------


def test_preflight_only_for_front_end_origins(db: None, browser: Client, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = [FRONTEND]
    ask = {
        "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST",
        "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": "content-type,idempotency-key",
    }
    reply = browser.options("/api/video/create", HTTP_ORIGIN=FRONTEND, **ask)
    assert reply["Access-Control-Allow-Origin"] == FRONTEND
    assert reply["Access-Control-Allow-Credentials"] == "true"
    assert "idempotency-key" in reply["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Origin" not in browser.options("/api/video/create", HTTP_ORIGIN="https://evil", **ask)
