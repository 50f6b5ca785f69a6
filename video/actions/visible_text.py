"""Whether a text shows anything to a reader: blanks come in many forms, and a video of none of them is paid for."""

from __future__ import annotations

import unicodedata

#: Blanks, controls, formats (zero-width ones, direction marks, tags), lone surrogates, and marks that sit on a letter
#: (accents, variation selectors) and are nothing without one.
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "Mn", "Me"})
#: Letters and symbols by category that are blank by definition: Hangul fillers, the empty Braille pattern, the musical
#: null note head. Source: Unicode 17, Default_Ignorable_Code_Point, and the charts of U+2800 and U+1D100; read 2026-11.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159")
#: Reserved for more of the kind: ignorable though not assigned yet.
_RESERVED = (range(0x2065, 0x2066), range(0xFFF0, 0xFFF9), range(0xE0000, 0xE1000))


def is_visible(text: str) -> bool:
    """Whether one character of it, at least, can be seen."""
    return any(map(_shows, text))


def _shows(character: str) -> bool:
    return (
        unicodedata.category(character) not in _UNSEEN_CATEGORIES
        and character not in _BLANK
        and not any(ord(character) in reserved for reserved in _RESERVED)
    )
