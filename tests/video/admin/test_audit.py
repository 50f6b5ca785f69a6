"""Who did what: one record of each act, in its transaction, with where from and why; and what is never in it."""

from __future__ import annotations

import csv
import io
import json
import re
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser, Group
from django.core.management import call_command
from django.db import Error, connection, transaction
from django.test import Client
from django.urls import reverse

from tests.factories import OLGA, admitted, make_task, make_user
from video.actions import cancel, retry
from video.actions.task_rows import ActionRefused
from video.audit import reading, records
from video.audit.actors import Unaudited, of_command
from video.models import Account, AuditRecord, ModelSetting, UserShare

pytestmark = pytest.mark.django_db
LIST = "/admin/video/auditrecord/"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("olga"))
    return client


def only(**more: Any) -> AuditRecord:
    return AuditRecord.objects.get(**more)


def test_no_page_and_no_command_goes_past_the_functions_that_record() -> None:
    raw = r"\b(api_keys\.(make|roll|end|end_all|change)|sessions\.(end|end_all)|second_factor\.reset|ledger\.grant"
    raw += r"|endpoints\.(change|resend|delete)|transitions\.cancel|log_change|log_addition)\("
    for folder in ("admin", "management"):
        for path in (ROOT / "video" / folder).rglob("*.py"):
            found = [one for one in re.finditer(raw, path.read_text()) if "def " not in one[0]]
            calls = [one[0] for one in found if path.read_text()[one.start() - 4 : one.start()] != "def "]
            assert not calls, (path, calls)


def test_what_is_refused_leaves_no_record_and_what_is_ones_own_none_either(user: AbstractBaseUser) -> None:
    task = make_task(user)
    with pytest.raises(ActionRefused):
        retry.retry(task.pk, by=OLGA)
    cancel.cancel(task.pk, by=Unaudited(user.get_username()))
    assert not AuditRecord.objects.exists()
    retry.retry(task.pk, by=OLGA.because("they asked"), free=True)
    row = only()
    assert (row.actor, row.via, row.source, row.action) == ("olga", "admin", "198.51.100.7", "retry")
    assert (row.kind, row.object_id, row.reason) == ("videotask", task.pk, "they asked")
    assert row.detail == "in line for a new attempt; run 2, 10 credits, granted for it"


