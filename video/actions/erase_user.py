"""Erase a user: all that is theirs goes, the books stay.

An operator's wish is a row (`UserErasure`), and switches the user off at once, which ends logins and tokens. Then,
in small steps that may each be repeated: tasks under way are cancelled, all tasks deleted with their files, and what
else is the user's own (`OWN`); last of all the name. Whoever dies in between, the sweeper goes on from the row.

What staff did to the tasks of others stays in those tasks' histories, under the name that they had; the audit has the
number in its place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from media_pipeline.errors import MediaError
from providers.untrusted import storable
from video.actions import cancel, delete, jobs
from video.actions.task_rows import ActionRefused
from video.audit import records
from video.audit.actors import Actor, Unaudited
from video.credits import ledger
from video.infra import database
from video.models import LoginSession, Pause, Upload, UserErasure, UserShare, UserUsage, VideoTask
from video.web import idempotency, security_log, uploads
from video.web.logins import api_keys, second_factor, sessions
from video.webhooks import deliveries

log = logging.getLogger(__name__)

BY = Unaudited("the erasure of its user")
BATCH = 500  # tasks of a statement
#: A create that was under way when its user was switched off has committed by then.
LOOK_AGAIN_S = 600


@dataclass(frozen=True)
class Extent:
    """What there is of a user."""

    tasks: int  # not deleted yet
    under_way: int
    uploads: int  # pictures that they sent
    stored_bytes: int
    balance: int  # credits, which are lost to them


def extent(user_id: int) -> Extent:
    """What an erasure would take. Five statements."""
    tasks = VideoTask.objects.filter(user_id=user_id)
    user = get_user_model().objects.select_related("storage").get(pk=user_id)
    storage = getattr(user, "storage", None)
    return Extent(
        tasks=tasks.exclude(gone_why=VideoTask.GoneWhy.DELETED).count(),
        under_way=tasks.filter(finished_at=None).count(),
        uploads=Upload.objects.filter(user_id=user_id).count(),
        stored_bytes=storage.bytes if storage is not None else 0,
        balance=ledger.balance(user_id),
    )


def ask(user_id: int, *, by: Actor, address: str = "") -> None:
    """Switch a user off, and write down that they are to be erased; `work` does it. Safe to repeat.

    `by`: the operator; `address`: theirs, for the log. Raises ActionRefused `last_superuser`.
    """
    users = get_user_model().objects
    with transaction.atomic():
        user = users.select_for_update().get(pk=user_id)
        others = users.filter(is_superuser=True, is_active=True).exclude(pk=user_id)
        if user.is_superuser and user.is_active and not others.exists():
            raise ActionRefused("last_superuser", "This is the only superuser who can log in: make another one first.")
        sessions.end_all(user, LoginSession.End.SWITCHED_OFF)
        users.filter(pk=user_id).update(is_active=False)
        UserErasure.objects.update_or_create(
            user_id=user_id, defaults={"asked_by": storable(by.words, 150), "asked_at": Now(), "ended_at": None}
        )
        records.record(by, "erase", "user", user_id, detail="asked for; switched off")
    security_log.record("erasure_asked", address=address, erased=user_id, by=by.words)


def asked() -> list[int]:
    """Ids of the users who are to be erased, also those of the last minutes, who are looked at again."""
    lately = Q(ended_at__gt=Now() - timedelta(seconds=LOOK_AGAIN_S))
    rows = UserErasure.objects.filter(Q(ended_at=None) | lately).order_by("asked_at")
    return list(rows.values_list("pk", flat=True))


def work(user_id: int, *, for_s: float, on_task: Callable[[], object] = lambda: None) -> bool:
    """Erase a user for so many seconds at most. Returns whether nothing is left. Safe to repeat.

    `on_task`: called after each task. False as well while the storage can't delete a file: the sweeper does it later.
    """
    ends_at = time.monotonic() + for_s
    found = False
    for task_id, is_active in _tasks(user_id):
        if time.monotonic() >= ends_at:
            return False
        _erase_task(task_id, is_active=is_active)
        on_task()
        found = True
    if not found and UserErasure.objects.filter(pk=user_id, ended_at__isnull=False).exists():
        return True
    try:
        for forget in OWN:
            forget(user_id)
    except MediaError as err:
        log.warning("the uploads of user %s stay for now: %s", user_id, err)
        return False
    return _finish(user_id)


def _tasks(user_id: int) -> Iterator[tuple[str, bool]]:
    """(id, whether it is under way) of the tasks that are not deleted, newest first, whose files are not all gone."""
    before: tuple[Any, str] | None = None
    while True:
        rows = database.fetch(
            """
            SELECT id, finished_at IS NULL, created_at FROM video_videotask
            WHERE user_id = %(user)s AND (gone_why <> 'deleted' OR output_key <> '' OR has_work_files)
                AND (%(at)s::timestamptz IS NULL
                    OR (created_at <= %(at)s::timestamptz AND (created_at, id) < (%(at)s::timestamptz, %(id)s::text)))
            ORDER BY created_at DESC, id DESC LIMIT %(most)s
            """,
            {"user": user_id, "at": before and before[0], "id": before and before[1], "most": BATCH},
        )
        if not rows:
            return
        before = (rows[-1][2], rows[-1][0])
        yield from ((task_id, is_active) for task_id, is_active, _ in rows)


def _erase_task(task_id: str, *, is_active: bool) -> None:
    if is_active:
        try:
            cancel.cancel(task_id, by=BY)
        except ActionRefused as err:  # it has ended by itself meanwhile
            log.debug("%s needs no cancel: %s", task_id, err.code)
    try:
        delete.delete(task_id)
    except ActionRefused as err:  # an operator has retried it in this very moment; the next look finds it
        log.info("%s is not deleted yet: %s", task_id, err.code)


def _finish(user_id: int) -> bool:
    """Take the name away, unless a task or a file is left."""
    with transaction.atomic():
        user = get_user_model().objects.select_for_update().get(pk=user_id)
        if next(_tasks(user_id), None) is not None:
            return False
        old_name = user.get_username()
        _forget_name(user)
        _forget_name_in_the_admins_log(user)
        records.forget_name(user_id, user.get_username())
        jobs.forget_user(user_id, old_name, user.get_username())
        ended = UserErasure.objects.filter(pk=user_id, ended_at=None).update(ended_at=Now())
    if ended:
        tasks = VideoTask.objects.filter(user_id=user_id).count()
        asked_by = UserErasure.objects.values_list("asked_by", flat=True).get(pk=user_id)
        security_log.record("user_erased", address="", erased=user_id, by=asked_by, tasks=tasks)
    return True


def _forget_name(user: Any) -> None:
    name = f"erased-{user.pk}"
    if type(user).objects.filter(username=name).exclude(pk=user.pk).exists():
        name += "-user"
    user.username, user.email, user.first_name, user.last_name = name, "", "", ""
    user.is_active = user.is_staff = user.is_superuser = False
    user.last_login = None
    user.set_unusable_password()
    user.save()
    user.groups.clear()
    user.user_permissions.clear()


def _forget_name_in_the_admins_log(user: Any) -> None:
    """What was done to the user's own page stays; the name that it shows goes."""
    of_users = ContentType.objects.get_for_model(type(user))
    LogEntry.objects.filter(content_type=of_users, object_id=str(user.pk)).update(object_repr=user.get_username())


def _forget_share(user_id: int) -> None:
    UserShare.objects.filter(pk=user_id).delete()  # its note is an operator's text about the user
    UserUsage.objects.filter(user_id=user_id).delete()
    Pause.objects.filter(user_id=user_id).delete()  # so is its reason; who is erased starts nothing anyway


def _forget_second_factor(user_id: int) -> None:
    second_factor.reset(get_user_model().objects.get(pk=user_id))


#: What else is a user's own, beside tasks and name: each is given the user's id, and may be repeated.
OWN: tuple[Callable[[int], object], ...] = (
    records.forget_reasons,  # first: it asks which keys and logins were theirs
    sessions.forget,
    api_keys.forget,
    _forget_share,
    _forget_second_factor,
    ledger.forget_notes,
    idempotency.forget_user,
    deliveries.erase_of,
    uploads.erase_of,  # last: it needs the storage
)
