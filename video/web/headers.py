"""The security headers of every answer, in one place: what a kind of address gets, and when plain http is sent on.

Nothing here needs a request of Django's, so that a server in front of it answers with the same ones.

Sources: OWASP's REST security and HTTP headers cheat sheets (https://cheatsheetseries.owasp.org), read 2026-11-28: what
is no page needs neither a Permissions-Policy nor a policy for its opener.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from django.conf import settings

from media_pipeline.storage.s3_address import S3Address

Kind = Literal["page", "program", "file", "static"]

#: Features that neither a page of ours nor a video needs; full screen and the like are left, for its controls.
FEATURES_OFF = (
    "accelerometer", "browsing-topics", "camera", "clipboard-read", "display-capture", "gamepad",
    "geolocation", "gyroscope", "hid", "idle-detection", "local-fonts", "magnetometer", "microphone", "midi", "payment",
    "publickey-credentials-get", "screen-wake-lock", "serial", "usb", "window-management", "xr-spatial-tracking",
)  # fmt: skip
PERMISSIONS_POLICY = ", ".join(f"{feature}=()" for feature in FEATURES_OFF)

_SEALED = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
#: Of what is no page: opened as one, it loads nothing.
CSP_NOTHING = f"default-src 'none'; {_SEALED}"
#: Of a stored file: opened directly, a browser builds a page around a video or picture, with styles of its own.
CSP_FILE = f"default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; {_SEALED}"

_EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}
_DOCUMENT = {"Permissions-Policy": PERMISSIONS_POLICY, "Cross-Origin-Opener-Policy": "same-origin"}
_OURS = {"Cross-Origin-Resource-Policy": "same-origin"}
#: Front ends on other origins show our videos: their links are signed, and say enough about who may.
_ANYBODYS = {"Cross-Origin-Resource-Policy": "cross-origin"}
_BY_KIND: Mapping[Kind, Mapping[str, str]] = {
    "page": {**_EVERYWHERE, **_OURS, **_DOCUMENT},
    "program": {**_EVERYWHERE, **_OURS, "Content-Security-Policy": CSP_NOTHING},
    "file": {**_EVERYWHERE, **_ANYBODYS, **_DOCUMENT, "Content-Security-Policy": CSP_FILE},
    "static": {**_EVERYWHERE, **_OURS, "Content-Security-Policy": CSP_NOTHING},
}
#: Of an error, and of an answer that says nothing about caches itself, as files do.
CACHE_CONTROL = "no-store"
#: The API, and the addresses of clients that exist (docs/clients.md).
_OF_PROGRAMS = ("/api/", "/v1/", "/mcp/")
_OF_PROGRAMS_ITSELF = frozenset({"/api", "/v1", "/mcp"})
#: Asked by programs on the own net, without a proxy or through one, and never redirected.
PROBES = ("/healthz", "/readyz", "/metrics")
#: The page of the API's document, the only one under /api.
API_DOCS = "/api/docs"


def is_api(path: str) -> bool:
    """Whether the address is for programs alone, and answers everything in JSON (see `video.web.shapes`)."""
    return path.startswith(_OF_PROGRAMS) or path in _OF_PROGRAMS_ITSELF


def kind_of(path: str) -> Kind:
    """What is behind an address, by its path. What isn't there is a page: of the error."""
    if path == API_DOCS:
        return "page"
    if is_api(path) or path in PROBES:
        return "program"
    if path.startswith("/storage/"):
        return "file"
    return "static" if path.startswith(settings.STATIC_URL) else "page"


def of(path: str, *, secure: bool) -> dict[str, str]:
    """The headers of each answer to this path, whatever its status. `secure`: the client came by https."""
    kind = kind_of(path)
    found = dict(_BY_KIND[kind])
    if kind == "page":
        found["Content-Security-Policy"] = page_policy(settings.OBJECT_STORAGE_FOR_CLIENTS, inline=path == API_DOCS)
    if secure and settings.HSTS_SECONDS:
        found["Strict-Transport-Security"] = hsts()
    return found


def page_policy(bucket: S3Address | None, *, inline: bool = False) -> str:
    """The Content-Security-Policy of a page. No script or style is inline, so that no nonce is needed; pictures and
    videos may come from the bucket, where there is one. `inline`: pictures, and they alone, may be data: URIs, as
    Swagger UI's style sheet has its arrows and locks."""
    media = "'self'" if bucket is None else f"'self' {bucket.client_origin}"
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
        f"img-src {media}{' data:' if inline else ''}; "
        f"media-src {media}; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def hsts() -> str:
    """The value of Strict-Transport-Security."""
    parts = (
        f"max-age={settings.HSTS_SECONDS}",
        "includeSubDomains" if settings.HSTS_INCLUDE_SUBDOMAINS else "",
        "preload" if settings.HSTS_PRELOAD else "",
    )
    return "; ".join(filter(None, parts))


def https_address(path_and_query: str, forwarded_proto: str | None) -> str | None:
    """Where a request that came by plain http is sent on to, or None.

    Only the proxy's own word counts (`X-Forwarded-Proto: http`). A request without it was made beside the proxy: a
    probe, a program on this machine, `make up` itself. So no proxy that sets no such header makes browsers go round.
    """
    if not settings.HTTPS_REDIRECT or forwarded_proto != "http" or path_and_query.partition("?")[0] in PROBES:
        return None
    return f"{settings.PUBLIC_BASE_URL}{path_and_query}"
