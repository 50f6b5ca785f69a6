"""Pictures that come inside a text: `data:image/png;base64,…` (RFC 2397)."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

#: Characters. What is larger goes by upload: the text stands in a JSON body, which is held in memory whole.
MAX_CHARACTERS = 5 * 1024 * 1024

_HEAD = re.compile(r"data:(?:image/[a-z0-9.+-]{1,60})?((?:;[a-z0-9-]{1,40}=[a-z0-9._-]{1,40})*);base64,", re.IGNORECASE)
_BLANKS = re.compile(rb"[ \t\r\n\f]+")


class BadDataUri(ValueError):
    """The text is not a picture in base64; the message says what is wrong, and never quotes it."""


def is_data_uri(text: str) -> bool:
    """Whether the text says that it is one, as browsers read it."""
    return text.lstrip()[:5].lower() == "data:"


def decoded(text: str) -> bytes:
    """The bytes that the text holds; whether they are a picture is not looked at. Raises BadDataUri.

    Blanks and line breaks between the digits, percent-encoded digits and a missing padding are read as browsers do.
    """
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        raise BadDataUri(f"has more than {MAX_CHARACTERS} characters; send a larger picture to POST /api/video/upload")
    head = _HEAD.match(text)
    if head is None:
        raise BadDataUri("must begin as data:image/png;base64, or with another type of picture")
    digits = text[head.end() :]
    try:
        raw = unquote_to_bytes(digits) if "%" in digits else digits.encode("ascii")
        raw = _BLANKS.sub(b"", raw)
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise BadDataUri("is not base64 after the comma") from None
