"""Reports of costs and usage: one function for the page, the command and the API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.utils import timezone

from video.costs.facts import AMOUNTS, FAILURES, FIRST_DAY, GROUP, OF_WANTED, OUTCOMES
from video.costs.rates import credit_usd, rates
from video.infra import database
from video.models import CostRollup
from video.routing import key_labels

#: What a report may be grouped by, and filtered by but for the day: the word, and its column.
DIMENSIONS: Final[Mapping[str, str]] = {
    "day": "day",
    "provider": "provider",
    "model": "model",
    "key": "key_fingerprint",
    "user": "user_id",
    "outcome": "outcome",
}
MOST_DAYS: Final = 3660
MOST_ROWS: Final = 10_000
_ZERO: Final = Decimal(0)


class BadQuery(ValueError):
    """What is asked for is no report. `field`: the word that is at fault; the text says what it may be."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Query:
    """What is asked for. Both days count, in UTC."""

    since: date
    until: date
    by: tuple[str, ...] = ("day",)
    provider: str | None = None
    model: str | None = None
    key: str | None = None  # its fingerprint
    user: int | None = None
    outcome: str | None = None
    simulated: bool | None = None  # None: what was simulated too
    most: int = MOST_ROWS  # rows

    @property
    def needs_users(self) -> bool:
        """Whether the rows of all users together are not enough."""
        return "user" in self.by or self.user is not None


@dataclass(frozen=True)
class Sums:
    """What a group comes to. Of attempts USD, of credits whole numbers."""

    attempts: int = 0
    videos: int = 0  # that providers made and users got
    reports: int = 0  # attempts whose provider said what it charged
    reported: Mapping[tuple[str, str], Decimal] = field(default_factory=dict)  # (provider, unit): in that unit
    reported_usd: Decimal = _ZERO
    reports_expected_usd: Decimal = _ZERO  # what was expected of those
    estimated_usd: Decimal = _ZERO  # expected of those that may be charged, and of which nothing was reported
    failures_usd: Decimal = _ZERO  # the part of the charge that came to nothing
    unpriced: int = 0  # attempts that may be charged, and of which neither is known
    debits: int = 0  # runs
    debited: int = 0
    refunded: int = 0
    free: int = 0  # granted for a retry
    granted: int = 0  # otherwise
    adjusted: int = 0

    @property
    def is_of_grants(self) -> bool:
        """Nothing was used: what is left are credits that an operator gave or corrected."""
        return not (self.attempts or self.debits or self.refunded or self.free)

    @property
    def charge_usd(self) -> Decimal:
        """What the providers charge, as far as anybody knows."""
        return self.reported_usd + self.estimated_usd

    @property
    def expected_usd(self) -> Decimal:
        """What was expected of the same attempts."""
        return self.reports_expected_usd + self.estimated_usd

    @property
    def earned(self) -> int:
        """Credits that users paid and did not get back."""
        return self.debited - self.refunded - self.free

    @property
    def margin_usd(self) -> Decimal | None:
        """What is left of it; None while no setting says what a credit is worth."""
        worth = credit_usd()
        return None if worth is None else self.earned * worth - self.charge_usd


@dataclass(frozen=True)
class Row:
    """One group: its value in each dimension that was asked for, in that order."""

    values: tuple[Any, ...]
    sums: Sums


@dataclass(frozen=True)
class Report:
    """The groups, by day first and then the dearest first, and the sum of all."""

    query: Query
    rows: Sequence[Row]
    total: Sums
    cut: bool  # there are more groups than rows
    has_simulated: bool  # some of it was simulated
    has_real: bool


