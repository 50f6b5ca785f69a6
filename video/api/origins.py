"""Whether a browser's request comes from a page of ours: the guard against cross-site requests.

There is no CSRF token, since the front end's plain fetch sends none. Every current browser sends the page's origin
with each unsafe request, and a page can't forge it. A program that is no browser sends neither header, and has no
stolen cookie to send either.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request

from video.api.errors import ApiError

DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def refuse_cross_site(request: HttpRequest | Request) -> None:
    """Raise 403 `csrf` unless the request comes from our own pages, FRONTEND_ORIGINS, or no browser at all."""
    origin = request.META.get("HTTP_ORIGIN")
    if origin is not None:
        if _is_ours(origin, request):
            return
    elif request.META.get("HTTP_SEC_FETCH_SITE", "none") in ("same-origin", "none"):
        return
    raise ApiError(
        403,
        "csrf",
        "This call came from a page of another site. If that page is yours, add its origin to FRONTEND_ORIGINS; "
        "if it is this server's own, set PUBLIC_BASE_URL to the address in the browser.",
    )


def _is_ours(origin: str, request: HttpRequest | Request) -> bool:
    origin = origin.lower()
    if origin in {allowed.lower() for allowed in settings.FRONTEND_ORIGINS}:
        return True
    scheme, host = _spelt(origin)
    if not host:
        return False  # "null": a sandboxed frame, a file, a redirect between sites
    if settings.PUBLIC_BASE_URL and (scheme, host) == _spelt(settings.PUBLIC_BASE_URL.lower()):
        return True
    # A proxy that ends TLS may speak http to us, so https is good for both; plain http never stands for https.
    own = {_spelt(f"{allowed}://{request.get_host().lower()}") for allowed in {request.scheme, "https"}}
    return (scheme, host) in own


def _spelt(origin: str) -> tuple[str, str]:
    """(scheme, host with its port unless that is the scheme's own)."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc.removesuffix(DEFAULT_PORTS.get(parts.scheme, ""))
