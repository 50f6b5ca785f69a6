from __future__ import annotations

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.test import Client
from pytest_django.fixtures import Settings

from video.credits import ledger
from video.web import demo_login

pytestmark = pytest.mark.django_db


def test_the_demo_user_has_credits_and_is_made_once() -> None:
    demo_login.ensure_demo_user()
    demo_login.ensure_demo_user()
    user = get_user_model().objects.get(username="demo")
    assert ledger.balance(user.pk) == 1000


def test_the_demo_user_may_look_at_the_admin_and_change_nothing(client: Client) -> None:
    demo_login.ensure_demo_user()
    assert client.login(username="demo", password="demo")
    assert client.get("/admin/video/videotask/").status_code == 200
    assert client.get("/admin/auth/user/").status_code == 403
    user = get_user_model().objects.get(username="demo")
    assert not user.has_perm("video.change_provideraccount")


def test_outside_simulation_nobody_is_made(settings: Settings) -> None:
    settings.SIMULATE = False
    with pytest.raises(RuntimeError):
        demo_login.ensure_demo_user()


def test_outside_simulation_the_demo_user_of_an_old_trial_is_locked_out(settings: Settings, client: Client) -> None:
    demo_login.ensure_demo_user()
    login = client.post("/api/auth/login", {"username": "demo", "password": "demo"}, content_type="application/json")
    assert login.status_code == 200
    assert client.get("/api/video/status?taskId=task_x").status_code == 404
    settings.SIMULATE = False
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    assert authenticate(username="demo", password="demo") is None
    assert client.get("/api/video/status?taskId=task_x").status_code == 401
    assert client.get("/admin/video/videotask/").status_code == 302
