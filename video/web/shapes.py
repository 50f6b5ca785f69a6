"""The shape of an error by the address that was asked: the API's envelope, or what the clients of an address read.

Sources: the errors of the published clients `openai` 3.57.0, `openrouter` 1.3.84 and `mcp` 2.3.0, read 2026-11-28.
"""

from __future__ import annotations

from typing import Any

#: OpenAI's dialect, OpenRouter's, and the Model Context Protocol.
OPENAI, OPENROUTER, MCP = "/v1", "/api/v1/videos", "/mcp"
#: JSON-RPC 2.0's own codes.
INVALID_REQUEST, INTERNAL_ERROR = -32600, -32603


def error(path: str, status: int, code: str, message: str, details: Any = None) -> dict[str, Any]:
    """The body of an error at this address. `code` is the API's own word, in every shape."""
    if _is_under(path, OPENAI):
        return openai(status, code, message, details)
    if _is_under(path, OPENROUTER):
        return openrouter(status, code, message, details)
    if _is_under(path, MCP):
        return json_rpc(status, code, message, details)
    return {"success": False, "error": {"code": code, "message": message, "details": details or {}}}


def _is_under(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")


def openai(status: int, code: str, message: str, details: Any = None) -> dict[str, Any]:
    """`param` is the first field that is wrong."""
    fields = [one["field"] for one in details if "field" in one] if isinstance(details, list) else []
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": fields[0] if fields else None, "code": code}}


def openrouter(status: int, code: str, message: str, details: Any = None) -> dict[str, Any]:
    """Their `code` is the HTTP status; ours is in `metadata`."""
    return {"error": {"code": status, "message": message, "metadata": {"code": code, "details": details or {}}}}


def json_rpc(status: int, code: str, message: str, details: Any = None) -> dict[str, Any]:
    """Of a request that was not read as far as its id."""
    number = INTERNAL_ERROR if status >= 500 else INVALID_REQUEST
    shown = {"code": number, "message": message, "data": {"code": code, "details": details or {}}}
    return {"jsonrpc": "2.0", "id": None, "error": shown}
