"""The heads of requests, made fit for Django before it sees them: of bounded length, and a Content-Type that is one.

Django reads the Content-Type of each request, at every address and before any login, with Python's parser for mail.
That one takes time with the square of the length (13 s for 60 kB of semicolons after a quote), and raises for what mail
may spell and no client does (RFC 2231). Django also decodes addresses by its `charset`, of whatever codec. Nothing here
depends on any of its parameters but for a form's `boundary`, so the others are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from video.web import access, request_ids
from video.web.front.refusals import refusal

LONGEST_HEADER = LONGEST_QUERY = 16 * 1024  # characters; all cookies are one header
LONGEST_PATH = 4096
_LONGEST_KIND = 128
_KIND = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+", re.ASCII)
# RFC 2046: 1 to 70 of these characters.
_BOUNDARY = re.compile(
    r""";[ \t]*boundary=("?)([A-Za-z0-9'()+_,./:=?-]{1,70})\1[ \t]*(?:;|\Z)""", re.ASCII | re.IGNORECASE
)


def bounded(application: WSGIApplication) -> WSGIApplication:
    """The application, which now gets only heads that cost little to read; the others are answered 431 or 414 here."""

    def judge(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        wrong = _too_long(environ)
        if wrong is not None:
            return _refuse(environ, start_response, *wrong)
        if kind := environ.get("CONTENT_TYPE"):
            environ["CONTENT_TYPE"] = content_type(kind)
        return application(environ, start_response)

    return judge


def content_type(sent: str) -> str:
    """Type and subtype, with the boundary of a form's parts if there is one; empty for what is no content type."""
    kind = sent[:_LONGEST_KIND].partition(";")[0].strip()
    if not _KIND.fullmatch(kind):
        return ""
    boundary = _BOUNDARY.search(sent[: 2 * _LONGEST_KIND]) if kind.lower().startswith("multipart/") else None
    return f'{kind}; boundary="{boundary[2]}"' if boundary else kind


def _too_long(environ: WSGIEnvironment) -> tuple[str, str] | None:
    """Status line and sentence of the refusal, or None."""
    if len(environ.get("PATH_INFO", "")) > LONGEST_PATH or len(environ.get("QUERY_STRING", "")) > LONGEST_QUERY:
        return (
            "414 URI Too Long",
            f"The address is too long: {LONGEST_PATH} for its path, {LONGEST_QUERY} for its query.",
        )
    for name, value in environ.items():
        if name.startswith("HTTP_") and len(value) > LONGEST_HEADER:
            shown = name[5:55].replace("_", "-").title()
            return "431 Request Header Fields Too Large", f"{shown}: has more than {LONGEST_HEADER} characters."
    return None


def _refuse(environ: WSGIEnvironment, start_response: StartResponse, status: str, sentence: str) -> Iterable[bytes]:
    code = "uri_too_long" if status.startswith("414") else "header_too_long"
    asked = {"origin": environ.get("HTTP_ORIGIN"), "request_id": environ.get("HTTP_X_REQUEST_ID")}
    headers, body = refusal(environ.get("PATH_INFO", ""), int(status[:3]), code, sentence, **asked)
    headers["Content-Length"] = str(len(body))
    access.refused(
        environ.get("REQUEST_METHOD", ""),
        int(status[:3]),
        address=environ.get("REMOTE_ADDR", ""),
        request_id=headers[request_ids.HEADER],
    )
    start_response(status, list(headers.items()))
    return [body]
