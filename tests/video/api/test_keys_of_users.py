"""API keys: made once, scoped, bounded in what they spend, from where and until when they are good, rolled, ended."""

from __future__ import annotations

import logging
import re
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from tests import leaks
from tests.factories import OLGA, make_task, make_user
from video.actions import cancel, erase_user
from video.api import key_login
from video.audit.actors import Unaudited
from video.credits import ledger
from video.models import ApiKey, ApiKeySecret, CreditEntry, LoginThrottle, Scope, VideoTask
from video.web.logins import api_keys, key_text
from video.web.logins.api_keys import KeyOrder

JSON = "application/json"
KEYS = "/api/keys"
ALL = tuple(Scope.values)


def key_of(user: AbstractBaseUser, *scopes: str, **more: Any) -> str:
    return api_keys.make(user, KeyOrder("a program", scopes or ALL, **more))[1]


class Program:
    """Comes with a key, without cookies."""

    def __init__(self, key: str, **more: Any) -> None:
        self.key, self._more = key, more

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        headers = {"HTTP_AUTHORIZATION": f"Bearer {self.key}", **self._more, **more}
        return getattr(Client(), method)(path, *([body] if body is not None else []), content_type=JSON, **headers)

    def status(self, path: str = "/api/credits", **more: Any) -> tuple[int, str]:
        reply = self.ask("get", path, **more)
        return reply.status_code, reply.json().get("error", {}).get("code", "")


def age(seconds: float) -> None:
    with connection.cursor() as cursor:
        past = " - %(s)s * interval '1 second'"
        cursor.execute(
            f"UPDATE video_apikey SET expires_at = expires_at{past}, ended_at = ended_at{past}", {"s": seconds}
        )
        cursor.execute(
            f"UPDATE video_apikeysecret SET ends_at = ends_at{past}, last_used_at = last_used_at{past}", {"s": seconds}
        )


@pytest.fixture(autouse=True)
def _no_last_use_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_login, "_seen", key_login._Seen())


def test_a_key_has_the_shape_and_checksum_that_scanners_look_for() -> None:
    keys = {key_text.new() for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert re.fullmatch(r"rw_live_[0-9A-Za-z]{38}", key)
        assert key_text.is_well_formed(key)
        value = 0
        for letter in key[-6:]:
            value = value * 62 + key_text._ALPHABET.index(letter)
        assert value == zlib.crc32(key[:-6].encode())
    key = keys.pop()
    for wrong in (key[:-1], key + "0", key.swapcase(), key[:20] + "_" + key[21:], key[:-1] + "!", f" {key}"):
        assert not key_text.is_well_formed(wrong)


def test_a_key_is_shown_once_and_only_its_hash_is_kept(api: Client, user: AbstractBaseUser) -> None:
    body = {
        "name": "shop",
        "scopes": ["read", "create"],
        "addresses": ["203.0.113.0/24", "2001:db8::1"],
        "dailyCredits": 50,
        "expiresIn": 3600,
    }
    reply = api.post(KEYS, body, content_type=JSON)
    made = reply.json()["data"]
    key = made.pop("key")
    assert reply.status_code == 201
    assert made | {"madeAt": 0, "expiresAt": 0, "id": 0, "secrets": 0} == {
        "id": 0,
        "name": "shop",
        "scopes": ["create", "read"],
        "addresses": ["203.0.113.0/24", "2001:db8::1/128"],
        "dailyCredits": 50,
        "requestsPerMinute": None,
        "spentToday": 0,
        "madeAt": 0,
        "expiresAt": 0,
        "lastUsedAt": None,
        "secrets": 0,
    }
    assert [one["hint"] for one in made["secrets"]] == [f"{key[:12]}…"]
    listed = api.get(KEYS)
    assert listed.json()["data"] == {"keys": [made]}
    assert key not in listed.content.decode()
    rows = [str(one) for one in (*ApiKey.objects.values_list(), *ApiKeySecret.objects.values_list())]
    assert not any(key in row or key[-30:] in row for row in rows)
    expires_at = ApiKey.objects.get(user=user).expires_at
    assert expires_at is not None
    assert timedelta(minutes=59) < expires_at - timezone.now() <= timedelta(hours=1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": ["read"]}, "name"),
        ({"name": "a", "scopes": []}, "scopes"),
        ({"name": "a", "scopes": ["admin"]}, "scopes"),
        ({"name": "a", "scopes": "read"}, "scopes"),
        ({"name": "a" * 81, "scopes": ["read"]}, "name"),
        *(
            ({"name": "a", "scopes": ["read"], "addresses": [one]}, "addresses")
            for one in ("nowhere", "10.0.0.1/8", "fe80::1%eth0", "::ffff:1.2.3.4", "1.2.3.4/33", 7, "")
        ),
        ({"name": "a", "scopes": ["read"], "dailyCredits": -1}, "dailyCredits"),
        ({"name": "a", "scopes": ["read"], "dailyCredits": 1.5}, "dailyCredits"),
        ({"name": "a", "scopes": ["read"], "expiresIn": 59}, "expiresIn"),
        ({"name": "a", "scopes": ["read"], "user": 1}, "user"),
    ],
)
def test_an_order_of_a_key_that_is_none_names_its_field(api: Client, body: dict[str, Any], field: str) -> None:
    reply = api.post(KEYS, body, content_type=JSON)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["details"][0]["field"]) == (400, "invalid_request", field)
    assert not ApiKey.objects.exists()


