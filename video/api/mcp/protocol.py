"""JSON-RPC 2.0 as the Model Context Protocol has it: which messages are read, and how each revision is answered.

Sources: https://modelcontextprotocol.io/specification, revisions 2025-11-25 and 2026-07-28, and the official SDK 2.3.0
(mcp/shared/inbound.py, mcp/server/_streamable_http_modern.py), read 2026-11-28. Until 2025-11-25 a client begins with
`initialize`, and need not name the revision again; since 2026-07-28 each request says all that it needs by itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
STATELESS = ("2026-07-28",)
INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32600, -32601, -32602
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022
#: HTTP statuses of errors, since 2026-07-28.
_STATUSES = {METHOD_NOT_FOUND: 404}
_META = "io.modelcontextprotocol/"
VERSION_KEY, CAPABILITIES_KEY, SERVER_KEY = (_META + n for n in ("protocolVersion", "clientCapabilities", "serverInfo"))
_BASE64 = ("=?base64?", "?=")
SERVER = {"name": "reelworks", "title": "Reelworks", "version": "0.1.0"}
#: Answers that a client may keep, for so many milliseconds.
_KEPT = {"server/discover": 60_000, "tools/list": 60_000}


class Refused(Exception):
    """A message that is answered with an error of the protocol."""

    def __init__(self, number: int, message: str, data: Any = None, *, call: Call | None = None) -> None:
        super().__init__(message)
        self.number, self.message, self.data, self.call = number, message, data, call

    @property
    def status(self) -> int:
        """Of the HTTP answer."""
        if self.call is not None and not self.call.is_stateless:
            return 200
        return _STATUSES.get(self.number, 400)

    @property
    def body(self) -> dict[str, Any]:
        """Of the HTTP answer."""
        error = {"code": self.number, "message": self.message, **({} if self.data is None else {"data": self.data})}
        return {"jsonrpc": "2.0", "id": self.call.id if self.call else None, "error": error}


@dataclass(frozen=True)
class Call:
    """One request. `version` is the revision that it is answered by."""

    id: str | int
    method: str
    params: dict[str, Any]
    version: str

    @property
    def is_stateless(self) -> bool:
        """Whether it is of a revision without a handshake."""
        return self.version in STATELESS

    def answer(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """The message with its result."""
        shown = dict(result)
        if self.is_stateless:
            shown |= {"resultType": "complete", "_meta": {SERVER_KEY: SERVER}}
            if self.method in _KEPT:
                shown |= {"ttlMs": _KEPT[self.method], "cacheScope": "private"}
        return {"jsonrpc": "2.0", "id": self.id, "result": shown}


def read(message: dict[str, Any], headers: Mapping[str, str]) -> Call | None:
    """The request in a message; None for one that needs no answer: a notification, or an answer to what was never
    asked. Raises Refused.
    """
    if message.get("jsonrpc") != "2.0":
        raise Refused(INVALID_REQUEST, 'A message has "jsonrpc": "2.0".')
    version = headers.get("MCP-Protocol-Version") or HANDSHAKE[-1]
    if version not in HANDSHAKE + STATELESS:
        raise _unsupported(version)
    method, number = message.get("method"), message.get("id")
    if "method" not in message and ("result" in message or "error" in message):
        return None
    if not isinstance(method, str):
        raise Refused(INVALID_REQUEST, "A message names its method.")
    if "id" not in message:
        return None
    if not isinstance(number, str | int) or isinstance(number, bool) or not _is_text(str(number)):
        raise Refused(INVALID_REQUEST, "The id of a request is a string or a whole number.")
    call = Call(number, method, {}, version)
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise Refused(INVALID_PARAMS, "params is an object.", call=call)
    call = Call(number, method, params, version)
    if call.is_stateless:
        _check_envelope(call, headers)
    return call


def _check_envelope(call: Call, headers: Mapping[str, str]) -> None:
    """What a request of its own says in its head and in `_meta` is the same."""
    meta = call.params.get("_meta")
    if not isinstance(meta, dict) or not {VERSION_KEY, CAPABILITIES_KEY} <= meta.keys():
        told = f"params._meta must have {VERSION_KEY} and {CAPABILITIES_KEY}."
        raise Refused(INVALID_PARAMS, told, call=call)
    said = {
        "MCP-Protocol-Version": (headers.get("MCP-Protocol-Version"), meta[VERSION_KEY]),
        "Mcp-Method": (headers.get("Mcp-Method"), call.method),
    }
    if call.method == "tools/call" and "name" in call.params:
        said["Mcp-Name"] = (_decoded(headers.get("Mcp-Name")), call.params["name"])
    for name, (in_head, in_body) in said.items():
        if in_head != in_body:
            raise Refused(HEADER_MISMATCH, f"The header {name} and the body say different things.", call=call)


def _is_text(text: str) -> bool:
    """Whether it can be sent back: JSON's escapes may hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(text: str | None) -> str | None:
    """A header's value, which may be in base64."""
    begin, end = _BASE64
    if text is None or not (text.startswith(begin) and text.endswith(end)):
        return text
    try:
        return base64.b64decode(text[len(begin) : -len(end)], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _unsupported(version: str) -> Refused:
    data = {"supported": [*HANDSHAKE, *STATELESS], "requested": version[:40]}
    return Refused(UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def initialized(call: Call, instructions: str) -> dict[str, Any]:
    """The result of `initialize`: the revision that the client asks for where it is known, else the newest."""
    wanted = call.params.get("protocolVersion")
    return {
        "protocolVersion": wanted if wanted in HANDSHAKE else HANDSHAKE[-1],
        "capabilities": {"tools": {}},
        "serverInfo": SERVER,
        "instructions": instructions,
    }


def discovered(instructions: str) -> dict[str, Any]:
    """The result of `server/discover`."""
    return {"supportedVersions": list(STATELESS), "capabilities": {"tools": {}}, "instructions": instructions}
