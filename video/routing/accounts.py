"""What follows for accounts and keys from a refused submit, and from the answer to an account call.

Only trouble of key and account comes here, never a user's. A Busy account cools down. A refused key, an account without
credits and a model that an account may not use are left alone for a while and then tried again (`refusals.py`).
"""

from __future__ import annotations

import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now

from providers.api_keys import ApiKey, account_of
from providers.contract import AccountInfo
from providers.errors import (
    Busy,
    GatewayAnswer,
    KeyRefused,
    ModelForbidden,
    OutOfCredits,
    ProviderDown,
    ProviderError,
)
from providers.registry import BY_NAME
from providers.untrusted import storable
from video.infra import database
from video.infra.toolkit import toolkit
from video.models import Generation, ProviderAccount, ProviderKey
from video.routing import key_labels, refusals, slots

log = logging.getLogger(__name__)

ACCOUNT_ERRORS = (Busy, KeyRefused, OutOfCredits, ModelForbidden)
# Trouble of the key or its account is not the task's: it waits for a better one.
NOT_THE_TASKS_FAULT = [error.code for error in (*ACCOUNT_ERRORS, GatewayAnswer)]
#: Of these an account or key can't be blamed while only one task meets them: that task is sent there at growing pauses.
MAY_BE_THE_TASKS = [error.code for error in (KeyRefused, ModelForbidden, GatewayAnswer)]

FIRST_COOLDOWN_S = 2.0  # doubled each time that the provider is busy again right after the last one
LONGEST_COOLDOWN_S = 60.0
LONGEST_ASKED_S = 3600.0  # for which the provider may ask us to wait: it may be a slip, so each account is tried hourly
LONGEST_ASKED_BY_GATEWAY_S = 300.0  # a proxy knows nothing of the provider's limits
FORGET_BUSIES_S = 600.0  # quiet for so long: the next cool-down is a first one again
JITTER = 0.25  # of a cool-down, added, so that accounts don't come back together
LOWERED_S = 600.0

ASK_DEADLINE_S = 5.0  # the sweeper waits for it
ASK_BUDGET_S = 8.0
ASK_THREADS = 16
LARGEST_BALANCE = Decimal("9999999999.9999")  # what the column holds
MOST_SLOTS = 1_000_000


# --- a submit was refused ------------------------------------------------------------------------------------------


def note_refusal(generation: Generation, error: ProviderError, *, jitter: Callable[[], float] = random.random) -> None:
    """Apply a refused submit to its key or account. Other errors than ACCOUNT_ERRORS change nothing.

    `jitter` gives a number from 0 to 1. Call it outside a transaction.
    """
    account = generation.account
    witness = Witness(generation.task_id, by_try=generation.is_probe, jitter=jitter)
    refusals.end_try(generation)
    if isinstance(error, Busy):
        _cool_down(generation, error, spread=1 + JITTER * jitter())
    elif isinstance(error, KeyRefused):
        refuse_key(generation.provider, generation.key_fingerprint, str(error), witness)
    elif isinstance(error, OutOfCredits):
        close_empty(account.provider, account.account, str(error), witness)
    elif isinstance(error, ModelForbidden):
        _forbid(account, error, witness)


def note_accepted(generation: Generation) -> None:
    """The provider took the job of a try: its key and account are used again without limit. Nothing for other jobs."""
    if generation.is_probe and refusals.forget(generation):
        log.warning(
            '%s: key "%s" and account "%s" work again with %s; jobs start there',
            generation.provider,
            key_labels.of(generation.provider, generation.key_fingerprint),
            key_labels.of_account_row(generation.account),
            generation.model,
        )


def _forbid(account: ProviderAccount, error: ModelForbidden, witness: Witness) -> None:
    if _refuse(ProviderAccount, {"id": account.pk}, str(error), witness).is_proven and _close(
        "id = %(id)s", {"id": account.pk}, error.code
    ):
        log.error(
            '%s: account "%s" may not use %s (%s). It is tried again by itself, at least once an hour. If the provider '
            "refuses all its models, look at %s.",
            account.provider,
            key_labels.of_account_row(account),
            account.model,
            error,
            BY_NAME[account.provider].base_url_setting,
        )


