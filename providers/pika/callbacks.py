"""fal's call-backs, which are signed with ED25519; the public keys are a JWKS.

Source: https://docs.fal.ai/model-endpoints/webhooks, read 2026-11-23. Oddities:

- fal signs for every customer of fal, with the same keys: a good signature says "fal sent this", not "this is ours".
- fal names the job twice. `request_id` is the queue's; `gateway_request_id` changes when fal runs the request again.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Set
from functools import cache

from providers import webhooks
from providers.untrusted import safe_mapping, same_origin

#: fal: keys may be kept for at most a day.
KEYS_LIFE_S = 24 * 3600.0
#: A forged call-back costs one request for keys at most so often.
LEAST_REFETCH_S = 60.0
#: How long a call-back waits for keys that another thread is fetching.
WAIT_FOR_KEYS_S = 2.0

_MOST_KEYS = 32
_ED25519_SIGNATURE = re.compile(r"[0-9a-fA-F]{128}", re.ASCII)


def read_fal(body: bytes) -> webhooks.Notice:
    """The job of fal's call-back. Raises BadNotice."""
    for told in webhooks.read_objects(body, looks_like_fal):
        if job_id := webhooks.read_id(told.get("request_id")):
            return webhooks.Notice(job_id)
    raise webhooks.BadNotice("fal's call-back has no request_id")


def looks_like_fal(names: Set[str]) -> bool:
    """Whether a JSON object with these names is a call-back of fal's."""
    return "request_id" in names and bool(names & {"gateway_request_id", "payload", "payload_error"})


def check_fal(headers: Mapping[str, str], *forms: bytes, proof: str, fetch: webhooks.Fetch, now_s: float) -> bool:
    """Raise Unverified unless a key of the set at the address `proof` signed it, and KeysUnavailable without them."""
    keys_at(proof, fetch).check(headers, *forms, now_s=now_s)
    return True


@cache
def keys_at(url: str, fetch: webhooks.Fetch) -> FalKeys:
    """The key set at an address; one for the whole process."""
    return FalKeys(lambda: fetch(url))


def _problem(url: str, base_url: str) -> str | None:
    """A server that could answer in the place of fal's could sign call-backs, so it must be https, or the base URL."""
    if url.startswith("https://") or same_origin(url, base_url):
        return None
    return "must be an https address"


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

    def check(self, headers: Mapping[str, str], *forms: bytes, now_s: float) -> None:
        """Raise Unverified unless fal signed this body in one of its forms, these ids and a time near `now_s` (Unix
        seconds).

        Raises KeysUnavailable when that can't be said: there are no keys, or none fits and newer ones can't be had.
        """
        signature = headers.get("x-fal-webhook-signature", "")
        timestamp = headers.get("x-fal-webhook-timestamp", "")
        # All of this before any key is fetched: nonsense costs no request.
        if not _ED25519_SIGNATURE.fullmatch(signature):
            raise webhooks.Unverified("no signature" if not signature else "malformed signature")
        webhooks.check_time(timestamp, now_s)
        ids = headers.get("x-fal-webhook-request-id", ""), headers.get("x-fal-webhook-user-id", "")
        messages = ["\n".join((*ids, timestamp, hashlib.sha256(body).hexdigest())).encode() for body in forms]
        raw = bytes.fromhex(signature)
        keys = self._current()
        if _any_verifies(keys, raw, messages):
            return
        if not _any_verifies(self._newer(than=keys), raw, messages):
            raise webhooks.Unverified("no key of fal's fits the signature")

    def _current(self) -> tuple[bytes, ...]:
        fetched_at = self._fetched_at
        if fetched_at is None or self._now() - fetched_at > KEYS_LIFE_S:
            return ()
        return self._keys

    def _newer(self, *, than: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Keys fetched less than a minute ago, by this thread or another."""
        if not self._lock.acquire(timeout=WAIT_FOR_KEYS_S):
            raise webhooks.KeysUnavailable("another thread is still fetching them")
        try:
            current = self._current()
            if current and current != than:
                return current  # another thread was faster
            if self._tried_at is not None and self._now() - self._tried_at < LEAST_REFETCH_S:
                if self._fetched_at == self._tried_at and current:
                    return ()  # they are new, and they did not fit
                raise webhooks.KeysUnavailable("the last try failed less than a minute ago")
            self._tried_at = self._now()
            try:
                keys = parse_jwks(self._fetch())
            except Exception as err:
                raise webhooks.KeysUnavailable(f"fetching them failed: {type(err).__name__}") from err
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


def _any_verifies(keys: tuple[bytes, ...], signature: bytes, messages: list[bytes]) -> bool:
    # Late: only the web process checks signatures, and the import is not free for all others.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for key, message in itertools.product(keys, messages):
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        except (InvalidSignature, ValueError):  # ValueError: 32 bytes that are no key
            continue
        return True
    return False


CALLBACKS = webhooks.Callbacks(
    read=read_fal,
    check=check_fal,
    signature_header="x-fal-webhook-signature",
    looks_like=looks_like_fal,
    setting=webhooks.ProofSetting(
        "PIKA_WEBHOOK_JWKS_URL",
        _problem,
        default="https://rest.fal.ai/.well-known/jwks.json",
        is_address=True,
        simulated="/.well-known/jwks.json",
    ),
)
