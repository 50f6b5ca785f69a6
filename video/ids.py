"""Public ids: they sort by the time they were made, and can't be guessed.

48 bits of milliseconds and 80 random bits in Crockford's base 32 (the layout of a ULID), in lower case: `task_01k…`.
"""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def _new(prefix: str) -> str:
    return of_time(prefix, time.time_ns() // 1_000_000, secrets.randbits(80))


def of_time(prefix: str, milliseconds: int, bits: int) -> str:
    """The id of a moment (Unix time) with these 80 bits; for rows of a made-up past, whose ids must sort by their time.

    A new row takes one of the functions below, whose bits nobody can guess.
    """
    value = milliseconds << 80 | bits
    return prefix + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def task_id() -> str:
    """Id of a VideoTask."""
    return _new("task_")


def video_id() -> str:
    """Id of one output; each try of the save stage makes a new one."""
    return _new("vid_")


def upload_id() -> str:
    """Id of the file of an upload."""
    return _new("upl_")


def generation_id() -> str:
    """Id of an attempt; also the reference that is sent to providers that take one."""
    return _new("gen_")


def login_id() -> str:
    """Id of a login."""
    return _new("login_")


def key_id() -> str:
    """Id of an API key; no secret."""
    return _new("key_")


def webhook_endpoint_id() -> str:
    """Id of an endpoint for webhooks."""
    return _new("whe_")


def made_at(public_id: str) -> float | None:
    """When an id was made, in Unix seconds; None for a text that is not one of these ids."""
    text = public_id.partition("_")[2]
    if len(text) != 26 or not set(text) <= set(_ALPHABET):
        return None
    value = 0
    for letter in text[:10]:
        value = value << 5 | _ALPHABET.index(letter)
    return value / 1000
