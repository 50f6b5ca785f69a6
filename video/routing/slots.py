"""Which account has a free slot now, and which of its keys to use: configured keys meet the rows about them.

Values of keys are in the settings only; rows name them by fingerprint. Limits belong to (account, model); a slot is a
live Generation, counted under the account row's lock in the transaction that inserts it.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from django.conf import settings
from django.db import connection

from providers import catalogue
from providers.api_keys import ApiKey, account_of
from providers.contract import Reason, ReasonCode
from providers.ranking import FULL, SWITCHED_OFF
from video.infra import database
from video.infra.toolkit import ADAPTERS, toolkit
from video.models import Generation, ProviderAccount, ProviderKey
from video.routing import pauses, refusals
from video.routing.pauses import Paused

log = logging.getLogger(__name__)

#: (provider, fingerprint) of each configured key → its account.
Wanted = dict[tuple[str, str], str]

_WORDS = {"out_of_credits": "out of credits", "model_forbidden": "the account may not use this model"}
WITHOUT_MODEL = "its key speaks an API without this model"
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


@dataclass(frozen=True)
class AccountState:
    """How one account and model stands, whoever reads it: admission, the API and the admin."""

    row: ProviderAccount
    live: int  # jobs
    limit: int  # jobs that may be live at once, as lowered for now
    reason: Reason | None  # why no job may start there now, FULL where each slot is taken; None when one may
    free: int  # jobs that may start now
    usable: int  # jobs that may be live at once as it stands: the limit of an open one, 0 of a closed one

    @property
    def is_open(self) -> bool:
        """Whether jobs may start there, though its slots may be full."""
        return self.reason is None or self.reason.code is ReasonCode.FULL


class Slots(list[Slot]):
    """The open accounts, and for models that have none of them, why. `accounts`: all of them, open or not; `paused`:
    what operators have paused.
    """

    def __init__(
        self,
        found: Iterable[Slot],
        closed: dict[str, Reason],
        accounts: Sequence[AccountState] = (),
        paused: Sequence[Paused] = (),
    ) -> None:
        super().__init__(found)
        self.closed = closed
        self.accounts = accounts
        self.paused = paused

    def usable(self, model: str) -> int:
        """How many jobs of a model may be live at once as its accounts stand."""
        return sum(one.usable for one in self.accounts if one.row.model == model)


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


def snapshot_of(text: str) -> Slots:
    """Every open account with its free slots, for display, of what `SNAPSHOT` read. It may be outdated at once.

    A key and an account without a row count as good, with SLOTS_PER_KEY: the next admission makes their rows.
    """
    read, wanted = json.loads(text), wanted_keys()
    rows = [_row_of(ProviderAccount, one) for one in read["accounts"]]
    keys, live = _keys_of(read)
    there = {(row.provider, row.account, row.model) for row in rows}
    known = {(key.provider, key.fingerprint) for key in keys}
    new = settings.SLOTS_PER_KEY
    rows += [
        _row_of(ProviderAccount, {"provider": name, "account": account, "model": model, "slots": new})
        for name, account, model in accounts_of(wanted)
        if (name, account, model) not in there
    ]
    keys += [
        _row_of(ProviderKey, {"provider": name, "fingerprint": fingerprint, "account": account})
        for (name, fingerprint), account in wanted.items()
        if (name, fingerprint) not in known
    ]
    return _slots(rows, keys, live, wanted, pauses.snapshot_of(read["pauses"]))


def _row_of(table: type[Any], columns: dict[str, Any]) -> Any:
    """A row as the queries of this module give it: its columns, and what was computed by the clock of the database."""
    row = table(**{field.attname: columns[field.attname] for field in table._meta.fields if field.attname in columns})
    for name in ("is_lowered", "cooldown_s", "retry_s"):
        setattr(row, name, columns.get(name))
    return row


def read() -> Slots:
    """The same, read now; one statement."""
    return snapshot_of(database.value(f"SELECT {SNAPSHOT}"))


def lock_all() -> Slots | None:
    """The same, with the accounts locked until the transaction ends; call it inside one. Two statements.

    None: a configured key has no rows yet, or outdated ones (`attempts.configured_keys` makes them).
    """
    wanted, rows = wanted_keys(), accounts_locked()
    read = json.loads(database.value(f"SELECT json_build_object({_KEYS})::text"))
    keys, live = _keys_of(read)
    if not _complete(wanted, rows, keys):
        return None
    return _slots(rows, keys, live, wanted, pauses.snapshot_of(read["pauses"]))


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


def _slots(
    rows: list[ProviderAccount], keys: list[ProviderKey], live: Live, wanted: Wanted, paused: list[Paused]
) -> Slots:
    mine: dict[tuple[str, str], list[ProviderKey]] = defaultdict(list)
    for key in keys:
        if (key.provider, key.fingerprint) in wanted:
            mine[key.provider, wanted[key.provider, key.fingerprint]].append(key)
    shapes = {(provider, key.fingerprint): key.shape for provider, key, _ in configured()}

    found: list[Slot] = []
    states: list[AccountState] = []
    reasons: dict[str, tuple[int, Reason]] = {}  # the most hopeful of each model
    for row in rows:
        of_account = mine.get((row.provider, row.account))
        most = limit(row, lowered=row.is_lowered)  # type: ignore[attr-defined]  # computed by the query
        jobs = live.of_account[row.pk]
        if not of_account:
            states.append(AccountState(row, jobs, most, Reason(ReasonCode.NO_KEY, "no key of it is configured"), 0, 0))
            continue
        adapter = toolkit().provider(row.provider)
        offering = [key for key in of_account if adapter.offers(row.model, shapes[key.provider, key.fingerprint])]
        active = [key.fingerprint for key in offering if key.state == ProviderKey.State.ACTIVE and not key.refusals]
        to_try = [key.fingerprint for key in offering if _may_try_key(key)]
        pause = pauses.of_account(paused, row.provider, row.model, row.account)
        closed = _why_closed(row, offering, most, pause, is_usable=bool(active or to_try))
        if closed is not None:
            reasons[row.model] = min(closed, reasons.get(row.model, closed), key=itemgetter(0))
            states.append(AccountState(row, jobs, most, closed[1], 0, 0))
            continue
        is_try = row.refusals > 0
        usable = min(most, 1 if is_try else most if active else len(to_try))
        free = min(max(0, most - jobs), usable)
        states.append(AccountState(row, jobs, most, None if free else FULL, free, usable))
        of_key = {key: live.of_key[row.provider, key] for key in active}
        found.append(Slot(row, free, sorted(active, key=of_key.__getitem__), of_key, to_try=to_try, is_try=is_try))
    return Slots(found, {model: reason for model, (_, reason) in reasons.items()}, states, paused)


#: Seconds until a refused key or account is tried again; negative: for so long it could have been.
_RETRY_S = "extract(epoch FROM retry_at - statement_timestamp())::float8 AS retry_s"


_ACCOUNT_ROWS = f"""
        SELECT *, coalesce(lowered_until > statement_timestamp(), false) AS is_lowered,
            extract(epoch FROM cooldown_until - statement_timestamp())::float8 AS cooldown_s,
            {_RETRY_S}
        FROM video_provideraccount"""  # noqa: S608 - a constant


def accounts_locked() -> list[ProviderAccount]:
    """All rows by id: every caller locks them in this order, so that two callers wait instead of deadlocking."""
    return list(ProviderAccount.objects.raw(f"{_ACCOUNT_ROWS} ORDER BY id FOR UPDATE"))


# Rows as JSON, without their times but for what is left of them, by the clock of the database.
_ACCOUNTS = f"""'accounts', (SELECT coalesce(
        json_agg(to_jsonb(a) - ARRAY['lowered_until', 'cooldown_until', 'refused_since', 'retry_at'] ORDER BY a.id),
        '[]') FROM ({_ACCOUNT_ROWS}) a)"""  # noqa: S608 - constants
_KEYS = f"""
    'keys', (SELECT coalesce(
        json_agg(to_jsonb(k) - ARRAY['checked_at', 'refused_since', 'retry_at'] ORDER BY k.id), '[]') FROM (
        SELECT *, {_RETRY_S} FROM video_providerkey) k),
    'pauses', {pauses.SNAPSHOT},
    'live', (SELECT coalesce(json_agg(json_build_array(provider, key_fingerprint, account_id, jobs)), '[]') FROM (
        SELECT provider, key_fingerprint, account_id, count(*) AS jobs FROM video_generation
        WHERE state {Generation.LIVE_SQL} GROUP BY provider, key_fingerprint, account_id) l)"""  # noqa: S608 - constants
#: One column of a SELECT: every account and key, the live jobs of each, and all pauses, as text for `snapshot_of`.
SNAPSHOT = f"json_build_object({_ACCOUNTS}, {_KEYS})::text"


def _keys_of(read: dict[str, Any]) -> tuple[list[ProviderKey], Live]:
    """Every key by id, and the live generations, of what `_KEYS` read."""
    live = Live()
    for provider, fingerprint, account, jobs in read["live"]:
        live.of_account[account] += jobs
        live.of_key[provider, fingerprint] += jobs
    return [_row_of(ProviderKey, one) for one in read["keys"]], live


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


def _why_closed(
    row: ProviderAccount, keys: list[ProviderKey], most: int, pause: Paused | None, *, is_usable: bool
) -> tuple[int, Reason] | None:
    """(how far from opening, why) of an account where no job may start now; None when it is open.

    `keys`: those of the account that offer the model; `is_usable`: a job may use one of them; `most`: its limit. What
    an operator decided comes before what the provider did.
    """
    if not keys:
        return _FARTHEST, Reason(ReasonCode.CLOSED, WITHOUT_MODEL)
    if row.slots_override == 0:
        return 7, _off("its limit is 0 jobs at once")
    if all(key.state == ProviderKey.State.DRAINING for key in keys):
        return 6, _off("its key takes no new jobs")
    if pause is not None:
        return 1, pause.why
    found = _why_refused(row, keys, most, is_usable=is_usable)
    return None if found is None else (found[0], Reason(ReasonCode.CLOSED, found[1]))


def _off(how: str) -> Reason:
    """Why an account that an operator switched off takes no jobs."""
    return Reason(ReasonCode.SWITCHED_OFF, f"{SWITCHED_OFF.text}: {how}")


def _why_refused(
    row: ProviderAccount, keys: list[ProviderKey], most: int, *, is_usable: bool
) -> tuple[int, str] | None:
    if most == 0:
        return 5, "its provider allows 0 jobs at once"
    if row.closed_reason and not (row.refusals and _may_try(row)):
        return (3 if row.closed_reason == "model_forbidden" else 2), _WORDS.get(row.closed_reason, row.closed_reason)
    if row.refusals and not _may_try(row):
        return 0, f"the provider refused it a moment ago{_again(row)}"
    if not is_usable:
        refused = [key for key in keys if key.state == ProviderKey.State.ACTIVE]
        if refused:
            return 0, f"its key was refused a moment ago{_again(refused[0])}"
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
