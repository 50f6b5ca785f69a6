"""manage.py queue_status: what it prints, and the exit code that a script relies on."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection

from tests.factories import accepted, make_task
from tests.video.presence import everybody
from tests.video.storing import saved
from video.attempts import configured_keys
from video.management.base import UNREACHABLE
from video.monitoring import overview

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _healthy() -> Iterator[None]:
    configured_keys.sync()
    everybody()
    return


def ask(*args: str) -> tuple[int, str]:
    """Exit code, and everything that was printed."""
    out = io.StringIO()
    try:
        call_command("queue_status", *args, stdout=out, stderr=out)
    except SystemExit as err:
        return int(err.code or 0), out.getvalue()
    except CommandError as err:
        return err.returncode, f"{out.getvalue()}{err}"
    return 0, out.getvalue()


def no_sweeper() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM video_workersign WHERE kind = 'sweeper'")


def test_a_healthy_system_exits_0() -> None:
    accepted(make_task())
    make_task()
    code, said = ask()
    assert code == 0, said
    for part in (
        *("Nothing is wrong.", "Everything is simulated", "1 for a slot", "videoQueue", "mediaQueue", "transcode"),
        *("one:3", "gen4.5", "1 of 1000", "runway simulator", "open"),
    ):
        assert part in said, part


def test_what_needs_a_person_is_said_first_and_exits_1() -> None:
    no_sweeper()
    code, said = ask()
    assert code == 1
    assert said.index("! No sweeper gives signs of life.") < said.index("videoQueue")
    assert "The system: " in said
    assert "You: Start one: " in said


def test_it_says_what_all_users_have_stored() -> None:
    for _ in range(2):
        saved()
    assert "Stored: 2 videos, 0.0 MB." in ask()[1]
    assert json.loads(ask("--json")[1])["storage"] == {"usedBytes": 60, "videos": 2}


def test_json_is_what_the_api_tells_staff() -> None:
    code, said = ask("--json")
    assert code == 0
    found = json.loads(said)
    assert found["scope"] == "system"
    assert found["healthy"] is True
    no_sweeper()
    code, said = ask("--json")
    assert code == 1
    assert json.loads(said)["troubles"][0]["code"] == "no_sweeper"


def test_without_the_database_it_exits_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> overview.System:
        raise OperationalError("connection refused to db at 10.1.2.3")

    monkeypatch.setattr(overview, "read", away)
    code, said = ask()
    assert code == 2
    assert said == "The database can't be reached, so nothing can be told. (OperationalError)"


def test_watch_goes_on_through_an_outage_until_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [overview.read(), None, overview.read()]

    def read() -> overview.System:
        found = answers.pop(0)
        if found is None:
            raise OperationalError("away")
        return found

    def sleep(seconds: float) -> None:
        assert seconds == 0.5
        if not answers:
            raise KeyboardInterrupt

    monkeypatch.setattr(overview, "read", read)
    monkeypatch.setattr(connection, "close", lambda: None)  # the test's transaction must go on
    monkeypatch.setattr(time, "sleep", sleep)
    code, said = ask("--watch", "--json", "--interval", "0.5")
    assert code == 130
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line.get("scope", line.get("error")) for line in lines] == ["system", UNREACHABLE, "system"]


def test_watch_shows_the_page_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    code, said = ask("--watch")
    assert code == 130
    assert said.count("Nothing is wrong.") == 2  # into a pipe, one below the other


def test_watch_on_a_terminal_uses_its_screen_and_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    out = Terminal()
    with pytest.raises(SystemExit) as ended:
        call_command("queue_status", "--watch", stdout=out)
    assert ended.value.code == 130
    opened, shown, closed = (out.getvalue().index(text) for text in ("\x1b[?1049h", "Nothing is wrong.", "\x1b[?1049l"))
    assert opened < shown < closed


@pytest.mark.parametrize("text", ["0.1", "soon", "4000"])
def test_a_wrong_interval_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match=r"argument --interval: (it must be between 0\.5|'soon' is no number)"):
        call_command("queue_status", "--watch", "--interval", text)