def _cool_down(generation: Generation, error: Busy, *, spread: float) -> None:
    most_s = LONGEST_ASKED_BY_GATEWAY_S if isinstance(error, GatewayAnswer) else LONGEST_ASKED_S
    asked = min(error.retry_after_s, most_s) if error.retry_after_s else None
    database.execute(
        """
        UPDATE video_provideraccount a SET last_error = %(error)s, busies = next.busies,
            cooldown_until = greatest(a.cooldown_until, statement_timestamp() + interval '1 second' * %(spread)s *
                coalesce(%(asked)s, least(%(longest)s, %(first)s * power(2, least(next.busies, 20) - 1))))
        FROM (
            SELECT id, CASE
                -- Sent before the cool-down was known: no news.
                WHEN busies > 0 AND cooldown_until > statement_timestamp() THEN busies
                WHEN cooldown_until < statement_timestamp() - interval '1 second' * %(forget)s OR EXISTS (
                    SELECT FROM video_generation g
                    WHERE g.account_id = video_provideraccount.id AND g.state = 'accepted'
                        AND g.accepted_at > cooldown_until
                ) THEN 1
                ELSE busies + 1 END AS busies
            FROM video_provideraccount WHERE id = %(id)s FOR UPDATE
        ) next
        WHERE a.id = next.id
        """,
        {
            "id": generation.account_id,
            "error": storable(str(error), 300),
            "asked": asked,
            "spread": spread,
            "first": FIRST_COOLDOWN_S,
            "longest": LONGEST_COOLDOWN_S,
            "forget": FORGET_BUSIES_S,
        },
    )
    if error.provider_code in BY_NAME[generation.provider].too_many_at_once:
        _lower_limit(generation)


def _lower_limit(generation: Generation) -> None:
    """Lower the limit to as many jobs as the provider has now; planned attempts are not there yet."""
    row = database.fetch_one(
        """
        UPDATE video_provideraccount a SET lowered_until = statement_timestamp() + interval '1 second' * %(span)s,
            lowered_slots = CASE WHEN a.lowered_until > statement_timestamp()
                THEN least(a.lowered_slots, sent.number) ELSE sent.number END
        FROM (
            SELECT greatest(1, count(*)) AS number FROM video_generation
            WHERE account_id = %(id)s AND id <> %(generation)s AND state IN ('unknown', 'accepted')
        ) sent
        WHERE a.id = %(id)s RETURNING a.lowered_slots
        """,
        {"id": generation.account_id, "generation": generation.pk, "span": LOWERED_S},
    )
    log.warning(
        '%s: account "%s" takes no more than %s jobs of %s at once for now',
        generation.provider,
        key_labels.of_account_row(generation.account),
        row[0] if row else "?",
        generation.model,
    )


@dataclass(frozen=True)
class Witness:
    """Who met a refusal: a task by its id, or `refusals.CHECK`."""

    name: str
    by_try: bool  # its submit was the try after a pause
    jitter: Callable[[], float] = random.random


BY_CHECK = Witness(refusals.CHECK, by_try=False)


def _refuse(
    table: type[ProviderKey | ProviderAccount], where: dict[str, Any], error: str, witness: Witness
) -> refusals.Refused:
    return refusals.note(table, where, witness=witness.name, error=error, by_try=witness.by_try, jitter=witness.jitter)


def refuse_key(provider: str, fingerprint: str, error: str, witness: Witness) -> bool:
    """Send nothing with a key that was refused until its pause is over. True: it was put into quarantine by this.

    In quarantine goes an active key that was refused to several tasks over minutes. A draining one stays draining.
    """
    refused = _refuse(ProviderKey, {"provider": provider, "fingerprint": fingerprint}, error, witness)
    active = ProviderKey.objects.filter(pk__in=refused.rows, state=ProviderKey.State.ACTIVE)
    changed = refused.is_proven and active.update(state=ProviderKey.State.QUARANTINED) == 1
    if changed:
        log.error(
            '%s: key "%s" was refused again and again (%s). Put it right at the provider. It is tried again by itself, '
            "at least once an hour, at once with `manage.py check_providers`.",
            provider,
            key_labels.of(provider, fingerprint),
            error,
        )
    return changed


def close_empty(provider: str, account: str, error: str, witness: Witness = BY_CHECK) -> bool:
    """No more jobs on any model of an account without money, until a read or a job finds it topped up.

    False: it was closed already.
    """
    where = {"provider": provider, "account": account}
    _refuse(ProviderAccount, where, error, witness)
    closed = _close(
        "provider = %(provider)s AND account = %(account)s AND closed_reason = ''", where, OutOfCredits.code
    )
    if closed:
        log.error(
            '%s: account "%s" is out of credits (%s). Top it up: it is tried again by itself, at least once an hour, '
            "at once with `manage.py check_providers`.",
            provider,
            key_labels.of_account(provider, account),
            error,
        )
    return closed


