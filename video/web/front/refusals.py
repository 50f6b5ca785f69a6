"""What the front answers by itself, in the shape of the address that was asked."""

from __future__ import annotations

import json

from video.web import headers as security


def refusal(path: str, code: str, sentence: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of an error: the API's envelope, or the sentence for a person; never kept by a cache."""
    is_api = path.startswith("/api/")
    error = {"code": code, "message": sentence, "details": {}}
    text = json.dumps({"success": False, "error": error}) if is_api else f"{sentence}\n"
    headers = {
        **security.of(path, secure=False),
        "Cache-Control": "no-store",
        "Content-Type": "application/json" if is_api else "text/plain; charset=utf-8",
    }
    return headers, text.encode()
