"""Asking the providers about keys at once: for `manage.py check_providers`, and for the job of an operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings

from providers.api_keys import ApiKey
from providers.errors import Busy, KeyRefused, OutOfCredits
from video.attempts import configured_keys
from video.engine import dispatch
from video.infra.toolkit import toolkit
from video.models import ProviderKey
from video.monitoring import providers
from video.monitoring.providers import AccountFigures, KeyFigures
from video.routing import accounts


@dataclass
class Row:
    """The state of one key."""

    key: KeyFigures
    verdict: str  # ok, not_checked, refused, out_of_credits, busy, unreachable
    balance: Decimal | None
    models: list[AccountFigures]  # of its account

    @property
    def good(self) -> bool:
        return self.verdict in {"ok", "not_checked"}

    @property
    def last_error(self) -> str:
        return self.key.last_error or next((one.last_error for one in self.models if one.last_error), "")

    @property
    def unit(self) -> str:
        return toolkit().provider(self.key.provider).cost_unit


def check(keys: Iterable[tuple[str, ApiKey]]) -> list[Row]:
    """Ask the providers about these keys, store the answers, and return the state of each key."""
    configured_keys.sync()
    answers = accounts.ask(keys, deadline_s=settings.READ_TIMEOUT_SECONDS)
    for answer in answers:
        accounts.record(answer)
        if answer.error is None:
            accounts.try_now(answer.provider, answer.account)
    dispatch.request_admission()
    keys_now = providers.keys()
    stored, figures = {(key.provider, key.fingerprint): key for key in keys_now}, providers.accounts(keys_now)
    found = []
    for answer in answers:
        key = stored[answer.provider, answer.key.fingerprint]
        mine = [one for one in figures if (one.provider, one.account) == (answer.provider, answer.account)]
        balance = answer.info.balance if answer.info else next((one.balance for one in mine), None)
        found.append(Row(key, _verdict(answer, key, mine), balance, mine))
    return sorted(found, key=lambda row: keys_now.index(row.key))


def _verdict(answer: accounts.AccountAnswer, key: KeyFigures, rows: list[AccountFigures]) -> str:
    if isinstance(answer.error, KeyRefused) or key.state == ProviderKey.State.QUARANTINED:
        return "refused"
    empty = answer.info is not None and answer.info.balance == 0
    if empty or isinstance(answer.error, OutOfCredits) or any(one.closed_reason == "out_of_credits" for one in rows):
        return "out_of_credits"
    if isinstance(answer.error, Busy):
        return "busy"
    if answer.error is not None:
        return "unreachable"
    return "ok" if answer.info is not None else "not_checked"
