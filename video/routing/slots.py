"""Which account has a free slot now, and which of its keys to use: configured keys meet the rows about them.

Values of keys are in the settings only; rows name them by fingerprint. Limits belong to (account, model); a slot is a
live Generation, counted under the account row's lock in the transaction that inserts it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from django.conf import settings
from django.db import connection, transaction

from providers import catalogue
from providers.api_keys import ApiKey, account_of
from providers.contract import Reason, ReasonCode
from video.infra.toolkit import ADAPTERS
from video.models import Generation, ProviderAccount, ProviderKey

log = logging.getLogger(__name__)

_WORDS = {"out_of_credits": "out of credits", "model_forbidden": "the account may not use this model"}


@dataclass
class Slot:
    """An open account with at least one active key, and how many more generations may be live on it (perhaps none)."""

    account: ProviderAccount
    free: int
    keys: list[str]  # fingerprints, those with the fewest live generations first
    live: dict[str, int] = field(default_factory=dict)  # by fingerprint; filled where there is a choice

    def take(self) -> str:
        """Use up one slot; returns the fingerprint to submit with."""
        chosen = self.keys[0]
        self.free -= 1
        self.live[chosen] = self.live.get(chosen, 0) + 1
        self.keys.sort(key=lambda fingerprint: self.live.get(fingerprint, 0))
        return chosen


class Slots(list[Slot]):
    """The open accounts, and for models that have none of them, why."""

    def __init__(self, found: Iterable[Slot], closed: dict[str, Reason]) -> None:
        super().__init__(found)
        self.closed = closed


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


# --- slots ---------------------------------------------------------------------------------------------------------


def open_slots() -> Slots:
    """Every open account with its free slots, locked until the transaction ends; call it inside one.

    At most four statements. All callers lock in the order of ids, so two of them wait instead of deadlocking.
    """
    return _read(lock=True)


def read() -> Slots:
    """The same without a lock, for display: a quote, the list of models. It may be outdated at once."""
    return _read(lock=False)


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


def why_closed() -> dict[str, Reason | None]:
    """`availability` as it is now, without a lock."""
    return availability(read())


def _read(*, lock: bool) -> Slots:
    wanted = {(provider, key.fingerprint): account for provider, key, account in configured()}
    rows, keys = _accounts(lock=lock), _keys()
    if lock and not _complete(wanted, rows, keys):
        sync()
        rows, keys = _accounts(lock=lock), _keys()
    mine: dict[tuple[str, str], list[ProviderKey]] = defaultdict(list)
    for key in keys:
        if (key.provider, key.fingerprint) in wanted:
            mine[key.provider, wanted[key.provider, key.fingerprint]].append(key)
    taken = _live_by_account()

    found: list[Slot] = []
    reasons: dict[str, tuple[int, str]] = {}  # the most hopeful of each model
    for row in rows:
        of_account = mine.get((row.provider, row.account))
        if not of_account:
            continue
        active = [key.fingerprint for key in of_account if key.state == ProviderKey.State.ACTIVE]
        reason = _why_closed(row, of_account)
        if reason is not None:
            reasons[row.model] = min(reason, reasons.get(row.model, reason))
            continue
        most = limit(row, lowered=row.is_lowered)  # type: ignore[attr-defined]  # computed by the query
        found.append(Slot(row, max(0, most - taken.get(row.pk, 0)), active))
    _sort_keys(found)
    return Slots(found, {model: Reason(ReasonCode.CLOSED, text) for model, (_, text) in reasons.items()})


def _accounts(*, lock: bool) -> list[ProviderAccount]:
    query = """
        SELECT *, coalesce(lowered_until > statement_timestamp(), false) AS is_lowered,
            extract(epoch FROM cooldown_until - statement_timestamp())::float8 AS cooldown_s
        FROM video_provideraccount ORDER BY id
        """
    return list(ProviderAccount.objects.raw(query + " FOR UPDATE" if lock else query))


def _keys() -> list[ProviderKey]:
    return list(ProviderKey.objects.order_by("id"))


def _complete(wanted: dict[tuple[str, str], str], rows: Iterable[ProviderAccount], keys: Iterable[ProviderKey]) -> bool:
    """Whether every configured key has its rows, and none of them is out of date."""
    known = {(key.provider, key.fingerprint): key.account for key in keys if key.gone_since is None}
    there = {(row.provider, row.account, row.model) for row in rows}
    return all(known.get(name) == account for name, account in wanted.items()) and all(
        name in there for name in _accounts_of(wanted)
    )


def _accounts_of(wanted: dict[tuple[str, str], str]) -> list[tuple[str, str, str]]:
    """(provider, account, model) of everything that could run a job here, in one order for all callers."""
    return sorted(
        {
            (model.provider, account, model.id)
            for (provider, _), account in wanted.items()
            for model in catalogue.MODELS
            if model.provider == provider
        }
    )


def _live_by_account() -> dict[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT account_id, count(*) FROM video_generation
            WHERE state {Generation.LIVE_SQL} GROUP BY account_id
            """  # noqa: S608 - a constant
        )
        return dict(cursor.fetchall())


def _why_closed(row: ProviderAccount, keys: list[ProviderKey]) -> tuple[int, str] | None:
    """(how far from opening, in words) of an account where no job may start now; None when it is open."""
    if row.closed_reason:
        return (3 if row.closed_reason == "model_forbidden" else 2), _WORDS.get(row.closed_reason, row.closed_reason)
    states = {key.state for key in keys}
    if ProviderKey.State.ACTIVE not in states:
        if ProviderKey.State.DRAINING in states:
            return 1, "its key takes no new jobs"
        return 4, "its key was refused"
    left_s: float | None = row.cooldown_s  # type: ignore[attr-defined]  # computed by the query
    if left_s is not None and left_s > 0:
        return 0, f"the provider asked to wait, {max(1, round(left_s))} s more"
    return None


