"""Texts and numbers that strangers send to break something, and a look at every row for what none may hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from django.apps import apps
from django.db import connection
from django.db.models import BooleanField, DateTimeField, DecimalField, Field, FloatField, ForeignKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.untrusted import UNPRINTABLE

#: A kind each: NUL, halves of pairs, C0 and C1, terminal sequences, direction, what can't be seen, planes beyond the
#: first, letters that grow when they are normalised, marks without end, and lengths.
TEXTS = (
    *("a\0b", "\ud800", "a\udc00\ud800b", "a\x01\x1fb\x7fc\x9fd", "\x1b[2J\x1b]0;owned\x07", "\x9b31mred", "a\r\nb\tc"),
    *("a\u202eb\u202c", "\u2066a\u2069", "\u200f\u061ca", "a\u200b\u2060\ufeffb", "a\u00adb\u2028c", "\U000e0041a"),
    *("😀👩\u200d🚀", "\U0001d11e\U0010ffff", "\ufdfa" * 200, "e" + "\u0301\u0323" * 500, "ﬃ", "\ufffe\uffff"),
    *("", " ", "x" * 5000, "猫" * 5000, "%00", "%s %(x)s {0} {x}", "'; DROP TABLE x; --", "<script>alert(1)</script>"),
    *("..", "../../etc/passwd", "https://\0/", "javascript:alert(1)", "1e400", "NaN", "null", "٣"),
)
NUMBERS = (
    *(math.nan, math.inf, -math.inf, 1e308, -1e308, -0.0, 5e-324, 0, -1, True, False, 2**31, 2**63, -(2**63) - 1),
    *(10**400, 10**5000, -(10**5000), "1e400", "-1", "Infinity", "9" * 5000, "99999999.99995", "0x10", "1_000", ""),
)
A_MEGABYTE = "x\x1b\u202e\0" * 250_000

texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=40))
numbers = st.one_of(st.sampled_from(NUMBERS), st.floats(), st.integers())

Check = Callable[[str, Any, int], None]


def sweep(check: Check) -> None:
    """`check(text, number, at)` with each of them, then with what hypothesis makes (`make fuzz`: more of that).

    `at` says which of its forms a check tries: each form meets several texts, and each text a form.
    """
    for at in range(max(len(TEXTS), len(NUMBERS))):
        check(TEXTS[at % len(TEXTS)], NUMBERS[at % len(NUMBERS)], at)
    for at in range(2):
        check(A_MEGABYTE, 10**5000, at)

    @settings(max_examples=settings().max_examples // 20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(text=texts, number=numbers, at=st.integers(0, 30))
    def made(text: str, number: Any, at: int) -> None:
        check(text, number, at)

    made()


def encoded(value: Any) -> bytes:
    """JSON with numbers that no encoder writes, and halves of pairs as escapes."""
    match value:
        case dict():
            return b"{" + b",".join(encoded(str(name)) + b":" + encoded(one) for name, one in value.items()) + b"}"
        case list():
            return b"[" + b",".join(map(encoded, value)) + b"]"
        case int() if not isinstance(value, bool) and abs(value) > 10**400:
            return (b"-" if value < 0 else b"") + b"9" * 5000  # Python writes no number of so many digits
        case _:
            return json.dumps(value).encode()


_ANY = re.compile(f"[{UNPRINTABLE}]")
#: Of what users wrote themselves: it keeps what can't be seen, which is theirs, and no control but ends of lines.
_OF_USERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
WRITTEN_BY_USERS = {"VideoTask.prompt", "VideoTask.negative_prompt"}


def leaves(value: Any) -> Iterator[Any]:
    """What stands in a column, in its lists and objects too."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    else:
        yield value


@cache
def _all_rows() -> str:
    """A statement for every row of ours, as (model, JSON)."""
    models = apps.get_app_config("video").get_models()
    return " UNION ALL ".join(
        f"SELECT '{model.__name__}', to_jsonb(t) FROM {model._meta.db_table} t" for model in models
    )


def unclean() -> list[str]:
    """Columns of rows that hold what none may, each with it."""
    with connection.cursor() as cursor:
        cursor.execute(_all_rows())
        rows = [(model, json.loads(row) if isinstance(row, str) else row) for model, row in cursor.fetchall()]
    return [
        f"{model}.{column}: {leaf!r}"[:300]
        for model, row in rows
        for column, value in row.items()
        for leaf in leaves(value)
        if not _is_clean(f"{model}.{column}", leaf)
    ]


def _is_clean(name: str, leaf: Any) -> bool:
    if isinstance(leaf, str):  # a number that is none is a text in JSON
        if leaf in ("NaN", "Infinity", "-Infinity") and columns().get(name) in NUMERIC:
            return False
        return not (_OF_USERS if name in WRITTEN_BY_USERS else _ANY).search(leaf)
    return True


NUMERIC = (FloatField, DecimalField)


@cache
def columns() -> dict[str, type[Field[Any, Any]]]:
    """Every column of ours that holds a text or a number, as `Model.column`, with its kind."""
    return {
        f"{model.__name__}.{column.name}": type(column)
        for model in apps.get_app_config("video").get_models()
        for column in model._meta.concrete_fields
        if not isinstance(column, DateTimeField | BooleanField | ForeignKey)
    }
