"""What the OpenAPI document says of the API as a whole; `video.api.contract` describes the calls."""

from __future__ import annotations

from typing import Any

DESCRIPTION = """\
Prompts in, finished videos out. Create a task, read its status until it is `success`, fetch `result.videoUrl`.

Every answer is `{"success": true, "data": …}` or `{"success": false, "error": {"code", "message", "details"}}`.
Bodies are JSON in UTF-8; names that a call does not know are refused. Answers may get more fields, and lists of error
codes more codes, so clients pass over what they don't know; the other enumerations are closed. Times are RFC 3339 in
UTC. An access token comes from `POST /api/auth/login`, in the cookie `token` or as `Authorization: Bearer …`. Programs
send an API key (`POST /api/keys`) there instead; `x-scope` of each call is the scope that it needs.

Each address is also under `/api/v1`, which new clients should use. OpenAI's and OpenRouter's clients and MCP have
addresses of their own, which are not in this document: docs/clients.md.
"""

SETTINGS: dict[str, Any] = {
    "OAS_VERSION": "3.1.0",
    "TITLE": "Reelworks",
    "VERSION": "1",
    "DESCRIPTION": DESCRIPTION,
    "LICENSE": {"name": "MIT", "identifier": "MIT"},
    "SERVERS": [{"url": "/", "description": "This server."}],
    "TAGS": [
        {"name": "Tasks", "description": "Make videos, follow them, delete them."},
        {"name": "Models", "description": "What can be made, at what price."},
        {"name": "Credits", "description": "What was paid, and what is stored."},
        {"name": "Queues", "description": "Where tasks stand, and one task in detail."},
        {"name": "Webhooks", "description": "Be told of changes: endpoints, secrets, deliveries."},
        {"name": "Logins", "description": "Tokens, passwords and accounts."},
        {"name": "API keys", "description": "For programs, with scopes and limits. Only a login may make them."},
        {"name": "Call-backs", "description": "For providers; not for clients."},
        {"name": "Contract", "description": "This document."},
    ],
    "PREPROCESSING_HOOKS": ["video.api.contract.openapi.without_slash"],
    "POSTPROCESSING_HOOKS": [],
    "DISABLE_ERRORS_AND_WARNINGS": False,
}
