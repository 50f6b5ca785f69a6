"""Failed logins make pauses, without a way for strangers to lock a name out; both doors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.db.models import QuerySet
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from video.models import LoginThrottle
from video.web.logins import sign_in, throttle

LOGIN = "/api/auth/login"
PASSWORD = "correct horse battery staple"
HOME, AWAY = "203.0.113.7", "198.51.100.1"
FAR = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def ann(db: None, settings: Settings) -> AbstractBaseUser:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return get_user_model().objects.create_user("ann", password=PASSWORD, is_staff=True)


def log_in(password: str = PASSWORD, *, name: str = "ann", address: str = HOME) -> Any:
    body = {"username": name, "password": password}
    return Client(REMOTE_ADDR=address).post(LOGIN, body, content_type="application/json")


def fail(times: int, **more: str) -> list[int]:
    return [log_in("wrong", **more).status_code for _ in range(times)]


def let_pass(seconds: float) -> None:
    clocks = ("counted_at", "paused_until", "good_at")
    past = ", ".join(f"{clock} = {clock} - %(s)s * interval '1 second'" for clock in clocks)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE video_loginthrottle SET {past}", {"s": seconds})


def row(*parts: str) -> QuerySet[LoginThrottle]:
    return LoginThrottle.objects.filter(pk=throttle._key(*parts))


def pauses(tries: int, *, address: str = HOME) -> list[int]:
    """The pause of the pair after each of that many failures; it is over then."""
    found = []
    for _ in range(tries):
        assert log_in("wrong", address=address).status_code == 401
        pair = row("pair", "ann", address).get()
        pause_s = (pair.paused_until - pair.counted_at).total_seconds() if pair.paused_until else 0
        found.append(round(pause_s))
        let_pass(pause_s)
    return found


def test_pauses_grow_for_a_name_from_one_address(ann: AbstractBaseUser) -> None:
    found = pauses(14)
    assert found[:5] == [0] * 5
    assert found[5] == 1
    assert found[5:] == sorted(found[5:])
    assert found[-1] >= 150


def test_no_pause_is_longer_than_a_quarter_of_an_hour(ann: AbstractBaseUser) -> None:
    fail(1)
    row("pair", "ann", HOME).update(level=1000)
    assert pauses(2) == [900, 900]


def test_ten_guesses_a_second_do_not_go_on(db: None) -> None:
    """In an hour of guesses, each tenth of a second, two dozen passwords are looked at."""
    looked_at, passed = 0, 0.0
    while passed < 3600:
        wait_s = 0.1
        try:
            throttle.look("ann", HOME).count()
            looked_at += 1
        except throttle.TooManyTries as err:
            wait_s = err.retry_after_s
        let_pass(wait_s)
        passed += wait_s
    assert looked_at < 25


def test_the_answer_says_when_and_has_the_one_shape(ann: AbstractBaseUser) -> None:
    fail(1)
    row("pair", "ann", HOME).update(paused_until=FAR)
    reply = log_in()
    assert reply.status_code == 429
    wait_s = int(reply["Retry-After"])
    assert wait_s > 1000
    assert reply.json()["error"] == {
        "code": "too_many_tries",
        "message": f"Too many logins have failed. Try again in {wait_s} seconds.",
        "details": {},
    }


def test_strangers_do_not_lock_a_name_out(ann: AbstractBaseUser) -> None:
    for number in range(22):
        fail(1, address=f"198.51.100.{number}")
    assert log_in(address=HOME).status_code == 200, "its first try from elsewhere"
    assert pauses(1, address="192.0.2.1") == [1], "but each guess makes a pause now"


def test_an_attack_of_days_is_forgotten_in_hours(ann: AbstractBaseUser) -> None:
    fail(1)
    LoginThrottle.objects.update(level=100_000)
    fail(1)
    assert row("name", "ann").get().level == throttle.MOST_LEVEL
    slowest = max(throttle.PAIR.forget_s, throttle.NETWORK.forget_s, throttle.NAME.forget_s)
    assert throttle.MOST_LEVEL * slowest <= throttle.FORGOTTEN_HOURS * 3600


def test_a_good_login_makes_its_network_known(ann: AbstractBaseUser) -> None:
    assert log_in().status_code == 200
    network = row("network", HOME)
    network.update(level=100, paused_until=FAR)
    assert log_in(name="bob").status_code == 429
    assert log_in().status_code == 200
    row("pair", "ann", HOME).update(level=1000)
    assert pauses(1) == [60], "pauses of a known pair are short"
    let_pass(31 * 86400)
    network.update(paused_until=FAR)
    assert log_in().status_code == 429, "forgotten"


def test_an_address_that_fails_for_many_names_has_to_pause(ann: AbstractBaseUser) -> None:
    codes = [fail(1, name=f"name-{number}", address=AWAY)[0] for number in range(2)]
    row("network", AWAY).update(level=40)
    codes += [fail(1, name=f"another-{number}", address=AWAY)[0] for number in range(2)]
    assert codes == [401] * 3 + [429]
    assert log_in(address=AWAY).status_code == 429
    assert log_in(address=HOME).status_code == 200
    assert fail(1, name="x", address="2001:db8::1") == [401]
    row("network", "2001:db8::/64").update(paused_until=FAR)
    assert fail(1, name="y", address="2001:db8::2") == [429], "of the same /64"
    assert fail(1, name="y", address="2001:db8:0:1::2") == [401]


def test_good_logins_are_not_counted(ann: AbstractBaseUser) -> None:
    assert [log_in().status_code for _ in range(8)] == [200] * 8
    assert set(LoginThrottle.objects.values_list("level", "paused_until")) == {(0, None)}


def test_known_and_unknown_names_cost_the_same(ann: AbstractBaseUser) -> None:
    def asked(name: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            log_in("wrong", name=name)
        return len(queries)

    assert asked("ann") == asked("nobody")
    LoginThrottle.objects.update(paused_until=FAR)
    assert asked("ann") == asked("nobody") == 1, "in a pause"


def test_the_admin_has_the_same_limits_and_says_so(ann: AbstractBaseUser) -> None:
    fail(1)
    row("pair", "ann", HOME).update(paused_until=FAR)
    browser = Client(REMOTE_ADDR=HOME)
    body = {"username": "ann", "password": PASSWORD}
    page = browser.post("/admin/login/?next=/admin/", body).content.decode()
    assert "Too many logins have failed. Try again in " in page
    row("pair", "ann", HOME).update(paused_until=None)
    assert browser.post("/admin/login/?next=/admin/", body).status_code == 302
    assert browser.get("/admin/").status_code == 200


def test_guesses_at_the_admin_count(ann: AbstractBaseUser) -> None:
    page = Client(REMOTE_ADDR=HOME).post("/admin/login/", {"username": "ann", "password": "wrong"}).content.decode()
    assert "Please enter the correct username and password" in page
    assert row("pair", "ann", HOME).get().level == 1


def test_rows_go_when_they_count_nothing(ann: AbstractBaseUser) -> None:
    fail(1)
    assert throttle.sweep() == 0
    let_pass(throttle.FORGOTTEN_HOURS * 3600 + 1)
    assert throttle.sweep() == 3
    log_in()
    let_pass(86400)
    throttle.sweep()
    assert LoginThrottle.objects.filter(good_at__isnull=False).count() == 1
    let_pass(30 * 86400)
    assert throttle.sweep() == 1


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Passwords that are hashed stay so until the test has looked; returns how many did at once."""
    release, now, most, lock = threading.Event(), [0], [0], threading.Lock()

    def slowly(request: Any, **kwargs: Any) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        release.wait(10)
        with lock:
            now[0] -= 1

    monkeypatch.setattr(sign_in, "authenticate", slowly)

    def let_go() -> int:
        release.set()
        return most[0]

    yield let_go
    let_go()