def _close(where: str, params: dict[str, Any], reason: str) -> bool:
    """Rows are locked by id first, as admission does, so that the two never deadlock."""
    return database.changed(
        f"""
        UPDATE video_provideraccount SET closed_reason = %(reason)s
        WHERE id IN (SELECT id FROM video_provideraccount WHERE {where} ORDER BY id FOR UPDATE)
            AND closed_reason <> %(reason)s
        """,  # noqa: S608 - `where` is one of this module's constants
        {**params, "reason": reason},
    )


# --- asking about accounts -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AccountAnswer:
    """A provider's answer about one key: either `info` or `error`, or neither where it can't be asked."""

    provider: str
    key: ApiKey
    account: str
    info: AccountInfo | None = None
    error: ProviderError | None = None


def refresh(max_age_s: float | None) -> int:
    """Ask about every key whose last answer is older than `max_age_s`, and about refused ones whose pause is over.

    None: only about these. Returns how many answered.
    """
    answers = ask(_due(max_age_s), deadline_s=ASK_DEADLINE_S, budget_s=ASK_BUDGET_S)
    return sum(record(answer) for answer in answers)


def ask(keys: Iterable[tuple[str, ApiKey]], *, deadline_s: float, budget_s: float | None = None) -> list[AccountAnswer]:
    """Make the account call of each (provider, key), in parallel between accounts; touches no row.

    After `budget_s` no further call is begun; what wasn't asked is left out.
    """
    by_account: dict[tuple[str, str], list[ApiKey]] = defaultdict(list)
    for provider, key in keys:
        by_account[provider, account_of(provider, key, settings.KEY_ACCOUNTS)].append(key)
    if not by_account:
        return []
    stop_at = None if budget_s is None else time.monotonic() + budget_s
    with ThreadPoolExecutor(max_workers=min(ASK_THREADS, len(by_account)), thread_name_prefix="accounts") as pool:
        ask_one = partial(_ask_account, deadline_s=deadline_s, stop_at=stop_at)
        found = pool.map(ask_one, by_account, by_account.values())
        return [answer for answers in found for answer in answers]


def _ask_account(
    name: tuple[str, str], keys: Sequence[ApiKey], *, deadline_s: float, stop_at: float | None
) -> list[AccountAnswer]:
    found = []
    provider, account = name
    for number, key in enumerate(keys):
        if number:
            time.sleep(_pause_s(provider))
        if stop_at is not None and time.monotonic() > stop_at:
            break
        try:
            found.append(AccountAnswer(provider, key, account, info=_ask(provider, key, deadline_s)))
        except ProviderError as err:
            found.append(AccountAnswer(provider, key, account, error=err))
        except Exception as err:
            found.append(AccountAnswer(provider, key, account, error=ProviderDown(f"unexpected {type(err).__name__}")))
    return found


def _pause_s(provider: str) -> float:
    return BY_NAME[provider].account_call_pause_s


def _ask(provider: str, key: ApiKey, deadline_s: float) -> AccountInfo | None:
    adapter = toolkit().provider(provider)
    if not adapter.has_account_call:
        return None
    reply = toolkit().sender(provider).read(adapter.build_account(key=key.value), deadline_s=deadline_s)
    return adapter.parse_account(reply)


def record(answer: AccountAnswer) -> bool:
    """Record an answer. True if it tells something about the account."""
    keys = ProviderKey.objects.filter(provider=answer.provider, fingerprint=answer.key.fingerprint)
    error = answer.error
    if isinstance(error, KeyRefused):
        refuse_key(answer.provider, answer.key.fingerprint, str(error), BY_CHECK)
    elif isinstance(error, OutOfCredits):
        close_empty(answer.provider, answer.account, str(error))
    elif error is not None:
        keys.update(last_error=storable(str(error), 300))
        return False
    elif answer.info is None:
        return False
    keys.update(checked_at=Now())
    if answer.info is None:
        return True
    if keys.filter(state=ProviderKey.State.QUARANTINED).update(state=ProviderKey.State.ACTIVE):
        log.warning('%s: key "%s" answers well again; jobs are sent with it', answer.provider, answer.key.label)
    # A submit of it may have been refused all the same: one job tries before all others.
    keys.filter(refusals__gt=0).update(retry_at=None)
    keys.exclude(last_error="").update(last_error="")
    _record_info(answer, answer.info)
    return True