class TestForms:
    def test_numbers_and_switches_are_told_and_texts_only_named(self, operator: Client, user: AbstractBaseUser) -> None:
        body = {"user": user.pk, "weight": "2", "note": "a secret of theirs", "reason": "a good customer"}
        operator.post("/admin/video/usershare/add/", body)
        operator.post(f"/admin/video/usershare/{user.pk}/change/", {**body, "weight": "5", "note": "", "reason": ""})
        assert UserShare.objects.get(pk=user.pk).weight == 5
        added, changed = AuditRecord.objects.order_by("id")
        assert (added.action, added.kind, added.object_id) == ("add", "usershare", str(user.pk))
        assert (added.reason, added.source) == ("a good customer", "127.0.0.1")
        assert changed.detail == "weight: 2 → 5, note"
        assert not LogEntry.objects.exists()

    def test_a_limit_in_the_list_of_accounts(self, operator: Client) -> None:
        account = admitted(make_task()).account
        body = {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": account.pk, "_save": "Save"}
        url = f"/admin/video/provideraccount/?model__exact={account.model}"
        assert operator.post(url, {**body, "form-0-slots_override": "4"}).status_code == 302
        assert (only().object_id, only().detail) == (str(account.pk), "slots_override: none → 4")

    def test_groups_and_a_password_of_a_user(self, operator: Client, user: AbstractBaseUser) -> None:
        url, viewer = f"/admin/auth/user/{user.pk}/", Group.objects.get(name="viewer")
        body = {"username": user.get_username(), "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
        operator.post(f"{url}change/", {**body, "is_staff": "on", "groups": [viewer.pk]})
        detail = only().detail
        assert "groups: none → viewer" in detail
        assert "is_staff: False → True" in detail
        assert "is_active: True → False" in detail
        password = "a-long-password-1"
        body = {"password1": password, "password2": password, "usable_password": "true"}
        operator.post(f"{url}password/", body)
        row = AuditRecord.objects.latest("id")
        assert (row.action, row.detail) == ("change", "password")
        assert password not in str(AuditRecord.objects.values_list())

    def test_deletions_one_and_many(self, operator: Client) -> None:
        ModelSetting.objects.bulk_create([ModelSetting(model="gen4.5"), ModelSetting(model="pika-2.2")])
        url = "/admin/video/modelsetting/"
        page = operator.get(reverse("admin:video_modelsetting_delete", args=[quote("gen4.5")])).content.decode()
        assert 'name="reason"' in page
        operator.post(f"{url}gen4.5/delete/", {"post": "yes", "reason": "old"})
        operator.post(url, {"action": "delete_selected", "_selected_action": ["pika-2.2"], "post": "yes"})
        assert not ModelSetting.objects.exists()
        assert list(AuditRecord.objects.order_by("id").values_list("action", "object_id", "reason")) == [
            ("delete", "gen4.5", "old"),
            ("delete", "pika-2.2", ""),
        ]


class TestList:
    def test_of_one_object_by_its_history_and_with_filters(self, operator: Client) -> None:
        mine, other = make_task(), make_task()
        for task in (mine, other):
            cancel.cancel(task.pk, by=OLGA)
        url = f"/admin/video/videotask/{mine.pk.replace('_', '_5F')}/history/"
        page = operator.get(url, follow=True)
        assert page.redirect_chain[0][0].startswith(LIST)
        assert [row.object_id for row in page.context["cl"].result_list] == [mine.pk]
        for query, number in (
            ("actor=olga", 2),
            ("actor=x", 0),
            ("action=cancel&via__exact=admin", 2),
            ("kind=user", 0),
        ):
            assert operator.get(f"{LIST}?{query}").context["cl"].result_count == number, query
        assert operator.get(f"{LIST}?q={other.pk}").context["cl"].result_count == 1
        assert "Download" in operator.get(LIST).content.decode()

    def test_as_csv_no_cell_is_a_formula(self, operator: Client) -> None:
        records.record(OLGA.because("=HYPERLINK(1)"), "cancel", "videotask", "task_1", detail="fine")
        records.record(OLGA, "drain", "providerkey", "5", reason='+1, "x"')
        reply = operator.get(f"{LIST}csv/?actor=olga")
        assert "attachment" in reply["Content-Disposition"]
        rows = list(csv.DictReader(io.StringIO(reply.content.decode())))
        assert [row["reason"] for row in rows] == ['\'+1, "x"', "'=HYPERLINK(1)"]
        assert [row["detail"] for row in rows] == ["", "fine"]
        assert operator.get(f"{LIST}csv/?action=drain").content.decode().count("\r\n") == 2
        assert operator.get(f"{LIST}csv/?nonsense__x=1").status_code == 400

    def test_the_values_of_a_filter_are_read_from_the_index(self) -> None:
        for action in ("b", "a", "b", "c"):
            records.record(OLGA, action, "system")
        assert reading.values_of("action") == ["a", "b", "c"]
        assert reading.values_of("kind") == ["system"]

    def test_the_command_lists_what_commands_did(self, user: AbstractBaseUser) -> None:
        call_command("grant_credits", user.get_username(), "5", reason="a gift", stdout=StringIO())
        out = StringIO()
        call_command("audit", "--since", "1h", "--action", "grant", "--json", stdout=out)
        (found,) = json.loads(out.getvalue())["records"]
        me = of_command()
        assert (found["actor"], found["via"], found["source"]) == (me.name, "command", me.source)
        assert (found["kind"], found["objectId"], found["reason"]) == ("account", str(user.pk), "a gift")
        out = StringIO()
        call_command("audit", "--object", str(user.pk), stdout=out)
        assert "5 credits" in out.getvalue()
        out = StringIO()
        call_command("audit", "--actor", "nobody", stdout=out)
        assert out.getvalue() == "0 records.\n"


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM video_auditrecord",
        "UPDATE video_auditrecord SET reason = ''",
        "SELECT set_config('reelworks.erases_user', '5', true); UPDATE video_auditrecord SET reason = 'other'",
        "SELECT set_config('reelworks.erases_user', '5', true); UPDATE video_auditrecord SET actor = 'erased-5'",
        "SELECT set_config('reelworks.erases_user', '5', true); UPDATE video_auditrecord SET action = ''",
        "SELECT set_config('reelworks.erases_user', '5', true); DELETE FROM video_auditrecord",
    ],
)
def test_nothing_of_it_is_changed_or_deleted(change: str) -> None:
    records.record(OLGA.because("why"), "cancel", "videotask", "task_1")
    with pytest.raises(Error, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change)


def test_what_djangos_log_had_is_taken_over(user: AbstractBaseUser) -> None:
    LogEntry.objects.log_actions(user.pk, [ModelSetting(model="gen4.5")], CHANGE, "Closed", single_object=True)
    account = Account.objects.get(pk=user.pk)
    LogEntry.objects.log_actions(user.pk, [account], ADDITION, "Granted 5. For ann", single_object=True)
    with connection.cursor() as cursor:
        cursor.execute(import_module("video.migrations.0045_roles").FORMER_LOG)
    found = AuditRecord.objects.order_by("id").values_list("actor", "via", "action", "kind", "object_id", "detail")
    assert list(found) == [
        (user.get_username(), "admin", "change", "modelsetting", "gen4.5", "Closed"),
        (user.get_username(), "admin", "add", "account", str(user.pk), ""),
    ]


def test_a_role_is_given_with_a_new_user() -> None:
    call_command("create_user", "nora", "--generate", "--role", "operator", stdout=StringIO())
    nora = get_user_model().objects.get(username="nora")
    assert nora.is_staff
    assert nora.has_perm("video.change_videotask")
    assert not nora.has_perm("video.add_creditentry")
    assert only(kind="user").detail == "0 credits, role operator"
    assert make_user().groups.count() == 0  # type: ignore[attr-defined]
