"""Outages of the database (a restart, a failover, a cut network): what is retried, and what is refused at once.

A stage loses nothing, since it begins anew from its row. But what a provider just answered is in no row yet, so it is
written as soon as the database is back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import Error, InterfaceError, OperationalError, connection

from video.infra import database, timeouts
from video.infra.causes import kind_of

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Errors that an outage raises; a statement or a lock that took too long raises them too.
ERRORS = (OperationalError, InterfaceError)
PATIENCE_S = 60.0
PAUSE_S = 0.5
AWAY = "can't be reached"

# Of these SQL states: shut down, crashed, starting up, too many connections; connection failures are of class 08.
_OUTAGE_STATES = frozenset({"57P01", "57P02", "57P03", "53300"})


def is_outage(err: Error) -> bool:
    """Whether this error means that the database can't be reached, rather than that one statement failed."""
    if not isinstance(err, ERRORS):
        return False
    state = getattr(err.__cause__, "sqlstate", None)
    return state is None or state in _OUTAGE_STATES or state.startswith("08")


def retry_while_unavailable(write: Callable[[], T], what: str, *, for_s: float = PATIENCE_S) -> T:
    """Retry a write while the database is away, for `for_s` seconds; then raise its error.

    Only for conditional writes: one whose answer was lost is made a second time. Not in a transaction, which is lost
    with its connection.
    """
    ends_at = time.monotonic() + for_s
    logged = False
    while True:
        try:
            return write()
        except ERRORS as err:
            if connection.in_atomic_block or time.monotonic() > ends_at:
                raise
            connection.close()
            if not logged:
                log.warning("%s: the database can't be used (%s); writing it as soon as it can", what, err)
            logged = True
            time.sleep(PAUSE_S)


class OutageGate:
    """Keeps requests from queueing up while the database is away: each is refused at once, but for one every PAUSE_S
    seconds, which asks whether the database is back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ask_at: float | None = None  # None: open
        self.why = AWAY

    def close(self, err: Exception | None = None) -> None:
        """The database was found to be away, by this error."""
        with self._lock:
            self._ask_at = time.monotonic() + PAUSE_S
            self.why = AWAY if err is None else why_away(err)
        if not connection.in_atomic_block:
            connection.close()

    def lets_through(self) -> bool:
        """Whether a request may try; asks the database when it is time to."""
        if self._ask_at is None:
            return True
        with self._lock:
            ask_at = self._ask_at
            if ask_at is None or time.monotonic() < ask_at:
                return ask_at is None  # opened, or asked, while this one waited for the lock
            self._ask_at = float("inf")  # the others are refused while this one asks
        try:
            ping()
        except Exception as err:  # whatever it is: else no request would ask again
            self.close(err)
            return False
        with self._lock:
            self._ask_at = None
        log.info("the database is back")
        return True


def why_away(err: Exception) -> str:
    """That it can't be reached, and the kind of error; or why nothing may run on it. No address."""
    return str(err).rstrip(".") if isinstance(err, timeouts.NotInForce) else f"{AWAY} ({kind_of(err)})"


def ping() -> None:
    """The cheapest statement. Raises the database's errors."""
    database.execute("SELECT 1")


gate = OutageGate()
