"""The time-outs of each connection are read back, so that nothing runs where a pooler dropped them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from django.db import connection
from django.test import Client

from config import addresses
from tests.system.system import database_url
from video.infra import outage, timeouts

pytestmark = pytest.mark.django_db(transaction=True)
OURS = "-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=10000"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Has this process begin anew, with other `options` asked for: what a pooler lets through."""

    def ask(options: str) -> None:
        _let_go()
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", options)
        monkeypatch.setattr(timeouts, "_are_in_force", False)

    yield ask
    _let_go()


def _let_go() -> None:
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]


def test_ours_are_in_force(asked: Callable[[str], None]) -> None:
    assert OURS == timeouts.OPTIONS
    asked(timeouts.OPTIONS)
    timeouts.require()
    outage.ping()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "statement_timeout is off, not 1 to 30 s; lock_timeout is off, not 1 to 10 s; idle_in"),
        (f"{OURS} -c lock_timeout=0", "(lock_timeout is off, not 1 to 10 s)"),
        (f"{OURS} -c statement_timeout=60000", "(statement_timeout is 60 s, not 1 to 30 s)"),
        (f"{OURS} -c statement_timeout=20", "(statement_timeout is 0.02 s, not 1 to 30 s)"),
    ],
)
def test_others_stop_the_start_and_otherwise_the_first_statement(
    options: str, said: str, asked: Callable[[str], None]
) -> None:
    asked(options)
    with pytest.raises(timeouts.NotInForce) as refused:
        timeouts.require()
    assert said in str(refused.value)
    assert str(refused.value).startswith("DATABASE_URL ")
    for _ in range(2):  # the connection that was refused is not kept
        with pytest.raises(timeouts.NotInForce):
            outage.ping()


def test_ready_says_it_and_all_is_well_once_it_is_put_right(asked: Callable[[str], None]) -> None:
    asked("")
    reply = Client(raise_request_exception=False).get("/readyz")
    assert reply.status_code == 503
    assert "statement_timeout is off" in reply.json()["error"]["details"]["database"]
    assert Client(raise_request_exception=False).get("/api/video/status?taskId=task_1").status_code == 503
    asked(OURS)
    outage.gate = outage.OutageGate()
    assert Client().get("/readyz").json()["data"]["database"] == "ok"


def test_own_options_of_the_address_are_taken_beside_ours() -> None:
    own = "%20".join(("-c%20search_path%3Dreels", "-c%20statement_timeout%3D5000"))
    taken = addresses.database(f"{database_url()}&options={own}", wait_s=1)
    login = {"dbname": taken["NAME"], "user": taken["USER"], "host": taken["HOST"], "port": taken["PORT"]}
    with psycopg.connect(**login, options=taken["OPTIONS"]["options"]) as direct:
        shown = [direct.execute(f"SHOW {name}").fetchone() for name in ("search_path", *timeouts.LIMITS_MS)]
    assert shown == [("reels",), ("5s",), ("10s",), ("10s",)]


def test_a_database_that_is_away_is_no_reason_to_end(
    asked: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked(OURS)
    monkeypatch.setitem(connection.settings_dict, "PORT", "1")
    timeouts.require()
    assert "the database can't be used yet" in caplog.text
