"""What is wrong, kept as rows: from when to when, and which messages are to be sent of it.

A trouble is told when it has lasted for ALERT_AFTER_SECONDS, and its end when it has been away for as long, so one that
comes and goes sends no storm. A row is unique while its trouble lasts, and so are its messages: any number of sweepers
may look at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from providers.untrusted import storable
from video.alerts.receivers import Receiver
from video.audit import records
from video.audit.actors import Actor
from video.infra import database
from video.infra.durations import span
from video.models import Alert, AlertMessage, AlertSilence
from video.monitoring.problem import Problem

KEPT_DAYS = 30  # after its end
LONGEST_SILENCE_S = 7 * 86400.0


def receivers() -> Sequence[Receiver]:
    """Those of ALERT_URLS."""
    found: Sequence[Receiver] = settings.ALERT_RECEIVERS
    return found


def note(problems: Iterable[Problem]) -> None:
    """Write down what needs a person now, and which messages follow from it. A fixed number of statements."""
    wrong = {
        (one.code, storable(one.about, 200)): (storable(one.sentence, 500), storable(one.operator, 500))
        for one in sorted(problems, key=lambda one: (one.code, one.about))  # of two sweepers, each locks in this order
        if one.needs_person
    }
    params = {
        "codes": [code for code, _ in wrong],
        "abouts": [about for _, about in wrong],
        "sentences": [sentence for sentence, _ in wrong.values()],
        "operators": [operator for _, operator in wrong.values()],
        "after": settings.ALERT_AFTER_SECONDS,
        "receivers": [one.key for one in receivers()],
        "labels": [one.label for one in receivers()],
    }
    with transaction.atomic():
        database.execute(_SEEN, params)
        database.execute(_GONE_BEFORE_IT_WAS_TOLD, params)
        database.execute(_OVER, params)
        if silent_until() is None:
            database.execute(_TOLD, params)
        _prune(params["receivers"])


def silent_until() -> datetime | None:
    """Until when nothing is sent; None if messages are sent."""
    return AlertSilence.objects.filter(until__gt=Now()).values_list("until", flat=True).first()


def silence(seconds: float, *, by: Actor) -> None:
    """Send nothing for so long; 0 ends it. What begins meanwhile and lasts is told afterwards, and so are ends.

    Raises ValueError for more than LONGEST_SILENCE_S.
    """
    if not 0 <= seconds <= LONGEST_SILENCE_S:
        raise ValueError(f"A silence lasts at most {span(LONGEST_SILENCE_S)}.")
    with transaction.atomic():
        AlertSilence.objects.update_or_create(pk=1, defaults={"until": Now() + timedelta(seconds=seconds)})
        records.record(by, "silence" if seconds else "end_silence", "alert", detail=span(seconds) if seconds else "")


def _prune(keys: Any) -> None:
    """Give up what is for a receiver that is not configured any more, and drop what ended long ago."""
    day = Now() - timedelta(days=1)
    nobodys = AlertMessage.objects.filter(state=AlertMessage.State.PENDING, due_at__lt=day).exclude(receiver__in=keys)
    nobodys.update(state=AlertMessage.State.FAILED, settled_at=Now(), last_error="not in ALERT_URLS any more")
    Alert.objects.filter(Q(ended_at__lt=Now() - timedelta(days=KEPT_DAYS))).delete()


_NOT_SEEN: Final = "(code, about) NOT IN (SELECT * FROM unnest(%(codes)s::varchar[], %(abouts)s::varchar[]))"
_SEEN: Final = """
INSERT INTO video_alert (code, about, sentence, operator)
SELECT * FROM unnest(%(codes)s::varchar[], %(abouts)s::varchar[], %(sentences)s::varchar[], %(operators)s::varchar[])
ON CONFLICT (code, about) WHERE ended_at IS NULL DO UPDATE
SET seen_at = statement_timestamp(), sentence = EXCLUDED.sentence, operator = EXCLUDED.operator
"""
_GONE_BEFORE_IT_WAS_TOLD: Final = f"""
DELETE FROM video_alert WHERE ended_at IS NULL AND told_at IS NULL AND {_NOT_SEEN}
"""  # noqa: S608 - a constant
#: The end goes to whoever was told, or is still to be told, of the beginning; that one is tried again at once then.
_OVER: Final = f"""
WITH over AS (
    UPDATE video_alert SET ended_at = statement_timestamp()
    WHERE ended_at IS NULL AND told_at IS NOT NULL AND {_NOT_SEEN}
        AND seen_at <= statement_timestamp() - %(after)s * interval '1 second'
    RETURNING id
), hurried AS (
    UPDATE video_alertmessage SET due_at = statement_timestamp() FROM over
    WHERE alert_id = over.id AND what = 'begun' AND state = 'pending'
)
INSERT INTO video_alertmessage (alert_id, what, receiver, label, state, tries, last_error)
SELECT over.id, 'ended', begun.receiver, begun.label, 'pending', 0, ''
FROM over JOIN video_alertmessage begun ON begun.alert_id = over.id AND begun.what = 'begun'
WHERE begun.receiver = ANY(%(receivers)s::varchar[])
ON CONFLICT (alert_id, what, receiver) DO NOTHING
"""  # noqa: S608 - constants
_TOLD: Final = """
WITH told AS (
    UPDATE video_alert SET told_at = statement_timestamp()
    WHERE ended_at IS NULL AND told_at IS NULL
        AND begun_at <= statement_timestamp() - %(after)s * interval '1 second'
    RETURNING id
)
INSERT INTO video_alertmessage (alert_id, what, receiver, label, state, tries, last_error)
SELECT told.id, 'begun', to_whom.receiver, to_whom.label, 'pending', 0, ''
FROM told CROSS JOIN unnest(%(receivers)s::varchar[], %(labels)s::varchar[]) AS to_whom (receiver, label)
ON CONFLICT (alert_id, what, receiver) DO NOTHING
"""
