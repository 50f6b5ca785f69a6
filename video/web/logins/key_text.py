"""The text of an API key: `rw_live_`, 32 random characters, and 6 characters of a checksum over all before them.

The layout is GitHub's, so that scanners for secrets find keys in code without asking us: a known beginning, letters and
digits only, and the CRC-32 of what is before it in base 62, with zeros in front
(https://github.blog/engineering/behind-githubs-new-authentication-token-formats/, read 2026-11-28).
The random part has 190 bits, so a plain SHA-256 of the text can't be turned back by trying.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib

PREFIX = "rw_live_"
_RANDOM, _CHECK = 32, 6  # characters
_HINT = 4  # random characters that lists show
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM + _CHECK}}}", re.ASCII)


def new() -> str:
    """A key that nobody has."""
    body = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return body + _checksum(body)


def is_key(text: str) -> bool:
    """Whether a token says that it is a key, well formed or not."""
    return text.startswith(PREFIX)


def is_well_formed(text: str) -> bool:
    """Whether it has the shape of a key and the right checksum."""
    return _SHAPE.fullmatch(text) is not None and text[-_CHECK:] == _checksum(text[:-_CHECK])


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def hint(key: str) -> str:
    """How it begins, for lists: too little to guess the rest."""
    return f"{key[: len(PREFIX) + _HINT]}…"


def _checksum(body: str) -> str:
    value, text = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK):
        value, place = divmod(value, len(_ALPHABET))
        text = _ALPHABET[place] + text
    return text
