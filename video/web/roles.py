"""The roles viewer, operator and admin: what each may do, and the groups that give it.

`docs/roles.md` has the same as a table, and a test tries each page and button by it. `keep` runs after each `migrate`:
only then all permissions are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.apps import AppConfig, apps
from django.contrib.auth.models import Group, Permission
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models.signals import post_migrate

from video.models import Role

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
NAMES: Final = (VIEWER, OPERATOR, ADMIN)

_CHANGE, _ALL = ("change",), ("add", "change", "delete")
#: What an operator may do beyond what a viewer may: the work of the day, nothing of users and their credits.
_OPERATES: Final[Mapping[str, tuple[str, ...]]] = {
    "alert": _CHANGE,
    "circuit": _CHANGE,
    "failuretext": ("change", "delete"),
    "generation": _CHANGE,
    "loginsession": _CHANGE,
    "modelsetting": _ALL,
    "operatorjob": _ALL,
    "pause": _ALL,
    "provideraccount": _CHANGE,
    "providerkey": _CHANGE,
    "videotask": _CHANGE,
    "webhookdelivery": _CHANGE,
    "webhookendpoint": _CHANGE,
}
#: Permissions that are named after no verb of Django's.
_OPERATES_BY_NAME: Final = frozenset({"pause"})
#: Of the models of Django that the admin shows. Groups are for superusers: a group may hold any permission.
_VIEWS_OF_AUTH: Final = frozenset({"view_user", "view_group"})
_ADMIN_OF_AUTH: Final = frozenset({"add_user", "change_user", "delete_user"})


def allows(role: str, app: str, codename: str) -> bool:
    """Whether a role has a permission. An admin has all of `video`, of today and of later versions."""
    if app == "auth":
        return codename in _VIEWS_OF_AUTH or (role == ADMIN and codename in _ADMIN_OF_AUTH)
    if app != "video":
        return False
    verb, _, model = codename.partition("_")
    if verb == "view" or role == ADMIN:
        return True
    return role == OPERATOR and (codename in _OPERATES_BY_NAME or verb in _OPERATES.get(model, ()))


def give(user: Any, role: str) -> None:
    """Make a user a member of the staff in this role, and in no other of the three.

    Raises Role.DoesNotExist where the group of the role was deleted.
    """
    groups = {one.name: one.group_id for one in Role.objects.filter(group__isnull=False)}
    if role not in groups:
        raise Role.DoesNotExist(role)
    user.groups.remove(*groups.values())
    user.groups.add(groups[role])
    type(user).objects.filter(pk=user.pk).update(is_staff=True)


def keep(using: str = DEFAULT_DB_ALIAS) -> None:
    """Make the roles that were never made, and give each what it never had. Takes nothing away. Safe to repeat."""
    with transaction.atomic(using=using):
        found = Permission.objects.using(using).filter(content_type__app_label__in=["auth", "video"])
        permissions = {
            (app, codename): pk for pk, app, codename in found.values_list("pk", "content_type__app_label", "codename")
        }
        rows = {one.name: one for one in Role.objects.using(using).select_for_update()}
        for name in NAMES:
            role = rows.get(name) or Role.objects.using(using).create(name=name, group=_new_group(name, using))
            may = {f"{app}.{word}": pk for (app, word), pk in permissions.items() if allows(name, app, word)}
            _give(role, may)


def watch() -> None:
    """Have `keep` run at the end of each `migrate`, when the permissions of all apps are there."""
    last = [one for one in apps.get_app_configs() if one.models_module is not None][-1]
    post_migrate.connect(_after_migrate, sender=last, dispatch_uid="video.roles")


def _after_migrate(sender: AppConfig, using: str, plan: Any = None, **more: Any) -> None:
    if "video_role" in _tables(using):  # not when an older migration was asked for
        keep(using)


def _tables(using: str) -> list[str]:
    return connections[using].introspection.table_names()


def _new_group(name: str, using: str) -> Group:
    """A group that somebody made by that name is theirs, with their members: they get nothing by it."""
    groups = Group.objects.using(using)
    taken = groups.filter(name=name).exists()
    return groups.create(name=f"Reelworks {name}" if taken else name)


def _give(role: Role, wanted: Mapping[str, int]) -> None:
    new = sorted(set(wanted) - set(role.given))
    if not new or role.group is None:
        return
    role.group.permissions.add(*(wanted[name] for name in new))
    role.given = sorted({*role.given, *new})
    role.save(update_fields=["given"])
