"""With 1,000,000 tasks: every index is used by the query that it is for, and the sweep costs what it costs with 50,000.

The statements are those that the product sends, caught on their way; nothing here is a copy of them. An index that no
case names fails, and so does one that its query does not use. The cost is counted in pages, never by a clock.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test import Client, override_settings
from pytest_django import DjangoDbBlocker
from rest_framework_simplejwt.tokens import AccessToken

from tests.scale.filling import ACTIVE, RICH, USER, empty, fill
from video.api.views import task_list
from video.attempts import reconcile, records
from video.engine import due, stored_files
from video.monitoring import delivered, failures, overview
from video.monitoring import users as own_figures
from video.processes import periodic
from video.routing import health
from video.scheduling import admission, estimates, storage_quota, transcode_slots

pytestmark = [pytest.mark.scale, pytest.mark.django_db]  # nothing that a case does stays
TASKS = int(os.environ.get("SCALE_TASKS", "1000000"))
MOST_PAGES = 10_000  # that a page of the admin reads: the attempts of 7 days one by one, and no more
FEW = 50_000  # so many that the database goes by its indexes there too


@pytest.fixture(scope="module", autouse=True)
def few(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[dict[str, int]]:
    """Pages that each part of the sweep reads beside a few ended tasks; the database is filled then."""
    with django_db_blocker.unblock():
        fill(FEW)
        measured = {name: pages(do) for name, do in SWEEP.items()}
        fill(TASKS)
        yield measured
        empty()


@contextmanager
def caught() -> Iterator[list[tuple[str, Any]]]:
    """The statements that are sent inside, with their parameters."""
    statements: list[tuple[str, Any]] = []

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield statements


def explained(sql: str, params: Any, *, options: str = "") -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON{options}) {sql}", params)
        found = cursor.fetchone()[0]
    plan: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan


def plans(do: Callable[[], Any]) -> list[dict[str, Any]]:
    """How the database runs what `do` sends."""
    estimates._cache.clear()
    with caught() as statements:
        do()
    wanted = re.compile(r"\s*(SELECT|WITH|UPDATE|INSERT|DELETE)\b")
    return [explained(sql, params) for sql, params in statements if wanted.match(sql)]


def indexes_in(plan: dict[str, Any]) -> set[str]:
    found = {plan["Index Name"]} if "Index Name" in plan else set()
    return found.union(*(indexes_in(part) for part in plan.get("Plans", [])))


def api(path: str, user: int = USER) -> Callable[[], Any]:
    """A call of the API as that user."""

    def get() -> None:
        client = Client()
        client.cookies["token"] = str(AccessToken.for_user(get_user_model().objects.get(pk=user)))
        assert client.get(path).status_code == 200

    return get


def page(path: str) -> Callable[[], Any]:
    """A page of the admin as an operator."""

    def get() -> None:
        client = Client()
        root = {"username": "operator", "is_staff": True, "is_superuser": True}
        client.force_login(get_user_model().objects.get_or_create(id=10_000, defaults=root)[0])
        assert client.get(path).status_code == 200

    return get


def admit() -> None:
    """A whole admission, though more submits wait for a worker here than it would add to."""
    with patch.object(admission, "MOST_READY", TASKS):
        admission.admit()


def expire() -> None:
    """One batch of videos that are too old, beside none whose own time is over."""
    with override_settings(KEEP_VIDEOS_DAYS=100):
        stored_files.mark_expired(500)


def within_quota() -> None:
    with override_settings(MAX_STORED_BYTES_PER_USER=10**15):
        storage_quota.check(USER)


CASES: dict[str, Callable[[], Any]] = {
    "task_due": lambda: due.enqueue_due(500),
    "task_waiting_for_slot": admit,
    "task_waiting_for_core": transcode_slots.grant,
    "task_with_core": transcode_slots.grant,
    "task_active_of_user": lambda: own_figures.of_user(USER),
    "task_work_to_sweep": periodic.sweep_work_files,
    "task_with_warnings": delivered.warnings_by_code,
    "task_video_to_expire": expire,
    "task_video_by_age": expire,
    "task_files_to_delete": lambda: stored_files.unfinished(500),
    "task_original_to_sweep": lambda: stored_files.old_originals(500),
    "task_list_of_user": api("/api/video/tasks"),
    "task_ended_of_user": api("/api/video/tasks?order=-endedAt"),
    "task_metadata_of_user": api("/api/video/tasks?metadata.project=none", RICH),
    "task_render": page(f"/admin/video/videotask/?q={ACTIVE}"),
    "task_list_in_admin": page("/admin/video/videotask/?status__exact=cancelled"),
    "task_by_end": failures.read,
    "task_by_error": page("/admin/video/videotask/?error=timeout"),
    "event_timeline_of_task": api(f"/api/queues/tasks/{ACTIVE}"),
    "event_recent_moves": overview.read,
    "generation_slots_taken": admit,
    "generation_slots_of_user": admit,
    "generation_to_look_at": lambda: reconcile._take_due(),
    "generation_recent_by_model": health.snapshot,
    "generation_by_model": page("/admin/video/videotask/?model=pika-2.2"),
    "entry_list_of_account": api("/api/credits"),
    "generation_by_day": page("/admin/costs/?since=1d"),
    "entry_by_day": page("/admin/costs/?since=1d"),
    "cost_group_once": page("/admin/costs/?since=90d"),
    "cost_day_of_users": page("/admin/costs/?since=7d&by=user"),
}


def named() -> set[str]:
    """Indexes on the tables that grow. Those of constraints are there for what they refuse."""
    grow = ("VideoTask", "TaskEvent", "Generation", "CreditEntry", "CostRollup")
    found: set[str] = set()
    for name in grow:
        found |= {index.name for index in apps.get_model("video", name)._meta.indexes}
    return found


def test_every_index_has_a_query() -> None:
    assert named() | {"cost_group_once"} == set(CASES)  # which is a constraint, and read by


@pytest.mark.parametrize("index", CASES)
def test_the_query_uses_the_index(index: str) -> None:
    used = set().union(*(indexes_in(plan) for plan in plans(CASES[index])))
    assert index in used, f"its query uses {sorted(used)}"


def pages(do: Callable[[], Any]) -> int:
    """Pages that the statements of `do` read, from memory or disk, each run as they are and undone."""
    with caught() as statements, transaction.atomic():
        do()
        transaction.set_rollback(True)
    read = 0
    for sql, params in statements:
        if re.match(r"\s*(SELECT|WITH|UPDATE|INSERT|DELETE)\b", sql):
            with transaction.atomic():
                plan = explained(sql, params, options=", ANALYZE, BUFFERS")
                transaction.set_rollback(True)
            read += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return read


SWEEP: dict[str, Callable[[], Any]] = {
    "ring_due": lambda: due.enqueue_due(500),
    "overdue": due.wake_overdue,
    "admit": admit,
    "cores": transcode_slots.grant,
    "take_due": lambda: reconcile._take_due(),
    "expire_unknown": lambda: records.expire_unknown(settings.UNKNOWN_WINDOW_SECONDS),
    "work_files": lambda: periodic.sweep_work_files(),
    "expire_videos": lambda: stored_files.mark_expired(500),
    "files_to_delete": lambda: stored_files.unfinished(500),
    "originals": lambda: stored_files.old_originals(500),
    "storage": within_quota,
}


def test_the_sweep_costs_the_same_however_many_tasks_have_ended(few: dict[str, int]) -> None:
    many = {name: pages(do) for name, do in SWEEP.items()}
    # Trees are a level deeper, and the join may be another. What read the tasks that have ended would read 20 times.
    assert all(many[name] <= 4 * few[name] + 200 for name in SWEEP), f"pages with many {many}, with few {few}"


MOST_OF_COSTS = 100_000  # pages: three times a month of the roll-up of each user, and the rows of today


def test_the_page_of_costs_reads_the_roll_up_and_the_rows_of_today() -> None:
    ask = page("/admin/costs/?since=30d&by=user")
    for plan in plans(ask):
        assert not read_whole(plan) & {"video_videotask", "video_taskevent", "video_generation", "video_creditentry"}
    assert pages(ask) < MOST_OF_COSTS


LISTS = (
    "",
    "?limit=100",
    "?order=createdAt",
    "?order=-endedAt&limit=100",
    f"?cursor=task_{TASKS // 2 // 4 * 4 + 1:026d}",
    "?createdBefore=2020-01-01T00:00:00Z",
    "?order=endedAt&endedAfter=2100-01-01T00:00:00Z",
    "?metadata.project=p-1",
    "?metadata.project=none",
    "?metadata.project=p-1&metadata.customer=none",
    "?text=none",
    "?status=failed",
    "?status=pending",
)


@pytest.mark.parametrize("query", LISTS)
def test_a_page_of_a_list_reads_what_it_shows(query: str) -> None:
    """Those of the tasks that it shows or looks at, in two statements, and of an index; however many the user has."""
    ask = api(f"/api/video/tasks{query}", RICH)
    assert pages(ask) < 2.5 * task_list.LOOKED_AT
    for plan in plans(ask):
        assert not read_whole(plan) & {"video_videotask", "video_taskevent", "video_generation"}


ADMIN_PAGES = (
    "/admin/?range=hour",
    "/admin/?range=day",
    "/admin/?range=month",
    "/admin/failures/",
    *(
        f"/admin/video/videotask/?{query}"
        for query in (
            "",
            f"after=task_{TASKS // 2:026d}",
            "o=1",
            "status__exact=cancelled",
            "error=timeout",
            "error=none",
            "provider=runway",
            "provider=pika",
            "model=gen4.5",
            "model=pika-2.2",
            f"user=user-{RICH}",
            f"user=user-{USER}&error=timeout",
            "ended=1h",
            "ended_before=2000-01-01",
            "ended=7d&error=timeout&model=gen4.5",
            "in_stage=1h",
            "stands=due",
        )
    ),
    "/admin/video/videotask/all/retry/?error=timeout&ended=24h",
    "/admin/video/videotask/all/cancel/?in_stage=1h",
)


@pytest.mark.parametrize("path", ADMIN_PAGES)
def test_a_page_of_the_admin_reads_no_table_that_grows_from_end_to_end(path: str) -> None:
    """Nor by an index: what it shows costs what the same costs with few tasks."""
    assert pages(page(path)) < MOST_PAGES
    for plan in plans(page(path)):
        assert not read_whole(plan) & {"video_videotask", "video_taskevent", "video_generation"}


def read_whole(plan: dict[str, Any]) -> set[str]:
    """The tables that a plan reads from end to end."""
    own = {str(plan["Relation Name"])} if plan["Node Type"] == "Seq Scan" else set()
    return own.union(*(read_whole(part) for part in plan.get("Plans", [])))
