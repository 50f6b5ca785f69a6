"""What a button can do about a problem: data for the cards, which the admin turns into buttons.

`object` names what it is done to: `provider|fingerprint` of a key, `provider|account` or `provider|account|model` of an
account, a model of a circuit; empty: the whole system.
"""

from __future__ import annotations

from dataclasses import dataclass

from video.monitoring.providers import AccountFigures, CircuitFigures, KeyFigures


@dataclass(frozen=True)
class Remedy:
    """One thing that can be done."""

    name: str  # of the act, as the admin's table of buttons has it
    label: str
    kind: str = "system"  # what it is done to: a model's name in lower case, or system
    object: str = ""


CHECK_LEDGER = Remedy("check_ledger", "Verify the ledger")
LOOK_AT_STORAGE = Remedy("look_at_storage", "Look for files that no task needs")
RECONCILE = Remedy("reconcile", "Reconcile now")
CHECK_PROVIDERS = Remedy("check_keys", "Check all keys now")


def of_key(key: KeyFigures) -> tuple[Remedy, ...]:
    """Of a key that was refused."""
    name = f"{key.provider}|{key.fingerprint}"
    return (
        Remedy("check_key", "Check this key now", "providerkey", name),
        Remedy("activate_key", "Activate", "providerkey", name),
    )


def of_any_key(key: KeyFigures) -> tuple[Remedy, ...]:
    """Of a key whatever its state: on the page of the queues each has them."""
    name = f"{key.provider}|{key.fingerprint}"
    is_used = key.state == "active" and not key.refusals
    other = Remedy("drain_key", "Drain", "providerkey", name) if is_used else of_key(key)[1]
    return (of_key(key)[0], other)


def of_account(account: AccountFigures, model: str = "") -> tuple[Remedy, ...]:
    """Of an account that is closed or in doubt: all its models, or one."""
    name = f"{account.provider}|{account.account}"
    return (
        Remedy("check_account", "Check its keys now", "provideraccount", name),
        Remedy("open_account", "Open again", "provideraccount", f"{name}|{model}" if model else name),
    )


def of_circuit(circuit: CircuitFigures) -> tuple[Remedy, ...]:
    """Of a model whose circuit is open."""
    return (Remedy("close_circuit", "Close the circuit", "circuit", circuit.model),)
