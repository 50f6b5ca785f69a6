"""Alerts: each trouble and its end are told once, to real receivers, by any number of sweepers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test import Client
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings
from standardwebhooks import Webhook

from tests.factories import OLGA
from tests.receiver import DROP, HANG, Receiver, receiving
from video.alerts import send, transport, watch
from video.alerts.receivers import Receiver as Told
from video.models import Alert, AlertMessage, AuditRecord
from video.monitoring.problem import Problem
from video.processes import alerting, periodic

pytestmark = pytest.mark.django_db
SECRET = "whsec_" + "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4"
DISK = Problem("disk_low", True, "The disk of w1 is nearly full.", "Nothing new begins.", "Make room.", "w1")
KEY = Problem("key_refused", True, "runway refused key 3 <again>.", "Others go on.", "Put it right.", "key 3")
CIRCUIT = Problem("circuit_open", False, "gen4.5 had 5 faults in a row.", "Others.", "Look.")


@pytest.fixture
def hook(settings: Settings) -> Iterator[Receiver]:
    with receiving() as one:
        settings.WEBHOOK_PRIVATE_HOSTS = [one.host]
        settings.ALERT_SECRET = SECRET
        settings.ALERT_AFTER_SECONDS = 60
        settings.ALERT_RECEIVERS = [Told("webhook", one.url)]
        yield one


def pass_s(seconds: float) -> None:
    """So much time goes by for the rows."""
    with connection.cursor() as cursor:
        for table, columns in (
            ("video_alert", ("begun_at", "seen_at", "told_at")),
            ("video_alertmessage", ("due_at", "lease_until")),
            ("video_alertsilence", ("until",)),
        ):
            moved = ", ".join(f"{name} = {name} - {float(seconds)} * interval '1 second'" for name in columns)
            cursor.execute(f"UPDATE {table} SET {moved}")


def turn(*problems: Problem) -> int:
    watch.note(problems)
    return send.send_due(for_s=5)


def told(hook: Receiver) -> list[tuple[str, str]]:
    found = [json.loads(one.body) for one in hook.got]
    return [(one["type"], one["data"]["about"]) for one in found]


def test_a_trouble_is_told_once_when_it_lasts_and_its_end_once(hook: Receiver) -> None:
    assert turn(DISK, CIRCUIT) == 0
    pass_s(61)
    assert turn(DISK, CIRCUIT) == 1
    assert turn(DISK) == 0
    pass_s(3600)
    assert turn(DISK, KEY) == 0
    pass_s(30)
    assert turn(KEY) == 0  # away, but not for long
    pass_s(61)
    assert turn(KEY) == 2
    assert sorted(told(hook)) == [("alert.begun", "key 3"), ("alert.begun", "w1"), ("alert.ended", "w1")]
    assert turn(KEY) == 0
    first, body = hook.got[0], json.loads(hook.got[0].body)
    headers = {name.lower(): value for name, value in first.headers.items()}
    assert Webhook(SECRET).verify(first.body, headers) == body
    assert body["data"]["sentence"] == DISK.sentence
    assert body["data"]["operator"] == DISK.operator
    assert {one.state for one in AlertMessage.objects.all()} == {"sent"}


def test_what_comes_and_goes_sends_nothing(hook: Receiver) -> None:
    for _ in range(6):
        turn(DISK)
        pass_s(40)
        turn()
        pass_s(40)
    assert not hook.got
    assert not Alert.objects.exists()
    for _ in range(2):
        turn(DISK)
        pass_s(61)
    turn(DISK)
    for _ in range(6):  # told, it flaps: still one trouble
        turn()
        pass_s(40)
        turn(DISK)
        pass_s(40)
    assert told(hook) == [("alert.begun", "w1")]


def test_a_receiver_that_is_away_is_tried_with_pauses_and_hears_the_end_too(hook: Receiver) -> None:
    hook.answers = [503, DROP, 204]
    turn(DISK)
    pass_s(61)
    assert turn(DISK) == 1
    message = AlertMessage.objects.get()
    assert (message.state, message.tries, message.last_error) == ("pending", 1, "the receiver answered 503")
    assert turn(DISK) == 0  # not before its pause is over
    pass_s(61)
    assert turn(DISK) == 1
    assert AlertMessage.objects.get().tries == 2
    pass_s(61)
    turn()
    assert told(hook)[-2:] == [("alert.begun", "w1"), ("alert.ended", "w1")]
    assert len({one.headers.get("webhook-id", one.headers.get("Webhook-Id")) for one in hook.got}) == 2


def test_one_that_stays_away_is_given_up(hook: Receiver) -> None:
    hook.answers = [500]
    turn(DISK)
    pass_s(61)
    for _ in range(send.MOST_TRIES + 3):
        turn(DISK)
        pass_s(3601)
    message = AlertMessage.objects.get()
    assert (message.state, message.tries, len(hook.got)) == ("failed", send.MOST_TRIES, send.MOST_TRIES)
    hook.answers = [204]
    turn()
    assert told(hook)[-1] == ("alert.ended", "w1")


def test_one_that_hangs_holds_a_sweeper_for_seconds_only(hook: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "DEADLINE_S", 0.2)
    hook.answers = [HANG]
    turn(DISK)
    pass_s(61)
    turn(DISK)
    assert AlertMessage.objects.get().last_error == "no answer within 0.2 s"


@pytest.mark.django_db(transaction=True)
def test_of_two_sweepers_at_once_one_sends(hook: Receiver) -> None:
    watch.note([DISK, KEY])
    pass_s(61)

    def sweeper(_: int) -> int:
        try:
            return turn(DISK, KEY)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(sweeper, range(4))) == 2
    assert sorted(told(hook)) == [("alert.begun", "key 3"), ("alert.begun", "w1")]


def test_a_message_of_a_sweeper_that_died_is_sent_after_its_lease(hook: Receiver) -> None:
    turn(DISK)
    pass_s(61)
    watch.note([DISK])
    keys = [one.key for one in watch.receivers()]
    dead = send.claim(keys)
    assert dead is not None
    assert send.claim(keys) is None
    pass_s(send.LEASE_S + 1)
    assert send.send_due(for_s=5) == 1
    assert (len(hook.got), AlertMessage.objects.get().tries) == (1, 2)


def test_silence_holds_messages_back_and_afterwards_tells_what_lasts(hook: Receiver) -> None:
    turn(DISK)
    pass_s(61)
    turn(DISK)
    watch.silence(7200, by=OLGA.because("we move the racks"))
    assert AuditRecord.objects.get(action="silence").reason == "we move the racks"
    turn(DISK, KEY)
    pass_s(61)
    turn(KEY)
    assert len(hook.got) == 1
    with pytest.raises(ValueError, match="at most"):
        watch.silence(8 * 86400, by=OLGA)
    watch.silence(0, by=OLGA)
    turn(KEY)
    assert sorted(told(hook)) == [("alert.begun", "key 3"), ("alert.begun", "w1"), ("alert.ended", "w1")]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("slack", lambda body: body["text"]),
        ("discord", lambda body: body["content"]),
    ],
)
def test_chats_get_their_own_shape(
    hook: Receiver, settings: Settings, kind: Any, text: Callable[[dict[str, Any]], str]
) -> None:
    settings.ALERT_RECEIVERS = [Told(kind, hook.url)]
    settings.PUBLIC_BASE_URL = "https://reels.example.com"
    turn(KEY)
    pass_s(61)
    turn(KEY)
    body = json.loads(hook.got[0].body)
    again = "&lt;again&gt;" if kind == "slack" else "<again>"
    assert text(body) == (
        f"Trouble: runway refused key 3 {again}.\nWhat you can do: Put it right.\nhttps://reels.example.com/admin/"
    )
    assert not any(name.lower().startswith("webhook-") for name in hook.got[0].headers)
    assert body.get("allowed_mentions", {"parse": []}) == {"parse": []}


def test_by_e_mail(hook: Receiver, settings: Settings, mailoutbox: list[Any]) -> None:
    settings.ALERT_RECEIVERS = [Told("mail", "night@example.com"), Told("webhook", hook.url)]
    turn(DISK)
    pass_s(61)
    assert turn(DISK) == 2
    (mail,) = mailoutbox
    assert (mail.to, mail.subject) == (["night@example.com"], "[Reelworks] Trouble: The disk of w1 is nearly full.")
    assert "What you can do: Make room." in mail.body
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    ((_, why), (_, fine)) = send.send_test(by=OLGA)
    assert (why, fine) == ("the mail server could not be used (ConnectionRefusedError)", "")


def test_a_look_costs_a_fixed_number_of_statements(
    hook: Receiver, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    many = [Problem("key_refused", True, f"key {n}", "", "", f"key {n}") for n in range(50)]
    for problems in ([DISK], many):
        with django_assert_max_num_queries(11):
            watch.note(problems)
        pass_s(61)


def test_the_sweepers_turn_looks_once_a_period_and_only_if_somebody_is_told(
    hook: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ALERT_AFTER_SECONDS = 0
    alerting.turn()  # no worker and no sweeper runs
    assert {kind for kind, _ in told(hook)} == {"alert.begun"}
    assert Alert.objects.filter(code="no_worker").count() == 2  # one for each queue
    number = len(hook.got)
    alerting.turn()
    assert len(hook.got) == number
    settings.ALERT_RECEIVERS = []
    monkeypatch.setattr(periodic, "take_period", lambda *args: pytest.fail("nobody is told"))
    alerting.turn()


class TestPages:
    URL = "/admin/video/alert/"

    @pytest.fixture
    def operator(self, client: Client) -> Client:
        client.force_login(get_user_model().objects.create_superuser("olga"))
        return client

    def test_show_what_is_open_sent_and_failed_and_no_address(self, operator: Client, hook: Receiver) -> None:
        hook.answers = [204, 500]
        turn(DISK, KEY)
        pass_s(61)
        turn(DISK, KEY)
        page = operator.get(self.URL).content.decode()
        for part in (DISK.sentence, "begun: sent", "1 tries; the receiver answered 500"):
            assert part in page, part
        assert "webhook at 127.0.0.1" in page
        assert "of-its-owner" not in page
        one = operator.get(f"{self.URL}{Alert.objects.get(about='w1').pk}/change/").content.decode()
        assert DISK.operator in one
        assert "of-its-owner" not in one
        assert operator.get(f"{self.URL}?state=failed").status_code == 200

    def test_have_a_test_and_silence(self, operator: Client, hook: Receiver) -> None:
        page = operator.post(f"{self.URL}test/", follow=True).content.decode()
        assert "webhook at 127.0.0.1: it took the test." in page
        assert json.loads(hook.got[0].body)["type"] == "alert.test"
        page = operator.post(f"{self.URL}silence/", {"hours": "2", "reason": "racks"}, follow=True).content.decode()
        assert "Nothing is sent for 2 h" in page
        assert "Silence until" in page
        assert (
            "Nothing was changed" in operator.post(f"{self.URL}silence/", {"hours": "x"}, follow=True).content.decode()
        )
        operator.post(f"{self.URL}silence/", {"hours": "0"})
        assert watch.silent_until() is None
        actions = AuditRecord.objects.order_by("id").values_list("action", "reason")
        assert list(actions) == [("test", ""), ("silence", "racks"), ("end_silence", "")]

    def test_say_when_nobody_is_told(self, operator: Client, settings: Settings) -> None:
        settings.ALERT_RECEIVERS = []
        assert "Nobody is told." in operator.get(self.URL).content.decode()


class TestCommand:
    def run(self, *args: str) -> tuple[int, str]:
        out = StringIO()
        try:
            call_command("alerts", *args, stdout=out)
        except SystemExit as end:
            return int(str(end.code)), out.getvalue()
        return 0, out.getvalue()

    def test_lists_tests_and_silences(self, hook: Receiver) -> None:
        turn(DISK)
        pass_s(61)
        turn(DISK)
        found = json.loads(self.run("--json")[1])
        assert found["receivers"] == ["webhook at 127.0.0.1"]
        assert [(one["code"], one["messages"][0]["state"]) for one in found["alerts"]] == [("disk_low", "sent")]
        assert "The disk of w1 is nearly full." in self.run()[1]
        hook.answers = [500]
        assert self.run("--test") == (1, "webhook at 127.0.0.1: the receiver answered 500.\n")
        assert "Nothing is sent for 2 h" in self.run("--silence", "2h")[1]
        assert self.run("--silence", "0") == (0, "Messages are sent again.\n")

    def test_without_a_receiver_a_test_is_refused(self, settings: Settings) -> None:
        settings.ALERT_RECEIVERS = []
        with pytest.raises(CommandError, match="ALERT_URLS is empty"):
            self.run("--test")