def _sort_keys(slots: list[Slot]) -> None:
    """Least live first, over all models of a key. Asks nothing where no account has a choice."""
    with_choice = [slot for slot in slots if len(slot.keys) > 1]
    if not with_choice:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT provider, key_fingerprint, count(*) FROM video_generation
            WHERE state {Generation.LIVE_SQL} AND account_id = ANY(%s)
            GROUP BY provider, key_fingerprint
            """,  # noqa: S608 - a constant
            [[slot.account.pk for slot in with_choice]],
        )
        live = {(row[0], row[1]): row[2] for row in cursor.fetchall()}
    for slot in with_choice:
        slot.live = {key: live.get((slot.account.provider, key), 0) for key in slot.keys}
        slot.keys.sort(key=slot.live.__getitem__)


# --- rows of what is configured ------------------------------------------------------------------------------------


def sync() -> None:
    """Make the rows of every configured key and model, and notice keys that went and came back. Idempotent.

    A key that is gone while jobs depend on it is marked and logged as an error, once. A key that moved to another
    account takes its live generations along, so that they go on counting against the right limit.
    """
    wanted = {(provider, key.fingerprint): account for provider, key, account in configured()}
    with transaction.atomic():
        # Always accounts before keys, and all of them: two callers wait instead of deadlocking.
        _accounts(lock=True)
        _insert_accounts(wanted)
        _accounts(lock=True)
        _insert_keys(wanted)
        keys = {(key.provider, key.fingerprint): key for key in ProviderKey.objects.order_by("id").select_for_update()}
        for (provider, fingerprint), account in wanted.items():
            key = keys[provider, fingerprint]
            if key.account != account:
                _move(provider, fingerprint, account)
                ProviderKey.objects.filter(pk=key.pk).update(account=account)
                log.warning("%s: key %s belongs to account %s now, not %s", provider, fingerprint, account, key.account)
            if key.gone_since is not None:
                ProviderKey.objects.filter(pk=key.pk).update(gone_since=None)
                log.warning("%s: key %s is back; its jobs go on", provider, fingerprint)
        _mark_gone([key for name, key in keys.items() if name not in wanted])


def remind_of_gone() -> int:
    """Log again which keys are gone while jobs depend on them. Returns how many."""
    gone = list(ProviderKey.objects.filter(gone_since__isnull=False).order_by("id"))
    for key in gone:
        log.error(
            "%s: key %s is still gone (since %s) while jobs hang on it: put it back into %s_API_KEY",
            key.provider,
            key.fingerprint,
            f"{key.gone_since:%Y-%m-%d %H:%M} UTC",
            key.provider.upper(),
        )
    return len(gone)


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


def _insert_accounts(wanted: dict[tuple[str, str], str]) -> None:
    accounts = _accounts_of(wanted)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO video_provideraccount
                (provider, account, model, slots, busies, closed_reason, balance_unit, last_error)
            SELECT provider, account, model, %s, 0, '', '', ''
            FROM unnest(%s::text[], %s::text[], %s::text[]) AS w (provider, account, model)
            ORDER BY provider, account, model ON CONFLICT (provider, account, model) DO NOTHING
            """,
            [settings.SLOTS_PER_KEY, *([row[column] for row in accounts] for column in range(3))],
        )


def _insert_keys(wanted: dict[tuple[str, str], str]) -> None:
    keys = sorted((provider, fingerprint, account) for (provider, fingerprint), account in wanted.items())
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO video_providerkey (provider, fingerprint, account, state, last_error)
            SELECT provider, fingerprint, account, 'active', ''
            FROM unnest(%s::text[], %s::text[], %s::text[]) AS w (provider, fingerprint, account)
            ORDER BY provider, fingerprint ON CONFLICT (provider, fingerprint) DO NOTHING
            """,
            [[row[column] for row in keys] for column in range(3)],
        )


def _move(provider: str, fingerprint: str, account: str) -> None:
    """The key's live generations hold slots of its new account from now on."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE video_generation g SET account_id = new.id
            FROM video_provideraccount old, video_provideraccount new
            WHERE g.provider = %(provider)s AND g.key_fingerprint = %(fingerprint)s
                AND g.state {Generation.LIVE_SQL} AND old.id = g.account_id
                AND new.provider = old.provider AND new.model = old.model AND new.account = %(account)s
            """,  # noqa: S608 - a constant
            {"provider": provider, "fingerprint": fingerprint, "account": account},
        )


def _mark_gone(missing: list[ProviderKey]) -> None:
    """Of the keys that are not configured, mark those that jobs depend on; clear the others' marks."""
    if not missing:
        return
    live = live_by_key()
    for key in missing:
        jobs = live.get((key.provider, key.fingerprint), 0)
        if jobs and key.gone_since is None:
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE video_providerkey SET gone_since = statement_timestamp() WHERE id = %s", [key.pk]
                )
            log.error(
                "%s: key %s is gone from %s_API_KEY while %d job%s on it: put it back, or they end at their deadline",
                key.provider,
                key.fingerprint,
                key.provider.upper(),
                jobs,
                " hangs" if jobs == 1 else "s hang",
            )
        elif not jobs and key.gone_since is not None:
            ProviderKey.objects.filter(pk=key.pk).update(gone_since=None)
