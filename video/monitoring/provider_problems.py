"""What is wrong at providers: keys, accounts, circuits, and what operators have paused."""

from __future__ import annotations

from collections.abc import Iterator

from video.infra.durations import count, span
from video.models import ProviderKey
from video.monitoring import remedies
from video.monitoring.problem import Figures, Problem
from video.monitoring.providers import AccountFigures, KeyFigures
from video.routing import refusals


def keys(figures: Figures) -> Iterator[Problem]:
    if not any(key.configured for key in figures.keys):
        yield Problem(
            "no_key",
            True,
            "No key of a provider is in use, so no job can start.",
            "Tasks wait in line; keys are taken in at the start of a sweeper and at the next admission.",
            "Put a key into .env.local and start again.",
        )
    for key in figures.keys:
        if key.gone_since is not None:
            yield Problem(
                "key_gone",
                True,
                f'Key "{key.label}" of {key.provider} is gone from the settings while {count(key.live, "job")} '
                f"{'hangs' if key.live == 1 else 'hang'} on it.",
                "These jobs wait for it until their tasks' deadline, then the tasks end with their refund.",
                f"Put it back into {key.provider.upper()}_API_KEY; drain a key before it is taken away.",
                about=key.fingerprint,
            )
        elif key.state == ProviderKey.State.QUARANTINED:
            yield Problem(
                "key_refused",
                True,
                f'{key.provider} refused key "{key.label}" again and again.',
                f"Other keys go on. It is tried again by itself{_again(key)}.",
                "Put it right at the provider, then `manage.py check_providers`, or Provider keys, Activate.",
                about=key.fingerprint,
                remedies=remedies.of_key(key),
            )
        elif key.refusals and key.configured:
            yield Problem(
                "key_in_doubt",
                key.refusals >= refusals.CLOSE_AFTER,
                f'{key.provider} refused key "{key.label}": {key.last_error}',
                f"Nothing new is sent with it for now. It is tried again by itself{_again(key)}.",
                "Nothing, if it passes. Else see at the provider whether the key is good.",
                about=key.fingerprint,
                remedies=remedies.of_key(key)[:1],
            )


def _again(row: KeyFigures | AccountFigures) -> str:
    """When a refused key or account is tried again, in words."""
    return f", in {span(row.retry_s)}" if row.retry_s else " with the next job"


_CLOSED = {
    "out_of_credits": (
        "is out of credits",
        "No job starts there. It is tried again by itself",
        "Top it up, then `manage.py check_providers`, or Provider accounts, Open again.",
    ),
    "model_forbidden": (
        "may not use this model",
        "The model is not used there; others are. It is tried again by itself",
        "Get access at the provider, then Provider accounts, Open again.",
    ),
}


def accounts(figures: Figures) -> Iterator[Problem]:
    seen = set()
    for account in figures.accounts:
        if not account.closed_reason or not account.usable_keys:
            continue
        models = account.model if account.closed_reason == "model_forbidden" else ""
        if (account.provider, account.account, account.closed_reason, models) in seen:
            continue  # one account, all of its models
        seen.add((account.provider, account.account, account.closed_reason, models))
        what, system, operator = _CLOSED.get(
            account.closed_reason,
            (f"is closed ({account.closed_reason})", "It is tried again by itself", "Provider accounts, Open again."),
        )
        name = f'Account "{account.label}" of {account.provider}' + (f" ({models})" if models else "")
        about = f"{account.provider} {account.account} {account.closed_reason} {models}".strip()
        buttons = remedies.of_account(account, models)
        yield Problem(
            "account_closed", True, f"{name} {what}.", f"{system}{_again(account)}.", operator, about, buttons
        )


def in_doubt(figures: Figures) -> Iterator[Problem]:
    for account in figures.accounts:
        if account.refusals and not account.closed_reason and account.usable_keys:
            yield Problem(
                "model_in_doubt",
                account.refusals >= refusals.CLOSE_AFTER,
                f'{account.provider} refused {account.model} to account "{account.label}": {account.last_error}',
                f"No job of it starts there for now. It is tried again by itself{_again(account)}.",
                "Nothing, if it passes. Else see at the provider whether the account may use the model, and look at "
                f"{account.provider.upper()}_BASE_URL if all its models are refused.",
                about=f"{account.provider} {account.account} {account.model}",
                remedies=remedies.of_account(account, account.model),
            )


def paused(figures: Figures) -> Iterator[Problem]:
    for one in figures.paused:
        ends = "It ends by itself at its time." if one.until else "It stays until it is resumed."
        yield Problem(
            "paused",
            False,
            f"{one.told}.",
            "Nothing new is sent for it. What is at a provider goes on, and no task is ended while it waits for it. "
            f"{ends}",
            f"Pauses, Resume; or `manage.py resume --id {one.id}`.",
        )


def nothing_open(figures: Figures) -> Iterator[Problem]:
    if any(account.state == "paused" for account in figures.accounts):
        return  # somebody wanted that
    if figures.waiting.number and figures.accounts and not any(account.open for account in figures.accounts):
        yield Problem(
            "nothing_open",
            all(account.cooldown_s is None for account in figures.accounts),
            f"{count(figures.waiting.number, 'task')} wait, and no account takes jobs.",
            "They stay in line; those that cool down open by themselves.",
            "Provider accounts says of each why it is closed.",
            remedies=(remedies.CHECK_PROVIDERS,),
        )


def circuits(figures: Figures) -> Iterator[Problem]:
    for circuit in figures.circuits:
        if circuit.state == "closed":
            continue
        left = f", {span(circuit.open_s)} more" if circuit.open_s else ""
        whose = " of the one user whose jobs failed" if circuit.state == "one_user" else ""
        yield Problem(
            "circuit_open",
            False,
            f"{circuit.model} had {count(circuit.faults, 'fault')} in a row: no new jobs{whose} for it{left}.",
            "Other models take its jobs where clients allow it; then one job tries whether it is well again.",
            "Look at its last error under Circuits and at the provider's status page; close it once that is well.",
            remedies=remedies.of_circuit(circuit),
        )
