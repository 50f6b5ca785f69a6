"""Signatures of call-backs.

They are signed as the providers do it: fal with ED25519 (https://fal.ai/docs, Webhooks), Kling by Standard
Webhooks (https://kling.ai/document-api, Callback Protocol; https://www.standardwebhooks.com). Their times are real
ones, not the simulator's: the receiver compares them with its own clock.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class FalSigner:
    """An ED25519 key of this process, and the call-back headers that it signs."""

    @functools.cached_property
    def _key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # late: its import is not free

        return Ed25519PrivateKey.generate()

    def jwks(self) -> bytes:
        """The public key as a JSON Web Key Set."""
        x = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        key = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": x[:16], "x": x}
        return json.dumps({"keys": [key]}).encode()

    def headers(self, request_id: str, user_id: str, body: bytes) -> dict[str, str]:
        stamp = str(int(time.time()))
        message = "\n".join((request_id, user_id, stamp, hashlib.sha256(body).hexdigest()))
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": user_id,
            "X-Fal-Webhook-Timestamp": stamp,
            "X-Fal-Webhook-Signature": self._key.sign(message.encode()).hex(),
        }


def standard_webhook_headers(secret: str, message_id: str, body: bytes) -> dict[str, str]:
    """Signed with a secret that `providers.webhooks.webhook_key` takes."""
    stamp = str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{message_id}.{stamp}.".encode() + body, "sha256")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }
