"""The failures by cause, the list of tasks by filter and by key, and what is done to all that match."""

from __future__ import annotations

import html
import json
import re
import threading
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.factories import accepted, claimed, make_task, make_user, reload
from video.actions import jobs
from video.admin.tasks import VideoTaskAdmin
from video.attempts import configured_keys, records, task_moves
from video.audit.actors import of_command
from video.credits import ledger
from video.models import AuditRecord, Circuit, Generation, OperatorJob, ProviderAccount, ProviderKey, Stage, VideoTask
from video.monitoring import failures
from video.processes import operator_jobs

pytestmark = pytest.mark.django_db
LIST = "/admin/video/videotask/"
PAGE = "/admin/failures/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("olga"))
    return client


def staff(*permissions: str) -> Client:
    user = make_user(0, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))  # type: ignore[attr-defined]
    client = Client()
    client.force_login(user)
    return client


def failed(user: Any = None, code: str = "generation_failed", hours_ago: float = 0, **more: Any) -> VideoTask:
    task = make_task(user, **more)
    generation = accepted(task, f"job-of-{task.pk}")
    claim = claimed(task, Stage.POLL)
    records.record_ended(generation.pk, Generation.State.FAILED, code=code, message=f"It failed: {code}.")
    assert task_moves.fail(claim, code=code, message=f"It failed: {code}.")
    then = Now() - timedelta(hours=hours_ago)
    VideoTask.objects.filter(pk=task.pk).update(finished_at=then)
    Generation.objects.filter(pk=generation.pk).update(ended_at=then)
    return reload(task)


def open_circuit() -> None:
    faults = {"faults": 5, "fault_users": [1, 2], "open_until": Now() + timedelta(hours=1)}
    Circuit.objects.update_or_create(model="gen4.5", defaults={"provider": "runway", **faults})


def text(reply: Any) -> str:
    assert reply.status_code == 200, reply.status_code
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", reply.content.decode())))


def shown(client: Client, query: str = "") -> list[str]:
    """The tasks of a page of the list, in its order."""
    reply = client.get(f"{LIST}{query}")
    assert reply.status_code == 200
    return [task.pk for task in reply.context["cl"].result_list]


def command(*args: str) -> Any:
    out = StringIO()
    call_command(*args, "--json", stdout=out)
    return json.loads(out.getvalue())


class TestFailures:
    def test_page_and_command_say_the_same_by_cause_and_time(self, operator: Client) -> None:
        for hours_ago in (0, 0, 5, 30):
            failed(code="moderation", hours_ago=hours_ago)
        failed(code="timeout", hours_ago=30)
        failed(hours_ago=24 * 8)
        found = failures.read()
        assert (found.failed, found.ended) == ((2, 3, 5), (2, 3, 5))
        first = found.tasks[0]
        assert (first.code, first.provider, first.model, first.counts) == ("moderation", "runway", "gen4.5", (2, 3, 4))
        assert [round(share or 0, 2) for share in first.shares] == [1, 1, 0.8]
        assert "has to change them" in first.warning
        assert [one.code for one in found.attempts] == ["moderation", "timeout"]
        told = command("failures")
        assert told["byCause"][0]["number"] == {"lastHour": 2, "last24Hours": 3, "last7Days": 4}
        assert told["byCause"][0]["share"]["last7Days"] == 0.8
        with CaptureQueriesContext(connection) as queries:
            page = operator.get(f"{PAGE}?in=7d")
        assert "5 of 5 tasks that ended in the last 7 days failed." in text(page)
        assert sum('FROM "video' in one["sql"] or "FROM video" in one["sql"] for one in queries) <= 5
        url = html.unescape(re.findall(r'href="([^"]*all/retry[^"]*)"', page.content.decode())[0])
        assert url == f"{LIST}all/retry/?error=moderation&provider=runway&model=gen4.5&ended=7d"
        assert "Retry 4 tasks" in text(operator.get(url))
        out = StringIO()
        call_command("failures", stdout=out)
        assert "moderation" in out.getvalue()

    def test_an_attempt_after_which_the_task_went_on_counts_as_an_attempt_alone(self) -> None:
        task = make_task()
        generation = accepted(task)
        records.record_ended(generation.pk, Generation.State.FAILED, code="provider_error", message="No.")
        found = failures.read()
        assert found.tasks == []
        assert [(one.code, one.counts, one.of) for one in found.attempts] == [("provider_error", (1, 1, 1), (1, 1, 1))]

    def test_who_may_only_look_sees_the_button_with_the_reason(self) -> None:
        failed()
        page = staff("view_videotask", "view_generation").get(PAGE).content.decode()
        assert 'disabled title="You need the permission to change tasks."' in page
        assert staff("view_videotask").get(PAGE).status_code == 403


