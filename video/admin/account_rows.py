"""Provider accounts as rows of a page: one an account, which opens to its models."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from providers import ranking
from video.infra.durations import count, span
from video.monitoring.providers import AccountFigures


def account_rows(found: Iterable[AccountFigures]) -> list[dict[str, Any]]:
    """`found` comes by provider and account, as `providers.accounts` has it."""
    return [
        _account(provider, account, list(models))
        for (provider, account), models in groupby(found, lambda one: (one.provider, one.account))
    ]


def _account(provider: str, account: str, models: list[AccountFigures]) -> dict[str, Any]:
    live, limit = sum(one.live for one in models), sum(one.limit for one in models)
    opened = [one for one in models if one.open]
    states = {one.state for one in models}
    tones = {_tone(one) for one in models}
    worst = next((one for one in models if not one.open), None) or next((one for one in models if one.last_error), None)
    return {
        "provider": provider,
        "account": account,
        "label": models[0].label,
        "state": states.pop() if len(states) == 1 else f"{len(opened)} of {count(len(models), 'model')} open",
        "tone": "success" if tones == {"success"} else "failed" if not opened and "failed" in tones else "waiting",
        "live": live,
        "limit": limit,
        "percent": _percent(live, limit),
        "balance": " · ".join(dict.fromkeys(filter(None, map(_balance, models)))),
        "why": "" if worst is None else _why(worst, alone=len(models) == 1),
        "models": [_model(one) for one in models],
    }


def _model(one: AccountFigures) -> dict[str, Any]:
    return {
        "one": one,
        "percent": _percent(one.live, one.limit),
        "state": one.state + ("" if one.cooldown_s is None else f", {span(one.cooldown_s)} more"),
        "tone": _tone(one),
        "balance": _balance(one),
    }


def _why(one: AccountFigures, *, alone: bool) -> str:
    """The reason of the worst model in a line."""
    said = ": ".join(filter(None, ("" if one.open else one.state, one.last_error)))
    return said if alone else f"{one.model}: {said}"


def _tone(one: AccountFigures) -> str:
    return "success" if one.open else "waiting" if one.cooldown_s is not None or is_decided(one) else "failed"


def is_decided(one: AccountFigures) -> bool:
    """Whether an operator has switched it off, or paused it: no trouble."""
    return one.reason is not None and one.reason.code in ranking.DECIDED


def _percent(live: int, limit: int) -> int:
    return min(100, round(100 * live / limit)) if limit else 0


def _balance(one: AccountFigures) -> str:
    return "" if one.balance is None else f"{one.balance.normalize():f} {one.balance_unit}"
