"""What an answer proves that the provider's API did not write: a proxy's, a load balancer's, a firewall's, a wrong
address's.

For a submit the question is whether the request can have reached the API before this answer was made.

- **4xx** are decided before anything is passed on: a web firewall, a rate limit, a missing route, a body that is too
  large. RFC 9110, 15.5: the fault is in the request as the answering server sees it; a number that is not known counts
  as 400 (15). Not believed are those in `_MAY_FOLLOW_WORK`.
- **3xx** is a server that says "elsewhere" and does nothing (RFC 9110, 15.4). Only 303 stands for work that was done:
  "see other" is how a POST shows its result.
- **503** is what a proxy says that has nobody to pass the request to: HAProxy "No server is available to handle this
  request", AWS's load balancer without registered targets, nginx's `limit_req` and `limit_conn` (503 by default),
  Envoy "no healthy upstream", maintenance pages. But several answer 503 also after they passed it on and lost the
  answer: those are told by their text, see `_LOST`. A 503 without any text tells nothing.
- **500, 502, 504, 52x** come after the request was passed on, or may: nginx, HAProxy and AWS answer 502 when the
  connection to the API broke, and 504 when its answer took too long; Cloudflare's 520 to 524 are the same.

Sources, read 2026-11-28: RFC 9110; nginx `limit_req_status`; HAProxy configuration manual, 1.3.1; AWS "Troubleshoot
your Application Load Balancers", and its metric HTTPCode_ELB_4XX_Count ("these requests were not received by the
target, other than in the case where the load balancer returns an HTTP 460"); Cloudflare's recorded pages; and those
beside the rows below. docs/why/submit-once.md has the addresses.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from providers.untrusted import safe_origin

#: 4xx that can be said after the request was passed on, or after the work.
_MAY_FOLLOW_WORK = frozenset(
    {
        406,  # a framework may find only then that it cannot write the answer in the form asked for
        408,  # RFC 9110: the request did not arrive whole; but proxies say it of an API that was too slow
        409,  # a conflict with something that exists: it may be the job
        424,  # "failed dependency": hosts of models say it of a model that ran and failed
        460,  # AWS's load balancer: the client went away while the API worked
        499,  # nginx: the client went away while the API worked
    }
)

#: Texts of a 503 that was made after the request had been passed on, or may have been.
_LOST = re.compile(
    r"time\s*out|timed\s*out|timeout|\breset\b"  # Fastly "first byte timeout", "connection timed out"; Envoy "reset"
    r"|fetch failed|guru medi"  # Varnish "Backend fetch failed", "Guru Meditation"; Fastly writes "Guru Mediation"
    r"|disconnect"  # Envoy "upstream connect error or disconnect/reset before headers"
    r"|backend (?:read|write)|connection (?:was )?(?:closed|lost|terminated)|broken pipe"  # Fastly "backend read error"
    r"|(?:invalid|malformed|empty|no|incomplete) response|zero size object"  # what others say then (not looked up)
    # One page for all: Heroku's router (H12 request timeout, H13 connection closed), Azure Front Door (the API was too
    # slow), Apache (not looked up: mistrusted).
    r"|application error|services aren['’]t available right now|maintenance downtime or capacity problems",
    re.IGNORECASE,
)

_UNSEEN = re.compile(r"<(script|style|template)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")
_MOST_READ = 65_536


def proves_no_job(status: int, body: bytes) -> bool:
    """Whether such an answer to a submit, not written by the API, proves that no job was made."""
    if status == 503:
        text = page_text(body)
        return any(char.isalpha() for char in text) and _LOST.search(text) is None
    if 400 <= status < 500:
        return status not in _MAY_FOLLOW_WORK
    return 300 <= status < 400 and status != 303


def page_text(body: bytes) -> str:
    """The words of a page on one line, without markup, scripts and styles (`setTimeout` is no time-out)."""
    page = body[:_MOST_READ].decode(errors="replace")
    return " ".join(html.unescape(_TAG.sub(" ", _UNSEEN.sub(" ", page))).split())


def is_foreign_json(headers: Mapping[str, str], body: Mapping[str, Any]) -> bool:
    """Whether a JSON error has a shape that belongs to no provider, although it may hold a provider's word.

    That is a problem document (RFC 9457; Cloudflare writes its own errors so: `title`, `status`, `detail`), and the
    default error of Java's Spring and its gateway: `timestamp`, `status`, `error`, `path`.
    """
    if headers.get("content-type", "").lower().startswith("application/problem+json"):
        return True
    names = body.keys()
    return {"title", "status"} <= names or "cloudflare_error" in names or {"timestamp", "status", "path"} <= names


def redirect_target(status: int, headers: Mapping[str, str]) -> str | None:
    """Where a redirect leads: scheme and host only, since the rest may hold anything. None for what is no redirect."""
    if not 300 <= status < 400:
        return None
    location = headers.get("location", "").strip()
    if location.startswith("/") and not location.startswith("//"):
        return "another path of the same host"
    return safe_origin(location) or "an address that cannot be read"
