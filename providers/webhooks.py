"""Call-backs: the sender, and the job that one names. What it says of the job's state is not read at all.

Here is what providers have in common, with Standard Webhooks (https://www.standardwebhooks.com); what one provider does
alone is in the `callbacks.py` of its folder.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Protocol

from providers.untrusted import safe_mapping

#: How far the sender's clock and ours may differ; fal and Kling name five minutes.
TOLERANCE_S = 300.0

_MOST_SIGNATURES = 16
_SECRET_PREFIX = "whsec_"  # noqa: S105 - what every such secret begins with
#: Standard Webhooks asks for 24 to 64. Providers make these secrets, and no document of theirs says how long they are.
_LEAST_SECRET_BYTES = 16
_ID_NUMBERS_END = 10**40
#: The names under which APIs put the thing itself into an envelope, and how many may lie in one another.
_ENVELOPES = ("data", "payload", "result", "body", "task")
_DEEPEST_ENVELOPE = 2
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,119}", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


class Unverified(Exception):
    """Nothing proves that the provider sent this. Its text is for the log, and quotes nothing of the request."""


class KeysUnavailable(Exception):
    """The provider's public keys can't be had now, so the sender is not known."""


class BadNotice(ValueError):
    """A call-back that names no job."""


class BadSecret(ValueError):
    """A webhook secret that must stop the start. The message does not quote it."""


@dataclass(frozen=True)
class Notice:
    """What is taken from a call-back: the provider's id of the job, our reference, or both. Never empty."""

    job_id: str = ""
    reference: str = ""


@dataclass(frozen=True)
class ProofSetting:
    """The setting that a provider's signatures are checked with: its secret, or the address of its public keys."""

    name: str  # of the environment variable, "KLING_WEBHOOK_SECRET"
    problem: Callable[[str, str], str | None]  # of a value and the provider's base URL: "must be …", or None
    default: str = ""
    is_address: bool = False
    simulated: str = ""  # the value while simulating; of an address, its path at the simulator


Fetch = Callable[[str], bytes]  # the document at an address; may raise anything


class Check(Protocol):
    """Whether a signature is on a call-back; False where none can be asked for (no secret is set).

    `forms` are the body's bytes: as they came, and unpacked if they were compressed on the way. Either may be what was
    signed: no provider says which, "the payload sent is the same as the payload signed" (Standard Webhooks) fits both,
    and who signs and then compresses (Stream's call-backs) is as right as who compresses and then signs.

    `proof` is the value of the provider's ProofSetting. Raises Unverified and KeysUnavailable.
    """

    def __call__(self, headers: Mapping[str, str], *forms: bytes, proof: str, fetch: Fetch, now_s: float) -> bool: ...


@dataclass(frozen=True)
class Callbacks:
    """How one provider calls back. `headers` find names in lower case."""

    read: Callable[[bytes], Notice]  # raises BadNotice
    check: Check
    signature_header: str  # only this provider sends it
    looks_like: Callable[[Set[str]], bool]  # of the names in an unsigned call-back's JSON object
    setting: ProofSetting


def read_object(body: bytes) -> dict[str, Any]:
    """The call-back as a JSON object. Raises BadNotice."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadNotice("the call-back is no JSON") from None
    if not isinstance(value, dict):
        raise BadNotice("the call-back is no JSON object")
    return value


def read_objects(body: bytes, first: Callable[[Set[str]], bool] = lambda names: False) -> list[dict[str, Any]]:
    """The call-back's JSON object and those in its envelopes (`{"code": 0, "data": {…}}`), the outer ones first, but
    before them those with names that `first` knows. Raises BadNotice.
    """
    found: list[dict[str, Any]] = []
    level = [read_object(body)]
    for _ in range(_DEEPEST_ENVELOPE + 1):
        found += level
        level = [inner for outer in level for name in _ENVELOPES if (inner := _only(outer.get(name)))]
    return sorted(found, key=lambda one: not first(one.keys()))


def _only(value: object) -> dict[str, Any]:
    """The object itself, or the one that a list holds (Kling's look-ups answer with a list); else an empty one."""
    if isinstance(value, list) and len(value) == 1:
        return safe_mapping(value[0])
    return safe_mapping(value)


def read_id(value: object) -> str:
    """An id that may be looked up, also one that was sent as a whole number; empty for everything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _ID_NUMBERS_END:
        return str(value)
    return value if isinstance(value, str) and _ID.fullmatch(value) else ""


def webhook_key(secret: str) -> bytes:
    """The key in a Standard Webhooks secret, `whsec_<base64>`. Raises BadSecret."""
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(_SECRET_PREFIX) or not key:
        raise BadSecret("must be whsec_ followed by base64, as Kling's console shows it")
    if len(key) < _LEAST_SECRET_BYTES:
        raise BadSecret(f"must have at least {_LEAST_SECRET_BYTES} bytes behind whsec_, or it can be guessed")
    return key


def check_standard_webhook(headers: Mapping[str, str], *forms: bytes, key: bytes, now_s: float) -> None:
    """Raise Unverified unless one of the signatures is of this body in one of its forms, this id and a time near
    `now_s`, made with `key`."""
    signatures = headers.get("webhook-signature", "").split()
    if not signatures:
        raise Unverified("no signature")
    timestamp = headers.get("webhook-timestamp", "")
    check_time(timestamp, now_s)
    about = f"{headers.get('webhook-id', '')}.{timestamp}.".encode()
    expected = [hmac.digest(key, about + body, "sha256") for body in forms]
    for signature in signatures[:_MOST_SIGNATURES]:
        version, _, mac = signature.partition(",")
        if version == "v1" and any(hmac.compare_digest(_base64(mac), right) for right in expected):
            return
    raise Unverified("no signature fits")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def check_time(timestamp: str, now_s: float) -> None:
    """Raise Unverified unless the time (Unix seconds) is near `now_s`."""
    if not _TIMESTAMP.fullmatch(timestamp):
        raise Unverified("no time")
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise Unverified("too old, or from the future")
