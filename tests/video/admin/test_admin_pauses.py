"""Pauses in the admin: the banner, the button, the list; what is switched off is called so; slow renders are marked."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser, Permission
from django.db.models import F
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import accepted, make_task, make_user, reload
from video.admin import timeline
from video.attempts import configured_keys, slow
from video.models import AuditRecord, Generation, ModelSetting, Pause, ProviderAccount, ProviderKey
from video.monitoring import overview, waits
from video.routing import availability, pauses
from video.scheduling import estimates

pytestmark = pytest.mark.django_db
LIST = "/admin/video/pause/"
ADD = f"{LIST}add/"
#: Pages of every kind: home, a list, a list of another app, a form, our own page.
PAGES = ("/admin/", "/admin/video/videotask/", "/admin/auth/user/", "/admin/video/usershare/add/", "/admin/queues/")


@pytest.fixture
def boss(admin_client: Client) -> Client:
    return admin_client


def staff(*permissions: str) -> Client:
    user: Any = make_user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def text_of(client: Client, path: str) -> str:
    reply = client.get(path)
    assert reply.status_code == 200, path
    return reply.content.decode()


def test_every_page_leads_to_the_stop_in_one_click_and_shows_a_pause(
    boss: Client, django_capture_on_commit_callbacks: Any
) -> None:
    committed = partial(django_capture_on_commit_callbacks, execute=True)
    for page in PAGES:
        assert f'href="{ADD}?what=everything"' in text_of(boss, page)
    assert '<option value="everything" selected>' in text_of(boss, f"{ADD}?what=everything")
    with committed():
        assert boss.post(ADD, {"what": "everything", "reason": "fire"}).status_code == 302
    pause = Pause.objects.get()
    for page in PAGES:
        text = text_of(boss, page)
        assert "Everything is paused since" in text
        assert reverse("admin:video_pause_resume", args=[pause.pk]) in text
    assert "Resume …" in text_of(boss, LIST)
    with committed():
        assert boss.post(reverse("admin:video_pause_resume", args=[pause.pk]), {"reason": "out"}).status_code == 302
    assert "Everything is paused since" not in text_of(boss, "/admin/")
    assert "by admin" in text_of(boss, LIST)
    assert list(AuditRecord.objects.order_by("id").values_list("action", "via", "reason")) == [
        ("pause", "admin", "fire"),
        ("resume", "admin", "out"),
    ]


def test_each_kind_is_paused_by_the_form(boss: Client, user: AbstractBaseUser) -> None:
    configured_keys.sync()
    account = ProviderAccount.objects.filter(provider="runway").values_list("account", flat=True)[0]
    for what in ("provider runway", "model gen4.5", f"account runway {account}", "user"):
        assert boss.post(ADD, {"what": what, "user": user.get_username(), "ends": "900"}).status_code == 302
    assert set(Pause.objects.values_list("kind", "subject")) == {
        ("provider", "runway"),
        ("model", "gen4.5"),
        ("account", f"runway {account}"),
        ("user", ""),
    }
    assert not Pause.objects.filter(until=None).exists()
    assert "no user&#x27;s name" in boss.post(ADD, {"what": "user", "user": "nobody"}).content.decode()


def test_who_may_not_pause_sees_the_banner_and_no_button(user: AbstractBaseUser) -> None:
    pause = Pause.objects.create(kind="everything", paused_by="ann")
    viewer, nobody = staff("view_pause", "view_videotask"), staff("view_videotask")
    resume = reverse("admin:video_pause_resume", args=[pause.pk])
    for client in (viewer, nobody):
        text = text_of(client, "/admin/video/videotask/")
        assert "Everything is paused since" in text
        assert ADD not in text
        assert resume not in text
        assert client.get(ADD).status_code == client.post(ADD, {"what": "everything"}).status_code == 403
        assert client.post(resume).status_code == 403
    assert viewer.get(LIST).status_code == 200
    assert nobody.get(LIST).status_code == 403
    assert "Everything is paused" not in Client().get("/admin/login/").content.decode()
    assert staff("pause").post(resume).status_code == 302


# --- switched off is said ------------------------------------------------------------------------------------------


def model_off(user: AbstractBaseUser) -> None:
    ModelSetting.objects.create(model="gen4.5", enabled=False)


def account_off(user: AbstractBaseUser) -> None:
    ProviderAccount.objects.filter(provider="runway").update(slots_override=0)


def key_off(user: AbstractBaseUser) -> None:
    ProviderKey.objects.filter(provider="runway").update(state="draining")


def user_off(user: AbstractBaseUser) -> None:
    type(user).objects.filter(pk=user.pk).update(is_active=False)


@pytest.mark.parametrize("full", [False, True], ids=["free", "full"])
@pytest.mark.parametrize("switch", [model_off, account_off, key_off, user_off], ids=lambda one: one.__name__)
def test_what_is_switched_off_is_called_so_everywhere(
    boss: Client, user: AbstractBaseUser, switch: Any, full: bool
) -> None:
    configured_keys.sync()
    if full:
        ProviderAccount.objects.filter(provider="runway").update(slots=1)
        accepted(make_task(user))
    task = make_task(user)
    switch(user)
    availability.forget_recent()
    estimates._cache.clear()
    words = timeline.waits_for(reload(task), timezone.now())
    assert "switched off" in words
    assert "free slot" not in words
    page = text_of(boss, reverse("admin:video_videotask_change", args=[task.pk]))
    assert "switched off" in page
    assert "free slot of" not in page
    if switch is user_off:
        return
    place = estimates.place(["gen4.5"], user_id=user.pk, own=0, rerun=False, created_at=task.created_at)
    assert place.waits_for is not None
    assert place.waits_for.code == "switched_off"
    states = {one.state for one in overview.read().accounts if one.model == "gen4.5"}
    assert all(state.startswith("switched off by the operator") for state in states)
    assert "switched off by the operator" in text_of(boss, "/admin/queues/")


def test_of_two_models_the_one_that_may_free_a_slot_is_named_first(user: AbstractBaseUser) -> None:
    task = make_task(user, model_requested="")
    ModelSetting.objects.create(model=task.eligible_models[0], enabled=False)
    found = waits.why(task)
    assert found is not None
    assert found.code is None  # another model has room
    assert {one.code for one in found.accounts if one.model == task.eligible_models[0]} == {"switched_off"}


# --- slow renders --------------------------------------------------------------------------------------------------


def render(task: Any, **age: float) -> None:
    Generation.objects.filter(task=task).update(
        sent_at=F("sent_at") - timedelta(**age), accepted_at=F("accepted_at") - timedelta(**age)
    )


def test_a_render_beyond_its_models_p95_is_marked(boss: Client, user: AbstractBaseUser) -> None:
    for number in range(slow.FEWEST):
        task = make_task(user)
        accepted(task, job_id=f"job-{number}")
        render(task, seconds=60)
        Generation.objects.filter(task=task).update(state="succeeded", ended_at=timezone.now())
    late, usual = make_task(user), make_task(user)
    for number, task in enumerate((late, usual), 100):
        accepted(task, job_id=f"job-{number}")
    render(late, seconds=300)
    render(usual, seconds=30)
    assert slow.number() == overview.read().slow_renders == 1
    found = slow.of_task(late.pk)
    assert found is not None
    assert 55 < found.p95_s < 65
    assert slow.of_task(usual.pk) is None
    listed = text_of(boss, "/admin/video/videotask/?stands=slow")
    assert late.pk in listed
    assert usual.pk not in listed
    assert "slow" in listed
    assert "Its render is slow: gen4.5" in text_of(boss, reverse("admin:video_videotask_change", args=[late.pk]))
    assert "stands=slow" in text_of(boss, "/admin/queues/")


def test_the_banner_is_read_once_a_while(
    boss: Client, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    monkeypatch.setattr(pauses, "CACHE_S", 60.0)
    pauses.lately()
    with django_assert_num_queries(0):
        pauses.lately()
    pauses.forget_cached()
    with django_assert_num_queries(1):
        pauses.lately()
