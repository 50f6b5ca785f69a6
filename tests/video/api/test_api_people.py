"""Accounts: signing up, a forgotten password, one's own account, the command, and users of another login."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from io import StringIO
from typing import Any

import jwt
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from tests.factories import make_user
from video.credits import ledger
from video.models import LoginSession, LoginThrottle, UserShare
from video.web.logins import reset, throttle

JSON = "application/json"
PASSWORD, OTHER = "correct horse battery staple", "a second horse with other staples"
SIGN_UP, ASK, CONFIRM = "/api/auth/sign-up", "/api/auth/password-reset", "/api/auth/password-reset/confirm"
SESSIONS = "/api/auth/sessions"


@pytest.fixture(autouse=True)
def open_doors(db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may sign up, e-mails end in the outbox, and are sent before the answer."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.SIGN_UP, settings.SIGN_UP_CREDITS, settings.SENDS_EMAIL = True, 30, True
    settings.PUBLIC_BASE_URL = "http://testserver"
    monkeypatch.setattr(reset, "ask", lambda email, *, address: reset.send(email, address=address))


@pytest.fixture
def ann() -> AbstractBaseUser:
    return get_user_model().objects.create_user("ann", "Ann@Example.com", PASSWORD)


def post(path: str, client: Client | None = None, **body: Any) -> Any:
    return (client or Client(raise_request_exception=False)).post(path, body, content_type=JSON)


def code(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


# --- signing up ----------------------------------------------------------------------------------------------------


def test_who_signs_up_is_logged_in_and_has_the_credits_to_begin_with() -> None:
    browser = Client()
    reply = post(SIGN_UP, browser, username="bob", password=PASSWORD, email="bob@example.com")
    assert reply.status_code == 201
    account = browser.get("/api/account").json()["data"]
    assert (account["username"], account["email"], account["balance"]) == ("bob", "bob@example.com", 30)
    assert post("/api/auth/login", username="bob", password=PASSWORD).status_code == 200
    user: Any = get_user_model().objects.get(username="bob")
    assert (user.is_staff, user.is_superuser) == (False, False)


def test_it_is_off_unless_the_operator_wants_it(settings: Settings) -> None:
    settings.SIGN_UP = False
    assert code(post(SIGN_UP, username="bob", password=PASSWORD)) == (403, "sign_up_off")
    assert not get_user_model().objects.filter(username="bob").exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "b b", "password": PASSWORD}, "username"),
        ({"username": "bob", "password": "12345678"}, "password"),
        ({"username": "bob", "password": PASSWORD, "email": "nowhere"}, "email"),
        ({"username": "bob"}, "password"),
        ({"username": "bob", "password": PASSWORD, "is_staff": True}, "is_staff"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_made(body: dict[str, Any], field: str) -> None:
    reply = post(SIGN_UP, **body)
    assert reply.status_code == 400
    assert field in {one["field"] for one in reply.json()["error"]["details"]}
    assert not get_user_model().objects.exists()


@pytest.mark.parametrize("name", ["ann", "ANN", "demo"])
def test_a_name_that_is_taken_is_refused_in_any_capitals(ann: AbstractBaseUser, name: str) -> None:
    assert code(post(SIGN_UP, username=name, password=PASSWORD)) == (409, "username_taken")


def test_a_network_signs_up_a_few_times_and_then_waits() -> None:
    for number in range(int(throttle.SIGN_UP.free) + 1):
        assert post(SIGN_UP, username=f"bob{number}", password=PASSWORD).status_code == 201
    refused = post(SIGN_UP, username="bob9", password=PASSWORD)
    assert code(refused) == (429, "too_many_tries")
    assert int(refused["Retry-After"]) >= 1


def test_another_sites_page_can_t_do_any_of_it() -> None:
    for path in (SIGN_UP, ASK, CONFIRM):
        reply = Client().post(path, {}, content_type=JSON, HTTP_ORIGIN="https://evil.example")
        assert code(reply) == (403, "csrf")


# --- a forgotten password ------------------------------------------------------------------------------------------


def token_in(mail: Any) -> str:
    found = re.search(r'"token": "([^"]+)"', mail.body)
    assert found is not None
    return found[1]


def test_a_token_changes_the_password_once_and_ends_all_logins(ann: AbstractBaseUser, mailoutbox: list[Any]) -> None:
    browser = Client()
    post("/api/auth/login", browser, username="ann", password=PASSWORD)
    assert post(ASK, email="ann@example.COM").status_code == 202
    (mail,) = mailoutbox
    assert mail.to == ["Ann@example.com"]
    assert post(CONFIRM, token=token_in(mail), newPassword=OTHER).status_code == 200
    assert browser.get(SESSIONS).status_code == 401
    assert LoginSession.objects.get().end_reason == "password"
    assert code(post(CONFIRM, token=token_in(mail), newPassword=PASSWORD)) == (400, "invalid_token")
    assert code(post("/api/auth/login", username="ann", password=PASSWORD)) == (401, "invalid_credentials")
    assert post("/api/auth/login", username="ann", password=OTHER).status_code == 200


def test_the_answer_is_the_same_for_an_address_that_nobody_has(ann: AbstractBaseUser, mailoutbox: list[Any]) -> None:
    known, unknown = post(ASK, email="ann@example.com"), post(ASK, email="nobody@example.com")
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    assert len(mailoutbox) == 1
    for email in ("ann@example.com", "nobody@example.com"):  # and so are the pauses
        replies = [post(ASK, email=email) for _ in range(4)]
        assert [one.status_code for one in replies] == [202, 202, 202, 429]
        LoginThrottle.objects.filter(level__gt=throttle.RESET_OF_ONE.free + 2).delete()  # the network's


def test_the_look_up_is_not_part_of_the_answer(
    ann: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(reset, "ask", lambda email, *, address: asked.append(email))
    with django_assert_num_queries(4):  # two counts
        post(ASK, email="ann@example.com")
    with django_assert_num_queries(4):
        post(ASK, email="nobody@example.com")
    assert len(asked) == 2


@pytest.mark.parametrize(
    "change", [{"is_active": False}, {"password": "!"}, {"email": ""}], ids=["off", "no password", "no address"]
)
def test_nobody_else_gets_an_e_mail(ann: AbstractBaseUser, mailoutbox: list[Any], change: dict[str, Any]) -> None:
    get_user_model().objects.update(**change)
    assert post(ASK, email="ann@example.com").status_code == 202
    assert mailoutbox == []


def test_without_e_mail_the_answer_says_so(ann: AbstractBaseUser, settings: Settings) -> None:
    settings.SENDS_EMAIL = False
    assert code(post(ASK, email="ann@example.com")) == (501, "no_email")


def test_a_token_ends_by_time_by_another_change_and_for_who_is_switched_off(
    ann: Any, mailoutbox: list[Any], settings: Settings
) -> None:
    post(ASK, email="ann@example.com")
    token = token_in(mailoutbox[0])
    settings.PASSWORD_RESET_TIMEOUT = -1
    assert code(post(CONFIRM, token=token, newPassword=OTHER)) == (400, "invalid_token")
    settings.PASSWORD_RESET_TIMEOUT = 3600
    assert code(post(CONFIRM, token=token, newPassword="short")) == (400, "weak_password")
    get_user_model().objects.update(is_active=False)
    assert code(post(CONFIRM, token=token, newPassword=OTHER)) == (400, "invalid_token")
    get_user_model().objects.update(is_active=True)
    ann.set_password(OTHER)
    ann.save()
    assert code(post(CONFIRM, token=token, newPassword=OTHER)) == (400, "invalid_token")


@pytest.mark.parametrize("token", ["x", "MQ.x", "....", "MQ.c0ffee-abc", "é.é", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5.a-b"])
def test_nonsense_is_no_token(ann: AbstractBaseUser, token: str) -> None:
    assert code(post(CONFIRM, token=token, newPassword=OTHER)) == (400, "invalid_token")


def test_the_link_of_the_e_mail_opens_a_page_that_changes_it_once(ann: Any, mailoutbox: list[Any]) -> None:
    post(ASK, email="ann@example.com")
    found = re.search(r"http://testserver(/admin/reset/\S+)", mailoutbox[0].body)
    assert found is not None
    browser, second = Client(), Client()
    pages = [one.get(found[1], follow=True) for one in (browser, second)]
    assert all(page.status_code == 200 and b"new_password1" in page.content for page in pages)
    assert b"/admin/reset/" not in pages[0].content.replace(b'action=""', b"")  # the token is in no link of the page
    form = {"new_password1": OTHER, "new_password2": OTHER}
    done = browser.post(pages[0].request["PATH_INFO"], form, follow=True)
    assert done.redirect_chain[-1][0] == "/admin/reset/done/"
    ann.refresh_from_db()
    assert ann.check_password(OTHER)
    again = {"new_password1": PASSWORD, "new_password2": PASSWORD}
    assert b"new_password1" not in second.post(pages[1].request["PATH_INFO"], again, follow=True).content
    ann.refresh_from_db()
    assert ann.check_password(OTHER)


# --- one's account -------------------------------------------------------------------------------------------------


def test_the_account_says_who_one_is_and_what_one_may_use(
    api: Client, user: AbstractBaseUser, settings: Settings
) -> None:
    found = api.get("/api/account").json()["data"]
    assert set(found) == {
        *("id", "username", "email", "madeAt", "staff", "balance", "limits", "storage", "sessions"),
    }
    assert (found["id"], found["balance"], found["email"]) == (user.pk, 1000, None)
    every = {"waitingTasks": settings.MAX_WAITING_PER_USER, "requestsPerMinute": settings.REQUESTS_PER_MINUTE}
    assert found["limits"] == {**every, "liveTasks": None}
    assert api.get(found["sessions"]).status_code == 200
    share = UserShare.objects.create(user=user, most_waiting=7, most_live=9, requests_per_minute=30)
    own = {"waitingTasks": 7, "liveTasks": 9, "requestsPerMinute": 30}
    assert api.get("/api/account").json()["data"]["limits"] == own
    share.requests_per_minute = 0
    share.save()
    assert api.get("/api/account").json()["data"]["limits"] == {**own, "requestsPerMinute": None}
    assert Client().get("/api/account").status_code == 401


# --- the command ---------------------------------------------------------------------------------------------------


def create(*arguments: str, stdin: str = "", monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.stdin", StringIO(stdin))
    out = StringIO()
    call_command("create_user", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_makes_a_user_with_credits(monkeypatch: pytest.MonkeyPatch) -> None:
    said = create("eve", "--credits", "50", "--stdin", stdin=f"{PASSWORD}\n", monkeypatch=monkeypatch)
    assert PASSWORD not in said
    user: Any = get_user_model().objects.get(username="eve")
    assert (user.check_password(PASSWORD), ledger.balance(user.pk)) == (True, 50)
    made = json.loads(create("joe", "--generate", "--json", monkeypatch=monkeypatch))
    assert get_user_model().objects.get(username="joe").check_password(made["password"])


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (["ann", "--stdin"], PASSWORD, "There is a user"),
        (["b b", "--generate"], "", "valid username"),
        (["bob"], "", "give --stdin or --generate"),
        (["bob", "--stdin"], "", "Nothing was made"),
        (["bob", "--stdin"], "12345678", "Nothing was made"),
        (["bob", "--generate", "--credits", "-1"], "", "--credits"),
    ],
)
def test_the_command_makes_nothing_of_what_is_wrong(
    ann: AbstractBaseUser, arguments: list[str], stdin: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match=says):
        create(*arguments, stdin=stdin, monkeypatch=monkeypatch)
    assert get_user_model().objects.count() == 1


def test_no_password_can_be_given_as_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError):
        create("bob", "--password", PASSWORD, monkeypatch=monkeypatch)


# --- users of another login (docs/why/users.md) --------------------------------------------------------------------


def test_a_user_of_another_login_needs_nothing_but_a_row(order: dict[str, Any], settings: Settings) -> None:
    """Made without a password or an e-mail; its token names the row by `user_id`, and all of the API answers it."""
    user = make_user()
    claims = {"user_id": user.pk, "exp": int((timezone.now() + timedelta(hours=1)).timestamp())}
    token = jwt.encode(claims, settings.SIMPLE_JWT["SIGNING_KEY"], algorithm="HS256")
    headers = {"HTTP_AUTHORIZATION": f"Bearer {token}"}
    made = Client().post("/api/video/create", order, content_type=JSON, **headers)
    assert made.status_code == 201
    found = Client().get("/api/account", **headers).json()["data"]
    assert (found["id"], found["balance"]) == (user.pk, 990)
    assert not LoginSession.objects.exists()
