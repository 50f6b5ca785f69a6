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

#: How far the sender's clock and ours may differ; fal and Kling name five minutes.
TOLERANCE_S = 300.0

_MOST_SIGNATURES = 16
_SECRET_PREFIX = "whsec_"  # noqa: S105 - what every such secret begins with
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

    `proof` is the value of the provider's ProofSetting. Raises Unverified and KeysUnavailable.
    """

    def __call__(self, headers: Mapping[str, str], body: bytes, *, proof: str, fetch: Fetch, now_s: float) -> bool: ...


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


def read_id(value: object) -> str:
    """An id that may be looked up; empty for everything else."""
    return value if isinstance(value, str) and _ID.fullmatch(value) else ""


def webhook_key(secret: str) -> bytes:
    """The key in a Standard Webhooks secret, `whsec_<base64>`. Raises BadSecret."""
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(_SECRET_PREFIX) or not key:
        raise BadSecret("must be whsec_ followed by base64, as Kling's console shows it")
    return key


def check_standard_webhook(headers: Mapping[str, str], body: bytes, *, key: bytes, now_s: float) -> None:
    """Raise Unverified unless one of the signatures is of this body, id and a time near `now_s`, made with `key`."""
    signatures = headers.get("webhook-signature", "").split()
    if not signatures:
        raise Unverified("no signature")
    timestamp = headers.get("webhook-timestamp", "")
    check_time(timestamp, now_s)
    signed = f"{headers.get('webhook-id', '')}.{timestamp}.".encode() + body
    expected = hmac.digest(key, signed, "sha256")
    for signature in signatures[:_MOST_SIGNATURES]:
        version, _, mac = signature.partition(",")
        if version == "v1" and hmac.compare_digest(_base64(mac), expected):
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
