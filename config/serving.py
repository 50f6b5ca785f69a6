"""Settings of how stored files are sent, and of headers that scripts on other origins may send and read."""

from __future__ import annotations

from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from media_pipeline.storage.offload import BadOffload, Offload, parse

#: What a page of FRONTEND_ORIGINS may say in a request, and read in its answer, beside the API's own.
ASKED_BY_SCRIPTS = ("range", "if-range", "if-none-match", "x-request-id")
READ_BY_SCRIPTS = (
    *("accept-ranges", "content-disposition", "content-length", "content-range", "etag"),
    *("x-request-id", "ratelimit", "ratelimit-policy"),
)


def offload(text: str, *, folder: Path, bucket: str) -> Offload | None:
    """STORAGE_OFFLOAD as it is used. None: this server sends stored files. Raises ImproperlyConfigured."""
    try:
        found = parse(text, folder=folder)
    except BadOffload as err:
        raise ImproperlyConfigured(f"STORAGE_OFFLOAD {err}.") from None
    if found is not None and bucket:
        raise ImproperlyConfigured("STORAGE_OFFLOAD must be off with STORAGE_URL: the bucket sends its files itself.")
    return found