def forget(provider: str, account: str) -> None:
    """The account has another key or address now: closings, cool-downs and refusals of the old one say nothing."""
    known = Q(refusals__gt=0) | ~Q(closed_reason="") | Q(busies__gt=0) | Q(cooldown_until__isnull=False)
    ProviderAccount.objects.filter(known, provider=provider, account=account).update(
        **refusals.NOTHING_KNOWN, closed_reason="", cooldown_until=None, busies=0, last_error=""
    )


def try_now(provider: str, account: str) -> int:
    """The pauses of an account and its keys are over: the next job tries. Returns how many rows that changed."""
    refused = {"provider": provider, "account": account, "refusals__gt": 0}
    rows = ProviderAccount.objects.filter(**refused).update(retry_at=Now())
    return rows + ProviderKey.objects.filter(**refused).exclude(retry_at=None).update(retry_at=Now())


def _record_info(answer: AccountAnswer, info: AccountInfo) -> None:
    """Limits and balance; a balance above 0 opens an account that was out of credits."""
    rows = ProviderAccount.objects.filter(provider=answer.provider, account=answer.account)
    for model in rows.values_list("model", flat=True):  # the provider may name any others
        limits = info.limits.get(model)
        if limits is not None and limits.max_concurrent is not None:
            slots = min(limits.max_concurrent, MOST_SLOTS)
            rows.filter(model=model).exclude(slots=slots).update(slots=slots)
    if info.balance is None:
        return
    label = key_labels.of_account(answer.provider, answer.account)
    if info.balance > LARGEST_BALANCE:
        log.warning('%s: account "%s" told a balance beyond all bounds', answer.provider, label)
    balances = database.fetch(
        """
        WITH before AS (
            SELECT id, closed_reason = 'out_of_credits' AND %(balance)s > 0 AS opens FROM video_provideraccount
            WHERE provider = %(provider)s AND account = %(account)s ORDER BY id FOR UPDATE
        )
        UPDATE video_provideraccount a SET balance = %(balance)s, balance_unit = %(unit)s,
            closed_reason = CASE WHEN before.opens THEN '' ELSE closed_reason END,
            refusals = CASE WHEN before.opens THEN 0 ELSE refusals END,
            last_error = CASE WHEN before.opens THEN '' ELSE last_error END
        FROM before WHERE a.id = before.id RETURNING before.opens
        """,
        {
            "balance": min(info.balance, LARGEST_BALANCE),
            "unit": toolkit().provider(answer.provider).cost_unit[:12],
            "provider": answer.provider,
            "account": answer.account,
        },
    )
    if any(opened for (opened,) in balances):
        log.warning('%s: account "%s" has credits again; jobs start there', answer.provider, label)
    elif rows.filter(closed_reason=OutOfCredits.code).exists():
        close_empty(answer.provider, answer.account, "the account has no credits")  # still: the next pause begins


def _due(max_age_s: float | None) -> list[tuple[str, ApiKey]]:
    """The keys to ask about, those not asked for longest first. Of refused ones and empty accounts: when the pause is
    over."""
    due = database.fetch(
        """
        SELECT k.provider, k.fingerprint FROM video_providerkey k LEFT JOIN LATERAL (
            SELECT count(*) AS number, min(a.retry_at) AS retry_at FROM video_provideraccount a
            WHERE a.provider = k.provider AND a.account = k.account AND a.closed_reason = 'out_of_credits'
        ) empty ON true
        WHERE CASE WHEN k.state = 'quarantined' OR k.refusals > 0 OR empty.number > 0
            THEN coalesce(least(k.retry_at, empty.retry_at) <= statement_timestamp(),
                k.checked_at < statement_timestamp() - interval '1 second' * %(slow)s, true)
            ELSE %(age)s::float8 IS NOT NULL
                AND coalesce(k.checked_at < statement_timestamp() - interval '1 second' * %(age)s, true) END
        ORDER BY k.checked_at NULLS FIRST, k.id
        """,
        {"age": max_age_s, "slow": refusals.LONGEST_PAUSE_S},
    )
    mine = {
        (provider, key.fingerprint): key
        for provider, key, _ in slots.configured()
        if toolkit().provider(provider).has_account_call
    }
    return [(provider, mine[provider, name]) for provider, name in due if (provider, name) in mine]
