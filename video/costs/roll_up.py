"""The roll-up: days that are over, summed up once. The sweeper keeps it; a command rebuilds and checks it.

A day is rolled up in one statement, so everything in it is of one moment: the rows of the day are summed, and the
touches of the day that this moment sees are deleted. A trigger writes a touch in the transaction of each change of what
counts on a day, so a change that the moment does not see leaves its touch, and the day is read from its rows until it
is rolled up again. So a report is exact at every moment, whoever dies, and whatever comes late. One process at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

from django.db import transaction

from video.costs.facts import AMOUNTS, FIRST_DAY, GROUP, OF_WANTED, SUMS, TODAY
from video.infra import database

_LOCK: Final = 0x636F737473  # of pg_advisory_xact_lock
DAYS_A_TURN: Final = 31
_GROUP: Final = ", ".join(GROUP)
_REST: Final = ", ".join(GROUP[1:])
_COLUMNS: Final = ", ".join((*GROUP, *AMOUNTS))
#: Each group twice: with its user, and for all users together (0).
_SUMMED: Final = f"""
    SELECT day, coalesce(user_id, 0) AS user_id, {_REST}, {SUMS}
    FROM facts GROUP BY GROUPING SETS ((day, {_GROUP}), (day, {_REST}))
"""  # noqa: S608 - constants

_ROLL_UP: Final = f"""
    WITH wanted AS MATERIALIZED (SELECT %(day)s::date AS day), gone AS MATERIALIZED (
        -- By two indexes: of the rows of all users, and of those of each.
        DELETE FROM video_costrollup
        WHERE (user_id = 0 AND day = %(day)s) OR (user_id > 0 AND day = %(day)s) RETURNING id
    ), seen AS (
        DELETE FROM video_costtouch WHERE day = %(day)s
    ), facts (day, {_COLUMNS}) AS ({OF_WANTED}), put AS (
        INSERT INTO video_costrollup (day, {_COLUMNS})
        SELECT summed.* FROM ({_SUMMED}) summed WHERE (SELECT count(*) FROM gone) >= 0  -- after it
    )
    INSERT INTO video_costday (day) VALUES (%(day)s) ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants

#: Days that are over and that no roll-up holds as they are.
_STALE: Final = f"""
    SELECT d::date FROM generate_series({FIRST_DAY}, {TODAY} - 1, interval '1 day') d
    WHERE NOT EXISTS (SELECT FROM video_costday k WHERE k.day = d::date)
        OR EXISTS (SELECT FROM video_costtouch s WHERE s.day = d::date)
    ORDER BY d DESC LIMIT %(most)s
"""  # noqa: S608 - constants

_DIFFERENT: Final = f"""
    WITH wanted AS MATERIALIZED (
        SELECT k.day FROM video_costday k WHERE k.day BETWEEN %(since)s AND %(until)s
            AND NOT EXISTS (SELECT FROM video_costtouch s WHERE s.day = k.day)
    ), facts (day, {_COLUMNS}) AS ({OF_WANTED}), real AS MATERIALIZED ({_SUMMED}), kept AS MATERIALIZED (
        SELECT day, {_COLUMNS} FROM video_costrollup JOIN wanted USING (day)
    ), different AS (
        (TABLE real EXCEPT ALL TABLE kept) UNION ALL (TABLE kept EXCEPT ALL TABLE real)
    )
    SELECT day, count(DISTINCT ({_GROUP})) FROM different GROUP BY day ORDER BY day
"""  # noqa: S608 - constants

