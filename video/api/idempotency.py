"""The header `Idempotency-Key`: how it is read, and a call that is made once however often it is sent.

Which calls need none, since a repeat of theirs changes nothing: docs/idempotency.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from video.api import errors
from video.api.base import success, user_id
from video.web import idempotency
from video.web.idempotency import Done

_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
REPLAYED = "Idempotency-Replayed"


def key_of(request: Request) -> str | None:
    """The key, if there is one. Raises ApiError."""
    key: str | None = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not key.strip():
        raise errors.invalid("Idempotency-Key", "is blank: give it 1 to 255 visible ASCII characters, or leave it out")
    if key is not None and not _KEY.fullmatch(key):
        raise errors.invalid("Idempotency-Key", "must have 1 to 255 visible ASCII characters and no spaces")
    return key


def once(request: Request, run: Callable[[], Done]) -> HttpResponse:
    """The answer to what `run` does. With a key it is done once: a repeat within 24 h gets the first one's answer.

    Call it with a body that is checked. Raises as `idempotency.once`.
    """
    key = key_of(request)
    if key is None:
        done = run()
        return success(done.data, done.status)
    match = request._request.resolver_match
    call = str(match.url_name if match else request.path)
    answer = idempotency.once(user_id(request), call, key, request.data, run, _written)
    response = HttpResponse(answer.body, status=answer.status, content_type="application/json")
    if answer.replayed:
        response[REPLAYED] = "true"
    return response


def _written(data: dict[str, Any]) -> str:
    return success(data).content.decode()
