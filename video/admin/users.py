"""Users: Django's own page, with what waits and what is stored of each, and actions: cancel, end logins, erase."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django_otp.plugins.otp_totp.admin  # noqa: F401 - registers what is taken out below
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django_otp.plugins.otp_totp.models import TOTPDevice
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from video.actions import cancel, erase_user, for_users
from video.actions.task_rows import ActionRefused
from video.admin.audited import Audited
from video.admin.read_only import ModelAdmin, ReadOnlyAdmin
from video.infra.durations import count
from video.models import UserErasure, VideoTask
from video.web import actors
from video.web.client_address import client_address

MOST = 2000  # tasks of one action, each a transaction of its own; `cancel_tasks --user` takes any number

MOST_ERASED = 100  # users of one action

if TYPE_CHECKING:
    PageOfUsers = DjangoUserAdmin[Any]
    PageOfGroups = DjangoGroupAdmin
else:

    class PageOfUsers(DjangoUserAdmin, ModelAdmin):
        """Django's, with the look of the other pages."""

    class PageOfGroups(DjangoGroupAdmin, ModelAdmin):
        """Django's, with the look of the other pages."""


def waiting_of(users: QuerySet[Any]) -> QuerySet[VideoTask]:
    """Tasks of these users that wait for a slot, oldest first."""
    return VideoTask.objects.filter(user__in=users.values("pk"), admit_at__isnull=False).order_by("created_at", "id")


def _may_touch(request: HttpRequest, user: Any) -> bool:
    """A superuser is changed by superusers only: an admin could give themselves a superuser's password."""
    return bool(request.user.is_superuser or user is None or not user.is_superuser)


def _touchable(request: HttpRequest, users: QuerySet[Any]) -> QuerySet[Any]:
    return users if request.user.is_superuser else users.filter(is_superuser=False)


