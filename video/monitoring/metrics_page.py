"""GET /metrics, and who may read it: whoever has METRICS_TOKEN; without one, programs on this very machine, while the
server is for it alone. A proxy beside the server may pass for such a program, so a public address needs the token.
"""

from __future__ import annotations

import hmac
import ipaddress

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST

from video.monitoring import exposition
from video.web import answers

_UNSET = (
    "Set METRICS_TOKEN, and let the scraper send it as `Authorization: Bearer …`. Without it only programs on the "
    "server's own machine are answered, and only while PUBLIC_BASE_URL is unset and no proxy is in between."
)
_WRONG = "Send METRICS_TOKEN as `Authorization: Bearer …`."
#: Who sends one of these is not the one who asks.
_OF_PROXIES = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA", "HTTP_X_FORWARDED_PROTO")


def metrics(request: HttpRequest) -> HttpResponse:
    """The figures of the whole system and of each process, in Prometheus's text format."""
    return refusal(request) or HttpResponse(
        exposition.text(), content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"}
    )


def refusal(request: HttpRequest) -> HttpResponse | None:
    """The answer to who may not read the figures; None for who may."""
    if settings.METRICS_TOKEN:
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode(errors="replace"), settings.METRICS_TOKEN.encode()
        ):
            return None
        return answers.plain(401, _WRONG, {"WWW-Authenticate": 'Bearer realm="metrics"'})
    is_near = not settings.PUBLIC_BASE_URL and not any(name in request.META for name in _OF_PROXIES)
    return None if is_near and _is_loopback(request.META.get("REMOTE_ADDR", "")) else answers.plain(403, _UNSET)


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback
