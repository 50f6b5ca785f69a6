"""What goes in and out of a dialect: a request as it was read, and the answer to it, which may be none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


class Request:
    """One request. Header names are lower case; the last of a repeated header wins."""

    __slots__ = ("body", "headers", "method", "path", "peer", "raw_query", "scheme")

    def __init__(
        self, method: str, target: str, headers: dict[str, str], body: bytes, peer: str, scheme: str = "http"
    ) -> None:
        path, _, self.raw_query = target.partition("?")
        self.method = method
        self.path = unquote(path) if "%" in path else path
        self.headers = headers
        self.body = body
        self.peer = peer
        self.scheme = scheme

    @property
    def params(self) -> dict[str, str]:
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))

    def json_or_none(self) -> Any:
        """The body as JSON; None when it cannot be read."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def origin(self) -> str:
        """Our own address as this client sees it: providers hand out absolute links."""
        return f"{self.scheme}://{self.headers.get('host', 'localhost')}"


@dataclass(slots=True)
class Reply:
    """An answer. With `stream`, `length` is what Content-Length promises (None: chunked); sending less cuts it."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncIterator[bytes] | None = None
    length: int | None = None
    interim: tuple[int, ...] = ()  # 1xx answers that go before this one


@dataclass(frozen=True, slots=True)
class Cut:
    """No answer: close the connection, or reset it so that the client's kernel reports an error."""

    reset: bool = False


def is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


Answer = Reply | Cut
Later = Answer | Coroutine[Any, Any, Answer]
Handler = Callable[[Request], Later]
