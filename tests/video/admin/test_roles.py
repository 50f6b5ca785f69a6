"""What each role of the staff may see and do: every page and button of the admin, by the tables of docs/roles.md."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import reverse

from tests.factories import make_task, make_user
from video.admin import remedies
from video.admin.urls import urlpatterns
from video.models import Role
from video.web import roles

pytestmark = pytest.mark.django_db
DOCS = Path(__file__).resolve().parents[3] / "docs/roles.md"
YES = "yes"


def staff(role: str) -> Any:
    user = make_user(is_staff=True)
    roles.give(user, role)
    return get_user_model().objects.get(pk=user.pk)


def client_for(role: str) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(staff(role))
    return client


@cache
def table(title: str) -> dict[str, dict[str, bool]]:
    """The rows of a table of the docs: what is in backticks in the first column, by role."""
    part = DOCS.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    found: dict[str, dict[str, bool]] = {}
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) < 4 or "`" not in cells[0]:
            continue
        for name in re.findall(r"`([^`]+)`", cells[0]):
            found[name] = {role: cells[1 + n] == YES for n, role in enumerate(roles.NAMES)}
    return found


def request_of(user: Any) -> Any:
    request = RequestFactory().get("/admin/")
    request.user = user
    return request


def models() -> list[Any]:
    return sorted(admin.site._registry.values(), key=lambda one: one.opts.model_name)


@pytest.mark.parametrize("role", roles.NAMES)
def test_each_list_opens_for_who_may_see_it(role: str) -> None:
    client = client_for(role)
    for one in models():
        url = reverse(f"admin:{one.opts.app_label}_{one.opts.model_name}_changelist")
        assert client.get(url).status_code == 200, (role, url)


@pytest.mark.parametrize("role", roles.NAMES)
def test_each_button_is_there_for_who_may_press_it(role: str) -> None:
    request, shown = request_of(staff(role)), table("Buttons")
    there = {f"{one.opts.model_name}.{name}" for one in models() for name in one.get_actions(request)}
    wanted = {name for name, who in shown.items() if who[role] and "/" not in name}
    assert there == wanted


@pytest.mark.parametrize("role", roles.NAMES)
def test_each_button_of_a_page_of_its_own_answers_who_may_press_it(role: str) -> None:
    client = client_for(role)
    pages = {name.partition(" ")[2]: who for name, who in table("Buttons").items() if name.startswith("POST ")}
    assert len(pages) == 8
    for url, who in pages.items():
        assert (client.post(url, {"hours": "1"}).status_code != 403) == who[role], (role, url)


@pytest.mark.parametrize("role", roles.NAMES)
def test_each_button_of_a_card_answers_who_may_press_it(role: str) -> None:
    client = client_for(role)
    for name in remedies.ACTS:
        status = client.post("/admin/remedies/", {"name": name, "object": "runway|nothing"}).status_code
        assert status == (403 if role == roles.VIEWER else 302), (role, name)
    assert client.post("/admin/remedies/", {"name": "reconcile", "object": "a\0b"}).status_code in {400, 403}


@pytest.mark.parametrize("role", roles.NAMES)
def test_each_form_is_open_for_who_may_save_it(role: str) -> None:
    request, shown = request_of(staff(role)), table("Forms")
    for one in models():
        name = one.opts.model_name
        for verb, may in (
            ("add", one.has_add_permission(request)),
            ("change", one.has_change_permission(request)),
            ("delete", one.has_delete_permission(request)),
        ):
            assert may == shown.get(f"{name}.{verb}", {}).get(role, False), (role, name, verb)


def snapshot() -> list[Any]:
    """All rows of ours and of the users, but for what a login itself writes."""
    rows = []
    with connection.cursor() as cursor:
        for name in sorted(connection.introspection.table_names(cursor)):
            if name.startswith(("video_", "auth_")) and name != "video_loginthrottle":
                columns = "id, username, is_active, is_staff, password" if name == "auth_user" else "*"
                cursor.execute(f"SELECT {columns} FROM {name} ORDER BY 1::text")
                rows.append((name, cursor.fetchall()))
    return rows


def _post_all(client: Client, pk_of: dict[str, Any]) -> list[tuple[str, int]]:
    """A POST to every address of the admin, and every action on every row; what was answered."""
    answers = []
    for one in models():
        name, app = one.opts.model_name, one.opts.app_label
        pk = pk_of.get(name, "1")
        base = reverse(f"admin:{app}_{name}_changelist")
        for pattern in one.get_urls():
            if pattern.name is None:
                continue
            args = [quote(pk)] if "<" in str(pattern.pattern) or "(?P" in str(pattern.pattern) else []
            url = reverse(f"admin:{pattern.name}", args=args)
            body = {"settle": "1", "amount": "5", "users": "x", "post": "yes", "enabled": "on", "weight": "9"}
            answers.append((url, client.post(url, {**body, "reason": "none"}).status_code))
        for action in one.actions or ():
            name_of = action if isinstance(action, str) else action.__name__
            body = {"action": name_of, "_selected_action": [pk], "confirmed": "1", "priority": "3"}
            answers.append((f"{base}#{name_of}", client.post(base, body).status_code))
    return answers


def test_a_viewer_changes_nothing_anywhere() -> None:
    task, client = make_task(), client_for(roles.VIEWER)
    pk_of = {
        one.opts.model_name: one.model._default_manager.values_list("pk", flat=True).first() or "1" for one in models()
    }
    pk_of |= {"user": task.user_id, "videotask": task.pk, "account": task.user_id}
    before = snapshot()
    answers = _post_all(client, pk_of)
    assert snapshot() == before
    assert {status for _, status in answers} <= {200, 302, 403, 404, 405}, answers
    assert len(answers) > 100


def test_all_pages_of_our_own_open_for_a_viewer_and_for_nobody_else() -> None:
    client, bare = client_for(roles.VIEWER), Client()
    nobody = Client(raise_request_exception=False)
    nobody.force_login(make_user(is_staff=True))
    for pattern in urlpatterns:
        if "<" in str(pattern.pattern) or pattern.name == "admin-remedy":  # an act, and no page
            continue
        url = reverse(str(pattern.name))
        assert client.get(url).status_code == 200, url
        if url == "/admin/":  # tells all staff what they may open
            assert "rw-tiles" not in nobody.get(url).content.decode()
        else:
            assert nobody.get(url).status_code in {302, 403}, url
        assert bare.get(url).status_code == 302, url


class TestGroups:
    def test_are_kept_and_never_overruled(self) -> None:
        role = Role.objects.get(pk=roles.VIEWER)
        assert role.group is not None
        mine, taken = Permission.objects.get(codename="add_usershare"), Permission.objects.get(codename="view_user")
        role.group.permissions.add(mine)
        role.group.permissions.remove(taken)
        roles.keep()
        assert role.group.permissions.filter(pk=mine.pk).exists()
        assert not role.group.permissions.filter(pk=taken.pk).exists()

    def test_a_permission_of_a_later_version_is_given(self) -> None:
        role = Role.objects.get(pk=roles.VIEWER)
        assert role.group is not None
        late = Permission.objects.get(codename="view_circuit")
        role.group.permissions.remove(late)
        role.given.remove("video.view_circuit")
        role.save()
        roles.keep()
        assert role.group.permissions.filter(pk=late.pk).exists()

    def test_one_that_was_deleted_stays_so_and_a_foreign_one_is_left_alone(self) -> None:
        Group.objects.filter(name="operator").delete()
        roles.keep()
        assert not Group.objects.filter(name="operator").exists()
        with pytest.raises(Role.DoesNotExist):
            roles.give(make_user(), "operator")
        Role.objects.all().delete()
        Group.objects.filter(name__in=roles.NAMES).delete()
        theirs = Group.objects.create(name="viewer")
        roles.keep()
        assert not theirs.permissions.exists()
        assert Role.objects.get(pk="viewer").group == Group.objects.get(name="Reelworks viewer")

    def test_an_admin_makes_no_superuser_and_changes_none(self) -> None:
        client, root = client_for(roles.ADMIN), get_user_model().objects.create_superuser("root")
        url, user = f"/admin/auth/user/{root.pk}/", make_user()
        assert client.post(f"{url}password/", {"password1": "x", "password2": "x"}).status_code == 403
        assert client.post(f"{url}delete/", {"post": "yes"}).status_code == 403
        client.post(f"{url}change/", {"username": "mine"})
        for action in ("erase", "end_logins", "revoke_keys"):
            client.post("/admin/auth/user/", {"action": action, "_selected_action": [root.pk], "confirmed": "1"})
        root.refresh_from_db()
        assert (root.username, root.is_active) == ("root", True)
        body = {"username": user.get_username(), "is_active": "on", "is_superuser": "on", "date_joined_0": "2026-01-01"}
        body |= {"date_joined_1": "00:00:00", "user_permissions": [Permission.objects.get(codename="add_group").pk]}
        assert client.post(f"/admin/auth/user/{user.pk}/change/", body).status_code == 302
        user = get_user_model().objects.get(pk=user.pk)
        assert not user.is_superuser
        assert not user.user_permissions.exists()
