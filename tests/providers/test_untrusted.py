"""Whatever a stranger's header, number or text is, what is read of it is bounded, and a row takes it."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import HttpReply
from providers.errors import Busy, ProviderError
from providers.untrusted import (
    LARGEST_AMOUNT,
    LARGEST_COST,
    LARGEST_COUNT,
    LONGEST_ID,
    LONGEST_URL,
    dotted,
    find_id,
    safe_count,
    safe_decimal,
    safe_id,
    safe_origin,
    safe_share,
    safe_text,
    safe_url,
    storable,
)
from providers.waits import LONGEST_ASKED_S
from video.models import Generation


def asked(retry_after: str, **headers: str) -> float | None:
    return HttpReply(429, {"retry-after": retry_after, **headers}).retry_after_s()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("1.5", 1.5),
        ("86400", 86_400),
        ("86401", LONGEST_ASKED_S),
        ("9" * 400, LONGEST_ASKED_S),
        ("9" * 5000, LONGEST_ASKED_S),
        ("0" * 5000 + "3", 3),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("-Infinity", None),
        ("1e308", None),
        ("1e400", None),
        ("1_000", None),
        ("١٢", None),  # digits, but not in ASCII
        ("²", None),
        ("7, 9", None),
        ("soon", None),
        ("", None),
        ("Wed, 01 Dec 2027 10:00:00 GMT", LONGEST_ASKED_S),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_ASKED_S),
        ("Fri, 31 Dec 9999 23:59:59 -2359", LONGEST_ASKED_S),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("Mon, 23 Nov 2026 10:01:00 GMT", 60),
        ("Mon, 23 Nov 2026 09:00:00 GMT", 0),
        ("Mon, 23 Nov 2026 99:99:99 GMT", None),
        ("Mon, 23 Nov 2026 10:00:00 +99999999999999999999", None),
        ("1" * 70 + " GMT", None),
    ],
)
def test_a_wait_is_read_within_its_bound(header: str, seconds: float | None) -> None:
    assert asked(header, date="Mon, 23 Nov 2026 10:00:00 GMT") == seconds


@pytest.mark.parametrize(
    ("milliseconds", "seconds"), [("1500", 1.5), ("9" * 400, LONGEST_ASKED_S), ("1e300", 30), ("-1", 30), ("nan", 30)]
)
def test_milliseconds_come_first_and_have_the_same_bound(milliseconds: str, seconds: float) -> None:
    assert asked("30", **{"retry-after-ms": milliseconds}) == seconds


ODD = st.one_of(
    st.text(),
    st.from_regex(r"[-+]?[0-9]{0,30}(\.[0-9]*)?(e[0-9]+)?", fullmatch=True),
    st.floats().map(str),
    st.integers().map(str),
    st.datetimes().map(format_datetime),
)


@given(header=ODD, milliseconds=ODD, date=ODD)
def test_no_header_raises_or_is_beyond_the_bound(header: str, milliseconds: str, date: str) -> None:
    found = asked(header, date=date, **{"retry-after-ms": milliseconds})
    assert found is None or (isinstance(found, float) and 0 <= found <= LONGEST_ASKED_S)


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -(10**400), 10**5000, math.inf, math.nan]))
ANYTHING = st.one_of(NUMBERS, st.text(), st.none(), st.booleans(), st.lists(st.integers()), st.decimals().map(str))


@given(value=ANYTHING)
def test_no_value_raises_or_is_more_than_a_row_holds(value: object) -> None:
    amount, count, share = safe_decimal(value), safe_count(value), safe_share(value)
    assert amount is None or (amount.is_finite() and 0 <= amount <= LARGEST_AMOUNT)
    assert amount is None or -amount.as_tuple().exponent <= 4  # type: ignore[operator]  # finite, so a number
    assert count is None or 0 <= count <= LARGEST_COUNT
    assert share is None or 0 <= share <= 1
    for text in (safe_text(value), safe_id(value), safe_url(value) or ""):
        assert "\0" not in text
        text.encode()  # no half of a pair


def test_a_charge_too_small_for_its_column_is_not_nothing() -> None:
    assert safe_decimal("1e-300") == Decimal("0.0001")
    assert safe_decimal(-0.0) == 0
    assert safe_decimal("0.3") == Decimal("0.3")


def test_a_text_loses_what_no_row_takes_and_still_hides_a_credential() -> None:
    assert safe_text("a\0b\ud800c\u202ed\x1b[31m") == "abcd[31m"
    assert "0123456789abcdef" not in safe_text("key_01234567\x0089abcdef is wrong")
    assert storable("two\nlines\0", 300) == "two lines"
    assert storable("\b a \b\x85\0 b", 300) == safe_text("\b a \b\x85\0 b") == "a b"
    assert storable("long" * 100, 10) == "longlonglo"


@pytest.mark.parametrize(
    "bad", ["https://example.com/a\0b", "https://example.com/\ud800", "https://example.com/a\r\nb"]
)
def test_a_link_with_what_no_row_takes_is_none(bad: str) -> None:
    assert safe_url(bad) is None


@pytest.mark.parametrize(
    "written",
    ["https://example.com/a b|{c}^`.mp4?name=schöne katze", "https://bücher.example/猫.mp4", "HTTPS://example.com"],
)
def test_a_link_is_taken_as_the_world_writes_it(written: str) -> None:
    assert safe_url(written) == safe_url(f"  {written} ") == written
    long = "https://example.com/" + "a" * (LONGEST_URL - 20)
    assert safe_url(long) == long
    assert safe_url(long + "a") is None


@pytest.mark.parametrize(
    ("number", "amount"),
    [
        ("1e400", LARGEST_AMOUNT),
        ("Infinity", LARGEST_AMOUNT),
        ("9" * 5000, LARGEST_AMOUNT),
        ("1e13", LARGEST_AMOUNT),
        ("-1e400", None),
        ("NaN", None),
        ("-" + "9" * 5000, None),
        ("-0", 0),
    ],
)
def test_an_answer_with_an_impossible_number_is_still_read(number: str, amount: Decimal | None) -> None:
    """What is more than any row holds is the most that one holds; what is no amount is not told."""
    body = HttpReply(200, {}, f'{{"id": "job-1", "cost": {number}}}'.encode()).json_object()
    assert body["id"] == "job-1"
    assert safe_decimal(body["cost"]) == amount
    assert safe_decimal(number) == amount, "as a string"
    json.dumps(body)


def test_bounds_are_those_of_the_columns() -> None:
    for name in ("expected_cost", "reported_cost"):
        column = Generation._meta.get_field(name)
        assert Decimal(10) ** (column.max_digits - column.decimal_places) - LARGEST_COST == Decimal("0.0001")


def test_an_error_holds_no_text_that_a_row_refuses() -> None:
    error = ProviderError("a\0b", code="c\0d", user_message="\ud800e", provider_code="f\0")
    assert (str(error), error.message, error.code, error.user_message, error.provider_code) == (
        *("ab", "ab", "cd", "e", "f"),
    )
    assert len(str(Busy("x" * 10_000))) == 1000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("17f20503-6c24", "17f20503-6c24"),
        (" 893605946402811985\n", "893605946402811985"),
        (893605946402811985, "893605946402811985"),
        ("x" * LONGEST_ID, "x" * LONGEST_ID),
        ("x" * (LONGEST_ID + 1), ""),
        (10**LONGEST_ID, ""),
        pytest.param(10**5000, "", id="huge"),
        (0, ""),
        (-1, ""),
        (True, ""),
        (1.0, ""),
        (None, ""),
        ("", ""),
        ("a b", ""),
        ("a\nb", ""),
        ("a\x00b", ""),
        ("a\ud800", ""),
        ("a\u200b", ""),
        (["a"], ""),
        ({"id": "a"}, ""),
    ],
)
def test_an_id_is_one_word_that_fits_its_column(value: object, expected: str) -> None:
    assert safe_id(value) == expected


def test_the_longest_id_is_what_the_column_holds() -> None:
    assert Generation._meta.get_field("job_id").max_length == LONGEST_ID


def test_the_documented_place_goes_before_every_envelope() -> None:
    body = {"data": {"id": "", "task": {"id": "inner"}}, "output": {"id": "outer"}, "id": "top"}
    assert find_id(body, "id") == "top"
    assert find_id(body, "id", envelope="data") == "inner"
    assert find_id({"result": [], "output": {"task_id": 7}}, "id", "task_id") == "7"
    assert find_id({"request_id": "call"}, "id", "task_id", envelope="data") == ""


def test_a_path_is_names_and_numbers_only() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    assert dotted(["body", 0, deep, {"a": 1}, "duration"]) == "body.0.duration"
    assert dotted("body") == ""


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://api.example.com/v1/x?token=secret#f", "https://api.example.com"),
        ("HTTPS://API.example.com:443/v1", "https://api.example.com"),
        ("http://gateway.local:8080/login", "http://gateway.local:8080"),
        ("https://user:secret@example.com/", "https://example.com"),
        ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443"),
        ("  https://example.com ", "https://example.com"),
        ("/v1/elsewhere", ""),
        ("//example.com/x", ""),
        ("", ""),
        ("ftp://example.com/", ""),
        ("javascript:alert(1)", ""),
        ("https://", ""),
        ("https://example.com:99999/", ""),
        ("https://[bad/", ""),
        ("https://exa mple.com/", ""),
        ("https://exa\nmple.com/", ""),
        ("https://bücher.example/", ""),
        ("https://a\\@b.example/", ""),
        ("https://key_0123456789abcdef01.example/", ""),
        ("https://" + "a" * 300 + "/", ""),
    ],
)
def test_a_redirect_shows_its_origin_and_no_more(location: str, shown: str) -> None:
    assert safe_origin(location) == shown
