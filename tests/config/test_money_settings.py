"""CREDIT_USD and UNIT_USD: exact decimals, or the start is refused with the name of the setting."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import money
from config.env import Environment


def worth(monkeypatch: pytest.MonkeyPatch, **values: str) -> tuple[Decimal | None, dict[str, Decimal]]:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return money.worth(Environment())


def test_without_them_no_credit_has_a_worth_and_units_are_as_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worth(monkeypatch) == (None, {})


def test_they_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    found = worth(monkeypatch, CREDIT_USD="0.05", UNIT_USD="runway:0.008, kling:0.1")
    assert found == (Decimal("0.05"), {"runway": Decimal("0.008"), "kling": Decimal("0.1")})


@pytest.mark.parametrize("text", ["runway", "runway:", "runway:-1", "acme:1", "runway:1,runway:2", "runway:1e3"])
def test_a_wrong_unit_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"UNIT_USD: entry [12] of the list"):
        worth(monkeypatch, UNIT_USD=text)


@pytest.mark.parametrize("text", ["five", "-1", "1,5", "0.0000001", "1e-3"])
def test_a_wrong_worth_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="CREDIT_USD must be an amount in USD"):
        worth(monkeypatch, CREDIT_USD=text)
