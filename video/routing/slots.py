"""Which account has a free slot now, and which of its keys to use: configured keys meet the rows about them.

Values of keys are in the settings only; rows name them by fingerprint. Limits belong to (account, model); a slot is a
live Generation, counted under the account row's lock in the transaction that inserts it.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import connection

from providers import catalogue
from providers.api_keys import ApiKey, account_of
from providers.contract import Reason, ReasonCode
from video.infra.toolkit import ADAPTERS, toolkit
from video.models import Generation, ProviderAccount, ProviderKey
from video.routing import refusals

log = logging.getLogger(__name__)

#: (provider, fingerprint) of each configured key → its account.
Wanted = dict[tuple[str, str], str]

_WORDS = {"out_of_credits": "out of credits", "model_forbidden": "the account may not use this model"}
_FARTHEST = 9  # from opening: that nothing but the configuration changes


@dataclass
class Slot:
    """An open account with at least one active key, and how many more generations may be live on it (perhaps none)."""

    account: ProviderAccount
    free: int
    keys: list[str]  # fingerprints, those with the fewest live generations first
    live: dict[str, int] = field(default_factory=dict)  # by fingerprint, over all models of the key
    #: Keys that were refused lately, and whose pause is over: one job tries each.
    to_try: list[str] = field(default_factory=list)
    is_try: bool = False  # the account was refused lately itself: its only job tries

    def take(self) -> str:
        """Use up one slot; returns the fingerprint to submit with. Keys that are to be tried come first."""
        self.free -= 1
        if self.to_try:
            return self.to_try.pop()
        chosen = self.keys[0]
        self.live[chosen] = self.live.get(chosen, 0) + 1
        self.keys.sort(key=lambda fingerprint: self.live.get(fingerprint, 0))
        return chosen


@dataclass
class Live:
    """How many generations are live."""

    of_account: Counter[int] = field(default_factory=Counter)  # by its row: an account and a model
    of_key: Counter[tuple[str, str]] = field(default_factory=Counter)  # by provider and fingerprint


class Slots(list[Slot]):
    """The open accounts, and for models that have none of them, why."""

    def __init__(self, found: Iterable[Slot], closed: dict[str, Reason]) -> None:
        super().__init__(found)
        self.closed = closed


def wanted_keys() -> Wanted:
    """The configured keys and the account of each."""
    return {(provider, key.fingerprint): account for provider, key, account in configured()}


def configured() -> Iterator[tuple[str, ApiKey, str]]:
    """(provider, key, account) of each configured key whose provider has an adapter."""
    for provider, keys in settings.PROVIDER_KEYS.items():
        if has_adapter(provider):
            for key in keys:
                yield provider, key, account_of(provider, key, settings.KEY_ACCOUNTS)


def has_adapter(provider: str) -> bool:
    """Whether jobs can be sent to that provider at all."""
    return any(adapter.name == provider for adapter in ADAPTERS)


def limit(account: ProviderAccount, *, lowered: bool) -> int:
    """How many generations may be live: the operator's number before the provider's, and fewer while `lowered`."""
    most = account.slots if account.slots_override is None else account.slots_override
    if lowered and account.lowered_slots is not None:
        return min(most, account.lowered_slots)
    return most


def read() -> Slots:
    """Every open account with its free slots, for display: a quote, the list of models. It may be outdated at once."""
    return _slots(accounts(lock=False), *_keys(), wanted_keys())


def lock_all() -> Slots | None:
    """The same, with the accounts locked until the transaction ends; call it inside one. Two statements.

    None: a configured key has no rows yet, or outdated ones (`attempts.configured_keys` makes them).
    """
    wanted, rows = wanted_keys(), accounts(lock=True)
    keys, live = _keys()
    return _slots(rows, keys, live, wanted) if _complete(wanted, rows, keys) else None


def availability(slots: Slots, *, full: Reason | None = None) -> dict[str, Reason | None]:
    """For each model that a configured key could run: None if an account is open for it, else why there is none.

    Models without a key are not in it. `full` is the reason of those whose open accounts have no free slot.
    """
    found: dict[str, Reason | None] = dict(slots.closed)
    for model, number in free(slots).items():
        found[model] = None if number else full
    return found


def free(slots: Iterable[Slot]) -> dict[str, int]:
    """Free slots of each model that has an open account; 0 means that its accounts are full."""
    found: dict[str, int] = defaultdict(int)
    for slot in slots:
        found[slot.account.model] += max(0, slot.free)
    return dict(found)


def _slots(rows: list[ProviderAccount], keys: list[ProviderKey], live: Live, wanted: Wanted) -> Slots:
    mine: dict[tuple[str, str], list[ProviderKey]] = defaultdict(list)
    for key in keys:
        if (key.provider, key.fingerprint) in wanted:
            mine[key.provider, wanted[key.provider, key.fingerprint]].append(key)
    shapes = {(provider, key.fingerprint): key.shape for provider, key, _ in configured()}

    found: list[Slot] = []
    reasons: dict[str, tuple[int, str]] = {}  # the most hopeful of each model
    for row in rows:
        of_account = mine.get((row.provider, row.account))
        if not of_account:
            continue
        adapter = toolkit().provider(row.provider)
        offering = [key for key in of_account if adapter.offers(row.model, shapes[key.provider, key.fingerprint])]
        active = [key.fingerprint for key in offering if key.state == ProviderKey.State.ACTIVE and not key.refusals]
        to_try = [key.fingerprint for key in offering if _may_try_key(key)]
        reason = _why_closed(row, offering, is_usable=bool(active or to_try))
        if reason is not None:
            reasons[row.model] = min(reason, reasons.get(row.model, reason))
            continue
        most = limit(row, lowered=row.is_lowered)  # type: ignore[attr-defined]  # computed by the query
        room = max(0, most - live.of_account[row.pk])
        is_try = row.refusals > 0
        free = min(room, 1) if is_try else room if active else min(room, len(to_try))
        of_key = {key: live.of_key[row.provider, key] for key in active}
        found.append(Slot(row, free, sorted(active, key=of_key.__getitem__), of_key, to_try=to_try, is_try=is_try))
    return Slots(found, {model: Reason(ReasonCode.CLOSED, text) for model, (_, text) in reasons.items()})


def accounts(*, lock: bool) -> list[ProviderAccount]:
    """All rows by id: every caller locks them in this order, so that two callers wait instead of deadlocking."""
    query = f"""
        SELECT *, coalesce(lowered_until > statement_timestamp(), false) AS is_lowered,
            extract(epoch FROM cooldown_until - statement_timestamp())::float8 AS cooldown_s,
            {_RETRY_S}
        FROM video_provideraccount ORDER BY id
        """  # noqa: S608 - a constant
    return list(ProviderAccount.objects.raw(query + " FOR UPDATE" if lock else query))


#: Seconds until a refused key or account is tried again; negative: for so long it could have been.
_RETRY_S = "extract(epoch FROM retry_at - statement_timestamp())::float8 AS retry_s"


def _keys() -> tuple[list[ProviderKey], Live]:
    """Every key by id, and the live generations, counted after the accounts were locked; one statement."""
    found = ProviderKey.objects.raw(
        f"""
        SELECT k.*, {_RETRY_S}, live.provider AS live_provider, live.key_fingerprint, live.account_id, live.jobs
        FROM video_providerkey k FULL JOIN (
            SELECT provider, key_fingerprint, account_id, count(*) AS jobs FROM video_generation
            WHERE state {Generation.LIVE_SQL} GROUP BY provider, key_fingerprint, account_id
        ) live ON live.provider = k.provider AND live.key_fingerprint = k.fingerprint
        ORDER BY k.id
        """  # noqa: S608 - constants
    )
    keys: dict[int, ProviderKey] = {}
    live = Live()
    for row in found:
        if row.pk is not None:
            keys[row.pk] = row
        if row.jobs:  # type: ignore[attr-defined]  # columns of the query
            live.of_account[row.account_id] += row.jobs  # type: ignore[attr-defined]
            live.of_key[row.live_provider, row.key_fingerprint] += row.jobs  # type: ignore[attr-defined]
    return list(keys.values()), live


def _complete(wanted: Wanted, rows: Iterable[ProviderAccount], keys: Iterable[ProviderKey]) -> bool:
    """Whether every configured key has its rows, and none of them is out of date."""
    known = {(key.provider, key.fingerprint): (key.account, key.base_url) for key in keys if key.gone_since is None}
    there = {(row.provider, row.account, row.model) for row in rows}
    return all(known.get(name) == (account, base_url(name[0])) for name, account in wanted.items()) and all(
        name in there for name in accounts_of(wanted)
    )


def base_url(provider: str) -> str:
    """The provider's address as the rows of its keys have it."""
    return str(settings.PROVIDER_BASE_URLS[provider])[:300]