class UserAdmin(Audited, PageOfUsers):
    """A user who is switched off (not *active*) gets no slot: what waits stays where it is until it is cancelled."""

    list_display = ("username", "is_active", "is_staff", "waiting", "stored", "last_login")
    actions = ("cancel_what_waits", "end_logins", "revoke_keys", "erase")
    readonly_fields = ("stored", "last_login", "date_joined")
    form, add_form, change_password_form = UserChangeForm, UserCreationForm, AdminPasswordChangeForm
    fieldsets = (*(DjangoUserAdmin.fieldsets or ()), ("Stored files", {"fields": ("stored",)}))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        waiting = VideoTask.objects.filter(user=OuterRef("pk"), admit_at__isnull=False).order_by().values("user")
        number = Coalesce(Subquery(waiting.annotate(number=Count("pk")).values("number")), 0)
        apps = TOTPDevice.objects.filter(user=OuterRef("pk"), confirmed=True)
        rows = super().get_queryset(request).select_related("storage")
        return rows.annotate(waiting_tasks=number, has_second_factor=Exists(apps))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Nobody gives more than they have: what no group gives is for superusers to give."""
        fixed = () if request.user.is_superuser else ("is_superuser", "user_permissions")
        return (*self.readonly_fields, *fixed)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Django's, with its record in one transaction."""
        with transaction.atomic():
            return super().user_change_password(request, id, form_url)

    def get_list_display(self, request: HttpRequest) -> tuple[Any, ...]:
        """With the second factor, where one is asked for."""
        shown = tuple(super().get_list_display(request))
        return shown if settings.ADMIN_SECOND_FACTOR == "off" else (*shown, "second_factor")

    @admin.display(boolean=True, description="second factor")
    def second_factor(self, user: Any) -> bool:
        return bool(user.has_second_factor)

    @admin.display(description="waiting tasks")
    def waiting(self, user: Any) -> int:
        return int(user.waiting_tasks)

    @admin.display(description="stored", ordering="storage__bytes", empty_value="")
    def stored(self, user: Any) -> str | None:
        """What the user's files come to."""
        use = getattr(user, "storage", None)
        return f"{use.bytes / 1e6:.1f} MB in {count(use.videos, 'video')}" if use is not None and use.videos else None

    def has_steer_permission(self, request: HttpRequest) -> bool:
        """Whether this operator may cancel tasks."""
        return bool(request.user.has_perm("video.change_videotask"))

    @admin.action(description="Cancel what waits …", permissions=["steer"])
    def cancel_what_waits(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Cancel the tasks of the selected users that wait for a slot, each with its refund where it is due. What has
        a slot or a job goes on."""
        tasks = waiting_of(queryset)
        if "confirmed" not in request.POST:
            return self._confirm(request, queryset)
        done, left, by = 0, 0, actors.of_request(request)
        for task in tasks[:MOST]:
            try:
                cancel.cancel(task.pk, by=by, only_waiting=True)
            except ActionRefused:  # it got a slot, or ended, meanwhile
                left += 1
                continue
            done += 1
        self.message_user(request, f"{count(done, 'task')} cancelled." + (f" {left} had begun by now." if left else ""))
        if more := tasks.count():
            self.message_user(request, f"{count(more, 'more task')} wait: run it again.", messages.WARNING)
        return None

    @admin.action(description="End all logins", permissions=["change"])
    def end_logins(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """End all logins of the selected users, in the admin too."""
        for user in _touchable(request, queryset):
            ended = for_users.end_logins(user, by=actors.of_request(request))
            self.message_user(request, f"{user.get_username()}: {count(ended, 'login')} ended.")

    @admin.action(description="Revoke all API keys", permissions=["change"])
    def revoke_keys(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """End all API keys of the selected users at once."""
        for user in _touchable(request, queryset):
            ended = for_users.revoke_keys(user, by=actors.of_request(request))
            self.message_user(request, f"{user.get_username()}: {count(ended, 'API key')} revoked.")

    @admin.action(description="Erase …", permissions=["delete"])
    def erase(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Ask for the selected users to be erased; a sweeper does it."""
        queryset = _touchable(request, queryset)
        if "confirmed" not in request.POST:
            rows = [(user, erase_user.extent(user.pk)) for user in queryset.order_by("username")[:MOST_ERASED]]
            title = f"Erase {count(len(rows), 'user')}?"
            return self._page(request, "admin/users/erase.html", title=title, rows=rows)
        for user in queryset[:MOST_ERASED]:
            if user.pk == request.user.pk:
                self.message_user(request, "You can't erase yourself.", messages.ERROR)
                continue
            try:
                erase_user.ask(user.pk, by=actors.of_request(request), address=client_address(request))
            except ActionRefused as err:
                self.message_user(request, f"{user.get_username()}: {err.message}", messages.ERROR)
                continue
            self.message_user(request, f"{user.get_username()} is switched off; a sweeper erases what is theirs.")
        return None

    def _confirm(self, request: HttpRequest, users: QuerySet[Any]) -> HttpResponse:
        rows = [(user, user.waiting_tasks) for user in users.order_by("username")]
        title = f"Cancel {count(sum(number for _, number in rows), 'waiting task')}?"
        return self._page(request, "admin/users/cancel_what_waits.html", title=title, rows=rows)

    def _page(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        """What is to be confirmed."""
        context |= {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "action": request.POST["action"],
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, template, context)


@admin.register(UserErasure)
class UserErasureAdmin(ReadOnlyAdmin):
    """Users who are to be erased, and those who are."""

    list_display = ("user", "asked_by", "asked_at", "ended_at")
    list_select_related = ("user",)
    ordering = ("-asked_at",)


class GroupAdmin(Audited, PageOfGroups):
    """The groups of the roles and others. A group may hold any permission, so the roles can only look at them."""


admin.site.unregister(TOTPDevice)  # its page shows the secrets of others
admin.site.unregister(get_user_model())
admin.site.register(get_user_model(), UserAdmin)
admin.site.unregister(Group)
admin.site.register(Group, GroupAdmin)
