"""Which failures come back when a task is retried as it is, and why: for the previews of a retry.

Codes that are not here may well pass: the cause was of its moment, or of one provider.
"""

from __future__ import annotations

_SAME_PICTURE = "the order still has the same picture"

FAILS_AGAIN: dict[str, str] = {
    "moderation": "the provider refuses the same prompt and picture again; its user has to change them",
    "bad_request": "the provider refuses the same request again",
    "image_unreadable": _SAME_PICTURE,
    "image_too_large": _SAME_PICTURE,
    "image_unsuitable": _SAME_PICTURE,
    "image_not_found": "the link of the picture leads nowhere until its user puts it there again",
    "image_forbidden_address": "the link of the picture leads to no public address",
    "image_upload_gone": "the uploaded picture is deleted",
    "forbidden_address": "the provider's link leads to no public address; see its base URL and the DNS of this host",
    "download_too_large": "the video has more bytes than MAX_SOURCE_BYTES; raise it first",
    "source_gone": "the video is no longer at the provider; only a retry with “Generate anew” helps",
    "foreign_origin": "the provider names an address that is not its own; see its base URL first",
    "key_refused": "the provider refuses the key until it is put right",
    "out_of_credits": "the account is empty until it is topped up",
    "model_forbidden": "the account may not use this model until the provider allows it",
    "storage_refused": "the storage refuses this server until that is put right",
}


def warning_of(error_code: str) -> str:
    """Why a retry is known to fail again; empty if nothing of the kind is known."""
    return FAILS_AGAIN.get(error_code, "")