@pytest.mark.django_db(transaction=True)
def test_few_passwords_are_hashed_at_once_and_few_wait(hashing: Callable[[], int]) -> None:
    refused = threading.Semaphore(0)

    def guess(number: int) -> int:
        try:
            status = log_in("wrong", name=f"name-{number}", address=f"198.51.100.{number}").status_code
        finally:
            connection.close()
        if status == 503:
            refused.release()
        return int(status)

    with ThreadPoolExecutor(10) as pool:
        made = [pool.submit(guess, number) for number in range(10)]
        for _ in range(10 - sign_in.PLACES):
            assert refused.acquire(timeout=20), "refused at once"
        assert hashing() <= sign_in.HASHES_AT_ONCE
        codes = sorted(one.result() for one in made)
    assert codes == [401] * sign_in.PLACES + [503] * (10 - sign_in.PLACES)


@pytest.mark.django_db(transaction=True)
def test_guesses_at_once_get_no_further_than_one_after_another(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

    def guess(_: int) -> int:
        try:
            return int(log_in("wrong").status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(guess, range(20)))
    # Five are free, and one more makes a pause; on a slow machine the shortest pauses may have passed.
    assert 6 <= codes.count(401) <= 10
    assert set(codes) == {401, 429}


def test_the_log_says_who_and_from_where_and_no_password(
    ann: AbstractBaseUser, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "reelworks.security"):
        log_in()
        fail(1, name="ann")
        fail(1, name="hunter2-typed-as-a-name")
        row("pair", "ann", HOME).update(level=5)
        fail(1)
    lines = [one.getMessage() for one in caplog.records if one.name == "reelworks.security"]
    assert lines[0].startswith(f'login user={ann.pk} name="ann" address="{HOME}" door="api" session="login_')
    assert lines[1] == f'login_refused user={ann.pk} name="ann" address="{HOME}" door="api"'
    assert lines[2] == f'login_refused address="{HOME}" unknown_name=True door="api"'
    assert lines[3].endswith(f'address="{HOME}" door="api" pause_s=1')
    assert not any(word in "\n".join(lines) for word in (PASSWORD, "wrong", "hunter2"))
