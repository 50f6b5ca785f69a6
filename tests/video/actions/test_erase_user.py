"""Erase a user: nothing of theirs is left in any table, and the books add up."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import ProgrammingError, connection, transaction
from django.test import Client

from media_pipeline.errors import StorageDown
from tests.factories import OLGA, accepted, make_task, make_user, reload
from tests.video.conftest import client_of
from tests.video.storing import files, saved
from tests.video.traces import tables_with
from tests.video.webhooks.hooks import endpoint_of
from video.actions import cancel, erase_user, retry
from video.actions.task_rows import ActionRefused
from video.audit.actors import Unaudited
from video.credits import audit, ledger
from video.models import AuditRecord, CreditEntry, LoginSession, UserErasure, UserShare, UserStorage, VideoTask
from video.processes import retention

pytestmark = pytest.mark.django_db
WORD = "zebrafinch"


@pytest.fixture
def person(client: Client) -> Any:
    """Somebody with a name in many places: tasks in every state, logins, notes, the admin's log."""
    user = make_user(0, email=f"{WORD}@example.com", first_name=WORD, last_name=WORD)
    user.username = f"{WORD}-1"
    user.save()
    ledger.grant(user.pk, 1000, note=f"for {WORD}")
    saved(user, prompt=f"a {WORD}")
    endpoint_of(user, f"https://{WORD}.example.com/", description=f"of {WORD}")
    waiting, rendering, stopped = (
        make_task(user, prompt=f"{WORD} {number}", webhook_url=f"https://{WORD}.example.com/") for number in range(3)
    )
    cancel.cancel(stopped.pk, by=Unaudited(user.get_username()))
    themselves = replace(OLGA, name=user.get_username(), user_id=user.pk, reason=f"{WORD} asked for it")
    retry.retry(stopped.pk, by=themselves, free=True)
    accepted(rendering, f"job-{rendering.pk}")
    client_of(user, HTTP_USER_AGENT=WORD).get("/api/credits")
    LoginSession.objects.filter(user=user).update(user_agent=WORD)
    UserShare.objects.create(user=user, note=f"a friend of {WORD}")
    operator = get_user_model().objects.create_superuser("olga")
    client.force_login(operator)
    form = {"username": user.username, "email": user.email, "is_active": "on"}
    client.post(f"/admin/auth/user/{user.pk}/change/", form)
    # As versions before the audit wrote it.
    LogEntry.objects.log_actions(operator.pk, [user], CHANGE, "Changed.", single_object=True)
    assert waiting.is_active
    return user


def test_nothing_is_left_in_any_table_and_the_books_add_up(person: Any, client: Client) -> None:
    client.post(
        "/admin/auth/user/", {"action": "end_logins", "_selected_action": [person.pk], "reason": f"{WORD} left"}
    )
    before = tables_with(WORD)
    assert {"auth_user", "video_videotask", "video_taskevent", "video_loginsession", "video_creditentry"} <= before
    assert {
        "django_admin_log",
        "video_auditrecord",
        "video_usershare",
        "video_webhookendpoint",
        "video_webhookdelivery",
    } <= before
    tasks, entries = VideoTask.objects.filter(user=person), CreditEntry.objects.filter(account_id=person.pk)
    number, sums = tasks.count(), {one.pk: one.amount for one in entries}
    erase_user.ask(person.pk, by=OLGA)
    assert erase_user.work(person.pk, for_s=60)
    assert tables_with(WORD) == set()
    assert (tasks.count(), tasks.filter(gone_why="deleted").count()) == (number, number)
    assert all(files(task) == [] for task in tasks)
    assert UserStorage.objects.get(pk=person.pk).bytes == 0
    assert sums.items() <= {one.pk: one.amount for one in entries.all()}.items()
    assert audit.find() == []
    found = get_user_model().objects.get(pk=person.pk)
    assert (found.username, found.email, found.is_active) == (f"erased-{person.pk}", "", False)
    assert not found.has_usable_password()
    assert LogEntry.objects.filter(object_id=str(person.pk)).exists()
    assert UserErasure.objects.get(pk=person.pk).ended_at is not None
    done = AuditRecord.objects.get(action="retry")
    assert (done.actor, done.source, done.reason) == (f"erased-{person.pk}", "", "")
    assert set(AuditRecord.objects.filter(kind="user").values_list("action", "actor", "reason")) == {
        ("change", "olga", ""),
        ("end_logins", "olga", ""),
        ("erase", "olga", ""),
    }


