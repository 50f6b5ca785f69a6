"""Links that S3 itself honours: a GET of one object, signed in its query (SigV4), good for a bounded time.

The signature is computed here rather than by AWS's library for two reasons. Its time is the start of a grid and not
now, so that every request within a quarter of the lifetime gets the same link; and a web process that only signs needs
neither the library's 50 MB nor the 0.7 s that it takes to load.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from urllib.parse import quote, urlencode, urlsplit

from media_pipeline.storage import links
from media_pipeline.storage.s3_address import S3Address, S3Keys

ALGORITHM = "AWS4-HMAC-SHA256"
#: The longest that S3 accepts, in seconds.
LONGEST_S = 7 * 86400


def link(
    address: S3Address, key: str, keys: Callable[[], S3Keys], *, now: float, lifetime_s: int, to_save: bool = False
) -> str:
    """A link to a key: of the CDN, if it reads the bucket by itself, else signed. `to_save`: browsers save the file.

    `keys` is asked only for what is signed. A plain link of a CDN can't say how it is to be opened, so a file to save
    comes from S3. Raises ValueError as `presign`, and what `keys` does.
    """
    if address.plain_links and not to_save:
        return f"{address.cdn}/{address.path_of(key)}"
    from_s3 = replace(address, cdn="") if address.plain_links else address
    return presign(from_s3, key, keys(), now=now, lifetime_s=lifetime_s, to_save=to_save)


def link_until(address: S3Address, key: str, keys: Callable[[], S3Keys], *, now: float, expires: int) -> str:
    """The same, for a link that ends at Unix second `expires`, when another one does. Raises as `link`."""
    if address.plain_links:
        return f"{address.cdn}/{address.path_of(key)}"
    # From the start of its hour, so that what asks again gets the same link.
    at = int(now) - int(now) % 3600
    return sign(address, key, keys(), at=at, lifetime_s=min(LONGEST_S, max(1, expires - at)))


def presign(address: S3Address, key: str, keys: S3Keys, *, now: float, lifetime_s: int, to_save: bool = False) -> str:
    """A link to a key that works from now for `lifetime_s` seconds at least, and at most a quarter longer.

    Raises ValueError where that is longer than S3 accepts.
    """
    expires = links.expiry(now, lifetime_s)
    whole_s = links.longest_s(lifetime_s)
    # It began in the past, and every link of the same grid at the same moment.
    return sign(address, key, keys, at=expires - whole_s, lifetime_s=whole_s, to_save=to_save)


def sign(address: S3Address, key: str, keys: S3Keys, *, at: int, lifetime_s: int, to_save: bool = False) -> str:
    """A link signed at Unix second `at` that works for `lifetime_s` seconds from then. It is signed for the endpoint's
    host, whose name a CDN has to send on.
    """
    if not 0 < lifetime_s <= LONGEST_S:
        raise ValueError(f"S3 honours a link for {LONGEST_S} s at most")
    host, path = address.host_and_path(key)
    time = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{time[:8]}/{address.region}/s3/aws4_request"
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key_id}/{scope}",
        "X-Amz-Date": time,
        "X-Amz-Expires": str(lifetime_s),
        **({"X-Amz-Security-Token": keys.session_token} if keys.session_token else {}),
        "X-Amz-SignedHeaders": "host",
        **({"response-content-disposition": f'attachment; filename="{PurePosixPath(key).name}"'} if to_save else {}),
    }
    encoded = urlencode(sorted(query.items()), quote_via=quote, safe="-._~")
    request = f"GET\n{path}\n{encoded}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    to_sign = f"{ALGORITHM}\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signing_key = f"AWS4{keys.secret_access_key}".encode()
    for part in scope.split("/"):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    signature = hmac.new(signing_key, to_sign.encode(), hashlib.sha256).hexdigest()
    base = address.cdn or f"{urlsplit(address.endpoint).scheme}://{host}"
    return f"{base}{path}?{encoded}&X-Amz-Signature={signature}"
