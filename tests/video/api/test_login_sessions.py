"""What ends a login, what does not, and one's own logins."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from rest_framework_simplejwt.tokens import AccessToken

from video.models import LoginSession
from video.web.logins import sessions

JSON = "application/json"
AUTH = "/api/auth/"
WHOAMI = "/api/credits"
PASSWORD, NEW = "correct horse battery staple", "another one, quite long"
End = LoginSession.End


@pytest.fixture(autouse=True)
def _quick_hashes(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def make_ann() -> AbstractBaseUser:
    return get_user_model().objects.create_user("ann", password=PASSWORD)


@pytest.fixture
def ann(db: None) -> AbstractBaseUser:
    return make_ann()


def call(path: str, body: dict[str, Any] | None = None, *, client: Client | None = None, **headers: str) -> Any:
    return (client or Client()).post(AUTH + path, body or {}, content_type=JSON, **headers)


class Device:
    """A program that keeps its tokens itself."""

    def __init__(self, password: str = PASSWORD, name: str = "ann") -> None:
        agent = "a\x1b[31m device" + "x" * 300
        self.take(call("login", {"username": name, "password": password}, HTTP_USER_AGENT=agent))

    def take(self, reply: Any) -> None:
        assert reply.status_code == 200, reply.content
        self.access, self.refresh = reply.json()["data"]["accessToken"], reply.cookies["refresh"].value

    @property
    def bearer(self) -> dict[str, str]:
        return {"HTTP_AUTHORIZATION": f"Bearer {self.access}"}

    def exchange(self, refresh: str | None = None) -> Any:
        return call("refresh", {"refreshToken": refresh or self.refresh})

    def sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = Client().get(AUTH + "sessions", **self.bearer).json()["data"]["sessions"]
        return found

    @property
    def id(self) -> str:
        return str(jwt.decode(self.access, options={"verify_signature": False})["sid"])

    def is_in(self) -> bool:
        return bool(Client().get(WHOAMI, **self.bearer).status_code == 200)


def age(seconds: float) -> None:
    clocks = ("made_at", "last_used_at", "ends_at", "exchanged_at", "ended_at")
    past = ", ".join(f"{clock} = {clock} - %(s)s * interval '1 second'" for clock in clocks)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE video_loginsession SET {past}", {"s": seconds})


def by_admin(path: str, body: dict[str, Any]) -> None:
    operator = Client()
    operator.force_login(get_user_model().objects.create_superuser("olga"))
    reply = operator.post(path, body)
    assert reply.status_code == 302, reply.content


def set_password_in_a_shell() -> None:
    user = get_user_model().objects.get(username="ann")
    user.set_password(NEW)
    user.save()


def reuse(device: Device) -> None:
    first = device.refresh
    device.take(device.exchange())
    age(sessions.GRACE_S + 1)
    assert device.exchange(first).status_code == 401


#: What happens, to which device; whether the other one stays in; the reason in the row.
ENDS: dict[str, tuple[Callable[[Device], object], bool, str]] = {
    "logout with the access token": (lambda one: call("logout", **one.bearer), True, End.LOGOUT),
    "logout with the refresh token": (lambda one: call("logout", {"refreshToken": one.refresh}), True, End.LOGOUT),
    "logout everywhere": (lambda one: call("logout", {"everywhere": True}, **one.bearer), False, ""),
    "everywhere, by the refresh token": (
        lambda one: call("logout", {"everywhere": True, "refreshToken": one.refresh}),
        False,
        "",
    ),
    "its owner ends it from another login": (
        lambda one: Client().delete(f"{AUTH}sessions/{one.id}", **Device().bearer),
        True,
        End.ENDED,
    ),
    "its owner changes the password": (
        lambda one: call("password", {"currentPassword": PASSWORD, "newPassword": NEW}, **one.bearer),
        False,
        End.PASSWORD,
    ),
    "a shell changes the password": (lambda one: set_password_in_a_shell(), False, End.PASSWORD),
    "the user is switched off": (
        lambda one: get_user_model().objects.filter(username="ann").update(is_active=False),
        False,
        End.SWITCHED_OFF,
    ),
    "an exchanged refresh token comes again": (reuse, True, End.REUSED),
    "an operator ends it": (
        lambda one: by_admin("/admin/video/loginsession/", {"action": "end", "_selected_action": one.id}),
        True,
        End.OPERATOR,
    ),
    "an operator ends all of the user": (
        lambda one: by_admin(
            "/admin/auth/user/",
            {"action": "end_logins", "_selected_action": get_user_model().objects.get(username="ann").pk},
        ),
        False,
        End.OPERATOR,
    ),
}


@pytest.mark.parametrize("what", ENDS)
def test_what_ends_a_token(ann: AbstractBaseUser, what: str) -> None:
    one, other = Device(), Device()
    act, other_stays, reason = ENDS[what]
    assert one.is_in()
    assert other.is_in()
    act(one)
    assert not one.is_in(), "its access token"
    assert one.exchange().status_code == 401, "its refresh token"
    assert other.is_in() is other_stays
    assert (other.exchange().status_code == 200) is other_stays
    row = LoginSession.objects.get(pk=one.id)
    assert row.ended_at is not None
    assert row.end_reason == reason or not reason


def test_a_user_who_is_switched_on_again_has_to_log_in(ann: AbstractBaseUser) -> None:
    device, users = Device(), get_user_model().objects
    users.update(is_active=False)
    users.update(is_active=True)
    assert not device.is_in()
    assert device.exchange().status_code == 401


def test_a_password_that_did_not_change_ends_nothing(ann: AbstractBaseUser) -> None:
    device = Device()
    ann.email = "ann@example.com"  # type: ignore[attr-defined]
    ann.save()
    assert device.is_in()


def test_a_login_ends_at_its_greatest_age_however_often_it_is_refreshed(
    ann: AbstractBaseUser, settings: Settings
) -> None:
    settings.LOGIN_DAYS = 10 / 86400 * 60  # ten minutes
    device = Device()
    for _ in range(3):
        reply = device.exchange()
        device.take(reply)
        assert reply.cookies["token"]["max-age"] <= 600
        assert reply.cookies["refresh"]["max-age"] <= 600
    age(601)
    assert device.exchange().status_code == 401
    assert Device().sessions()[0]["current"], "the only one"


def test_a_login_without_a_refresh_for_two_weeks_is_over(ann: AbstractBaseUser) -> None:
    Device()
    age(15 * 86400)
    assert len(Device().sessions()) == 1


# --- refresh tokens ------------------------------------------------------------------------------------------------


def test_a_refresh_token_is_exchanged_once(ann: AbstractBaseUser) -> None:
    device = Device()
    first = device.refresh
    device.take(device.exchange())
    assert device.refresh != first
    assert device.is_in()


def test_a_lost_answer_is_got_again_for_a_short_while(ann: AbstractBaseUser) -> None:
    device = Device()
    first = device.refresh
    lost = device.exchange().cookies["refresh"].value
    device.take(device.exchange(first))
    claims = [jwt.decode(one, options={"verify_signature": False})["jti"] for one in (lost, device.refresh)]
    assert claims[0] == claims[1], "one token is next, in both answers"
    device.take(device.exchange())
    assert device.exchange(first).status_code == 401, "two behind is never the last answer"
    assert not device.is_in()


def test_reuse_is_in_the_security_log(ann: AbstractBaseUser, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    with caplog.at_level(logging.INFO, "reelworks.security"):
        reuse(device)
    (line,) = [one.getMessage() for one in caplog.records if "reused" in one.getMessage()]
    assert line.startswith(f'refresh_token_reused user={ann.pk} name="ann" address="127.0.0.1" session="login_')
    assert device.refresh not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_tabs_that_refresh_at_the_same_moment_stay_logged_in() -> None:
    make_ann()
    device = Device()

    def tab(_: int) -> Any:
        try:
            return device.exchange()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(tab, range(8)))
    assert {one.status_code for one in replies} == {200}
    for reply in replies[:1]:
        device.take(reply)
    assert device.exchange().status_code == 200
    assert LoginSession.objects.get().ended_at is None


def test_a_login_that_meets_a_password_change_is_refused(ann: AbstractBaseUser) -> None:
    """The password was right when it was looked at, and is another one when the session is to be made."""
    user = authenticate(username="ann", password=PASSWORD)
    set_password_in_a_shell()
    assert user is not None
    assert sessions.start(user, address="", user_agent="") is None


# --- tokens of others ----------------------------------------------------------------------------------------------


def foreign(user: AbstractBaseUser, settings: Settings, **claims: Any) -> dict[str, str]:
    exp = int((timezone.now() + timedelta(hours=1)).timestamp())
    token = jwt.encode({"user_id": user.pk, "exp": exp, **claims}, settings.SIMPLE_JWT["SIGNING_KEY"], "HS256")
    return {"HTTP_AUTHORIZATION": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({}, 200),
        ({"aud": "reelworks"}, 200),
        ({"aud": ["another", "reelworks"]}, 200),
        ({"aud": "another"}, 401),
        ({"aud": []}, 401),
        ({"aud": 5}, 401),
        ({"aud": {"reelworks": 1}}, 401),
        ({"iss": "https://login.example.com"}, 200),
        ({"iss": "https://login.example.com", "sid": "of that login"}, 200),
        ({"iss": "another"}, 401),
        ({"iss": "reelworks"}, 401),  # ours, and of no session
        ({"iss": "reelworks", "sid": "login_\0"}, 401),
        ({"iss": "reelworks", "sid": "login_01m8g8t4npc1cy84028zq3fj6f"}, 401),
        ({"iss": "reelworks", "sid": 7}, 401),
    ],
)
def test_what_a_token_of_another_login_may_say(
    ann: AbstractBaseUser, settings: Settings, claims: dict[str, Any], status: int
) -> None:
    settings.JWT_ISSUERS = ["https://login.example.com"]
    assert Client().get(WHOAMI, **foreign(ann, settings, **claims)).status_code == status


def test_a_token_of_another_login_ends_by_its_time_alone(ann: AbstractBaseUser, settings: Settings) -> None:
    theirs = foreign(ann, settings)
    device = Device()
    assert call("logout", {"everywhere": True}, **theirs).status_code == 200
    assert not device.is_in()
    set_password_in_a_shell()
    assert Client().get(WHOAMI, **theirs).status_code == 200


def test_a_refresh_token_of_no_session_is_refused(ann: AbstractBaseUser, settings: Settings) -> None:
    """As they were made before there were sessions."""
    exp = int((timezone.now() + timedelta(hours=1)).timestamp())
    claims = {"user_id": str(ann.pk), "exp": exp, "jti": "1" * 32, "token_type": "refresh"}
    old = jwt.encode(claims, settings.SIMPLE_JWT["SIGNING_KEY"], "HS256")
    assert call("refresh", {"refreshToken": old}).status_code == 401


def test_another_users_session_does_not_carry_a_token(ann: AbstractBaseUser, settings: Settings) -> None:
    bob = get_user_model().objects.create_user("bob", password=PASSWORD)
    sid = Device().id
    assert Client().get(WHOAMI, **foreign(bob, settings, iss="reelworks", sid=sid)).status_code == 401


def test_tokens_from_before_the_secret_was_rotated_work_until_they_end(
    ann: AbstractBaseUser, settings: Settings
) -> None:
    device = Device()
    settings.JWT_KEY_FALLBACKS = [settings.SIMPLE_JWT["SIGNING_KEY"]]
    settings.SIMPLE_JWT = {**settings.SIMPLE_JWT, "SIGNING_KEY": "another " * 8}
    assert device.is_in()
    before = device.access
    device.take(device.exchange())
    settings.JWT_KEY_FALLBACKS = []
    assert device.is_in(), "the fresh one has the new signature"
    device.access = before
    assert not device.is_in()


# --- one's own logins ----------------------------------------------------------------------------------------------


def test_ones_own_logins_are_listed(ann: AbstractBaseUser) -> None:
    get_user_model().objects.create_user("bob", password=PASSWORD)
    Device(name="bob")
    other, one = Device(), Device()
    call("logout", **Device().bearer)
    found = one.sessions()
    assert [(entry["id"], entry["current"]) for entry in found] == [(one.id, True), (other.id, False)]
    assert set(found[0]) == {"id", "madeAt", "lastUsedAt", "endsAt", "address", "userAgent", "current"}
    assert found[0]["address"] == "127.0.0.1"
    assert found[0]["userAgent"] == ("a[31m device" + "x" * 300)[:200]


@pytest.mark.parametrize("which", ["another user's", "over", "none", "nonsense", "a%00", "login_%00"])
def test_only_ones_own_live_logins_can_be_ended(ann: AbstractBaseUser, which: str) -> None:
    get_user_model().objects.create_user("bob", password=PASSWORD)
    bob, over = Device(name="bob"), Device()
    call("logout", **over.bearer)
    known = {"another user's": bob.id, "over": over.id, "none": "login_01m8g8t4npc1cy84028zq3fj6f"}
    reply = Client().delete(f"{AUTH}sessions/{known.get(which, which)}", **Device().bearer)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert bob.is_in()


def test_another_site_ends_no_login(ann: AbstractBaseUser) -> None:
    browser, device = Client(), Device()
    browser.cookies["token"] = device.access
    evil = {"HTTP_ORIGIN": "https://evil.example"}
    assert browser.delete(f"{AUTH}sessions/{device.id}", **evil).status_code == 403
    body = {"currentPassword": PASSWORD, "newPassword": NEW}
    assert call("password", body, client=browser, **evil).status_code == 403
    assert device.is_in()


def test_logging_out_everywhere_needs_a_login(ann: AbstractBaseUser) -> None:
    reply = call("logout", {"everywhere": True})
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_token")
    device = Device()
    call("logout", **device.bearer)
    other = Device()
    assert call("logout", {"everywhere": True, "refreshToken": device.refresh}).status_code == 401
    assert other.is_in()


def test_logging_out_everywhere_ends_the_admin_too(ann: AbstractBaseUser) -> None:
    ann.is_staff = True  # type: ignore[attr-defined]
    ann.save()
    staff, other = Client(), Client()
    staff.force_login(ann)
    other.force_login(get_user_model().objects.create_superuser("olga"))
    assert call("logout", {"everywhere": True}, **Device().bearer).status_code == 200
    assert (staff.get("/admin/").status_code, other.get("/admin/").status_code) == (302, 200)


def test_operators_see_logins_and_no_tokens(ann: AbstractBaseUser) -> None:
    device, operator = Device(), Client()
    operator.force_login(get_user_model().objects.create_superuser("olga"))
    for page in ("", f"{device.id}/change/"):
        text = operator.get(f"/admin/video/loginsession/{page}").content.decode()
        assert device.id in text
        assert "127.0.0.1" in text
        assert LoginSession.objects.get().refresh_id not in text


# --- the password --------------------------------------------------------------------------------------------------


def test_a_new_password_comes_with_fresh_tokens(ann: AbstractBaseUser) -> None:
    browser = Client()
    call("login", {"username": "ann", "password": PASSWORD}, client=browser)
    reply = call("password", {"currentPassword": PASSWORD, "newPassword": NEW}, client=browser)
    assert reply.json()["data"]["user"]["username"] == "ann"
    assert browser.get(WHOAMI).status_code == 200
    assert call("refresh", client=browser).status_code == 200
    assert call("login", {"username": "ann", "password": PASSWORD}).status_code == 401
    assert call("login", {"username": "ann", "password": NEW}).status_code == 200


@pytest.mark.parametrize(
    ("current", "new", "field", "code"),
    [
        ("wrong", NEW, "currentPassword", "wrong_password"),
        (PASSWORD, "short", "newPassword", "weak_password"),
        (PASSWORD, "password123", "newPassword", "weak_password"),
        (PASSWORD, None, "newPassword", "invalid_request"),
    ],
)
def test_a_password_change_names_the_wrong_field(
    ann: AbstractBaseUser, current: str, new: str | None, field: str, code: str
) -> None:
    device = Device()
    reply = call("password", {"currentPassword": current, "newPassword": new}, **device.bearer)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, code)
    assert [one["field"] for one in reply.json()["error"]["details"]] == [field]
    assert device.is_in()


def test_the_present_password_can_not_be_guessed_here(ann: AbstractBaseUser) -> None:
    device = Device()
    body = {"currentPassword": "wrong", "newPassword": NEW}
    codes = [call("password", body, **device.bearer).status_code for _ in range(7)]
    assert codes == [400] * 6 + [429]


# --- cookies -------------------------------------------------------------------------------------------------------


def test_under_tls_the_cookies_are_bound_to_this_host(ann: AbstractBaseUser, settings: Settings) -> None:
    settings.COOKIE_SECURE = True
    settings.COOKIE_NAME, settings.REFRESH_COOKIE_NAME = "__Host-token", "__Secure-refresh"
    browser = Client()
    reply = call("login", {"username": "ann", "password": PASSWORD}, client=browser)
    token, refresh = reply.cookies["__Host-token"], reply.cookies["__Secure-refresh"]
    assert (token["path"], token["domain"], token["secure"], refresh["path"]) == ("/", "", True, "/api/auth")
    assert browser.get(WHOAMI).status_code == 200
    assert set(call("logout", client=browser).cookies) == {"__Host-token", "__Secure-refresh"}
    other = Client()
    other.cookies["token"] = str(AccessToken.for_user(ann))  # the other name is not read
    assert other.get(WHOAMI).status_code == 401


# --- rows ----------------------------------------------------------------------------------------------------------


def test_rows_go_thirty_days_after_the_end(ann: AbstractBaseUser) -> None:
    call("logout", **Device().bearer)
    Device()
    age(29 * 86400)
    assert sessions.sweep() == 0
    age(2 * 86400)
    assert sessions.sweep() == 1
    age(14 * 86400)
    assert sessions.sweep() == 1


def test_a_call_costs_one_query_for_user_and_session(ann: AbstractBaseUser, django_assert_num_queries: Any) -> None:
    device = Device()
    with django_assert_num_queries(1):
        assert Client().get("/api/video/status", {"taskId": "nonsense"}, **device.bearer).status_code == 404