_STATEMENT: Final = """
    WITH bounds AS MATERIALIZED (
        SELECT greatest(%(since)s::date, {first}) AS since, %(until)s::date AS until
    ), wanted AS MATERIALIZED (
        SELECT d::date AS day FROM bounds, generate_series(bounds.since, bounds.until, interval '1 day') d
        WHERE NOT EXISTS (SELECT FROM video_costday k WHERE k.day = d::date)
            OR EXISTS (SELECT FROM video_costtouch s WHERE s.day = d::date)
        LIMIT %(days)s  -- all of them; so the database does not expect a thousand
    ), facts (day, {columns}) AS ({of_wanted}), kept AS (
        SELECT day, {columns} FROM video_costrollup r
        WHERE {users} AND r.day BETWEEN %(since)s AND %(until)s
            AND NOT EXISTS (SELECT FROM wanted w WHERE w.day = r.day)
    ), found AS MATERIALIZED (
        SELECT {picked}provider AS of_provider, cost_unit, simulated, outcome = ANY(%(failures)s) AS in_vain,
            outcome = 'delivered' AS is_delivered, {sums}
        FROM (SELECT * FROM facts UNION ALL SELECT * FROM kept) counted
        WHERE {filters}
        GROUP BY {picked_names}of_provider, cost_unit, simulated, in_vain, is_delivered
    ), priced AS (
        SELECT found.*, found.reported * coalesce(rate.usd, 0) AS reported_usd,
            CASE WHEN rate.usd IS NULL THEN reports ELSE 0 END AS without_rate
        FROM found LEFT JOIN unnest(%(providers)s::text[], %(units)s::text[], %(rates)s::numeric[])
            AS rate (provider, unit, usd) ON rate.provider = of_provider AND rate.unit = cost_unit
    )
    SELECT {shown}{grouping}, {totals}, sum(reported_usd), sum(unpriced + without_rate),
        coalesce(sum(reported_usd + estimated_usd) FILTER (WHERE in_vain), 0),
        coalesce(sum(attempts) FILTER (WHERE is_delivered), 0),
        coalesce(bool_or(simulated), false), coalesce(bool_or(NOT simulated), false),
        coalesce(json_agg(json_build_array(of_provider, cost_unit, reported::text)) FILTER (WHERE reports > 0), '[]')
    FROM priced GROUP BY {sets}
    ORDER BY {grouping} DESC, {order}sum(reported_usd + estimated_usd) DESC, sum(debited) DESC{then}
    LIMIT %(most)s
"""


def read(query: Query) -> Report:
    """The report, in one statement and so of one moment. Days that are over come from the roll-up, unless something of
    them has changed since; all others from the rows themselves.
    """
    by = query.by
    rows = database.fetch(_statement(query), _params(query))
    total, groups = Sums(), []
    simulated = real = False
    for row in rows:
        values, is_total, sums = row[: len(by)], row[len(by)], _sums(row[len(by) + 1 :])
        if is_total:
            total, (simulated, real) = sums, row[-3:-1]
        else:
            groups.append(Row(tuple(values), sums))
    if not by:
        groups = [Row((), total)]
    return Report(query, groups[: query.most], total, len(groups) > query.most, simulated, real)


def _statement(query: Query) -> str:
    picked = [f"g{place}" for place, _ in enumerate(query.by)]
    names = "".join(f"{name}, " for name in picked)
    filters = [f"{column} = %({word})s" for word, column in _filters(query)] or ["true"]
    return _STATEMENT.format(
        first=FIRST_DAY,
        columns=", ".join((*GROUP, *AMOUNTS)),
        of_wanted=OF_WANTED,
        users=_users(query),
        picked="".join(f"{DIMENSIONS[word]} AS g{place}, " for place, word in enumerate(query.by)),
        picked_names=names,
        filters=" AND ".join(filters),
        sums=", ".join(f"sum({name}) AS {name}" for name in AMOUNTS),
        shown=names,
        grouping=f"grouping({picked[0]})" if picked else "1",
        totals=", ".join(f"coalesce(sum({name}), 0)" for name in AMOUNTS),
        sets=f"GROUPING SETS (({', '.join(picked)}), ())" if picked else "GROUPING SETS (())",
        order=f"g{query.by.index('day')}, " if "day" in query.by else "",
        then="".join(f", {name}" for name in picked),
    )


def _users(query: Query) -> str:
    if query.user is not None:
        return "r.user_id = %(user)s"
    return "r.user_id > 0" if query.needs_users else f"r.user_id = {CostRollup.ALL_USERS}"


def _filters(query: Query) -> list[tuple[str, str]]:
    words = {**DIMENSIONS, "simulated": "simulated"}
    return [(word, words[word]) for word in words if word != "day" and getattr(query, word) is not None]


