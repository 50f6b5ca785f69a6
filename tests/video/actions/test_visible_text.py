"""A text that shows nothing is no prompt, whatever it is made of."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from video.actions.visible_text import is_visible

INVISIBLE = {
    "nothing": "",
    "blanks": " \t\n\u00a0\u2003\u3000\u1680",
    "controls": "\x01\x1b\x7f\x85",
    "zero-width space": "\u200b",
    "zero-width joiners": "\u200c\u200d\u2060",
    "byte-order mark": "\ufeff",
    "direction marks": "\u200e\u200f\u202a\u202e\u2066\u2069\u061c",
    "soft hyphen": "\u00ad",
    "line and paragraph separators": "\u2028\u2029",
    "Hangul fillers": "\u3164\u115f\u1160\uffa0",
    "empty Braille": "\u2800",
    "variation selectors": "\ufe0f\ufe00\U000e0100",
    "Mongolian vowel separator": "\u180e\u180b",
    "Khmer inherent vowels": "\u17b4\u17b5",
    "combining grapheme joiner": "\u034f",
    "accents on nothing": "\u0301\u0308",
    "an enclosing circle round nothing": "\u20dd",
    "tags": "\U000e0041\U000e007f",
    "reserved ignorables": "\u2065\ufff0\U000e0fff",
    "musical null note head": "\U0001d159",
    "half of a character": "\ud800",
}
VISIBLE = ("a", "猫", "한", "नी", "🐈", "👩\u200d🚀", "e\u0301", "\u200ba\u200b", ".", "?", "⠁", "\ue000", "ـ")


@pytest.mark.parametrize("text", INVISIBLE.values(), ids=INVISIBLE.keys())
def test_what_shows_nothing_is_not_visible(text: str) -> None:
    assert not is_visible(text)
    assert not is_visible(text * 3 + " ")


@pytest.mark.parametrize("text", VISIBLE)
def test_what_shows_something_is_visible(text: str) -> None:
    assert is_visible(text)


def test_every_letter_but_the_fillers_is_visible() -> None:
    letters = {c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in {"Lu", "Ll", "Lo", "Nd"}}
    assert {c for c in letters if not is_visible(c)} == {"\u3164", "\u115f", "\u1160", "\uffa0"}
