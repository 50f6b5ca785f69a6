"""What follows a commit never undoes the answer to it, whatever it raises."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import kombu.exceptions
import pytest
import redis.exceptions
from celery import current_app
from django.contrib.auth.models import AbstractBaseUser
from django.db import OperationalError, transaction
from django.test import Client
from kombu import Connection

from config import addresses
from tests.factories import make_user
from tests.proxy import valkey_behind
from tests.system.system import broker as valkey
from video.credits import ledger
from video.engine import dispatch
from video.infra import after_commit, broker, outage
from video.models import CreditEntry, Stage, VideoTask
from video.processes import sweeper
from video.scheduling import admission
from video.web import pages

CANARY = "c4n4ry"


class Strange(Exception):
    """Of no library's family."""


RAISED = [
    kombu.exceptions.OperationalError,
    kombu.exceptions.ChannelError,
    redis.exceptions.ResponseError,
    redis.exceptions.AuthenticationError,
    redis.exceptions.BusyLoadingError,
    ssl.SSLCertVerificationError,
    ConnectionResetError,
    ValueError,
    KeyError,
    AttributeError,
    RecursionError,
    Strange,
]


@pytest.fixture
def own_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Has this process use another broker, by the address that was configured."""
    made: list[Connection] = []

    def use(address: str) -> None:
        at = addresses.broker(address)
        monkeypatch.setenv("CELERY_BROKER_READ_URL", at)  # which Celery prefers to the setting
        other = Connection(at, transport_options=current_app.conf.broker_transport_options)
        made.append(other)
        send = current_app.send_task
        monkeypatch.setattr(current_app, "send_task", partial(send, connection=other, retry=False))

    yield use
    for each in made:
        each.release()


def order_of(user: AbstractBaseUser, order: dict[str, Any], client_for: Callable[..., Client]) -> Any:
    return client_for(user).post("/api/video/create", order, content_type="application/json")


def was_made_once(user: AbstractBaseUser) -> VideoTask:
    task = VideoTask.objects.get(user_id=user.pk)
    assert CreditEntry.objects.filter(task_id=task.pk, kind=CreditEntry.Kind.DEBIT).count() == 1
    assert ledger.balance(user.pk) == 990
    return task


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", RAISED, ids=lambda error: error.__name__)
def test_create_is_answered_and_paid_once_whatever_its_message_raises(
    error: type[Exception],
    client_for: Callable[..., Client],
    order: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error(f"redis://:{CANARY}@10.0.0.7/0")

    user = make_user()
    monkeypatch.setattr(dispatch, "_admission_requested_at", float("-inf"))
    with monkeypatch.context() as broken:
        broken.setattr(current_app, "send_task", fail)
        assert order_of(user, order, client_for).status_code == 201
    task = was_made_once(user)
    told = [record.getMessage() for record in caplog.records if record.name == dispatch.__name__]
    assert told == [f"the broker can't be used ({error.__name__}); the sweeper admits"]
    assert CANARY not in caplog.text
    sweeper.tick()
    task.refresh_from_db()
    assert task.admit_at is None  # the sweeper has found it


MISCONFIGURED = {
    "a database that the server has not": ("redis://127.0.0.1:{port}/999", "ResponseError"),
    "a password where there is none": ("redis://:c4n4ry@127.0.0.1:{port}/0", "AuthenticationError"),
    "a user that is not there": ("redis://c4n4ry:c4n4ry@127.0.0.1:{port}/0", "AuthenticationError"),
    "TLS to a server without": ("rediss://127.0.0.1:{port}/0", "ConnectionResetError"),
    "nobody listens": ("redis://127.0.0.1:1/0", "ConnectionRefusedError"),
    "a name that is none": ("valkey://c4n4ry.invalid/0", "gaierror"),
    "a socket that is not there": ("unix:///nowhere/c4n4ry.sock", "FileNotFoundError"),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", MISCONFIGURED)
def test_the_same_with_a_broker_that_is_misconfigured_and_ready_says_so_in_json(
    what: str,
    own_broker: Callable[[str], None],
    client_for: Callable[..., Client],
    order: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    settings: Any,
) -> None:
    address, kind = MISCONFIGURED[what]
    proxy, _ = valkey_behind(settings.CELERY_BROKER_URL)
    user = make_user()
    monkeypatch.setattr(dispatch, "_admission_requested_at", float("-inf"))
    own_broker(address.format(port=proxy.port))
    try:
        assert order_of(user, order, client_for).status_code == 201
        was_made_once(user)
        reply = Client(raise_request_exception=False).get("/readyz")
        assert reply.status_code == 503
        said = reply.json()["error"]["details"]["broker"]
        assert said.startswith("can't be used (")
        assert kind in said or what.startswith("TLS")  # how a plain server ends a handshake is its own affair
        assert reply.json()["error"]["details"]["database"] == "ok"
        assert Client().get("/healthz").json() == {"status": "ok"}
    finally:
        proxy.close()
    assert CANARY not in caplog.text
    assert CANARY not in reply.content.decode()
    assert admission.admit() == [(VideoTask.objects.get().pk, Stage.GENERATE)]


@pytest.mark.django_db(transaction=True)
def test_name_and_password_reach_the_broker_however_odd_they_are(
    own_broker: Callable[[str], None], settings: Any
) -> None:
    proxy, _ = valkey_behind(settings.CELERY_BROKER_URL)
    valkey().execute_command("ACL", "SETUSER", "odd:n@me", "on", ">p;a/s?s#%@:", "~*", "&*", "+@all")
    try:
        own_broker(f"valkey://odd%3An%40me:p%3Ba%2Fs%3Fs%23%25%40%3A@127.0.0.1:{proxy.port}/0")
        broker.require()
    finally:
        proxy.close()
        valkey().execute_command("ACL", "DELUSER", "odd:n@me")


def test_a_broker_at_an_ipv6_address_is_reached(own_broker: Callable[[str], None], settings: Any) -> None:
    try:
        proxy, address = valkey_behind(settings.CELERY_BROKER_URL, host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    own_broker(address)
    broker.require()
    proxy.close()


@pytest.mark.django_db
@pytest.mark.parametrize("part", ["ping", "migrations", "broker"])
def test_ready_answers_in_json_whatever_its_parts_raise(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Strange(f"at 10.0.0.7 with {CANARY}")

    monkeypatch.setattr(pages, "_compared_at", float("-inf"))
    targets = {"ping": (outage, "ping"), "migrations": (pages, "MigrationExecutor"), "broker": (broker, "lengths")}
    if part == "broker":
        monkeypatch.setattr(current_app, "connection_for_read", fail)
    else:
        monkeypatch.setattr(*targets[part], fail)
    reply = Client(raise_request_exception=False).get("/readyz")
    assert reply.status_code == 503
    assert reply.headers["Content-Type"] == "application/json"
    assert "(Strange)" in str(reply.json()["error"]["details"])
    assert CANARY not in reply.content.decode()


@pytest.mark.django_db(transaction=True)
def test_one_that_fails_does_not_keep_the_next_from_being_done(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fail(_: int) -> None:
        raise OperationalError(f"at 10.0.0.7 with {CANARY}")

    with caplog.at_level(logging.WARNING), transaction.atomic():
        after_commit.after_commit(partial(fail, 1))
        after_commit.after_commit(lambda: done.append("next"))
        assert done == []
    assert done == ["next"]
    after_commit.after_commit(partial(fail, 1))  # without a transaction: at once
    assert "fail failed after a commit (OperationalError); what was committed stands" in caplog.text
    assert CANARY not in caplog.text
