"""The time-outs that PostgreSQL keeps for us: asked for with each connection, and read back once in each process.

No statement, lock or forgotten transaction may hold the queue up. An idle snapshot stops dead index entries from being
cleaned, and claims slow down tenfold within seconds; and a process that is suspended in the middle of an admission
holds the lock of all admissions. A pooler such as PgBouncer refuses what asks for them, or drops it without a word.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import psycopg
from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

log = logging.getLogger(__name__)

#: Milliseconds, as PostgreSQL counts them. More is refused when they are read back, and so is less than LEAST_MS.
LIMITS_MS = {"statement_timeout": 30_000, "lock_timeout": 10_000, "idle_in_transaction_session_timeout": 10_000}
LEAST_MS = 1_000
#: libpq's parameter `options` that asks for them.
OPTIONS = " ".join(f"-c {name}={limit}" for name, limit in LIMITS_MS.items())

_READ = "SELECT name, setting::bigint FROM pg_settings WHERE name = ANY(%s)"
# PgBouncer's words for a start-up parameter that it does not pass on, and those of Amazon's RDS Proxy.
_REFUSES_OPTIONS = re.compile(r"unsupported startup parameter|command-line options", re.IGNORECASE)
_STATEMENT_MODE = re.compile(r"statement pooling mode", re.IGNORECASE)
_ROLE = " ".join(f"ALTER ROLE CURRENT_USER SET {name} = {limit};" for name, limit in LIMITS_MS.items())
_INSTEAD = f"run `{_ROLE}` as its user, then restart the pooler; or let it lead to PostgreSQL itself"

_are_in_force = False


class NotInForce(OperationalError):
    """The database is there, but not with these time-outs: nothing may run on it. The text is a sentence for operators.

    An OperationalError, so that whatever waits while the database is away waits for this to be put right, too.
    """


def require() -> None:
    """Ask for them with a connection of our own, and read them back. Raises NotInForce.

    A pool would hide why it gets no connection. A database that is away now is no reason to end: the first connection
    that this process gets is read back as well.
    """
    global _are_in_force
    params: dict[str, Any] = {**connection.get_connection_params(), "autocommit": False}
    try:
        with psycopg.connect(**params) as own:
            found = dict(own.execute(_READ, [list(LIMITS_MS)]).fetchall())
    except psycopg.Error as err:
        _refuse_pooler(str(err))
        log.warning("the database can't be used yet: %s", str(err).strip())
        return
    _refuse_unless_in_force(found)
    _are_in_force = True


def read_back_first(connection: BaseDatabaseWrapper, **_: object) -> None:
    """The first connection of a process is given back, and NotInForce raised, unless they are in force."""
    global _are_in_force
    if _are_in_force or connection.alias != "default":
        return
    try:
        _refuse_unless_in_force(dict(connection.connection.execute(_READ, [list(LIMITS_MS)]).fetchall()))
    except Exception:  # Django keeps a connection whose receiver failed, and would use it without asking again
        connection.close()
        raise
    _are_in_force = True


def watch() -> None:
    """Read back the first connection of this process."""
    connection_created.connect(read_back_first, dispatch_uid="reelworks time-outs")


def _refuse_pooler(said: str) -> None:
    if _STATEMENT_MODE.search(said):
        raise NotInForce(
            "DATABASE_URL leads to a pooler in statement mode, which knows no transactions: Reelworks needs session or "
            "transaction mode."
        )
    if _REFUSES_OPTIONS.search(said):
        raise NotInForce(
            "DATABASE_URL leads to a pooler that refuses the start-up parameter `options`, by which Reelworks sets its "
            f"time-outs: let it ignore that one (PgBouncer: `ignore_startup_parameters = options`) and {_INSTEAD}."
        )


def _refuse_unless_in_force(found: dict[str, int]) -> None:
    wrong = [
        f"{name} is {_said(found.get(name, 0))}, not {LEAST_MS // 1000} to {limit // 1000} s"
        for name, limit in LIMITS_MS.items()
        if not LEAST_MS <= found.get(name, 0) <= limit
    ]
    if wrong:
        raise NotInForce(
            f"DATABASE_URL leads to a database on which time-outs that Reelworks needs are not in force "
            f"({'; '.join(wrong)}). A parameter `options` of the address may set them so; else a pooler such as "
            f"PgBouncer dropped them: {_INSTEAD}."
        )


def _said(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s" if milliseconds else "off"