def _params(query: Query) -> dict[str, Any]:
    known = rates()
    return {
        "since": query.since,
        "until": query.until,
        "days": (query.until - query.since).days + 1,
        "failures": list(FAILURES),
        "providers": [rate.provider for rate in known],
        "units": [rate.unit for rate in known],
        "rates": [rate.usd for rate in known],
        "most": query.most + 2,  # the total, and one more to see whether there is more
        **{word: getattr(query, word) for word, _ in _filters(query)},
    }


def _sums(row: Sequence[Any]) -> Sums:
    amounts = dict(zip(AMOUNTS, row, strict=False))
    reported_usd, unpriced, failures, videos, _, _, units = row[len(AMOUNTS) :]
    reported: dict[tuple[str, str], Decimal] = {}
    for provider, unit, amount in units:
        reported[provider, unit] = reported.get((provider, unit), _ZERO) + Decimal(amount)
    whole = {name: int(amounts[name]) for name in ("attempts", "reports", "debits", "debited", "refunded")}
    return Sums(
        **whole,
        **{name: int(amounts[name]) for name in ("free", "granted", "adjusted")},
        videos=int(videos),
        reported=reported,
        reported_usd=reported_usd or _ZERO,
        reports_expected_usd=amounts["reports_expected_usd"],
        estimated_usd=amounts["estimated_usd"],
        failures_usd=failures,
        unpriced=int(unpriced or 0),
    )


def asked(words: Mapping[str, str], *, dimensions: Sequence[str] = tuple(DIMENSIONS)) -> Query:
    """The query of these words, as commands and addresses have them: since, until, by, and a filter each.

    `since`: a day, or a number of days such as 30d (with today); 30d without it. `dimensions`: those that may be asked
    for. Raises BadQuery.
    """
    for name, word in words.items():
        if "\0" in word:
            raise BadQuery(name, "must not hold the character NUL")
    until = _day(words["until"], "until") if words.get("until") else timezone.now().date()
    since = _since(words.get("since") or "30d", until)
    if since > until:
        raise BadQuery("since", f"must not be after {until}")
    if (until - since).days >= MOST_DAYS:
        raise BadQuery("since", f"must be at most {MOST_DAYS} days before the end")
    by = tuple(filter(None, (words.get("by") or "day").split(",")))
    for one in by:
        if one not in dimensions:
            raise BadQuery("by", f"must be some of {', '.join(dimensions)}, with commas between")
    if len(set(by)) < len(by):
        raise BadQuery("by", "names something twice")
    outcome = words.get("outcome") or None
    if outcome is not None and outcome not in OUTCOMES:
        raise BadQuery("outcome", f"must be one of {', '.join(OUTCOMES)}")
    return Query(
        since,
        until,
        by,
        provider=words.get("provider") or None,
        model=words.get("model") or None,
        key=key_labels.fingerprint_of(words["key"]) if words.get("key") else None,
        user=_user(words["user"]) if words.get("user") else None,
        outcome=outcome,
        simulated=_simulated(words.get("simulated") or ""),
    )


def _day(text: str, word: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadQuery(word, "must be a day such as 2026-11-28") from None


def _since(text: str, until: date) -> date:
    if match := re.fullmatch(r"([0-9]{1,5})d", text, re.ASCII):
        if not 1 <= int(match[1]) <= MOST_DAYS:
            raise BadQuery("since", f"must be 1d to {MOST_DAYS}d, or a day such as 2026-11-28")
        return until - timedelta(days=int(match[1]) - 1)
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadQuery("since", "must be a number of days such as 30d, or a day such as 2026-11-28") from None


def _user(name: str) -> int:
    users = get_user_model()
    found: int | None = users._default_manager.filter(username=name).values_list("pk", flat=True).first()
    if found is None:
        raise BadQuery("user", "is no user of this system")
    return found


def _simulated(text: str) -> bool | None:
    if text not in ("", "yes", "no"):
        raise BadQuery("simulated", "must be yes or no")
    return {"": None, "yes": True, "no": False}[text]
