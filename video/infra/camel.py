"""Our rows and values as JSON in the API's words: camelCase names, plain values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


def camel(one: Any, fields: str) -> dict[str, Any]:
    """The named fields of an object or a mapping, in that order. A mapping may lack some: they are null.

    `fields` are names with blanks between; `name=apiName` where the API has a word of its own, else `a_name` is
    `aName`, and lengths of time say their unit: `wait_s` is `waitSeconds`.
    """
    found = {}
    for field in fields.split():
        name, _, word = field.partition("=")
        value = one.get(name) if isinstance(one, Mapping) else getattr(one, name)
        found[word or _camel(name)] = seconds(value) if name.endswith("_s") else plain(value)
    return found


def _camel(name: str) -> str:
    first, *rest = (f"{name}econds" if name.endswith("_s") else name).split("_")
    return first + "".join(word.capitalize() for word in rest)


def plain(value: Any) -> Any:
    """A value as JSON has it. Empty text is null: it means that there is none."""
    match value:
        case "":
            return None
        case datetime():
            return utc(value)
        case Decimal():
            return f"{value.normalize():f}"
        case tuple():
            return list(value)
    return value


def utc(moment: datetime) -> str:
    """An aware time as RFC 3339 has it, in UTC, with Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def seconds(value: float | None) -> float | None:
    """A length of time, never below zero, to the hundredth."""
    return None if value is None else round(max(0.0, value), 2)
