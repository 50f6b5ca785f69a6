from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_pipeline.storage.ranges import decide

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "status", "start", "length"),
    [
        (None, 200, 0, 1000),
        ("bytes=0-99", 206, 0, 100),
        ("bytes=0-0", 206, 0, 1),
        ("bytes=500-", 206, 500, 500),
        ("bytes=0-", 206, 0, 1000),
        ("bytes=999-", 206, 999, 1),
        ("bytes=900-5000", 206, 900, 100),
        ("bytes=-100", 206, 900, 100),
        ("bytes=-5000", 206, 0, 1000),
        ("Bytes= 0-99 ", 206, 0, 100),
        ("bytes=1000-", 416, 0, 0),
        ("bytes=5000-6000", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        # Malformed or not ours to honour: the whole file.
        ("bytes=99-0", 200, 0, 1000),
        ("bytes=-", 200, 0, 1000),
        ("bytes=a-b", 200, 0, 1000),
        ("bytes=0-99,200-299", 200, 0, 1000),
        ("bytes=+1-5", 200, 0, 1000),
        ("bytes=٣-", 200, 0, 1000),
        ("items=0-99", 200, 0, 1000),
        ("bytes", 200, 0, 1000),
        ("", 200, 0, 1000),
        # Any number of digits, of any value.
        ("bytes=" + "9" * 5000 + "-", 416, 0, 0),
        ("bytes=" + "9" * 5000 + "-" + "9" * 5001, 416, 0, 0),
        ("bytes=" + "9" * 5000 + "-" + "8" * 5000, 200, 0, 1000),
        ("bytes=500-" + "9" * 5000, 206, 500, 500),
        ("bytes=-" + "9" * 5000, 206, 0, 1000),
        ("bytes=" + "0" * 5000 + "7-" + "0" * 5000 + "9", 206, 7, 3),
        ("bytes=-" + "0" * 5000, 416, 0, 0),
        ("bytes=999999999999999999-", 416, 0, 0),
        ("bytes=0-18446744073709551616", 206, 0, 1000),
        # A list of one, with what a list may have beside (RFC 9110 §5.6.1).
        ("bytes=,0-99, ,", 206, 0, 100),
        ("bytes=,", 200, 0, 1000),
        ("bytes=0-99,5", 200, 0, 1000),
        ("bytes =0-99", 200, 0, 1000),
        ("bytes=0 -99", 200, 0, 1000),
        ("bytes=0-99\n", 200, 0, 1000),
        ("bytes=0-99;q=1", 200, 0, 1000),
        ("bytes=" + "0-0," * 4000, 200, 0, 1000),
    ],
)
def test_range(header: str | None, status: int, start: int, length: int) -> None:
    decision = decide(header, 1000)
    assert (decision.status, decision.start, decision.length) == (status, start, length)


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 1500), st.integers(0, 40), st.booleans())
def test_every_range_is_a_slice_of_the_file(first: int, last: int, size: int, zeros: int, is_suffix: bool) -> None:
    """As Python slices it; leading zeros change nothing."""
    file = range(size)
    pad = "0" * zeros
    asked = f"-{pad}{last}" if is_suffix else f"{pad}{first}-{pad}{last}"
    wanted = file[max(0, size - last) :] if is_suffix else file[first : last + 1]
    decision = decide(f"bytes={asked}", size)
    if not is_suffix and last < first:
        assert decision.status == 200
    elif not wanted:
        assert decision.status == 416
    else:
        assert decision.status == 206
        assert file[decision.start : decision.start + decision.length] == wanted


def test_headers() -> None:
    assert decide("bytes=0-99", 1000).content_range == "bytes 0-99/1000"
    assert decide("bytes=2000-", 1000).content_range == "bytes */1000"
    assert decide(None, 1000).content_range is None


def test_empty_file_has_no_ranges() -> None:
    assert decide("bytes=0-", 0).status == 416
    assert decide("bytes=-5", 0).status == 416
    assert decide(None, 0).status == 200


MADE = 1_792_567_680  # Wed, 21 Oct 2026 07:28:00 GMT


@pytest.mark.parametrize(
    ("if_range", "status"),
    [
        (None, 206),
        (ETAG, 206),
        (f" {ETAG} ", 206),
        ('"other"', 200),
        (f"W/{ETAG}", 200),
        ("abc", 200),
        ("*", 200),
        ("", 200),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 206),
        ("Wednesday, 21-Oct-26 07:28:00 GMT", 206),  # RFC 850's form, which is to be read too
        ("Wed, 21 Oct 2026 07:28:01 GMT", 200),
        ("Wed, 21 Oct 2026 07:27:59 GMT", 200),
        ("Wed, 99 Oct 2026 07:28:00 GMT", 200),
    ],
)
def test_if_range(if_range: str | None, status: int) -> None:
    assert decide("bytes=0-99", 1000, if_range=if_range, etag=ETAG, modified=MADE).status == status


@pytest.mark.parametrize("if_range", [ETAG, "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_if_range_of_what_we_do_not_name(if_range: str) -> None:
    assert decide("bytes=0-99", 1000, if_range=if_range).status == 200