class TestList:
    def test_filters_stand_in_the_address_and_combine(self, operator: Client) -> None:
        ann = make_user()
        one, two = failed(ann, "timeout"), failed(ann, "moderation", hours_ago=5)
        three, waiting = failed(code="timeout"), make_task(ann)
        name = ann.get_username()
        assert shown(operator, "?error=timeout") == [three.pk, one.pk]
        assert shown(operator, f"?error=timeout&user={name}") == [one.pk]
        assert shown(operator, f"?user={name}&ended=1h") == [one.pk]
        assert shown(operator, f"?user={name}&provider=runway") == [two.pk, one.pk]
        assert shown(operator, f"?user={name}&model=gen4.5&status__exact=failed&q=cat") == [two.pk, one.pk]
        assert shown(operator, "?model=pika-2.2") == []
        assert shown(operator, f"?user={name}&stands=waiting") == [waiting.pk]
        assert shown(operator, "?in_stage=1h") == []
        with connection.cursor() as cursor:
            cursor.execute("UPDATE video_taskevent SET finished_at = now() - interval '2 hours'")
        assert shown(operator, "?in_stage=1h&stage__exact=generate") == [waiting.pk]
        assert shown(operator, "?ended_after=2020-01-01T00:00&ended_before=2020-02-01T00:00") == []
        page = operator.get(f"{LIST}?error=timeout&ended=24h")
        assert "Failed with timeout, ended in the last 24 hours." in text(page)
        assert 'value="timeout"' in page.content.decode()
        assert '<option value="timeout">' in page.content.decode()

    @pytest.mark.parametrize(
        "query", ["ended=3y", "user=nobody", "ended_after=soon", "created_at__lt=0001-01-01T00:00%2B14:00"]
    )
    def test_a_filter_that_means_nothing_is_no_error(self, operator: Client, query: str) -> None:
        assert operator.get(f"{LIST}?{query}").status_code == 302
        assert operator.get(f"{LIST}all/retry/?{query}").status_code == 302

    def test_pages_begin_where_the_last_one_ended_and_nothing_is_counted(
        self, operator: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(VideoTaskAdmin, "list_per_page", 2)
        ids = [make_task().pk for _ in range(5)][::-1]
        with CaptureQueriesContext(connection) as queries:
            first = operator.get(f"{LIST}?status__exact=pending")
        assert not [
            one for one in queries if one["sql"].upper().startswith("SELECT COUNT(") and "videotask" in one["sql"]
        ]
        pages, place = [], first.context["cl"]
        while True:
            pages.append([task.pk for task in place.result_list])
            if not place.next_page:
                break
            assert "status__exact=pending" in place.next_page
            place = operator.get(LIST + place.next_page).context["cl"]
        assert pages == [ids[:2], ids[2:4], ids[4:]]
        back = operator.get(LIST + place.previous_page).context["cl"]
        assert [task.pk for task in back.result_list] == ids[2:4]
        front = operator.get(LIST + back.previous_page).context["cl"]
        assert ([task.pk for task in front.result_list], front.previous_page) == (ids[:2], "")
        oldest = operator.get(f"{LIST}?o=1").context["cl"]
        assert [task.pk for task in oldest.result_list] == ids[:2:-1]
        following = operator.get(LIST + oldest.next_page).context["cl"]
        assert [task.pk for task in following.result_list] == [ids[2], ids[1]]


class TestAllThatMatch:
    def test_a_retry_shows_its_sums_and_causes_first_and_then_is_a_job(self, operator: Client) -> None:
        poor, rich = make_user(10), make_user()
        tasks = [failed(poor), failed(rich, "moderation"), failed(rich)]
        ledger.debit(poor.pk, 10, task_id=tasks[0].pk, run=99)
        url = f"{LIST}all/retry/?ended=24h"
        page = text(operator.get(url))
        assert "3 tasks that failed match: ended in the last 24 hours" in page
        assert "can be retried 2 of 3" in page
        assert "credits 20 debited from the users" in page
        assert "$" in page
        assert "known to fail again 1" in page
        assert "its user is short of credits: 10 credits are needed, the account holds 0" in page
        free = text(operator.post(url, {"free": "on"}))
        assert "can be retried 3 of 3" in free
        assert "credits 30 granted for it" in free
        assert OperatorJob.objects.count() == 0
        reply = operator.post(url, {"confirmed": "1", "free": "on", "reason": "runway was down"})
        job = OperatorJob.objects.get()
        assert reply["Location"] == f"/admin/video/operatorjob/{job.pk}/change/"
        assert (job.asked_by, job.reason, job.arguments["free"]) == ("olga", "runway was down", True)
        waiting = operator.get(reply["Location"])
        assert "data-follow" in waiting.content.decode()
        again = operator.post(url, {"confirmed": "1", "free": "on"}, follow=True)
        assert "The same was asked for already" in text(again)
        assert operator_jobs.work(threading.Event())
        assert [reload(task).run for task in tasks] == [2, 2, 2]
        done = operator.get(reply["Location"])
        assert "3 of 3 done. 3 tasks retried." in text(done)
        assert "runway was down" in text(done)
        assert "data-follow" not in done.content.decode()
        assert command("jobs")["jobs"][0]["summary"] == "3 tasks retried."
        assert len(command("jobs", str(job.pk))["jobs"][0]["results"]) == 3

    def test_a_cancel_of_all_and_its_stop(self, operator: Client) -> None:
        make_task()
        url = f"{LIST}all/cancel/?stands=waiting"
        assert "1 task under way matches: waits for a slot" in text(operator.get(url))
        operator.post(url, {"confirmed": "1"})
        job = OperatorJob.objects.get()
        page = operator.post(f"/admin/video/operatorjob/{job.pk}/stop/", {"reason": "a slip"}, follow=True)
        assert "Stopped by olga." in text(page)
        record = AuditRecord.objects.get(action="stop")
        assert (record.object_id, record.reason) == (str(job.pk), "a slip")
        with pytest.raises(CommandError, match="ended already"):
            call_command("jobs", str(job.pk), "--stop")

    def test_each_needs_its_permission(self) -> None:
        job, _ = jobs.ask(OperatorJob.Kind.CHECK_LEDGER, {}, by=of_command())
        viewer = staff("view_videotask", "view_operatorjob")
        assert viewer.get(f"{LIST}all/retry/").status_code == 403
        assert viewer.post(f"/admin/video/operatorjob/{job.pk}/stop/").status_code == 403
        assert viewer.get(f"/admin/video/operatorjob/{job.pk}/change/").status_code == 200
        assert "Stop this job" not in text(viewer.get(f"/admin/video/operatorjob/{job.pk}/change/"))
        plain = staff("view_videotask", "change_videotask")
        failed()
        assert "granted first" not in text(plain.get(f"{LIST}all/retry/"))
        plain.post(f"{LIST}all/retry/", {"confirmed": "1", "free": "on"})
        assert OperatorJob.objects.get(kind="retry").arguments["free"] is False


class TestRemedies:
    def press(self, client: Client, name: str, target: str = "", **more: str) -> Any:
        return client.post("/admin/remedies/", {"name": name, "object": target, **more})

    def test_a_card_has_its_buttons_and_they_do_it(self, operator: Client) -> None:
        configured_keys.sync()
        key = ProviderKey.objects.filter(provider="runway").first() or pytest.fail("no key")
        ProviderKey.objects.filter(pk=key.pk).update(state="quarantined", refusals=5)
        Circuit.objects.update_or_create(
            model="gen4.5",
            defaults={
                "provider": "runway",
                "faults": 5,
                "fault_users": [1, 2],
                "open_until": Now() + timedelta(hours=1),
            },
        )
        account = ProviderAccount.objects.filter(provider="pika").first() or pytest.fail("no account")
        ProviderAccount.objects.filter(pk=account.pk).update(closed_reason="out_of_credits", refusals=3)
        page = operator.get("/admin/queues/").content.decode()
        for label in ("Check this key now", "Activate", "Close the circuit", "Check its keys now", "Open again"):
            assert f'<button class="rw-button" type="submit">{label}</button>' in page
        name = f"{key.provider}|{key.fingerprint}"
        reply = self.press(operator, "activate_key", name, reason="it was put right", next="/admin/failures/?in=1h")
        assert reply["Location"] == "/admin/failures/?in=1h"
        key.refresh_from_db()
        assert (key.state, key.refusals) == ("active", 1)  # one job tries it first
        record = AuditRecord.objects.get(action="activate")
        assert (record.actor, record.kind, record.object_id, record.reason) == (
            "olga",
            "providerkey",
            str(key.pk),
            "it was put right",
        )
        assert (
            self.press(operator, "close_circuit", "gen4.5", next="https://evil.example/")["Location"]
            == "/admin/queues/"
        )
        assert Circuit.objects.get(pk="gen4.5").open_until is None
        self.press(operator, "open_account", f"{account.provider}|{account.account}")
        account.refresh_from_db()
        assert account.closed_reason == ""
        self.press(operator, "drain_key", name)
        key.refresh_from_db()
        assert key.state == "draining"
        reply = self.press(operator, "check_key", name)
        job = OperatorJob.objects.get()
        assert job.arguments == {"provider": key.provider, "fingerprint": key.fingerprint, "account": ""}
        assert reply["Location"].endswith(f"/operatorjob/{job.pk}/change/")

    def test_tasks_of_users_who_are_off_are_cancelled_after_a_preview(self, operator: Client) -> None:
        task = make_task()
        get_user_model().objects.filter(pk=task.user_id).update(is_active=False)
        page = operator.get("/admin/queues/").content.decode()
        assert f'href="{LIST}all/cancel/?stands=off">Cancel them …</a>' in page
        assert "1 task under way matches: its user is switched off" in text(
            operator.get(f"{LIST}all/cancel/?stands=off")
        )
        viewer = staff("view_videotask", "view_provideraccount")
        assert "Cancel them" not in viewer.get("/admin/queues/").content.decode()

    def test_the_page_of_jobs_asks_for_the_long_ones_and_deletes_only_after_a_look(self, operator: Client) -> None:
        page = operator.get("/admin/video/operatorjob/").content.decode()
        for name in ("check_ledger", "look_at_storage", "reconcile", "check_keys"):
            assert f'name="name" value="{name}"' in page
            assert self.press(operator, name).status_code == 302
        assert OperatorJob.objects.count() == 4
        look = OperatorJob.objects.get(kind="cleanup_storage")
        assert look.arguments == {"dryRun": True}
        clean = f"/admin/video/operatorjob/{look.pk}/delete-found/"
        assert "Look first" in text(operator.post(clean, follow=True))
        OperatorJob.objects.filter(pk=look.pk).update(state="done", done=1, started_at=Now(), ended_at=Now())
        assert "Delete what was found" in text(operator.get(f"/admin/video/operatorjob/{look.pk}/change/"))
        operator.post(clean)
        assert OperatorJob.objects.get(arguments__dryRun=False).arguments == {"dryRun": False, "look": look.pk}

    def test_who_may_not_sees_why_and_is_refused(self, operator: Client) -> None:
        make_task()
        Circuit.objects.update_or_create(
            model="gen4.5",
            defaults={
                "provider": "runway",
                "faults": 5,
                "fault_users": [1, 2],
                "open_until": Now() + timedelta(hours=1),
            },
        )
        viewer = staff("view_videotask", "view_provideraccount")
        page = viewer.get("/admin/queues/").content.decode()
        assert 'disabled title="Your account lacks the permission video.change_circuit."' in page
        assert self.press(viewer, "close_circuit", "gen4.5").status_code == 403
        assert self.press(operator, "nothing").status_code == 400
        assert operator.get("/admin/remedies/").status_code == 405
        csrf = Client(enforce_csrf_checks=True)
        csrf.force_login(get_user_model().objects.get(username="olga"))
        assert self.press(csrf, "reconcile").status_code == 403
