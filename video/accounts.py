"""What a provider's refusal means for the account behind it. Only trouble of key and account comes here, no user's."""

from __future__ import annotations

import logging

from django.db import connection

from providers.errors import Busy, KeyRefused, ModelForbidden, OutOfCredits, ProviderError
from video.models import Generation, ProviderAccount

log = logging.getLogger(__name__)

DEFAULT_COOLDOWN_S = 15.0
ACCOUNT_ERRORS = (Busy, KeyRefused, OutOfCredits, ModelForbidden)
# Trouble of the key or its account is not the task's: it waits for a better one.
NOT_THE_TASKS_FAULT = [error.code for error in ACCOUNT_ERRORS]


def note_refusal(generation: Generation, error: ProviderError) -> None:
    """Cool the account down, or close it, as the error asks; an operator opens it again in the admin."""
    account = generation.account
    if isinstance(error, Busy):
        _cool_down(account.pk, error.retry_after_s or DEFAULT_COOLDOWN_S, str(error))
        return
    closed = ProviderAccount.objects.filter(provider=account.provider, account=account.account)
    if isinstance(error, ModelForbidden):
        closed = closed.filter(pk=account.pk)
    closed.update(closed_reason=error.code, last_error=str(error)[:300])
    log.error(
        "%s: no more jobs are sent with key %s (%s). Put it right, then open the account in the admin.",
        account.provider,
        generation.key_fingerprint,
        error.code,
    )


def _cool_down(account_id: int, seconds: float, error: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_provideraccount SET last_error = %s,
                cooldown_until = greatest(cooldown_until, statement_timestamp() + %s * interval '1 second')
            WHERE id = %s
            """,
            [error[:300], seconds, account_id],
        )
