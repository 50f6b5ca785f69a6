"""Refusals of keys and of accounts: pauses that grow, one try after each, and when an operator is told.

One 401, 403 or 404 proves little: a provider's slip, a proxy's page in the provider's words, one odd prompt. So after a
refusal nothing new starts with that key (or on that account and model) for a while, then one read or one job tries
again. A try that is refused makes the next pause twice as long, up to an hour; one that is accepted forgets everything.
While a single task was refused the pauses stay short, so that its prompt can't keep others away.

Only what several tasks met over minutes is called closed (or quarantined) and told to operators. It is tried on all the
same: no row waits for a human.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from providers.registry import BY_NAME
from providers.untrusted import storable
from video.infra import database
from video.models import Generation, ProviderAccount, ProviderKey

FIRST_PAUSE_S = 15.0  # doubled by each refused try
LONGEST_PAUSE_S = 3600.0
LONGEST_ALONE_S = 60.0  # while only one task was refused
FORGET_S = 600.0  # a refusal so long after the end of the last pause is a first one again
JITTER = 0.25  # of a pause, added

CLOSE_AFTER = 3  # refusals in a row
CLOSE_AFTER_S = 120.0  # over so long, of more than one task

TRY_S = 60.0  # a job that tries and is not heard of: another may try so much later
#: A key that its provider can be asked about is tried by that read; by a job only when no read came for so long.
READ_FIRST_S = 120.0
CHECK = "check"  # in place of a task's id: a read of ours was refused

NOTHING_KNOWN: dict[str, Any] = {
    "refusals": 0,
    "refused_since": None,
    "refused_task": "",
    "refused_several": False,
    "retry_at": None,
}

#: Of a refused key that an operator takes into use again: nothing of the old refusals counts, but a read, or else one
#: job, tries it before all others.
TO_BE_TRIED: dict[str, Any] = {**NOTHING_KNOWN, "refusals": 1, "refused_since": Now(), "retry_at": Now()}

QUARANTINED = ProviderKey.State.QUARANTINED
_TABLES = {ProviderKey: "video_providerkey", ProviderAccount: "video_provideraccount"}


@dataclass(frozen=True)
class Refused:
    """What is known after a refusal."""

    rows: list[int]  # ids
    is_proven: bool  # several tasks were refused over minutes


def note(
    table: type[ProviderKey | ProviderAccount],
    where: dict[str, Any],
    *,
    witness: str,
    error: str,
    by_try: bool,
    jitter: Callable[[], float] = random.random,
) -> Refused:
    """Begin the next pause of these rows, which all have the columns of `where`; one statement.

    `witness`: the refused task's id, or CHECK. `by_try`: the refused submit was the try after a pause. Any other that
    is refused during a pause was sent before the pause was known, so it makes none longer.
    """
    found = database.fetch(
        f"""
        UPDATE {_TABLES[table]} r SET last_error = %(error)s, refusals = next.refusals,
            refused_since = next.since, refused_several = next.several,
            refused_task = CASE WHEN next.first THEN %(witness)s ELSE r.refused_task END,
            retry_at = CASE WHEN next.is_news THEN statement_timestamp() + interval '1 second' * %(spread)s * least(
                CASE WHEN next.several THEN %(longest)s ELSE %(alone)s END,
                %(pause)s * power(2, least(next.refusals, 20) - 1)) ELSE r.retry_at END
        FROM (
            SELECT id, is_news, first,
                CASE WHEN first THEN 1 WHEN is_news THEN refusals + 1 ELSE refusals END AS refusals,
                CASE WHEN first THEN statement_timestamp() ELSE refused_since END AS since,
                NOT first AND (refused_several OR refused_task <> %(witness)s) AS several
            FROM (
                SELECT *, refusals = 0 OR coalesce(NOT %(by_try)s
                        AND retry_at < statement_timestamp() - interval '1 second' * %(forget)s, false) AS first,
                    refusals = 0 OR %(by_try)s OR coalesce(retry_at <= statement_timestamp(), true) AS is_news
                FROM {_TABLES[table]} WHERE {" AND ".join(f"{column} = %(_{column})s" for column in where)}
                ORDER BY id FOR UPDATE
            ) known
        ) next
        WHERE r.id = next.id
        RETURNING r.id, r.refusals >= %(close)s AND r.refused_several
            AND r.refused_since <= statement_timestamp() - interval '1 second' * %(close_s)s
        """,  # noqa: S608 - names of columns and tables, all ours
        {
            **{f"_{column}": value for column, value in where.items()},
            "witness": witness,
            "error": storable(error, 300),
            "by_try": by_try,
            "spread": 1 + JITTER * jitter(),
            "pause": FIRST_PAUSE_S,
            "longest": LONGEST_PAUSE_S,
            "alone": LONGEST_ALONE_S,
            "forget": FORGET_S,
            "close": CLOSE_AFTER,
            "close_s": CLOSE_AFTER_S,
        },
    )
    return Refused([row[0] for row in found], any(row[1] for row in found))


def wait_for_read_s(provider: str) -> float:
    """Seconds after a pause in which a read, and no job, tries again; 0 where the provider has no account call."""
    return READ_FIRST_S if BY_NAME[provider].adapter.has_account_call else 0.0


def begin_tries(generations: Iterable[Generation]) -> None:
    """These planned attempts try refused keys and accounts: nothing else starts there until their end is known.

    Call it in the transaction that plans them, under the lock of all accounts.
    """
    for generation in generations:
        _set_retry(generation, TRY_S)


def end_try(generation: Generation) -> None:
    """The try ended without a verdict on its key and account (stopped, refused as a request): another may follow."""
    _set_retry(generation, 0.0)


def _set_retry(generation: Generation, delay_s: float) -> None:
    if generation.is_probe:
        at = Now() + timedelta(seconds=delay_s)
        _accounts(generation).filter(refusals__gt=0).update(retry_at=at)
        _key(generation).filter(refusals__gt=0).update(retry_at=at)


def forget(generation: Generation) -> bool:
    """The provider took the job of a try: its key and account are good. True: they were closed before."""
    accounts = _accounts(generation)
    closed = accounts.exclude(closed_reason="").exists()
    accounts.filter(refusals__gt=0).update(**NOTHING_KNOWN, closed_reason="", last_error="")
    key = _key(generation)
    closed |= key.filter(state=QUARANTINED).update(state=ProviderKey.State.ACTIVE) > 0
    key.filter(refusals__gt=0).update(**NOTHING_KNOWN, last_error="")
    return closed


def _key(generation: Generation) -> QuerySet[ProviderKey]:
    return ProviderKey.objects.filter(provider=generation.provider, fingerprint=generation.key_fingerprint)


def _accounts(generation: Generation) -> QuerySet[ProviderAccount]:
    """The account and model of an attempt; where the account is out of credits, all its models."""
    account = generation.account
    empty = Q(provider=account.provider, account=account.account, closed_reason="out_of_credits")
    return ProviderAccount.objects.filter(Q(pk=account.pk) | empty)
