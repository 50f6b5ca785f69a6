"""Call-backs: who sent one, and which job it speaks of. What it says of the job's state is not read at all.

Sources: https://docs.fal.ai/model-endpoints/webhooks (fal signs with ED25519, public keys as a JWKS);
https://kling.ai/document-api, Callback Protocol (Standard Webhooks, https://www.standardwebhooks.com, since 2026-08-07
and only for accounts that made a Webhook Secret); read 2026-11-23. Oddities:

- fal signs for every customer of fal, with the same keys: a good signature says "fal sent this", not "this is ours".
- fal names the job twice. `request_id` is the queue's; `gateway_request_id` changes when fal runs the request again.
- Kling's older standard sends the bare task, without the envelope of its replies. The newer one has other names.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from providers.contract import safe_mapping

#: How far the sender's clock and ours may differ; both providers name five minutes.
TOLERANCE_S = 300.0
#: fal: keys may be kept for at most a day.
KEYS_LIFE_S = 24 * 3600.0
#: A forged call-back costs one request for keys at most so often.
LEAST_REFETCH_S = 60.0
#: How long a call-back waits for keys that another thread is fetching.
WAIT_FOR_KEYS_S = 2.0

_MOST_KEYS = 32
_MOST_SIGNATURES = 16
_SECRET_PREFIX = "whsec_"  # noqa: S105 - what every such secret begins with
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,119}", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_ED25519_SIGNATURE = re.compile(r"[0-9a-fA-F]{128}", re.ASCII)


class Unverified(Exception):
    """Nothing proves that the provider sent this. Its text is for the log, and quotes nothing of the request."""


class KeysUnavailable(Exception):
    """The provider's public keys can't be had now, so nobody can say who sent this."""


class BadNotice(ValueError):
    """A call-back that names no job."""


class BadSecret(ValueError):
    """A webhook secret that must stop the start. The message does not quote it."""


@dataclass(frozen=True)
class Notice:
    """What is taken from a call-back: the provider's id of the job, our reference, or both. Never empty."""

    job_id: str = ""
    reference: str = ""


# --- reading -------------------------------------------------------------------------------------------------------


def read_fal(body: bytes) -> Notice:
    """The job of fal's call-back. Raises BadNotice."""
    job_id = _id(_object(body).get("request_id"))
    if not job_id:
        raise BadNotice("fal's call-back has no request_id")
    return Notice(job_id)


def read_kling(body: bytes) -> Notice:
    """The job of Kling's call-back, in either standard's words. Raises BadNotice."""
    task = _object(body)
    job_id = _id(task.get("task_id")) or _id(task.get("id"))
    reference = _id(safe_mapping(task.get("task_info")).get("external_task_id")) or _id(task.get("external_id"))
    if not job_id and not reference:
        raise BadNotice("Kling's call-back has neither a task id nor our reference")
    return Notice(job_id, reference)


READERS: Mapping[str, Callable[[bytes], Notice]] = {"pika": read_fal, "kling": read_kling}


def sender_of(headers: Mapping[str, str], body: bytes) -> str | None:
    """The provider that a call-back looks like, by its signature's headers, else by its shape; None: like nobody's.

    A guess about whom to check it against, and no proof. `headers` finds names in lower case.
    """
    if headers.get("x-fal-webhook-signature"):
        return "pika"
    if headers.get("webhook-signature"):
        return "kling"
    try:
        names = _object(body).keys()
    except BadNotice:
        return None
    if "request_id" in names and names & {"gateway_request_id", "payload", "payload_error"}:
        return "pika"
    if {"task_id", "task_status"} <= names:
        return "kling"
    if {"id", "status"} <= names and names & {"external_id", "create_time", "outputs", "billing"}:
        return "kling"
    return None


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadNotice("the call-back is no JSON") from None
    if not isinstance(value, dict):
        raise BadNotice("the call-back is no JSON object")
    return value


def _id(value: object) -> str:
    return value if isinstance(value, str) and _ID.fullmatch(value) else ""


# --- fal -----------------------------------------------------------------------------------------------------------


