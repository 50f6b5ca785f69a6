"""Through a real PgBouncer: everything works in session and in transaction mode once the role brings the time-outs,
and otherwise every process stops at its start with the sentence that says so."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator

import psycopg
import pytest
import requests
from django.db import connection
from rest_framework_simplejwt.tokens import AccessToken

from config.embedded import postgres
from tests.factories import make_task, make_user, reload
from tests.pgbouncer import need_pgbouncer, pgbouncer
from tests.system.system import ROOT, Simulator, System, database_url, until
from tests.system.test_outage_live import free_port
from video.credits import ledger
from video.infra import timeouts
from video.models import VideoTask

pytestmark = pytest.mark.usefixtures("_needed")


@pytest.fixture
def _needed() -> None:
    need_pgbouncer()


@pytest.fixture
def role(database: str) -> Iterator[str]:
    """A user of PostgreSQL's that may do everything, and brings no time-outs."""
    name = f"pooled_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database_url(), user=postgres.ADMIN, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN SUPERUSER")
        yield name
        admin.execute(f"DROP OWNED BY {name}")
        admin.execute(f"DROP ROLE {name}")


def as_told(sentence: str, url: str) -> None:
    """Do what the sentence says, through the pooler."""
    statements = sentence.split("run `")[1].split("`")[0].split(";")
    with psycopg.connect(url, autocommit=True) as own:
        for statement in filter(None, map(str.strip, statements)):
            own.execute(statement)


#: Each process of the Procfile, and commands.
STARTS = {
    "web": [
        "-m",
        "granian",
        "--interface",
        "rsgi",
        "--port",
        "{port}",
        "--log-level",
        "error",
        "config.front:application",
    ],
    "worker": ["-m", "celery", "-A", "config", "worker", "--pool", "threads", "-c", "1", "-n", "pooled@%h"],
    "sweeper": ["manage.py", "sweeper"],
    "a command": ["manage.py", "queue_status"],
    "migrate": ["manage.py", "migrate"],
    "up": ["manage.py", "up"],
}


def start(what: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, *(part.format(port=free_port()) for part in STARTS[what])]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "DATABASE_URL" in line]
    assert len(said) == 1, done.stdout + done.stderr
    return said[0]


@pytest.mark.parametrize("what", STARTS)
def test_each_process_stops_at_its_start_where_the_time_outs_are_dropped(
    what: str, system: System, role: str, database: str
) -> None:
    with pgbouncer(database, user=role, mode="transaction", ignore_options=True) as url:
        home = {"REELWORKS_HOME": str(system.folder / "home"), "PORT": str(free_port())} if what == "up" else {}
        said = last_words(start(what, {**system.env, **home, "DATABASE_URL": url}))
    assert "statement_timeout is off, not 1 to 30 s" in said
    assert "idle_in_transaction_session_timeout is off" in said
    assert "ALTER ROLE CURRENT_USER SET lock_timeout = 10000;" in said
    assert role not in said


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_pooler_that_refuses_what_asks_for_them_is_named_as_the_cause(
    mode: str, system: System, role: str, database: str
) -> None:
    with pgbouncer(database, user=role, mode=mode, ignore_options=False) as url:
        said = last_words(start("sweeper", {**system.env, "DATABASE_URL": url}))
    assert "`ignore_startup_parameters = options`" in said


def test_statement_mode_is_refused(system: System, role: str, database: str) -> None:
    with pgbouncer(database, user=role, mode="statement", ignore_options=True) as url:
        said = last_words(start("sweeper", {**system.env, "DATABASE_URL": url}))
    assert "session or transaction mode" in said


def advisory_locks() -> int:
    """Of this database: other tests' databases are on the same server. An admission holds one for a moment."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
            "WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()"
        )
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_videos_are_made_once_the_sentence_was_followed(
    mode: str, system: System, simulator: Simulator, role: str, database: str
) -> None:
    with pgbouncer(database, user=role, mode=mode, ignore_options=True) as url:
        as_told(last_words(start("sweeper", {**system.env, "DATABASE_URL": url})), url)
    with pgbouncer(database, user=role, mode=mode, ignore_options=True) as url:
        system.env["DATABASE_URL"] = url
        # `up` brings the schema up to date first, alone, under a lock that it leaves to nobody.
        home = {"REELWORKS_HOME": str(system.folder / "home")}
        argv = [sys.executable, "manage.py", "up", "--then", "migrate", "--check"]
        env = {name: value for name, value in {**system.env, **home}.items() if name != "PORT"}
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        make_one_of_each(system, simulator, mode)
        until("no advisory lock is left in this database", lambda: advisory_locks() == 0)
        with psycopg.connect(url, autocommit=True) as own:
            kept = {name: own.execute(f"SHOW {name}").fetchone() for name in timeouts.LIMITS_MS}
    assert kept == {
        "statement_timeout": ("30s",),
        "lock_timeout": ("10s",),
        "idle_in_transaction_session_timeout": ("10s",),
    }


def make_one_of_each(system: System, simulator: Simulator, mode: str) -> None:
    """Created by HTTP and by row, one of them cancelled and retried."""
    port = free_port()
    system.web(port)
    system.worker()
    system.sweeper()
    base, user = f"http://127.0.0.1:{port}", make_user()
    headers = {"Authorization": f"Bearer {AccessToken.for_user(user)}"}
    order = {"prompt": f"pooled {mode} by HTTP", "duration": 5, "aspectRatio": "16:9"}
    made = requests.post(f"{base}/api/video/create", json=order, headers=headers, timeout=60)
    assert made.status_code == 201, made.text
    tasks = [VideoTask.objects.get(pk=made.json()["data"]["taskId"])]
    tasks += [make_task(user, prompt=f"pooled {mode} {n}") for n in range(8)]
    for task in tasks:
        until(f"{task.pk} ends", lambda task=task: reload(task).finished_at)
    assert {reload(task).status for task in tasks} == {"success"}
    submits = simulator.submits(f"pooled {mode}")
    assert (submits["created"], submits["doubled"]) == (len(tasks), 0)
    assert ledger.differences() == []
    assert requests.get(f"{base}/readyz", timeout=60).json()["success"]
    assert "Traceback" not in system.logs()