def accounts_of(wanted: Wanted) -> list[tuple[str, str, str]]:
    """(provider, account, model) of everything that could run a job here, in one order for all callers."""
    return sorted(
        {
            (model.provider, account, model.id)
            for (provider, _), account in wanted.items()
            for model in catalogue.MODELS
            if model.provider == provider
        }
    )


def _may_try_key(key: ProviderKey) -> bool:
    """Whether one job may try a key that was refused. Where the provider can be asked about it, that read comes first:
    after a good answer the key is active and has no `retry_at`.
    """
    retry_s: float | None = key.retry_s  # type: ignore[attr-defined]  # computed by the query
    if key.state == ProviderKey.State.DRAINING or not (key.refusals or key.state == ProviderKey.State.QUARANTINED):
        return False
    if retry_s is None:
        return key.state == ProviderKey.State.ACTIVE
    return retry_s <= -refusals.wait_for_read_s(key.provider)


def _may_try(row: ProviderAccount) -> bool:
    """Whether one job may try an account and model that was refused."""
    retry_s: float | None = row.retry_s  # type: ignore[attr-defined]  # computed by the query
    if retry_s is None:
        return row.closed_reason == ""
    reads_tell = row.closed_reason == "out_of_credits"
    return retry_s <= -(refusals.wait_for_read_s(row.provider) if reads_tell else 0.0)


