"""Kling's envelope and its error codes (https://kling.ai/document-api, Error codes), for both standards."""

from __future__ import annotations

import json
import uuid
from typing import Any

from providers.dialect.messages import Reply, Request
from providers.kling.dialect.schema import Invalid

CODES: dict[int, tuple[int, str]] = {
    1000: (401, "Authentication failed"),
    1001: (401, "Authorization is empty"),
    1002: (401, "Authorization is invalid"),
    1003: (401, "Authorization is not yet valid"),
    1004: (401, "Authorization has expired"),
    1100: (429, "Abnormal account status"),
    1101: (429, "Account in arrears"),
    1102: (429, "Account balance not enough"),
    1103: (403, "Unauthorized access to requested resource, such as API/model"),
    1200: (400, "Invalid request parameters"),
    1201: (400, "Invalid parameters"),
    1202: (404, "The requested method is invalid"),
    1203: (404, "The requested resource does not exist"),
    1300: (400, "Request blocked by platform policy"),
    1301: (400, "Trigger the platform's content security policy"),
    1302: (429, "Too many requests; rate limit exceeded"),
    1303: (429, "parallel task over resource pack limit"),
    1304: (429, "Trigger the platform's IP whitelist policy"),
    5000: (500, "Server internal error"),
    5001: (503, "Server temporarily unavailable, usually due to maintenance"),
    5002: (504, "Server internal timeout, usually due to a backlog"),
}
CODE_OF_STATUS = {400: 1200, 401: 1000, 403: 1103, 404: 1203, 429: 1302, 500: 5000, 503: 5001, 504: 5002}
CODE_OF_KIND = {
    "credits": 1102, "moderation": 1301, "daily_limit": 1302, "busy": 1303, "directive": 1201, "duplicate": 1201,
    "not_found": 1201,
}  # fmt: skip


def good(data: Any) -> Reply:
    body = {"code": 0, "message": "SUCCEED", "request_id": str(uuid.uuid4()), "data": data}
    return Reply(200, json.dumps(body).encode())


def refused(
    code: int, message: str = "", status: int | None = None, headers: tuple[tuple[str, str], ...] = ()
) -> Reply:
    known_status, known_message = CODES.get(code, (400, "Unknown"))
    body = {"code": code, "message": message or known_message, "request_id": str(uuid.uuid4())}
    return Reply(status or known_status, json.dumps(body).encode(), headers=headers)


def json_object(request: Request) -> dict[str, Any]:
    """The body. Raises Invalid with 1200."""
    body = request.json_or_none()
    if not isinstance(body, dict):
        raise Invalid("The request body is not a JSON object", 1200)
    return body
