"""The state of the providers: accounts with their slots, keys by fingerprint, circuits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import connection

from providers import ranking
from providers.contract import Reason, ReasonCode
from video.models import ProviderKey
from video.routing import availability, health, key_labels, slots
from video.routing.availability import Availability, ModelState
from video.routing.slots import AccountState

#: Seconds until a column's time; null when it is over.
_LEFT_S = "nullif(greatest(0, extract(epoch FROM {} - statement_timestamp())), 0)::float8"


@dataclass(frozen=True)
class AccountFigures:
    """One account and model: how much of it is in use, and why no job starts there."""

    provider: str
    account: str
    label: str  # what people call it: KEY_ACCOUNTS' name of it, else what they call its only key
    model: str
    live: int
    limit: int
    lowered: bool
    cooldown_s: float | None
    closed_reason: str
    balance: Decimal | None
    balance_unit: str
    refusals: int  # pauses in a row after a refusal, 0 for most
    retry_s: float | None  # until it is tried again after a refusal; None: at the next job
    last_error: str
    usable_keys: int
    reason: Reason | None  # why no job of anybody may start there now, FULL where each slot is taken
    free: int  # jobs that may start now
    open: bool  # whether jobs may start there, though its slots may be full

    @property
    def state(self) -> str:
        """In a few words, without times."""
        if self.reason is not None and self.reason.code in ranking.DECIDED:
            return "paused" if self.reason.code is ReasonCode.PAUSED else self.reason.text
        if self.closed_reason and not self.open:
            return f"closed: {self.closed_reason.replace('_', ' ')}"
        if not self.usable_keys and not self.open:
            return "no active key"
        if self.refusals:
            return "refused lately: the next job tries" if self.open else "refused lately"
        if self.cooldown_s is not None:
            return "cools down"
        return "open" if self.reason is None or self.open else self.reason.text


@dataclass(frozen=True)
class KeyFigures:
    """One key; its value is nowhere but in the environment."""

    provider: str
    fingerprint: str
    label: str  # what people call it
    account: str
    state: str  # active, draining, quarantined
    refusals: int  # pauses in a row after a refusal, 0 for most
    retry_s: float | None  # until it is tried again after a refusal; None: at the next job
    gone_since: datetime | None
    checked_at: datetime | None
    last_error: str
    configured: bool
    live: int


@dataclass(frozen=True)
class CircuitFigures:
    """The circuit of a model that had faults lately."""

    model: str
    provider: str
    state: str  # open, probing, half_open, one_user (keeps out the one user whose jobs failed), closed
    faults: int
    open_s: float | None
    last_error: str


def keys() -> list[KeyFigures]:
    """Configured keys as the settings list them, and keys that were removed while jobs still need them; two
    statements.
    """
    configured = {(provider, key.fingerprint): at for at, (provider, key, _) in enumerate(slots.configured())}
    live = slots.live_by_key()
    rows: Iterable[Any] = ProviderKey.objects.raw(
        f"SELECT *, {_LEFT_S.format('retry_at')} AS retry_s "  # noqa: S608 - a constant
        "FROM video_providerkey ORDER BY provider, account, fingerprint"
    )
    found = [
        KeyFigures(
            provider=row.provider,
            fingerprint=row.fingerprint,
            label=key_labels.of(row.provider, row.fingerprint, row.label),
            account=row.account,
            state=row.state,
            refusals=row.refusals,
            retry_s=row.retry_s,
            gone_since=row.gone_since,
            checked_at=row.checked_at,
            last_error=row.last_error,
            configured=(row.provider, row.fingerprint) in configured,
            live=live.get((row.provider, row.fingerprint), 0),
        )
        for row in rows
    ]
    shown = [key for key in found if key.configured or key.gone_since is not None]
    return sorted(
        shown, key=lambda key: (key.provider, configured.get((key.provider, key.fingerprint), len(configured)))
    )


def accounts(of_keys: list[KeyFigures], now: Availability | None = None) -> list[AccountFigures]:
    """Every account that a configured key belongs to, or that jobs run on; one statement without `now`."""
    mine: dict[tuple[str, str], int] = {}
    labels = {(key.provider, key.fingerprint): key.label for key in of_keys}
    places = {(key.provider, key.account): at for at, key in reversed(list(enumerate(of_keys)))}
    for key in of_keys:
        usable = key.configured and key.state == ProviderKey.State.ACTIVE and not key.retry_s
        mine[key.provider, key.account] = mine.get((key.provider, key.account), 0) + usable
    return sorted(
        (
            _account(one, mine.get((one.row.provider, one.row.account), 0), labels)
            for one in account_states(now)
            if one.row.pk is not None and ((one.row.provider, one.row.account) in mine or one.live)
        ),
        key=lambda one: (one.provider, places.get((one.provider, one.account), len(places)), one.account, one.model),
    )


def account_states(now: Availability | None = None) -> list[AccountState]:
    """How each account stands; what closes its model to everybody closes it too. One statement without `now`."""
    now = now or availability.read()
    models = now.of_all()
    return [_with_model(one, models.get(one.row.model)) for one in now.slots.accounts]


def _with_model(one: AccountState, model: ModelState | None) -> AccountState:
    if model is None or model.takes_jobs or not one.is_open:
        return one
    return replace(one, reason=model.reason, free=0, usable=0)


def _account(one: AccountState, usable_keys: int, labels: dict[tuple[str, str], str]) -> AccountFigures:
    row: Any = one.row
    of_key = labels.get((row.provider, row.account), "")
    return AccountFigures(
        provider=row.provider,
        account=row.account,
        label=key_labels.of_account(row.provider, row.account, of_key),
        model=row.model,
        live=one.live,
        limit=one.limit,
        lowered=row.is_lowered,
        cooldown_s=_left(row.cooldown_s),
        closed_reason=row.closed_reason,
        balance=None if row.balance is None else Decimal(str(row.balance)),
        balance_unit=row.balance_unit,
        refusals=row.refusals,
        retry_s=_left(row.retry_s),
        last_error=row.last_error,
        usable_keys=usable_keys,
        reason=one.reason,
        free=one.free,
        open=one.is_open,
    )


def _left(seconds: float | None) -> float | None:
    """Seconds that are left; None when they are over."""
    return seconds if seconds is not None and seconds > 0 else None


def circuits() -> list[CircuitFigures]:
    """Those with faults, the worst first; one statement."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT model, provider,
                CASE WHEN open_until IS NOT NULL AND NOT is_for_all AND fault_users[1] <> %s
                        AND cardinality(fault_users) = 1 THEN 'one_user'
                    WHEN open_until > statement_timestamp() THEN 'open'
                    WHEN open_until IS NOT NULL AND probing_since > statement_timestamp() - %s * interval '1 second'
                        THEN 'probing'
                    WHEN open_until IS NOT NULL THEN 'half_open' ELSE 'closed' END,
                faults, nullif(greatest(0, extract(epoch FROM open_until - statement_timestamp())), 0)::float8,
                last_error
            FROM video_circuit WHERE faults > 0 ORDER BY open_until DESC NULLS LAST, faults DESC, model
            """,
            [health.NOBODYS, health.PROBE_S],
        )
        return [CircuitFigures(*row) for row in cursor.fetchall()]