def test_a_user_has_so_many_keys_at_most(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MOST_OF_USER", 2)
    body = {"name": "a", "scopes": ["read"]}
    replies = [api.post(KEYS, body, content_type=JSON) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [201, 201, 409]
    assert replies[2].json()["error"]["code"] == "too_many_keys"
    api.delete(f"{KEYS}/{replies[0].json()['data']['id']}")
    assert api.post(KEYS, body, content_type=JSON).status_code == 201


def test_status_with_a_key_is_one_statement_and_the_last_use_is_written_once_a_minute(user: AbstractBaseUser) -> None:
    task, program = make_task(user), Program(key_of(user, "read"))
    path = f"/api/video/status?taskId={task.pk}"

    def statements() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert program.status(path) == (200, "")
        return len(captured)

    statements()  # the figures of the line, which each process keeps for two seconds
    first = ApiKeySecret.objects.get().last_used_at
    assert first is not None
    assert statements() == 1
    assert ApiKeySecret.objects.get().last_used_at == first
    age(61)
    assert statements() == 1  # this process has written it within the minute
    assert ApiKeySecret.objects.get().last_used_at == first - timedelta(seconds=61)
    key_login._seen = key_login._Seen()
    assert statements() == 1
    assert ApiKeySecret.objects.get().last_used_at > first


def test_a_key_that_is_refused_was_not_used(user: AbstractBaseUser) -> None:
    program = Program(key_of(user, "read", addresses=["203.0.113.0/24"]))
    assert program.status() == (403, "address_not_allowed")
    assert ApiKeySecret.objects.get().last_used_at is None


@pytest.mark.parametrize(
    ("addresses", "came_from", "is_good"),
    [
        ([], "198.51.100.1", True),
        (["203.0.113.0/24"], "203.0.113.9", True),
        (["203.0.113.0/24"], "203.0.114.9", False),
        (["10.0.0.1/32", "2001:db8::/32"], "2001:db8:1::5", True),
        (["2001:db8::/32"], "203.0.113.9", False),
        (["203.0.113.9/32"], "::ffff:203.0.113.9", True),
        (["203.0.113.9/32"], "", False),
    ],
)
def test_a_key_is_good_from_its_addresses_only(
    user: AbstractBaseUser, addresses: list[str], came_from: str, is_good: bool
) -> None:
    program = Program(key_of(user, addresses=[api_keys.network(one) for one in addresses]), REMOTE_ADDR=came_from)
    assert program.status() == ((200, "") if is_good else (403, "address_not_allowed"))


def test_the_address_is_the_one_that_a_trusted_proxy_says(user: AbstractBaseUser, settings: Settings) -> None:
    program = Program(key_of(user, addresses=["203.0.113.9/32"]), HTTP_X_FORWARDED_FOR="203.0.113.9")
    assert program.status() == (403, "address_not_allowed")
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    assert program.status() == (200, "")


ENDS: dict[str, tuple[Callable[[AbstractBaseUser, ApiKey], object], tuple[int, str]]] = {
    "it expires": (lambda user, key: age(7200), (401, "key_expired")),
    "its user revokes it": (lambda user, key: api_keys.end(key.pk, user.pk, ApiKey.End.REVOKED), (401, "key_revoked")),
    "an operator ends all": (lambda user, key: api_keys.end_all(user.pk, ApiKey.End.OPERATOR), (401, "key_revoked")),
    "its user is switched off, and on again": (
        lambda user, key: [type(user).objects.filter(pk=user.pk).update(is_active=to) for to in (False, True)],
        (401, "key_revoked"),
    ),
    "its user is switched off": (
        lambda user, key: type(user).objects.filter(pk=user.pk).update(is_active=False),
        (401, "key_revoked"),
    ),
    "its user is erased": (lambda user, key: api_keys.forget(user.pk), (401, "invalid_key")),
    "the password is changed": (lambda user, key: (user.set_password("another"), user.save()), (200, "")),
    "another user tries to revoke it": (
        lambda user, key: api_keys.end(key.pk, make_user().pk, ApiKey.End.REVOKED),
        (200, ""),
    ),
    "all logins end": (lambda user, key: Client().post("/api/auth/logout", {}, content_type=JSON), (200, "")),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_ends_a_key(user: AbstractBaseUser, case: str) -> None:
    happens, told = ENDS[case]
    program = Program(key_of(user, lasts=timedelta(hours=1)))
    assert program.status() == (200, "")
    happens(user, ApiKey.objects.get())
    assert program.status() == told


def test_the_demo_users_key_is_good_while_simulating_only(user: AbstractBaseUser, settings: Settings) -> None:
    get_user_model().objects.filter(pk=user.pk).update(username="demo")
    user.refresh_from_db()
    program = Program(key_of(user))
    assert program.status() == (200, "")
    settings.SIMULATE = False
    assert program.status() == (401, "invalid_token")


def test_an_erased_user_leaves_no_key(user: AbstractBaseUser) -> None:
    key_of(user)
    erase_user.ask(user.pk, by=OLGA)
    assert erase_user.work(user.pk, for_s=60)
    assert not ApiKey.objects.exists()
    assert not ApiKeySecret.objects.exists()


def test_a_key_that_is_rolled_has_two_texts_for_a_while(api: Client, user: AbstractBaseUser) -> None:
    old = Program(key_of(user))
    key_id = ApiKey.objects.get().pk
    rolled = api.post(f"{KEYS}/{key_id}/roll", {"overlap": 3600}, content_type=JSON).json()["data"]
    new = Program(rolled["key"])
    assert (rolled["id"], [one["endsAt"] is None for one in rolled["secrets"]]) == (key_id, [True, False])
    assert old.status() == new.status() == (200, "")
    age(3601)
    assert (old.status(), new.status()) == ((401, "key_expired"), (200, ""))
    newest = api.post(f"{KEYS}/{key_id}/roll", {"overlap": 0}, content_type=JSON).json()["data"]["key"]
    assert (new.status(), Program(newest).status()) == ((401, "key_expired"), (200, ""))
    assert api.delete(f"{KEYS}/{key_id}").status_code == 200
    assert Program(newest).status() == (401, "key_revoked")
    assert api.post(f"{KEYS}/{key_id}/roll", {}, content_type=JSON).status_code == 404


def test_a_second_roll_lengthens_nothing(user: AbstractBaseUser) -> None:
    old = Program(key_of(user))
    key_id = ApiKey.objects.get().pk
    api_keys.roll(key_id, user.pk, overlap=timedelta(minutes=1))
    api_keys.roll(key_id, user.pk, overlap=timedelta(days=1))
    age(61)
    assert old.status() == (401, "key_expired")


def test_what_is_over_is_swept_after_its_time(user: AbstractBaseUser) -> None:
    key_of(user, lasts=timedelta(hours=1))
    lasting = api_keys.make(user, KeyOrder("b", ["read"]))[0]
    api_keys.roll(lasting, user.pk, overlap=timedelta())
    assert api_keys.sweep() == 0
    age(31 * 86400)
    api_keys.sweep()
    assert [key.pk for key in ApiKey.objects.all()] == [lasting]
    assert ApiKeySecret.objects.count() == 1


def test_another_users_keys_are_not_there(api: Client, stranger: AbstractBaseUser) -> None:
    key = Program(key_of(stranger))
    key_id = ApiKey.objects.get().pk
    assert api.get(KEYS).json()["data"] == {"keys": []}
    for reply in (api.delete(f"{KEYS}/{key_id}"), api.post(f"{KEYS}/{key_id}/roll", {}, content_type=JSON)):
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert key.status() == (200, "")


def test_a_key_in_a_cookie_is_no_key(user: AbstractBaseUser) -> None:
    client = Client()
    client.cookies["token"] = key_of(user)
    assert client.get("/api/credits").status_code == 401


def test_a_staff_members_key_grants_no_credits(db: None) -> None:
    staff = get_user_model().objects.create_superuser("olga")
    ledger.grant(staff.pk, 100)
    task = make_task(staff)
    cancel.cancel(task.pk, by=Unaudited("test"))
    reply = Program(key_of(staff)).ask("post", "/api/video/retry", {"taskId": task.pk, "free": True})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")


def test_wrong_keys_are_refused_without_a_look_or_counted_and_good_ones_get_in(
    user: AbstractBaseUser, django_assert_num_queries: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = Program(key_of(user))
    with django_assert_num_queries(0):
        assert Program(good.key[:-1] + "_").status() == (401, "invalid_key")
    told = [Program(key_text.new()).status() for _ in range(31)]
    assert told[:30] == [(401, "invalid_key")] * 30
    assert told[30] == (429, "too_many_tries")
    reply = Program(key_text.new()).ask("get", "/api/credits")
    assert (reply.status_code, int(reply["Retry-After"]) <= 300) == (429, True)
    before = LoginThrottle.objects.values_list("level", "paused_until").get()
    assert good.status() == (200, "")
    assert LoginThrottle.objects.values_list("level", "paused_until").get() == before
    assert Program(key_text.new(), REMOTE_ADDR="198.51.100.7").status() == (401, "invalid_key")


def test_the_security_log_names_a_key_by_its_id_alone(
    api: Client, tmp_path: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from video.web import security_log

    monkeypatch.setattr(security_log, "_sampled", {})
    with caplog.at_level(logging.INFO):
        made = api.post(KEYS, {"name": "a", "scopes": ["read"]}, content_type=JSON).json()["data"]
        rolled = api.post(f"{KEYS}/{made['id']}/roll", {}, content_type=JSON).json()["data"]
        api.delete(f"{KEYS}/{made['id']}")
        for key in (made["key"], rolled["key"], key_text.new(), rolled["key"][:-1]):
            Program(key).status()
    events = [line.split()[0] for line in caplog.messages if f'key="{made["id"]}"' in line]
    assert events == ["key_made", "key_rolled", "key_revoked", "key_refused"]
    log = tmp_path / "log"
    log.write_text(caplog.text)
    assert leaks.in_logs([log]) == []
    log.write_text(f"x {made['key']}")
    assert leaks.in_logs([log])


def create(program: Program, order: dict[str, Any], **more: Any) -> tuple[int, str]:
    reply = program.ask("post", "/api/video/create", order, **more)
    return reply.status_code, reply.json().get("error", {}).get("code", "")


def test_a_key_spends_no_more_than_its_limit_a_day(user: AbstractBaseUser, order: dict[str, Any]) -> None:
    program = Program(key_of(user, daily_credits=25))
    assert [create(program, order, HTTP_IDEMPOTENCY_KEY="k")[0] for _ in range(2)] == [201, 200]
    assert create(program, order) == (201, "")
    reply = program.ask("post", "/api/video/create", order)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (402, "key_limit_reached")
    details = error["details"]
    assert (details["needed"], details["spentToday"], details["dailyCredits"]) == (10, 20, 25)
    assert details["resetsAt"].endswith("T00:00:00Z")
    assert create(program, order, HTTP_IDEMPOTENCY_KEY="k") == (200, "")  # what was made is made
    assert (VideoTask.objects.count(), ledger.balance(user.pk)) == (2, 980)
    assert create(Program(key_of(user)), order) == (201, "")  # another key has its own
    ApiKey.objects.update(spent_on=timezone.now().date() - timedelta(days=1))
    assert create(program, order) == (201, "")
    assert ApiKey.objects.get(daily_credits=25).spent_credits == 10


@pytest.mark.parametrize(("mode", "status", "made"), [("all", 402, 0), ("each", 207, 2)])
def test_a_batch_spends_no_more_than_the_limit(
    user: AbstractBaseUser, order: dict[str, Any], mode: str, status: int, made: int
) -> None:
    program = Program(key_of(user, daily_credits=25))
    reply = program.ask("post", "/api/video/batch", {"orders": [order] * 3, "mode": mode})
    assert reply.status_code == status
    error = reply.json()["error"] if mode == "all" else reply.json()["data"]["tasks"][2]["refusal"]
    assert error["code"] == "key_limit_reached"
    assert (VideoTask.objects.count(), ApiKey.objects.get().spent_credits) == (made, 10 * made)
    assert program.ask("post", "/api/video/batch", {"orders": [order] * 2}).status_code == (201 if not made else 402)


def test_several_retries_spend_no_more_than_the_limit(user: AbstractBaseUser) -> None:
    program = Program(key_of(user, daily_credits=15))
    tasks = [make_task(user).pk for _ in range(2)]
    for task in tasks:
        cancel.cancel(task, by=Unaudited("test"))
    done = program.ask("post", "/api/video/retry", {"taskIds": tasks}).json()["data"]
    assert (done["done"], done["refused"]) == (1, 1)
    assert done["tasks"][1]["refusal"]["code"] == "key_limit_reached"


def test_what_was_not_made_is_not_counted(user: AbstractBaseUser, order: dict[str, Any]) -> None:
    poor = make_user(credit=5)
    program = Program(key_of(poor, daily_credits=100))
    assert create(program, order) == (402, "insufficient_credits")
    assert ApiKey.objects.get().spent_credits == 0


def test_a_retry_counts_against_the_limit(user: AbstractBaseUser) -> None:
    program = Program(key_of(user, daily_credits=15))
    tasks = [make_task(user), make_task(user)]
    for task in tasks:
        cancel.cancel(task.pk, by=Unaudited("test"))
    told = [program.ask("post", "/api/video/retry", {"taskId": task.pk}) for task in tasks]
    assert [reply.status_code for reply in told] == [200, 402]
    assert told[1].json()["error"]["code"] == "key_limit_reached"
    tasks[1].refresh_from_db()
    assert (tasks[1].status, tasks[1].run) == ("cancelled", 1)
    assert ApiKey.objects.get().spent_credits == 10
    assert CreditEntry.objects.filter(task=tasks[1], kind="debit").count() == 1


@pytest.mark.django_db(transaction=True)
def test_creates_at_once_never_pass_the_limit(order: dict[str, Any]) -> None:
    user = make_user()
    program = Program(key_of(user, daily_credits=35))
    starts = threading.Barrier(6)

    def one() -> int:
        try:
            starts.wait()
            return create(program, order)[0]
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        statuses = sorted(future.result() for future in [pool.submit(one) for _ in range(6)])
    assert statuses == [201, 201, 201, 402, 402, 402]
    assert (VideoTask.objects.count(), ApiKey.objects.get().spent_credits) == (3, 30)
    assert ledger.differences() == []


@pytest.mark.django_db(transaction=True)
def test_create_with_a_key_costs_no_more_statements(order: dict[str, Any]) -> None:
    program = Program(key_of(make_user(), daily_credits=1000))
    create(program, order)
    with CaptureQueriesContext(connection) as captured:
        assert create(program, order) == (201, "")
    assert len(captured) <= 3