class FalKeys:
    """fal's public keys, fetched when they are needed and kept for a day. Safe between threads.

    `fetch` gives the key set as it came, and may raise anything. `now` counts seconds.
    """

    def __init__(self, fetch: Callable[[], bytes], *, now: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._now = now
        self._lock = threading.Lock()
        self._keys: tuple[bytes, ...] = ()
        self._fetched_at: float | None = None
        self._tried_at: float | None = None

    def check(self, headers: Mapping[str, str], body: bytes, *, now_s: float) -> None:
        """Raise Unverified unless fal signed this body, these ids and a time near `now_s` (Unix seconds).

        Raises KeysUnavailable when that can't be said: there are no keys, or none fits and newer ones can't be had.
        """
        signature = headers.get("x-fal-webhook-signature", "")
        timestamp = headers.get("x-fal-webhook-timestamp", "")
        # All of this before any key is fetched: who sends nonsense costs us nothing.
        if not _ED25519_SIGNATURE.fullmatch(signature):
            raise Unverified("no signature" if not signature else "malformed signature")
        _check_time(timestamp, now_s)
        message = "\n".join(
            (
                headers.get("x-fal-webhook-request-id", ""),
                headers.get("x-fal-webhook-user-id", ""),
                timestamp,
                hashlib.sha256(body).hexdigest(),
            )
        ).encode()
        raw = bytes.fromhex(signature)
        keys = self._current()
        if _any_verifies(keys, raw, message):
            return
        if not _any_verifies(self._newer(than=keys), raw, message):
            raise Unverified("no key of fal's fits the signature")

    def _current(self) -> tuple[bytes, ...]:
        fetched_at = self._fetched_at
        if fetched_at is None or self._now() - fetched_at > KEYS_LIFE_S:
            return ()
        return self._keys

    def _newer(self, *, than: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Keys fetched less than a minute ago, by this thread or another."""
        if not self._lock.acquire(timeout=WAIT_FOR_KEYS_S):
            raise KeysUnavailable("another thread is still fetching them")
        try:
            current = self._current()
            if current and current != than:
                return current  # another thread was faster
            if self._tried_at is not None and self._now() - self._tried_at < LEAST_REFETCH_S:
                if self._fetched_at == self._tried_at and current:
                    return ()  # they are new, and they did not fit
                raise KeysUnavailable("the last try failed less than a minute ago")
            self._tried_at = self._now()
            try:
                keys = parse_jwks(self._fetch())
            except Exception as err:
                raise KeysUnavailable(f"fetching them failed: {type(err).__name__}") from err
            self._keys, self._fetched_at = keys, self._tried_at
            return keys
        finally:
            self._lock.release()


def parse_jwks(raw: bytes) -> tuple[bytes, ...]:
    """The ED25519 keys of a JSON Web Key Set; others in it are passed over. Raises ValueError when there is none."""
    try:
        listed = safe_mapping(json.loads(raw)).get("keys")
    except RecursionError as err:
        raise ValueError("nested too deeply") from err
    keys = []
    for key in map(safe_mapping, listed if isinstance(listed, list) else []):
        x = key.get("x")
        if key.get("kty") != "OKP" or key.get("crv") != "Ed25519" or not isinstance(x, str):
            continue
        try:
            point = base64.b64decode(x + "=" * (-len(x) % 4), altchars=b"-_", validate=True)
        except ValueError:
            continue
        if len(point) == 32:
            keys.append(point)
    if not keys:
        raise ValueError("no ED25519 key in the set")
    return tuple(keys[:_MOST_KEYS])


def _any_verifies(keys: tuple[bytes, ...], signature: bytes, message: bytes) -> bool:
    # Late: only the web process checks signatures, and the import is not free for all others.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        except (InvalidSignature, ValueError):  # ValueError: 32 bytes that are no key
            continue
        return True
    return False


# --- Kling ---------------------------------------------------------------------------------------------------------


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
    _check_time(timestamp, now_s)
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


def _check_time(timestamp: str, now_s: float) -> None:
    if not _TIMESTAMP.fullmatch(timestamp):
        raise Unverified("no time")
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise Unverified("too old, or from the future")