#: What the reports' sources come to beside the tables themselves, as two rows: all from one moment.
_LEDGER: Final = f"""
    WITH wanted AS MATERIALIZED (
        SELECT d::date AS day FROM generate_series({FIRST_DAY}, greatest({TODAY},
            (SELECT max((created_at AT TIME ZONE 'UTC')::date) FROM video_creditentry)), interval '1 day') d
        WHERE NOT EXISTS (SELECT FROM video_costday k WHERE k.day = d::date)
            OR EXISTS (SELECT FROM video_costtouch s WHERE s.day = d::date)
    ), facts (day, {_COLUMNS}) AS ({OF_WANTED}), known AS (
        SELECT attempts, reported, refunded + free + granted + adjusted - debited AS credits FROM facts
        UNION ALL
        SELECT attempts, reported, refunded + free + granted + adjusted - debited FROM video_costrollup r
        WHERE user_id = 0 AND NOT EXISTS (SELECT FROM wanted w WHERE w.day = r.day)
    )
    SELECT coalesce(sum(credits), 0), coalesce(sum(attempts), 0), coalesce(sum(reported), 0),
        (SELECT coalesce(sum(amount), 0) FROM video_creditentry),
        (SELECT count(*) FROM video_generation WHERE ended_at IS NOT NULL),
        (SELECT coalesce(sum(reported_cost), 0) FROM video_generation WHERE ended_at IS NOT NULL)
    FROM known
"""  # noqa: S608 - constants


@dataclass(frozen=True)
class Difference:
    """What does not add up. `day`: None for the sum of all days."""

    day: date | None
    sentence: str


def keep() -> int:
    """Roll up days that are over and new or touched, the latest first, 31 a turn. Returns how many.

    Touches of days that no roll-up holds say nothing, and are deleted. Another process that is at it leaves nothing to
    do. Each day is a transaction of its own.
    """
    if not _forget_touches():
        return 0
    stale = _stale(DAYS_A_TURN)
    return sum(_roll_up(day, wait=False) for day in stale)


def rebuild() -> int:
    """Roll up every day that is over, again. Returns how many. Reports are exact meanwhile."""
    with transaction.atomic():
        database.fetch("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        # Without its row a day is read from the tables, whatever the roll-up says.
        database.execute("DELETE FROM video_costday")
        database.execute("DELETE FROM video_costrollup")
    done = 0
    while stale := _stale(DAYS_A_TURN):
        done += sum(_roll_up(day, wait=True) for day in stale)
    return done


def differences() -> list[Difference]:
    """Days whose roll-up is not what their rows come to, and sums that are not the ledger's or the attempts'.

    Reads all rows, a month a statement. Changes while it runs raise no false alarm.
    """
    found = [
        Difference(day, f"{groups} {'group is' if groups == 1 else 'groups are'} not what the rows come to")
        for since, until in _months()
        for day, groups in database.fetch(_DIFFERENT, {"since": since, "until": until})
    ]
    ((credits, attempts, reported, in_ledger, ended, charged),) = database.fetch(_LEDGER)
    for what, ours, theirs in (
        ("credits", credits, in_ledger),
        ("ended attempts", attempts, ended),
        ("the reported charge", reported, charged),
    ):
        if ours != theirs:
            found.append(Difference(None, f"{what}: the reports come to {ours}, the tables to {theirs}"))
    return found


def _months() -> list[tuple[date, date]]:
    return database.fetch(
        """
        SELECT min(day), max(day) FROM video_costday GROUP BY date_trunc('month', day::timestamp) ORDER BY 1
        """
    )


def _stale(most: int) -> list[date]:
    return [day for (day,) in database.fetch(_STALE, {"most": most})]


def _roll_up(day: date, *, wait: bool) -> bool:
    """False: another process is at it."""
    with transaction.atomic():
        # A statement of its own: the next one sees what the process that had the lock before has written.
        if not _locked(wait=wait):
            return False
        database.execute(_ROLL_UP, {"day": day})
    return True


def _forget_touches() -> bool:
    """Whether no other process is at it. Under the lock: a roll-up that runs may not have seen what such a touch says,
    and makes its day's row only at its end.
    """
    with transaction.atomic():
        if not _locked(wait=False):
            return False
        database.execute(
            "DELETE FROM video_costtouch s WHERE NOT EXISTS (SELECT FROM video_costday k WHERE k.day = s.day)"
        )
    return True


def _locked(*, wait: bool) -> bool:
    if wait:
        database.fetch("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        return True
    return bool(database.value("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK]))
