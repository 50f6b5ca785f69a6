"""An operator cancels and retries tasks in the admin: asked first, told per task, and only with the permission."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from tests.factories import accepted, claimed, make_task, make_user, reload
from video.attempts import records, task_moves
from video.credits import ledger
from video.models import AuditRecord, CreditEntry, Generation, Stage, TaskEvent, VideoTask
from video.web import demo_login

pytestmark = pytest.mark.django_db
LIST = "/admin/video/videotask/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("olga"))
    return client


def staff(*permissions: str) -> Client:
    user = make_user(0, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_videotask", *permissions]))  # type: ignore[attr-defined]
    client = Client()
    client.force_login(user)
    return client


def failed() -> VideoTask:
    """A task whose video is ready at the provider, and that failed before it was fetched."""
    task = make_task()
    generation = accepted(task, f"job-of-{task.pk}")
    claim = claimed(task, Stage.POLL)
    records.record_ended(generation.pk, Generation.State.SUCCEEDED)
    assert task_moves.fail(claim, code="download_failed", message="It could not be fetched.")
    return reload(task)


def steer(client: Client, action: str, *tasks: VideoTask, **more: str) -> Any:
    body = {"action": f"{action}_chosen", "_selected_action": [task.pk for task in tasks], **more}
    return client.post(LIST, body, follow=True)


def text(reply: Any) -> str:
    assert reply.status_code == 200
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", reply.content.decode())))


def messages(reply: Any) -> list[tuple[str, str]]:
    return [(message.level_tag, str(message)) for message in reply.context["messages"]]


def tail(task: VideoTask) -> str:
    return f"task_…{task.pk[-8:]}"


class TestCancel:
    def test_asks_first_and_says_what_would_happen(self, operator: Client) -> None:
        waiting, over = make_task(), failed()
        page = text(steer(operator, "cancel", waiting, over))
        assert "Cancel 2 tasks?" in page
        assert f"{tail(waiting)} in generate; refunded" in page
        assert f"{tail(over)} Not possible. This task can't be cancelled any more" in page
        assert reload(waiting).status == "pending"

    def test_then_does_it_and_tells_per_task(self, operator: Client) -> None:
        waiting, rendering, over = make_task(), make_task(), failed()
        accepted(rendering)
        reply = steer(operator, "cancel", waiting, rendering, over, confirmed="1")
        assert messages(reply) == [
            ("success", f"{tail(waiting)}: in generate; refunded."),
            (
                "success",
                f"{tail(rendering)}: in poll; the refund is decided when its job has ended; "
                "its provider is asked to stop.",
            ),
            (
                "error",
                f"{tail(over)}: This task can't be cancelled any more: it has failed, and its credits came back.",
            ),
        ]
        assert [reload(task).status for task in (waiting, rendering, over)] == ["cancelled", "cancelled", "failed"]
        assert {event.worker for event in TaskEvent.objects.filter(outcome="cancelled")} == {"operator olga"}
        assert {row.object_id for row in AuditRecord.objects.filter(action="cancel", actor="olga", via="admin")} == {
            waiting.pk,
            rendering.pk,
        }

    def test_again_it_was_cancelled_before(self, operator: Client) -> None:
        task = make_task()
        steer(operator, "cancel", task, confirmed="1")
        assert messages(steer(operator, "cancel", task, confirmed="1")) == [
            ("success", f"{tail(task)}: cancelled before; refunded.")
        ]

    def test_from_the_tasks_page_and_back_to_it(self, operator: Client) -> None:
        task = make_task()
        url = f"{LIST}{task.pk}/change/"
        assert 'value="cancel_chosen"' in operator.get(url).content.decode()
        assert 'name="from_page"' in steer(operator, "cancel", task, from_page="1").content.decode()
        reply = steer(operator, "cancel", task, from_page="1", confirmed="1")
        assert reply.redirect_chain[-1][0] == url
        page = text(reply)
        assert "The credits of this run were given back." in page
        assert 'value="retry_chosen"' in reply.content.decode()
        assert 'value="cancel_chosen"' not in reply.content.decode()

    def test_the_page_says_what_the_refund_waits_for(self, operator: Client) -> None:
        task = make_task()
        accepted(task)
        steer(operator, "cancel", task, confirmed="1")
        page = text(operator.get(f"{LIST}{task.pk}/change/"))
        assert "Whether its credits are given back is decided when its job has ended." in page
        assert "still open at its provider and is told to stop" in page

    def test_too_many_at_once_are_left_to_the_command(self, operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("video.admin.bulk_actions.MOST", 1)
        tasks = make_task(), make_task()
        reply = steer(operator, "cancel", *tasks, confirmed="1")
        assert "cancel_tasks" in messages(reply)[0][1]
        assert {reload(task).status for task in tasks} == {"pending"}

    def test_many_are_summed_up(self, operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("video.admin.bulk_actions.MOST_SHOWN", 1)
        waiting, over = make_task(), failed()
        said = [message for _, message in messages(steer(operator, "cancel", waiting, over, confirmed="1"))]
        assert said[0].startswith(tail(over))
        assert said[1:] == ["Cancel: 1 done, 1 not."]


class TestRetry:
    def test_asks_first_and_then_does_it(self, operator: Client) -> None:
        task = failed()
        page = text(steer(operator, "retry", task))
        assert "Retry 1 task?" in page
        assert "at download; run 2, 10 credits" in page
        assert reload(task).status == "failed"
        reply = steer(operator, "retry", task, confirmed="1")
        assert messages(reply) == [("success", f"{tail(task)}: at download; run 2, 10 credits.")]
        assert (reload(task).status, reload(task).run) == ("running", 2)

    def test_free_and_anew(self, operator: Client) -> None:
        task = failed()
        before = ledger.balance(task.user_id)
        reply = steer(operator, "retry", task, confirmed="1", free="on", regenerate="on")
        assert messages(reply) == [
            ("success", f"{tail(task)}: in line for a new attempt; run 2, 10 credits, granted for it.")
        ]
        assert ledger.balance(task.user_id) == before

    def test_free_needs_the_permission_to_grant(self) -> None:
        client = staff("change_videotask")
        task = failed()
        assert 'name="free"' not in steer(client, "retry", task).content.decode()
        steer(client, "retry", task, confirmed="1", free="on")
        assert reload(task).status == "running"
        assert not CreditEntry.objects.filter(task=task, kind="grant").exists()

    def test_one_who_is_short_of_credits_is_told(self, operator: Client) -> None:
        task = failed()
        VideoTask.objects.filter(pk=task.pk).update(user=make_user(0))
        (said,) = messages(steer(operator, "retry", task, confirmed="1"))
        assert said[0] == "error"
        assert "short of credits" in said[1]
        assert reload(task).status == "failed"


class TestWhoMay:
    def test_viewers_see_no_action_and_can_do_none(self) -> None:
        client = staff()
        task = make_task()
        for url in (LIST, f"{LIST}{task.pk}/change/"):
            assert b"cancel_chosen" not in client.get(url).content
        steer(client, "cancel", task, confirmed="1")
        assert reload(task).status == "pending"

    def test_the_demo_user_can_do_none(self, client: Client) -> None:
        demo_login.ensure_demo_user()
        assert client.login(username="demo", password="demo")
        task = make_task()
        assert b"cancel_chosen" not in client.get(f"{LIST}{task.pk}/change/").content
        steer(client, "cancel", task, confirmed="1")
        assert reload(task).status == "pending"

    def test_those_who_may_change_tasks_may(self) -> None:
        client = staff("change_videotask")
        task = make_task()
        assert b"cancel_chosen" in client.get(LIST).content
        steer(client, "cancel", task, confirmed="1")
        assert reload(task).status == "cancelled"
