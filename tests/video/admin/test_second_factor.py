"""The admin's second factor over HTTP: what it keeps shut, each code once, its throttle, and how it ends."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django_otp.oath import TOTP
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django import Settings

from video.models import LoginThrottle, RecoveryCode
from video.web.logins import second_factor, throttle

pytestmark = pytest.mark.django_db

PAGE = "/admin/second-factor/"
NAME, PASSWORD = "olga", "correct horse battery staple"
HOME, AWAY = "203.0.113.7", "198.51.100.1"
FAR = datetime(2100, 1, 1, tzinfo=UTC)
STEP_S = 30


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The clock stands, in the middle of a step; call it to go on by so many seconds."""
    clock = [1_800_000_015.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])

    def go_on(seconds: float) -> None:
        clock[0] += seconds

    return go_on


@pytest.fixture(autouse=True)
def olga(settings: Settings) -> AbstractBaseUser:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.ADMIN_SECOND_FACTOR = "required"
    return get_user_model().objects.create_superuser(NAME, password=PASSWORD)


def code(key: str = "", *, steps: int = 0) -> str:
    """What an app shows whose clock is off by that many steps."""
    totp = TOTP(bytes.fromhex(key or TOTPDevice.objects.get().key), drift=steps)
    totp.time = time.time()
    return f"{totp.token():06d}"


def wrong() -> str:
    near = {code(steps=steps) for steps in range(-3, 4)}
    return next(text for number in range(10) if (text := f"{number:06d}") not in near)


def browser(*, address: str = HOME, password: str = PASSWORD) -> Client:
    """With the password given, and no code."""
    client = Client(REMOTE_ADDR=address)
    reply = client.post("/admin/login/?next=/admin/", {"username": NAME, "password": password})
    assert reply.status_code == 302
    return client


def is_open(client: Client) -> bool:
    return client.get("/admin/").status_code == 200


def give(client: Client, text: str, **more: str) -> Any:
    return client.post(PAGE, {"code": text, **more})


def set_up(client: Client) -> list[str]:
    """Set an app up; the recovery codes that the page shows."""
    assert "The key as a QR code" in client.get(PAGE).content.decode()
    page = give(client, code(client.session["second_factor_secret"])).content.decode()
    return re.findall(r"<code>([0-9a-z-]{24})</code>", page)


@pytest.fixture
def codes(now: Callable[[float], None]) -> list[str]:
    """The recovery codes of an app that was set up elsewhere, a minute ago."""
    found = set_up(browser(address="192.0.2.1"))
    now(2 * STEP_S)
    return found


def test_it_is_off_unless_it_is_asked_for(settings: Settings, codes: list[str]) -> None:
    settings.ADMIN_SECOND_FACTOR = "off"
    client = browser()
    page = client.get("/admin/").content.decode()
    assert "Second factor" not in page
    assert client.get(PAGE).status_code == 404


def test_who_has_no_app_is_led_to_one_and_shown_ten_codes() -> None:
    client = browser()
    reply = client.get("/admin/", follow=True)
    assert reply.redirect_chain[-1][0].startswith(PAGE)
    assert "Set up a second factor" in reply.content.decode()
    found = set_up(client)
    assert len(set(found)) == 10
    assert is_open(client)
    assert "10 recovery codes" in client.get(PAGE).content.decode()
    assert RecoveryCode.objects.filter(digest__in=found).count() == 0, "hashes only"
    assert client.session["second_factor_bound_to"]
    assert "second_factor_secret" not in client.session


def test_the_page_shows_the_key_as_text_and_as_a_picture_that_an_app_reads() -> None:
    client = browser()
    page = client.get(PAGE).content.decode()
    address = re.search(r'href="(otpauth://[^"]+)"', page)
    assert address is not None
    secret = re.search(r"<code>([A-Z2-7 ]{39})</code>", page)
    assert secret is not None
    assert f"secret={secret[1].replace(' ', '')}&amp;" in address[1]
    assert f"Reelworks%3A{NAME}" in address[1]
    svg = re.search(r"<svg.*?</svg>", page, re.DOTALL)
    assert svg is not None
    assert "style" not in svg[0]
    assert client.get(PAGE).content.decode().count(secret[1]) == 1, "the same on a reload"
    assert secret[1] not in browser().get(PAGE).content.decode(), "and another for another session"