def _why_closed(row: ProviderAccount, keys: list[ProviderKey], *, is_usable: bool) -> tuple[int, str] | None:
    """(how far from opening, in words) of an account where no job may start now; None when it is open.

    `keys`: those of the account that offer the model; `is_usable`: a job may use one of them.
    """
    if not keys:
        return _FARTHEST, "its key speaks an API without this model"
    if row.closed_reason and not (row.refusals and _may_try(row)):
        return (3 if row.closed_reason == "model_forbidden" else 2), _WORDS.get(row.closed_reason, row.closed_reason)
    if row.refusals and not _may_try(row):
        return 0, f"the provider refused it a moment ago{_again(row)}"
    if not is_usable:
        states = {key.state for key in keys}
        refused = [key for key in keys if key.state == ProviderKey.State.ACTIVE]
        if refused:
            return 0, f"its key was refused a moment ago{_again(refused[0])}"
        if ProviderKey.State.DRAINING in states:
            return 1, "its key takes no new jobs"
        return 4, "its key was refused"
    left_s: float | None = row.cooldown_s  # type: ignore[attr-defined]  # computed by the query
    if left_s is not None and left_s > 0:
        return 0, f"the provider asked to wait, {max(1, round(left_s))} s more"
    return None


def _again(row: Any) -> str:
    """When a refused key or account is tried again, in words."""
    return f"; it is tried again in {round(row.retry_s)} s" if row.retry_s and row.retry_s > 0 else ""


# --- rows of what is configured ------------------------------------------------------------------------------------


def live_by_key() -> dict[tuple[str, str], int]:
    """Live generations of each key. Simulated ones only while simulating: else nothing waits for them."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT provider, key_fingerprint, count(*) FROM video_generation
            WHERE state {Generation.LIVE_SQL} AND (NOT simulated OR %s)
            GROUP BY provider, key_fingerprint
            """,  # noqa: S608 - a constant
            [settings.SIMULATE],
        )
        return {(row[0], row[1]): row[2] for row in cursor.fetchall()}
