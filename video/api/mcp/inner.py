"""Calls of the API from inside: a tool asks the very view that a program asks, as the same caller.

So a tool can do what its caller's token can, under the same limits, and answers with the API's own codes and sentences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponseBase
from django.urls import resolve

from video.web.front.streams import CAN_WAIT, Later

#: A request waits in memory as a whole; a longer one is answered at once.
LONGEST_THAT_WAITS = 4096


class ToolRefused(Exception):
    """The API said no: its `code`, sentence and details."""

    def __init__(self, code: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details or {}


class MustWait(Exception):
    """The API's answer comes later: the whole request is asked again then."""

    def __init__(self, later: Later) -> None:
        super().__init__()
        self.later = later


#: Headers that say something of the message itself, and of the way of its answer; an inner call has its own.
_OF_THE_MESSAGE = frozenset({"HTTP_IDEMPOTENCY_KEY", "HTTP_ACCEPT_ENCODING", "HTTP_IF_NONE_MATCH"})


@dataclass(frozen=True)
class Api:
    """The API as the sender of a request sees it."""

    outer: HttpRequest

    def get(self, path: str, **query: str) -> Any:
        """What a GET answers. Raises ToolRefused and MustWait."""
        return self._ask("GET", path, urlencode(query, errors="replace"), b"", {})

    def post(self, path: str, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Any:
        """What a POST answers. Raises ToolRefused."""
        key = {} if idempotency_key is None else {"HTTP_IDEMPOTENCY_KEY": idempotency_key}
        try:
            sent = json.dumps(body).encode()
        except RecursionError:
            raise ToolRefused("invalid_json", "The arguments are nested too deeply.") from None
        return self._ask("POST", path, "", sent, key)

    def _ask(self, method: str, path: str, query: str, body: bytes, more: Mapping[str, str]) -> Any:
        sent = {name: value for name, value in self.outer.META.items() if name not in _OF_THE_MESSAGE}
        if int(sent.get("CONTENT_LENGTH") or 0) > LONGEST_THAT_WAITS:
            sent.pop(CAN_WAIT, None)
        request = WSGIRequest(
            {
                **sent,
                **more,
                "REQUEST_METHOD": method,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": "application/json",
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": BytesIO(body),
            }
        )
        view, args, kwargs = request.resolver_match = resolve(path)
        return _data(view(request, *args, **kwargs))


def _data(reply: HttpResponseBase) -> Any:
    if isinstance(reply, Later):
        raise MustWait(reply)
    told = json.loads(reply.content)  # type: ignore[attr-defined]  # no view that a tool asks streams
    if told["success"]:
        return told["data"]
    error = told["error"]
    raise ToolRefused(error["code"], error["message"], error["details"])
