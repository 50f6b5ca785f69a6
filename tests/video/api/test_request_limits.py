"""Requests a minute: never more than the limit, however many processes, and no statement more for it."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from tests.factories import access_token, make_user
from video.models import LoginSession, RequestWindow, UserShare
from video.web import request_limits
from video.web.front.streams import CAN_WAIT
from video.web.logins import api_keys
from video.web.logins.api_keys import KeyOrder
from video.web.request_limits import LEAST_CHUNK, RequestLimits, TooManyRequests, Window

WHOAMI = "/api/storage"


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> RequestLimits:
    """A process that has just begun."""
    made = RequestLimits()
    monkeypatch.setattr(request_limits, "limits", made)
    return made


def ask(token: str, path: str = WHOAMI, **more: Any) -> Any:
    return Client().get(path, HTTP_AUTHORIZATION=f"Bearer {token}", **more)


def statuses(token: str, times: int) -> list[int]:
    return [ask(token).status_code for _ in range(times)]


def key_of(user: AbstractBaseUser, **more: Any) -> str:
    return api_keys.make(user, KeyOrder("a", ["read"], **more))[1]


def minute() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT floor(extract(epoch FROM clock_timestamp()) / 60)::int")
        return int(cursor.fetchone()[0])


def in_one_minute(story: Callable[[AbstractBaseUser], None]) -> None:
    """Tell a story of a new user; once more if the next minute began meanwhile."""
    while True:
        before = minute()
        try:
            story(make_user())
        except AssertionError:
            if minute() == before:
                raise
        if minute() == before:
            return


def test_what_is_above_the_limit_is_refused_with_the_standard_fields(db: None, settings: Settings) -> None:
    settings.REQUESTS_PER_MINUTE = 5

    def story(user: AbstractBaseUser) -> None:
        token = access_token(user)
        replies = [ask(token) for _ in range(7)]
        assert [reply.status_code for reply in replies] == [200] * 5 + [429] * 2
        left = [re.fullmatch(r'"user";r=(\d);t=(\d{1,2})', reply["RateLimit"]) for reply in replies]
        assert [found[1] for found in left if found] == ["4", "3", "2", "1", "0", "0", "0"]
        assert {reply["RateLimit-Policy"] for reply in replies} == {'"user";q=5;w=60'}
        last = replies[-1]
        error = last.json()["error"]
        assert (error["code"], last["Cache-Control"]) == ("too_many_requests", "no-store")
        assert int(last["Retry-After"]) in range(1, 61)
        assert int(last["Retry-After"]) >= int(left[-1][2])  # type: ignore[index]
        assert statuses(key_of(user), 1) == [429]  # a key of the user is the user
        assert statuses(access_token(make_user()), 1) == [200]

    in_one_minute(story)


def test_without_a_limit_there_are_no_fields_and_no_row(user: AbstractBaseUser, settings: Settings) -> None:
    settings.REQUESTS_PER_MINUTE = 0
    reply = ask(access_token(user))
    assert "RateLimit" not in reply
    assert "RateLimit-Policy" not in reply
    assert not RequestWindow.objects.exists()


def test_an_operator_gives_a_user_another_limit(db: None, settings: Settings) -> None:
    settings.REQUESTS_PER_MINUTE = 2

    def story(user: AbstractBaseUser) -> None:
        UserShare.objects.create(user=user, requests_per_minute=3)
        assert statuses(access_token(user), 4) == [200, 200, 200, 429]
        free = make_user()
        UserShare.objects.create(user=free, requests_per_minute=0)
        assert statuses(access_token(free), 5) == [200] * 5

    in_one_minute(story)


def test_a_key_has_a_limit_of_its_own_within_its_users(db: None, settings: Settings) -> None:
    settings.REQUESTS_PER_MINUTE, settings.REQUESTS_PER_MINUTE_PER_KEY = 12, 6

    def story(user: AbstractBaseUser) -> None:
        one, other, free = key_of(user, requests_per_minute=3), key_of(user), key_of(user, requests_per_minute=0)
        assert statuses(one, 4) == [200, 200, 200, 429]
        refused = ask(one)
        assert "this API key" in refused.json()["error"]["message"]
        assert '"user";r=' in refused["RateLimit"]
        assert '"key";r=0;t=' in refused["RateLimit"]
        assert refused["RateLimit-Policy"] == '"user";q=12;w=60, "key";q=3;w=60'
        assert statuses(other, 7) == [200] * 6 + [429]
        assert statuses(free, 4) == [200, 200, 200, 429]  # 12 of the user by now

    in_one_minute(story)


def test_no_request_costs_a_statement_more(
    user: AbstractBaseUser, limits: RequestLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_limits, "LEAST_CHUNK", 2)
    token, key = access_token(user), key_of(user)
    for one in (token, key):
        found = []
        for _ in range(6):  # some of them take a chunk
            with CaptureQueriesContext(connection) as captured:
                assert ask(one, "/api/queues/tasks/nonsense").status_code == 404
            found.append(len(captured))
        assert set(found) == {1}


def test_chunks_grow_with_what_is_needed(user: AbstractBaseUser, limits: RequestLimits) -> None:
    """Of 300,000 a minute, one process that asks 2,000 times takes a few chunks, and leaves the rest to others."""
    row = Row(300_000)
    chunks = [row.take(limits) for _ in range(2000)]
    assert len([one for one in chunks if one]) <= 10
    assert row.granted <= 2 * 2000 + LEAST_CHUNK


class Row:
    """The statement's arithmetic, without a database."""

    def __init__(self, most: int) -> None:
        self.most, self.granted = most, 0

    def take(self, limits: RequestLimits) -> int:
        """One request of a process; the chunk that it took for it. Raises TooManyRequests."""
        chunks = limits.begin("user 1")
        if chunks is None:
            return 0
        left = self.most - self.granted
        added = max(0, min(left, chunks[0], max(1, left // 8)))
        self.granted += added
        leases = [[0.0, float(self.most), float(self.granted), float(added), 30.0]]
        limits.settle(["user 1"], chunks, leases, sent_at=request_limits.time.monotonic())
        return added


@pytest.mark.parametrize("most", [1, 7, 60, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_processes_share_a_limit_and_waste_little_of_it(most: int, seed: int) -> None:
    chance, row = random.Random(seed), Row(most)
    processes = [RequestLimits() for _ in range(6)]
    weights = [1, 1, 1, 3, 10, 30]
    passed = 0
    for _ in range(3 * most + 50):
        (process,) = chance.choices(processes, weights)
        try:
            row.take(process)
        except TooManyRequests:
            continue
        passed += 1
    assert row.granted <= most
    assert most * 0.8 - 6 <= passed <= most


@pytest.mark.parametrize(("most", "chunk"), [(1, 16), (2, 1), (7, 16), (9, 3), (40, 16), (100, 10**6)])
def test_the_row_gives_what_the_arithmetic_says(
    db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch, most: int, chunk: int
) -> None:
    settings.REQUESTS_PER_MINUTE = most
    monkeypatch.setattr(request_limits, "LEAST_CHUNK", chunk)

    def story(user: AbstractBaseUser) -> None:
        token, given = access_token(user), 0
        for _ in range(8):
            monkeypatch.setattr(request_limits, "limits", RequestLimits())  # another process each time
            status = ask(token).status_code
            left = most - given
            wanted = min(left, chunk, max(1, left // 8))
            row = RequestWindow.objects.get(subject=f"user {user.pk}")
            assert (row.last_grant, row.granted, row.most) == (wanted, given + wanted, most)
            assert status == (200 if wanted else 429)
            given += wanted

    in_one_minute(story)


def test_a_new_minute_begins_anew(db: None, settings: Settings, limits: RequestLimits) -> None:
    settings.REQUESTS_PER_MINUTE = 3

    def story(user: AbstractBaseUser) -> None:
        token = access_token(user)
        assert statuses(token, 4) == [200, 200, 200, 429]
        with connection.cursor() as cursor:
            cursor.execute("UPDATE video_requestwindow SET ends_at = ends_at - interval '1 minute'")
        for window in limits._windows.values():
            window.ends_at -= 60
        assert statuses(token, 4) == [200, 200, 200, 429]

    in_one_minute(story)


def test_a_limit_that_is_lowered_or_raised_counts_what_was_given(db: None, settings: Settings) -> None:
    def story(user: AbstractBaseUser) -> None:
        token = access_token(user)

        def asked_anew(most: int, times: int) -> list[int]:
            settings.REQUESTS_PER_MINUTE = most
            request_limits.limits = RequestLimits()  # what it had is lost
            return statuses(token, times)

        assert asked_anew(8, 4) == [200] * 4
        assert asked_anew(2, 2) == [429] * 2
        row = RequestWindow.objects.get(subject=f"user {user.pk}")
        assert (row.granted, row.most) == (4, 4)
        assert asked_anew(6, 3) == [200, 200, 429]

    in_one_minute(story)


def test_a_request_that_has_waited_counts_once(user: AbstractBaseUser, limits: RequestLimits) -> None:
    token = access_token(user)
    ask(token, **{CAN_WAIT: True})
    used = limits._windows[f"user {user.pk}"].used
    reply = ask(token, **{CAN_WAIT: False})
    assert reply.status_code == 200
    assert limits._windows[f"user {user.pk}"].used == used == 1


def test_a_login_that_is_over_takes_nothing(user: AbstractBaseUser) -> None:
    token = access_token(user)
    LoginSession.objects.all().delete()
    assert ask(token).status_code == 401
    assert not RequestWindow.objects.exists()


def test_what_many_users_leave_behind_is_bounded(monkeypatch: pytest.MonkeyPatch, limits: RequestLimits) -> None:
    monkeypatch.setattr(request_limits, "_MOST_KEPT", 10)
    now = request_limits.time.monotonic()
    for number in range(100):
        limits.settle([f"user {number}"], [1], [[0, 5, 1, 1, 30]], sent_at=now)
        assert len(limits._windows) <= 11


def test_old_windows_are_swept(user: AbstractBaseUser) -> None:
    ask(access_token(user))
    assert request_limits.sweep() == 0
    with connection.cursor() as cursor:
        cursor.execute("UPDATE video_requestwindow SET ends_at = ends_at - interval '2 hours'")
    assert request_limits.sweep() == 1


def test_a_windows_time_is_never_later_than_the_rows(limits: RequestLimits) -> None:
    now = request_limits.time.monotonic()
    limits.settle(["user 1"], [1], [[0, 100, 5, 5, 30]], sent_at=now)
    limits.settle(["user 1"], [1], [[0, 100, 9, 4, 29]], sent_at=now)
    window = limits._windows["user 1"]
    assert (window.left, window.shared, window.ends_at) == (7, 91, now + 29)
    limits.settle(["user 1"], [1], [[0, 100, 3, 3, 60]], sent_at=now + 29)  # the next minute: what was left is lost
    window = limits._windows["user 1"]
    assert (window.left, window.shared) == (2, 97)
    assert isinstance(window, Window)


@pytest.mark.django_db(transaction=True)
def test_processes_at_once_never_pass_the_limit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.REQUESTS_PER_MINUTE = 30
    of_thread = threading.local()

    class EachItsOwn:
        def __getattr__(self, name: str) -> Any:
            if not hasattr(of_thread, "limits"):
                of_thread.limits = RequestLimits()
            return getattr(of_thread.limits, name)

    monkeypatch.setattr(request_limits, "limits", EachItsOwn())

    def story(user: AbstractBaseUser) -> None:
        token, key = access_token(user), key_of(user)
        starts = threading.Barrier(4)

        def process(number: int) -> int:
            try:
                starts.wait()
                return statuses(key if number % 2 else token, 20).count(200)
            finally:
                connection.close()

        with ThreadPoolExecutor(4) as pool:
            passed = sum(pool.map(process, range(4)))
        row = RequestWindow.objects.get(subject=f"user {user.pk}")
        assert row.granted <= 30
        assert 20 <= passed <= 30

    in_one_minute(story)


@pytest.mark.django_db(transaction=True)
def test_while_the_database_takes_no_writes_reads_go_on_uncounted() -> None:
    user = make_user()
    token, key = access_token(user), key_of(user)
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    try:
        for one in (token, key):
            replies = [ask(one) for _ in range(2)]
            assert [reply.status_code for reply in replies] == [200, 200]
            assert "RateLimit" not in replies[1]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
    request_limits.limits = RequestLimits()
    assert "RateLimit" in ask(token)