def test_it_ends_logins_and_tokens_at_once_and_nothing_is_made_any_more(person: Any, order: dict[str, Any]) -> None:
    client = client_of(person)
    erase_user.ask(person.pk, by=OLGA)
    assert client.get("/api/credits").status_code == 401
    assert client.post("/api/video/create", order, content_type="application/json").status_code == 401


def test_an_open_job_is_asked_to_stop_and_its_refund_still_comes(person: Any) -> None:
    erase_user.ask(person.pk, by=OLGA)
    erase_user.work(person.pk, for_s=60)
    (job,) = [
        one for task in VideoTask.objects.filter(user=person) for one in task.generations.filter(state="accepted")
    ]
    assert job.cancel_wanted_at is not None


def test_what_dies_in_between_is_gone_on_with_by_the_sweeper(person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    erase_user.ask(person.pk, by=OLGA)
    assert not erase_user.work(person.pk, for_s=0)
    done = 0

    def die() -> None:
        nonlocal done
        done += 1
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erase_user.work(person.pk, for_s=60, on_task=die)
    assert "auth_user" in tables_with(WORD)  # the name goes last
    assert retention.sweep_erasures() == 1
    assert tables_with(WORD) == set()


def test_a_file_that_can_not_be_deleted_yet_keeps_it_open(person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object) -> None:
        raise StorageDown("503")

    erase_user.ask(person.pk, by=OLGA)
    with monkeypatch.context() as patched:
        patched.setattr("media_pipeline.storage.base.MediaStorage.delete", down)
        assert retention.sweep_erasures() == 0
    assert UserErasure.objects.get(pk=person.pk).ended_at is None
    assert retention.sweep_erasures() == 1


def test_a_task_whose_create_was_under_way_is_found_afterwards(person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    erase_user.ask(person.pk, by=OLGA)
    assert erase_user.work(person.pk, for_s=60)
    late = make_task(person, prompt=WORD)  # its request was let in before the user was switched off
    retention.sweep_erasures()
    assert reload(late).gone_why == "deleted"
    assert tables_with(WORD) == set()
    assert erase_user.asked() == [person.pk]
    monkeypatch.setattr(erase_user, "LOOK_AGAIN_S", 0)
    assert erase_user.asked() == []


def test_a_second_run_changes_nothing(person: Any) -> None:
    for _ in range(2):
        erase_user.ask(person.pk, by=OLGA)
        assert erase_user.work(person.pk, for_s=60)
    assert get_user_model().objects.get(pk=person.pk).username == f"erased-{person.pk}"


def test_others_keep_what_is_theirs(person: Any, stranger: Any) -> None:
    task = saved(stranger)
    erase_user.ask(person.pk, by=OLGA)
    erase_user.work(person.pk, for_s=60)
    assert reload(task).prompt
    assert len(files(task)) == 2
    stranger.refresh_from_db()
    assert stranger.is_active


def test_the_last_superuser_stays(person: Any) -> None:
    (olga,) = get_user_model().objects.filter(is_superuser=True)
    with pytest.raises(ActionRefused) as caught:
        erase_user.ask(olga.pk, by=OLGA)
    assert caught.value.code == "last_superuser"


def test_the_security_log_has_it_without_the_name(person: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="reelworks.security"):
        erase_user.ask(person.pk, by=OLGA, address="192.0.2.1")
        erase_user.work(person.pk, for_s=60)
        erase_user.work(person.pk, for_s=60)
    said = [one.getMessage() for one in caplog.records if one.name == "reelworks.security"]
    assert [line.split()[0] for line in said] == ["erasure_asked", "user_erased"]
    assert all(f"erased={person.pk}" in line and 'by="operator olga"' in line for line in said)
    assert WORD not in caplog.text


class TestCommand:
    def run(self, *args: str) -> tuple[int, str]:
        out = io.StringIO()
        try:
            call_command("erase_user", *args, stdout=out, stderr=out)
        except SystemExit as stop:
            return int(str(stop.code)), out.getvalue()
        except CommandError as err:
            return err.returncode, str(err)
        return 0, out.getvalue()

    def test_it_erases_and_says_what(self, person: Any) -> None:
        name = person.username
        code, said = self.run(name, "--dry-run")
        assert code == 0
        assert "4 tasks, 3 of them under way" in said
        assert tables_with(WORD)
        code, said = self.run(name, "--yes", "--json")
        assert code == 0
        assert json.loads(said)["erased"] is True
        assert tables_with(WORD) == set()
        assert self.run(name, "--yes") == (2, f"There is no user {name!r}.")
        assert self.run(f"erased-{person.pk}", "--yes")[0] == 0

    def test_it_asks_for_the_name_first(self, person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("builtins.input", lambda _: "yes")
        assert self.run(person.username) == (2, "Nothing was erased.")
        person.refresh_from_db()
        assert person.is_active
        monkeypatch.setattr("builtins.input", lambda _: person.username)
        assert self.run(person.username)[0] == 0
        assert tables_with(WORD) == set()

    def test_what_is_left_is_exit_code_1(self, person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def down(*_: object) -> None:
            raise StorageDown("503")

        monkeypatch.setattr("media_pipeline.storage.base.MediaStorage.delete", down)
        assert self.run(person.username, "--yes")[0] == 1


class TestAdmin:
    def act(self, client: Client, user: Any, **more: str) -> Any:
        body = {"action": "erase", "_selected_action": [user.pk], **more}
        return client.post("/admin/auth/user/", body, follow=True)

    def test_it_asks_first_and_leaves_the_work_to_the_sweeper(self, person: Any, client: Client) -> None:
        page = self.act(client, person).content.decode()
        assert "Erase 1 user?" in page
        assert UserErasure.objects.count() == 0
        reply = self.act(client, person, confirmed="1")
        assert "a sweeper erases what is theirs" in reply.content.decode()
        person.refresh_from_db()
        assert not person.is_active
        assert retention.sweep_erasures() == 1
        assert tables_with(WORD) == set()
        assert client.get("/admin/video/usererasure/").status_code == 200

    def test_nobody_erases_themselves(self, person: Any, client: Client) -> None:
        (olga,) = get_user_model().objects.filter(is_superuser=True)
        assert "You can&#x27;t erase yourself." in self.act(client, olga, confirmed="1").content.decode()
        assert UserErasure.objects.count() == 0

    def test_who_may_not_delete_users_may_not_erase_them(self, person: Any, client_for: Any) -> None:
        client = Client()
        client.force_login(get_user_model().objects.create_user("staff", is_staff=True))
        assert client.post("/admin/auth/user/", {"action": "erase", "_selected_action": [person.pk]}).status_code == 403
        assert UserErasure.objects.count() == 0


def test_only_a_note_of_the_ledger_may_go(user: Any) -> None:
    ledger.grant(user.pk, 5, note="for a friend")
    ledger.forget_notes(user.pk)
    assert set(CreditEntry.objects.filter(account_id=user.pk).values_list("note", flat=True)) == {""}
    for change in ("amount = 6", "note = 'x'", "amount = 6, note = ''", "run = 1, note = ''"):
        with pytest.raises(ProgrammingError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE video_creditentry SET {change} WHERE account_id = %s", [user.pk])
    with pytest.raises(ProgrammingError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM video_creditentry WHERE account_id = %s", [user.pk])
