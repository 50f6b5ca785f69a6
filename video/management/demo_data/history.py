"""Writes the made-up past: users, their credits, and thirty days of tasks, in one transaction.

Balances are written together with the entries that explain them, so `check_ledger` finds nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.utils import timezone

from providers.api_keys import fingerprint
from video.attempts import configured_keys
from video.infra.toolkit import toolkit
from video.management.demo_data import stories
from video.management.demo_data.rows import KEPT_SHORT, MARK, Diary, Keys, Media, Rows, keep_files
from video.management.demo_data.stories import DAY_S, DAYS, PEOPLE, Story
from video.models import (
    Account,
    CreditEntry,
    Generation,
    ProviderAccount,
    ProviderKey,
    TaskEvent,
    UserShare,
    VideoTask,
)

BATCH = 500
#: Until so long ago each provider had another key, whose account is still in the figures.
CHANGED_KEYS_DAYS = 12
WITH_FILES = 40  # made-up videos that have files, at most: the newest
Told = Callable[[str], None]


@dataclass(frozen=True)
class Written:
    """What is there now: tasks of the made-up past, and how many of them this call has added."""

    tasks: int
    added: int
    ends: dict[str, int]  # tasks by how they ended, of those that were added


def people() -> list[AbstractBaseUser]:
    """The made-up users, made if they are missing. None has a password, so nobody can log in as one of them."""
    users = get_user_model()
    found: list[AbstractBaseUser] = []
    for person in PEOPLE:
        user, is_new = users.objects.get_or_create(username=person.name, defaults={"is_active": person.is_active})
        if is_new:
            user.set_unusable_password()
            user.date_joined = timezone.now() - timedelta(days=DAYS + 1)
            user.save(update_fields=["password", "date_joined"])
            if person.weight > 1 or person.note:
                UserShare.objects.create(user=user, weight=person.weight, note=person.note)
        found.append(user)
    return found


@transaction.atomic
def write(number: int, seed: int, media: Sequence[Media], told: Told) -> Written:
    """So many tasks of the last thirty days, unless there are some already; two calls at once write them once."""
    users = people()  # a second call waits here for the first, which holds the rows' unique names
    ids = [user.pk for user in users]
    list(get_user_model().objects.filter(pk__in=ids).order_by("pk").select_for_update())
    there = VideoTask.objects.filter(user__in=ids, idempotency_key__startswith=MARK).count()
    if there:
        return Written(there, 0, {})
    now = timezone.now()
    today, before = _keys()
    drawn = stories.draw(number, seed)
    written = []
    for place, story in enumerate(drawn):
        keys = before if story.age_s > CHANGED_KEYS_DAYS * DAY_S else today
        written.append(_rows(story, ids[story.person], place, now, keys))
    _keep_files(written, media)
    _insert(written, told)
    _pay(written, users, now)
    ends = Counter(one.task.status for one in written)
    return Written(len(written), len(written), dict(sorted(ends.items())))


def _rows(story: Story, user_id: int, place: int, now: datetime, keys: Keys) -> Rows:
    """The rows of a story, all of which is over by now."""
    begins = now - timedelta(seconds=story.age_s)
    latest = now - 2 * KEPT_SHORT
    diary = Diary(story, user_id, place, begins, keys)
    rows = diary.write()
    if diary.now > latest:
        rows = Diary(story, user_id, place, begins - (diary.now - latest), keys).write()
    return rows


def _keep_files(written: Sequence[Rows], media: Sequence[Media]) -> None:
    """Copy the files of real videos of the simulator for the newest successes."""
    if not media:
        return
    storage = toolkit().storage
    done = [one for one in written if one.task.video_id and _looks_so(one.task)]
    for place, one in enumerate(done[-WITH_FILES:]):
        chosen = media[place % len(media)]
        keep_files(one.task, chosen)
        storage.copy(chosen.video_key, one.task.output_key)
        storage.copy(chosen.thumbnail_key, one.task.thumbnail_key)


def _looks_so(task: VideoTask) -> bool:
    """Whether the simulator's videos are as this task ordered its own."""
    return (task.duration_s, task.aspect_ratio, task.resolution, task.warnings) == (5, "16:9", "source", [])


def _keys() -> tuple[Keys, Keys]:
    """The accounts of the configured keys, and of the keys that each provider had before."""
    configured_keys.sync()
    today: Keys = {}
    before: Keys = {}
    made = ProviderKey.objects.exclude(fingerprint__in=[_former(name) for name in _providers()]).order_by("id")
    current = {key.provider: key for key in reversed(made)}
    for provider, key in current.items():
        former = _former(provider)
        ProviderKey.objects.get_or_create(
            provider=provider,
            fingerprint=former,
            defaults={"account": former, "state": ProviderKey.State.DRAINING, "base_url": key.base_url},
        )
        for row in ProviderAccount.objects.filter(provider=provider, account=key.account):
            today[provider, row.model] = row
            before[provider, row.model], _ = ProviderAccount.objects.get_or_create(
                provider=provider, account=former, model=row.model, defaults={"slots": row.slots}
            )
    return today, before


def _providers() -> list[str]:
    return list(ProviderKey.objects.values_list("provider", flat=True).distinct())


def _former(provider: str) -> str:
    return fingerprint(f"former-simulated-{provider}-key")


def _insert(written: Sequence[Rows], told: Told) -> None:
    for first in range(0, len(written), BATCH):
        batch = written[first : first + BATCH]
        VideoTask.objects.bulk_create([one.task for one in batch])
        Generation.objects.bulk_create([row for one in batch for row in one.generations])
        told(f"history: {first + len(batch)} of {len(written)} tasks")
    events = [row for one in written for row in one.events]
    events.sort(key=lambda event: event.finished_at)
    TaskEvent.objects.bulk_create(events, batch_size=2000)


def _pay(written: Sequence[Rows], users: Sequence[AbstractBaseUser], now: datetime) -> None:
    """Each user was given what they spent and some more, before their first task; then entries and balances."""
    entries = sorted((row for one in written for row in one.entries), key=lambda entry: entry.created_at)
    debits: Counter[int] = Counter()
    moved: Counter[int] = Counter()
    for entry in entries:
        debits[entry.account_id] -= min(entry.amount, 0)
        moved[entry.account_id] += entry.amount
    begins = min([now, *(entry.created_at for entry in entries)]) - timedelta(hours=1)
    grants = [
        CreditEntry(
            account_id=user.pk,
            kind=CreditEntry.Kind.GRANT,
            amount=debits[user.pk] + person.spare_credits,
            note="seed_demo",
            created_at=begins,
        )
        for user, person in zip(users, PEOPLE, strict=True)
    ]
    Account.objects.bulk_create([Account(user_id=user.pk) for user in users], ignore_conflicts=True)
    CreditEntry.objects.bulk_create([*grants, *entries], batch_size=2000)
    for grant in grants:
        account = Account.objects.select_for_update().get(pk=grant.account_id)
        account.balance += grant.amount + moved[grant.account_id]
        account.save(update_fields=["balance"])
