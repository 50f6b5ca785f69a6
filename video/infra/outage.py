"""The database may be away for a while: what must not be forgotten meanwhile, and what is answered without waiting.

A restart, a failover, a cut network. Nothing is lost by it, since every stage begins anew from its row; but what a
provider just answered is in no row yet, so it is written as soon as the database is back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import Error, InterfaceError, OperationalError, connection

log = logging.getLogger(__name__)

T = TypeVar("T")

#: What the database's absence looks like; also a statement or a lock that took too long.
ERRORS = (OperationalError, InterfaceError)
PATIENCE_S = 60.0
PAUSE_S = 0.5

# Of these SQL states: shut down, crashed, starting up, too many connections; connection failures are of class 08.
_OUTAGE_STATES = frozenset({"57P01", "57P02", "57P03", "53300"})


def is_outage(err: Error) -> bool:
    """Whether this means that the database can't be reached, rather than that one statement went wrong."""
    if not isinstance(err, ERRORS):
        return False
    state = getattr(err.__cause__, "sqlstate", None)
    return state is None or state in _OUTAGE_STATES or state.startswith("08")


def retry_while_unavailable(write: Callable[[], T], what: str, *, for_s: float = PATIENCE_S) -> T:
    """Do a write again and again while the database is away, for `for_s` seconds; then its error is raised.

    Only for writes that are conditional on what they believe: one may have been made though its answer was lost.
    Not in a transaction, which is lost with its connection.
    """
    ends_at = time.monotonic() + for_s
    said = False
    while True:
        try:
            return write()
        except ERRORS as err:
            if connection.in_atomic_block or time.monotonic() > ends_at:
                raise
            connection.close()
            if not said:
                log.warning("%s: the database can't be used (%s); writing it as soon as it can", what, err)
            said = True
            time.sleep(PAUSE_S)


class OutageGate:
    """Keeps requests from queueing up before a database that is away.

    Who runs into its absence closes the gate. From then on each request is refused at once, but for one every
    PAUSE_S seconds that asks whether it is back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ask_at: float | None = None  # None: open

    def close(self) -> None:
        """The database was found to be away."""
        with self._lock:
            self._ask_at = time.monotonic() + PAUSE_S
        if not connection.in_atomic_block:
            connection.close()

    def lets_through(self) -> bool:
        """Whether a request may try; asks the database when it is time to."""
        if self._ask_at is None:
            return True
        with self._lock:
            ask_at = self._ask_at
            if ask_at is None or time.monotonic() < ask_at:
                return ask_at is None  # opened, or put off, while this one waited for the lock
            self._ask_at = float("inf")  # the others are refused while this one asks
        try:
            ping()
        except Error:
            self.close()
            return False
        with self._lock:
            self._ask_at = None
        log.info("the database is back")
        return True


def ping() -> None:
    """Ask something that costs nothing. Raises the database's errors."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


gate = OutageGate()