def test_a_wrong_code_sets_nothing_up() -> None:
    client = browser()
    client.get(PAGE)
    assert "This is no code of this key" in give(client, "000000").content.decode()
    assert "Six digits" in give(client, "hello").content.decode()
    assert not TOTPDevice.objects.exists()


ADMIN = [
    *("/admin/", "/admin/queues/", "/admin/video/videotask/", "/admin/video/generation/open-cases/"),
    *("/admin/auth/user/", "/admin/auth/user/add/", "/admin/password_change/", "/admin/jsi18n/"),
    *("/admin/autocomplete/", "/admin/nothing-there/"),
]


@pytest.mark.parametrize("path", ADMIN)
@pytest.mark.parametrize("method", ["get", "post"])
def test_without_the_code_nothing_opens(codes: list[str], path: str, method: str) -> None:
    reply = getattr(browser(), method)(path)
    assert reply.status_code == 302
    assert reply["Location"].startswith("/admin/login/?next=")


def test_the_way_goes_on_to_where_it_led_and_to_no_other_site(codes: list[str]) -> None:
    client = browser()
    reply = client.get("/admin/queues/", follow=True)
    assert reply.redirect_chain[-1][0] == f"{PAGE}?next=/admin/queues/"
    for target, leads_to in (
        ("/admin/queues/", "/admin/queues/"),
        ("https://evil.example/", "/admin/"),
        ("//evil.example/", "/admin/"),
        (PAGE, "/admin/"),
    ):
        TOTPDevice.objects.update(last_t=-1)
        reply = browser().post(PAGE, {"code": code(), "next": target})
        assert (reply.status_code, reply["Location"]) == (302, leads_to)


def test_who_owes_a_code_may_leave(codes: list[str]) -> None:
    client = browser()
    assert 'action="/admin/logout/"' in client.get(PAGE).content.decode()
    client.post("/admin/logout/")
    assert "_auth_user_id" not in client.session
    assert client.get(PAGE)["Location"].startswith("/admin/login/")


def test_optional_asks_those_who_have_an_app(settings: Settings) -> None:
    settings.ADMIN_SECOND_FACTOR = "optional"
    client = browser()
    assert f'href="{PAGE}"' in client.get("/admin/").content.decode()
    assert len(set_up(client)) == 10
    assert is_open(client)
    assert not is_open(browser())


def test_an_ordinary_user_comes_no_further_than_before(client: Client) -> None:
    client.force_login(get_user_model().objects.create_user("ann"))
    assert client.get(PAGE)["Location"].startswith("/admin/login/")
    assert client.get("/admin/login/").status_code == 200
    assert Client().get(PAGE)["Location"].startswith("/admin/login/")


