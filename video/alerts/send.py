"""Messages of alerts on their way: claimed with a lease, sent, and tried again with pauses while a receiver is away.

The process may die anywhere: after a send that was not written down, the message comes again, with the same id.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from django.db.models.functions import Now

from video.alerts import watch
from video.alerts.message import Message, of_row
from video.alerts.receivers import Receiver
from video.alerts.transport import transmit
from video.audit import records
from video.audit.actors import Actor
from video.engine.sql import UNHELD
from video.infra import database
from video.models import Alert, AlertMessage

log = logging.getLogger(__name__)

#: Before each next try; the last one for all that follow. With MOST_TRIES, a receiver may be away for half a day.
PAUSES_S: Final = (15, 30, 60, 120, 300, 600, 1800, 3600)
MOST_TRIES: Final = 18
LEASE_S: Final = 60.0  # longer than a try may take
MOST_AT_ONCE = 8

State = AlertMessage.State


@dataclass(frozen=True)
class Claimed:
    """A message that this process is to send. `tries` fences: a later claim has another number."""

    id: int
    alert_id: int
    what: str
    receiver: str
    tries: int


def send_due(*, for_s: float) -> int:
    """Send what is due, for about so many seconds. Returns how many were tried; none while there is silence."""
    ends_at, tried = time.monotonic() + for_s, 0
    known = {one.key: one for one in watch.receivers()}
    if not known or watch.silent_until() is not None:
        return 0
    while time.monotonic() < ends_at and (claimed := claim(list(known))) is not None:
        _try(claimed, known[claimed.receiver])
        tried += 1
    return tried


def claim(keys: list[str]) -> Claimed | None:
    """One message that is due for one of these receivers, and held by nobody. A trouble's end waits until its beginning
    was sent or given up.
    """
    row = database.fetch_one(_CLAIM, {"keys": keys, "lease": LEASE_S})
    return None if row is None else Claimed(*row)


def send_test(*, by: Actor) -> list[tuple[str, str]]:
    """Send a test to every receiver at once: (label, why it failed or empty) of each. On record."""
    found = list(watch.receivers())
    records.record(by, "test", "alert", detail=f"to {len(found)} receivers")
    message = Message.test()
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        answers = pool.map(lambda receiver: transmit(receiver, message), found)
        return [(one.label, why) for one, why in zip(found, answers, strict=True)]


def _try(claimed: Claimed, receiver: Receiver) -> None:
    alert = Alert.objects.get(pk=claimed.alert_id)
    why = transmit(receiver, of_row(claimed.id, alert, claimed.what))
    rows = AlertMessage.objects.filter(pk=claimed.id, tries=claimed.tries, state=State.PENDING)
    said = "alerts: %s %s to %s: %s"
    if not why:
        rows.update(state=State.SENT, settled_at=Now(), lease_until=None, last_error="")
        log.info(said, alert.code, claimed.what, receiver.label, "sent")
    elif claimed.tries >= MOST_TRIES:
        rows.update(state=State.FAILED, settled_at=Now(), lease_until=None, last_error=why[:200])
        log.error(said, alert.code, claimed.what, receiver.label, f"given up: {why}")
    else:
        _again(claimed, why)
        log.warning(said, alert.code, claimed.what, receiver.label, f"tried again later: {why}")


def _again(claimed: Claimed, why: str) -> None:
    pause_s = PAUSES_S[min(claimed.tries, len(PAUSES_S)) - 1]
    database.execute(
        """
        UPDATE video_alertmessage SET lease_until = NULL, last_error = %(why)s,
            due_at = statement_timestamp() + %(pause)s * interval '1 second'
        WHERE id = %(id)s AND tries = %(tries)s AND state = 'pending'
        """,
        {"why": why[:200], "pause": pause_s, "id": claimed.id, "tries": claimed.tries},
    )


_CLAIM: Final = f"""
UPDATE video_alertmessage SET tries = tries + 1,
    lease_until = statement_timestamp() + %(lease)s * interval '1 second'
WHERE id = (
    SELECT m.id FROM video_alertmessage m
    WHERE m.state = 'pending' AND m.due_at <= statement_timestamp() AND m.receiver = ANY(%(keys)s::varchar[])
        AND {UNHELD}
        AND (m.what = 'begun' OR NOT EXISTS (
            SELECT FROM video_alertmessage b WHERE b.alert_id = m.alert_id AND b.receiver = m.receiver
                AND b.what = 'begun' AND b.state = 'pending'))
    ORDER BY m.due_at, m.id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, alert_id, what, receiver, tries
"""  # noqa: S608 - a constant
