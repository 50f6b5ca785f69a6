"""A person follows a task in the admin, and can break nothing there."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tests.factories import accepted, admitted, age, claimed, make_task, make_user, park_one, reload
from video.admin import timeline
from video.admin.read_only import BoundedPaginator, short
from video.attempts import records, task_moves
from video.engine import transitions
from video.infra.durations import span
from video.models import (
    Account,
    AuditRecord,
    CreditEntry,
    Generation,
    ProviderAccount,
    Stage,
    Status,
    UserShare,
    VideoTask,
)

pytestmark = pytest.mark.django_db
LIST = "/admin/video/videotask/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("operator"))
    return client


def page_of(pk: str) -> str:
    return f"{LIST}{pk.replace('_', '_5F')}/change/"


def text(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200, (answer.status_code, answer.headers.get("Location"))
    return answer.content.decode()


def finished() -> VideoTask:
    """A task with a stored video, made by the moves of the state machine."""
    task = make_task(prompt="Gulls over the sea")
    generation = accepted(task)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED, provider_status="SUCCEEDED")
    for stage, to in (
        (Stage.POLL, Stage.DOWNLOAD),
        (Stage.DOWNLOAD, Stage.TRANSCODE),
        (Stage.TRANSCODE, Stage.THUMBNAIL),
    ):
        assert transitions.advance(claimed(task, stage), to, generation_id=generation.pk)
    assert transitions.advance(claimed(task, Stage.THUMBNAIL), Stage.SAVE, video_width_px=1280, video_height_px=720)
    assert transitions.succeed(
        claimed(task, Stage.SAVE),
        generation_id=generation.pk,
        video_id="vid_1",
        output_key=f"{task.user_id}/videos/vid_1.mp4",
        thumbnail_key=f"{task.user_id}/videos/vid_1_thumb.jpg",
    )
    return reload(task)


class TestList:
    def test_shows_where_each_task_stands(self, operator: Client) -> None:
        task = make_task(prompt="A paper boat")
        accepted(task)
        page = text(operator, LIST)
        assert short(task.pk) in page
        assert "A paper boat" in page
        assert "gen4.5" in page
        assert "simulated" in page
        assert task.user.username in page

    def test_needs_as_many_queries_for_many_as_for_one(
        self, operator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        for number in range(6):
            accepted(make_task(prompt=f"Cat {number}"), job_id=f"job-{number}")
        with django_assert_max_num_queries(6) as captured:
            text(operator, LIST)
        few = len(captured.captured_queries)
        for number in range(6, 12):
            accepted(make_task(prompt=f"Cat {number}"), job_id=f"job-{number}")
        with django_assert_max_num_queries(few):
            text(operator, LIST)

    def test_newest_first(self, operator: Client) -> None:
        first, second = make_task(prompt="The first"), make_task(prompt="The second")
        page = text(operator, LIST)
        assert page.index(short(second.pk)) < page.index(short(first.pk))

    @pytest.mark.parametrize("how", ["id", "tail", "user", "prompt", "job", "generation"])
    def test_finds_by(self, operator: Client, how: str) -> None:
        task, other = make_task(prompt="A zebra at night"), make_task(prompt="Something else")
        generation = accepted(task, job_id="17f20503-job")
        term = {
            "id": task.pk,
            "tail": task.pk[-8:],
            "user": task.user.username,
            "prompt": "zebra",
            "job": "17f20503-job",
            "generation": generation.pk,
        }[how]
        page = text(operator, f"{LIST}?q={term}")
        assert short(task.pk) in page
        assert short(other.pk) not in page

    def test_filters_by_status(self, operator: Client) -> None:
        done, waiting = finished(), make_task(prompt="Still waiting")
        page = text(operator, f"{LIST}?status__exact=success")
        assert short(done.pk) in page
        assert short(waiting.pk) not in page

    def test_counts_no_further_than_it_must(self) -> None:
        make_task(), make_task()
        paginator = BoundedPaginator(VideoTask.objects.order_by("-id"), 50)
        assert paginator.count == 2
        assert str(paginator.object_list.order_by().values("pk")[:10_000].query).endswith("LIMIT 10000")


class TestTaskPage:
    def test_of_a_finished_task_has_signed_links_and_says_that_it_is_simulated(self, operator: Client) -> None:
        task = finished()
        page = text(operator, page_of(task.pk))
        assert f'src="/storage/{task.output_key}?expires=' in page
        assert f"/storage/{task.thumbnail_key}?expires=" in page
        assert '<span class="rw-sim">simulated</span>' in page
        assert "The video is stored." in page

    @pytest.mark.parametrize("why", VideoTask.GoneWhy.values)
    def test_of_a_video_that_is_gone_says_so_first(self, operator: Client, why: str) -> None:
        task = finished()
        held = {"prompt": "", "output_key": "", "thumbnail_key": "", "has_work_files": False}
        VideoTask.objects.filter(pk=task.pk).update(gone_why=why, gone_at=timezone.now(), **held)
        page, label = text(operator, page_of(task.pk)), VideoTask.GoneWhy(why).label
        assert f"The video was stored, and is gone: {label}." in page
        assert "is stored" not in page
        assert f"gone: {label}" in text(operator, LIST)

    def test_a_time_to_live_has_its_unit(self, operator: Client) -> None:
        task = make_task(expires_in_s=3600)
        assert "<dt>Deleted after</dt><dd>1 h 00 min from the success on</dd>" in text(operator, page_of(task.pk))

    def test_tells_the_whole_story(self, operator: Client) -> None:
        task = finished()
        page = text(operator, page_of(task.pk))
        for word in ("created", "admitted", "download", "thumbnail", "succeeded", "job-1", "debit", "gen4.5"):
            assert word in page, word
        assert "simulator" in page  # what its key is called

    def test_of_a_failed_task_gives_the_cause_and_the_refund(self, operator: Client) -> None:
        task = make_task()
        admitted(task)
        task_moves.fail(
            claimed(task), code="moderation", message="The provider refused this prompt.", detail="SAFETY.INPUT"
        )
        page = text(operator, page_of(task.pk))
        assert "The provider refused this prompt." in page
        assert "SAFETY.INPUT" in page
        assert "The credits of this run were given back." in page

    def test_needs_few_queries_however_long_the_story(
        self, operator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        task = finished()
        with django_assert_max_num_queries(15):
            text(operator, page_of(task.pk))

    def test_prompt_is_escaped(self, operator: Client) -> None:
        task = make_task(prompt="<script>alert(1)</script>")
        assert "<script>alert(1)" not in text(operator, page_of(task.pk))
        assert "<script>alert(1)" not in text(operator, LIST)

    def test_of_an_unknown_task_leads_back(self, operator: Client) -> None:
        assert operator.get(page_of("task_0")).status_code == 302


class TestWords:
    def test_a_fresh_unknown_is_being_sent_and_an_old_one_is_unknown(self, settings: Any) -> None:
        task = make_task()
        generation = admitted(task)
        records.mark_sent(claimed(task), generation)
        generation.refresh_from_db()
        assert timeline.state_of(generation, timezone.now()) == ("sending", "sending")
        later = timezone.now() + timedelta(seconds=settings.SUBMIT_TIMEOUT_SECONDS + 11)
        assert timeline.state_of(generation, later) == ("unknown", "outcome unknown")

    def test_what_a_task_waits_for(self) -> None:
        def said(later_s: float = 0) -> str:
            return timeline.waits_for(reload(task), timezone.now() + timedelta(seconds=later_s))

        task = make_task()
        assert said().startswith("a free slot")
        admitted(task)
        assert said() == "a worker"
        assert "do workers run?" in said(later_s=60)
        claim = claimed(task)
        assert said().startswith("in work at")
        assert "silent" in said(later_s=60)
        park_one(claim, delay_s=50, reason="runway: throttled")
        assert said().startswith("runway: throttled; next look in")
        age(task.pk, 60)
        task_moves.fail(claimed(task), code="x", message="y")
        assert said() == ""

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [
            (0.42, "0.42 s"),
            (3.14, "3.1 s"),
            (59.4, "59 s"),
            (185, "3 min 05 s"),
            (7800, "2 h 10 min"),
            (356400, "4 d 3 h"),
        ],
    )
    def test_spans(self, seconds: float, said: str) -> None:
        assert span(seconds) == said


class TestReadOnly:
    @pytest.mark.parametrize("kind", ["videotask", "generation", "taskevent", "account", "creditentry"])
    def test_nothing_can_be_added(self, operator: Client, kind: str) -> None:
        assert operator.get(f"/admin/video/{kind}/add/").status_code == 403

    def test_a_task_can_be_neither_edited_nor_deleted(self, operator: Client) -> None:
        task = make_task()
        assert operator.post(page_of(task.pk), {"status": "success"}).status_code == 403
        assert operator.post(page_of(task.pk).replace("change", "delete"), {"post": "yes"}).status_code == 403
        operator.post(LIST, {"action": "delete_selected", "_selected_action": [task.pk], "post": "yes"})
        assert reload(task).status == Status.PENDING

    def test_a_balance_cannot_be_edited(self, operator: Client) -> None:
        user = make_user(100)
        assert operator.post(f"/admin/video/account/{user.pk}/change/", {"balance": 9999}).status_code == 403
        assert Account.objects.get(pk=user.pk).balance == 100

    @pytest.mark.parametrize(
        "kind", ["videotask", "generation", "taskevent", "provideraccount", "account", "creditentry"]
    )
    def test_every_list_opens(self, operator: Client, kind: str) -> None:
        accepted(make_task())
        assert "Simulation." in text(
            operator, f"/admin/video/{kind}/?q=" if kind != "provideraccount" else f"/admin/video/{kind}/"
        )

    def test_generation_and_event_pages_open(self, operator: Client) -> None:
        task = make_task()
        generation = accepted(task)
        text(operator, f"/admin/video/generation/{generation.pk.replace('_', '_5F')}/change/")
        text(operator, f"/admin/video/taskevent/{task.events.first().pk}/change/")

    def test_staff_without_permission_see_nothing(self, client: Client) -> None:
        client.force_login(make_user(is_staff=True))
        assert client.get(LIST).status_code == 403

    def test_staff_who_may_view_see_tasks(self, client: Client) -> None:
        viewer = make_user(is_staff=True)
        viewer.user_permissions.add(Permission.objects.get(codename="view_videotask"))
        client.force_login(viewer)
        assert short(make_task().pk) in text(client, LIST)
        assert client.get("/admin/video/account/grant/").status_code == 403


class TestBanner:
    @pytest.mark.parametrize("url", ["/admin/", LIST, "/admin/auth/user/", "/admin/video/account/grant/"])
    def test_is_on_every_page_while_simulating(self, operator: Client, url: str) -> None:
        assert "rw-banner" in text(operator, url).partition("</head>")[2]

    def test_is_on_the_login_page(self, client: Client) -> None:
        assert "Simulation." in text(client, "/admin/login/")

    def test_is_gone_with_real_providers(self, operator: Client, settings: Any) -> None:
        settings.SIMULATE = False
        assert "Simulation." not in text(operator, "/admin/")


class TestProviderAccounts:
    URL = "/admin/video/provideraccount/"

    @pytest.fixture
    def account(self) -> ProviderAccount:
        return admitted(make_task()).account

    def test_the_operators_limit_is_all_that_can_be_changed(self, operator: Client, account: ProviderAccount) -> None:
        was = (account.slots, account.model)
        answer = operator.post(
            f"{self.URL}{account.pk}/change/", {"slots_override": 7, "slots": 5, "closed_reason": "x", "model": "other"}
        )
        assert answer.status_code == 302
        account.refresh_from_db()
        assert (account.slots_override, account.closed_reason) == (7, "")
        assert (account.slots, account.model) == was

    def test_a_closing_that_came_while_the_form_was_open_stays(self, account: ProviderAccount) -> None:
        stale = ProviderAccount.objects.get(pk=account.pk)
        ProviderAccount.objects.filter(pk=account.pk).update(closed_reason="key_refused")
        stale.slots_override = 3
        from django.contrib import admin

        admin.site.get_model_admin(ProviderAccount).save_model(None, stale, None, True)
        account.refresh_from_db()
        assert (account.slots_override, account.closed_reason) == (3, "key_refused")

    def test_open_again(self, operator: Client, account: ProviderAccount) -> None:
        ProviderAccount.objects.filter(pk=account.pk).update(
            closed_reason="out_of_credits", cooldown_until=timezone.now() + timedelta(hours=1)
        )
        assert "closed: out of credits" in text(operator, self.URL)
        operator.post(self.URL, {"action": "open_again", "_selected_action": [account.pk]})
        account.refresh_from_db()
        assert (account.closed_reason, account.cooldown_until) == ("", None)
        assert AuditRecord.objects.get(object_id=str(account.pk)).action == "open"

    def test_shows_slots_in_use(self, operator: Client, account: ProviderAccount) -> None:
        assert f"1 of {account.slots}" in text(operator, self.URL)


class TestGrant:
    URL = "/admin/video/account/grant/"

    def test_opens_an_account_and_names_the_giver(self, operator: Client) -> None:
        user = make_user(0)
        answer = operator.post(self.URL, {"users": user.username, "amount": 50, "note": "for the trial"}, follow=True)
        assert "got 50 credits and holds 50 now" in answer.content.decode()
        entry = CreditEntry.objects.get(account_id=user.pk)
        assert (entry.kind, entry.amount, entry.note) == ("grant", 50, "for the trial (by operator)")

    def test_one_wrong_name_gives_nobody_anything(self, operator: Client) -> None:
        user = make_user(0)
        page = operator.post(self.URL, {"users": f"{user.username}, nobody-here", "amount": 5}).content.decode()
        assert "No such user: nobody-here." in page
        assert not CreditEntry.objects.filter(account_id=user.pk).exists()

    @pytest.mark.parametrize("amount", ["0", "-5", "ten", ""])
    def test_refuses_what_is_no_positive_number(self, operator: Client, amount: str) -> None:
        user = make_user(0)
        assert operator.post(self.URL, {"users": user.username, "amount": amount}).status_code == 200
        assert not CreditEntry.objects.filter(account_id=user.pk).exists()

    def test_action_fills_in_the_names(self, operator: Client) -> None:
        user = make_user(5)
        answer = operator.post(
            "/admin/video/account/", {"action": "grant_to_selected", "_selected_action": [user.pk]}, follow=True
        )
        assert f'value="{user.username}"' in answer.content.decode()

    def test_account_page_shows_balance_ledger_and_whether_they_agree(self, operator: Client) -> None:
        task = make_task()
        page = text(operator, f"/admin/video/account/{task.user_id}/change/")
        assert "990" in page
        assert task.pk in page
        assert "add up to the balance" in page
        Account.objects.filter(pk=task.user_id).update(balance=123)
        assert "Something wrote past the ledger" in text(operator, f"/admin/video/account/{task.user_id}/change/")


class TestPriority:
    def post(self, client: Client, tasks: list[VideoTask], priority: str) -> Any:
        body = {"action": "set_priority", "_selected_action": [task.pk for task in tasks], "priority": priority}
        return client.post(LIST, body, follow=True)

    def test_sets_those_that_wait_and_leaves_what_has_ended(self, operator: Client) -> None:
        waits, ended = make_task(), make_task()
        transitions.fail_waiting(ended, code="no_capacity", message="No room.")
        page = self.post(operator, [waits, ended], "7").content.decode()
        assert "1 changed. 1 had ended" in page
        assert (reload(waits).priority, reload(ended).priority) == (7, 0)
        assert AuditRecord.objects.get().object_id == waits.pk

    @pytest.mark.parametrize("priority", ["", "101", "high"])
    def test_a_priority_that_can_not_be_is_refused(self, operator: Client, priority: str) -> None:
        task = make_task()
        assert "Nothing was changed" in self.post(operator, [task], priority).content.decode()
        assert reload(task).priority == 0

    @pytest.mark.parametrize(("permission", "expected"), [("view_videotask", 0), ("change_videotask", 7)])
    def test_needs_the_permission_to_change_tasks(self, client: Client, permission: str, expected: int) -> None:
        staff = make_user(is_staff=True)
        staff.user_permissions.add(Permission.objects.get(codename=permission))
        client.force_login(staff)
        task = make_task()
        self.post(client, [task], "7")
        assert reload(task).priority == expected


class TestShares:
    def test_a_user_gets_a_weight_and_a_limit(self, operator: Client) -> None:
        user = make_user()
        body = {"user": user.pk, "weight": "3", "most_waiting": "50", "note": "pays for it"}
        assert operator.post("/admin/video/usershare/add/", body).status_code == 302
        share = UserShare.objects.get(user=user)
        assert (share.weight, share.most_waiting, share.note) == (3, 50, "pays for it")
        assert "pays for it" in text(operator, "/admin/video/usershare/")

    @pytest.mark.parametrize("weight", ["0", "1001", "-1", ""])
    def test_a_weight_that_can_not_be_is_refused(self, operator: Client, weight: str) -> None:
        answer = operator.post("/admin/video/usershare/add/", {"user": make_user().pk, "weight": weight})
        assert answer.status_code == 200
        assert not UserShare.objects.exists()