@pytest.mark.parametrize(("steps", "is_taken"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_clock_may_be_off_by_one_step(codes: list[str], steps: int, is_taken: bool) -> None:
    client = browser()
    give(client, code(steps=steps))
    assert is_open(client) is is_taken


def test_a_clock_that_runs_away_slowly_is_followed(codes: list[str], now: Callable[[float], None]) -> None:
    for steps in (1, 2, 3):
        client = browser()
        give(client, code(steps=steps))
        assert is_open(client)
        now(10 * STEP_S)


def test_a_code_is_taken_once(codes: list[str], now: Callable[[float], None]) -> None:
    shown = code()
    assert give(browser(), shown).status_code == 302
    again = browser()
    assert "was used before" in give(again, shown).content.decode()
    assert not is_open(again)
    assert give(again, code(steps=-1)).status_code == 200, "nor an older one"
    now(STEP_S)
    give(again, code())
    assert is_open(again)


def test_the_code_of_the_set_up_opens_no_other_session() -> None:
    first, second = browser(), browser()
    set_up(first)
    give(second, code())
    assert not is_open(second)


def test_a_recovery_code_is_taken_once_however_it_is_typed(codes: list[str]) -> None:
    client = browser()
    typed = codes[3].upper().replace("-", " ").replace("0", "O").replace("1", "l")
    page = client.post(PAGE, {"code": typed}, follow=True).content.decode()
    assert "You have 9 recovery codes left." in page
    assert is_open(client)
    again = browser()
    give(again, codes[3])
    assert not is_open(again)
    give(again, codes[4])
    assert is_open(again)


def test_spaces_in_a_code_are_fine(codes: list[str]) -> None:
    client = browser()
    give(client, f" {code()[:3]} {code()[3:]} ")
    assert is_open(client)


@pytest.mark.parametrize(
    "text",
    ["", "12345", "1234567", "١٢٣٤٥٦", "１２３４５６", "12 345\0", "-12345", "+12345", "1e5678", "x" * 60, "x" * 9999],
)
def test_what_is_no_code_is_refused_and_not_counted(codes: list[str], text: str) -> None:
    client = browser()
    before = LoginThrottle.objects.count()
    assert give(client, text).status_code == 200
    assert not is_open(client)
    assert LoginThrottle.objects.count() == before


def test_wrong_codes_make_pauses_that_a_right_password_does_not_end(codes: list[str]) -> None:
    replies = [give(browser(), wrong()).content.decode() for _ in range(7)]
    assert ["This code is not right" in one for one in replies] == [True] * 6 + [False]
    assert "Too many logins have failed. Try again in " in replies[6]
    assert "Too many logins" in give(browser(address=AWAY), code()).content.decode(), "the right one, from elsewhere"


def test_a_network_that_has_given_one_is_not_held_up_by_others(codes: list[str], now: Callable[[float], None]) -> None:
    give(browser(), code())
    for _ in range(6):
        give(browser(address=AWAY), wrong())
    assert "Too many logins" in give(browser(address="192.0.2.99"), wrong()).content.decode()
    now(STEP_S)
    client = browser()
    give(client, code())
    assert is_open(client)
    for _ in range(6):
        give(browser(), wrong())
    assert "Too many logins" in give(browser(), wrong()).content.decode(), "its own failures count"


def test_guesses_stay_few_however_many_networks_make_them(olga: AbstractBaseUser) -> None:
    """In a day from 5,000 networks, one guess a second."""
    tried, passed = 0, 0
    while passed < 86_400:
        wait_s = 1
        try:
            throttle.look_at_code(olga.pk, f"198.51.{passed % 100}.{passed % 50}").count()
            tried += 1
        except throttle.TooManyTries as err:
            wait_s = err.retry_after_s
        _let_pass(wait_s)
        passed += wait_s
    assert tried <= 160


def _let_pass(seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_loginthrottle SET counted_at = counted_at - %(s)s * interval '1 second',"
            " paused_until = paused_until - %(s)s * interval '1 second'",
            {"s": seconds},
        )


def test_the_log_says_what_was_given_and_refused_and_no_code(
    codes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    shown, bad = code(), wrong()
    with caplog.at_level(logging.INFO, "reelworks.security"):
        give(browser(), bad)
        give(browser(), shown)
        give(browser(), codes[0])
    lines = [one.getMessage() for one in caplog.records if one.name == "reelworks.security"]
    who = f'user={get_user_model().objects.get().pk} name="{NAME}" address="{HOME}"'
    assert f'login_refused {who} door="second_factor"' in lines
    assert f'second_factor_given {who} how="app"' in lines
    assert f'second_factor_given {who} how="recovery_code" codes_left=9' in lines
    assert not any(
        secret in "\n".join(caplog.messages) for secret in (shown, bad, codes[0], TOTPDevice.objects.get().key)
    )


def test_logout_and_a_new_password_end_it(codes: list[str], now: Callable[[float], None]) -> None:
    client = browser()
    give(client, code())
    client.post("/admin/logout/")
    now(STEP_S)
    client = browser()
    assert not is_open(client)
    give(client, code())
    new = "another horse battery staple"
    body = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    other = browser()
    assert client.post("/admin/password_change/", body).status_code == 302
    assert not is_open(client), "the session stays, and owes a code"
    assert client.get(PAGE).status_code == 200
    assert other.get(PAGE)["Location"].startswith("/admin/login/"), "others are over"
    now(STEP_S)
    give(client, code())
    assert is_open(client)


def test_a_session_gets_another_key_with_the_code(codes: list[str]) -> None:
    client = browser()
    before = client.cookies["sessionid"].value
    give(client, code())
    assert client.cookies["sessionid"].value != before


def test_a_mark_of_another_user_is_none(codes: list[str]) -> None:
    thief = get_user_model().objects.create_superuser("thief", password=PASSWORD)
    client = Client()
    client.force_login(thief)
    session = client.session
    session["otp_device_id"] = TOTPDevice.objects.get().persistent_id
    session["second_factor_bound_to"] = thief.get_session_auth_hash()
    session.save()
    assert not is_open(client)


def test_codes_are_renewed_and_the_app_removed_with_a_code(codes: list[str], now: Callable[[float], None]) -> None:
    client = browser()
    give(client, code())
    for wish in ("codes", "remove"):
        assert "was used before" in give(client, code(), wish=wish).content.decode()
    now(STEP_S)
    page = give(client, code(), wish="codes").content.decode()
    fresh = re.findall(r"<code>([0-9a-z-]{24})</code>", page)
    assert len(fresh) == 10
    give(other := browser(), codes[0])
    assert not is_open(other), "an old one"
    assert give(client, fresh[0], wish="remove").status_code == 302
    assert not TOTPDevice.objects.exists()
    assert not RecoveryCode.objects.exists()
    assert not is_open(client), "and it is required"


def test_a_reset_closes_what_was_open_and_leads_to_a_new_app(codes: list[str]) -> None:
    client = browser()
    give(client, code())
    out = StringIO()
    call_command("reset_second_factor", NAME, stdout=out)
    assert "has no second factor any more" in out.getvalue()
    assert not is_open(client)
    assert len(set_up(client)) == 10
    call_command("reset_second_factor", NAME, stdout=out)
    call_command("reset_second_factor", NAME, stdout=out)
    assert f"{NAME} has no second factor.\n" in out.getvalue()
    with pytest.raises(CommandError, match="There is no user 'nobody'"):
        call_command("reset_second_factor", "nobody")


def test_staff_without_one_are_seen_in_the_list(codes: list[str]) -> None:
    get_user_model().objects.create_user("ann", is_staff=True)
    client = browser()
    give(client, code())
    page = client.get("/admin/auth/user/").content.decode()
    assert page.count('title="True"') + page.count('title="False"') >= 2
    assert "field-second_factor" in page
    assert client.get("/admin/otp_totp/totpdevice/").status_code == 404, "its page shows the secrets of others"


def test_the_api_asks_for_no_code(codes: list[str]) -> None:
    body = {"username": NAME, "password": PASSWORD}
    assert Client().post("/api/auth/login", body, content_type="application/json").status_code == 200


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_of_two_requests_with_one_code_one_passes(codes: list[str], kind: str) -> None:
    text = code() if kind == "app" else codes[0]
    clients = [browser() for _ in range(4)]
    together = threading.Barrier(4)

    def send(client: Client) -> int:
        together.wait()
        try:
            return int(give(client, text).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(send, clients)) == [200, 200, 200, 302]


@pytest.mark.django_db(transaction=True)
def test_of_two_sessions_that_set_one_up_one_does() -> None:
    clients = [browser() for _ in range(3)]
    for client in clients:
        client.get(PAGE)
    together = threading.Barrier(3)

    def send(client: Client) -> int:
        text = code(client.session["second_factor_secret"])
        together.wait()
        try:
            return int(give(client, text).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(send, clients)) == [200, 302, 302]
    assert TOTPDevice.objects.count() == 1
    assert RecoveryCode.objects.count() == 10
    assert sum(map(is_open, clients)) == 1


def test_forms_need_the_csrf_token(codes: list[str]) -> None:
    client = browser()
    client.handler.enforce_csrf_checks = True
    assert give(client, code()).status_code == 403
    assert second_factor.codes_left(get_user_model().objects.get()) == 10
