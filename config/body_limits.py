"""How long the bodies may be that have a picture in them, or many orders."""

from __future__ import annotations

from media_pipeline.pictures import data_uri

#: Calls with a picture as data URI in their JSON, and those with one as part of a form.
_JSON = ("/api/video/create", "/api/video/quote", "/api/v1/videos")
_BATCH, _BATCH_BYTES = "/api/video/batch", 1024**2
_FORM, _BOTH = "/api/video/upload", "/v1/videos"


def by_address(*, json_bytes: int, picture_bytes: int) -> dict[str, int]:
    """Bytes of the whole body, by address; `json_bytes` are for all in it that is no picture."""
    return {
        _BATCH: _BATCH_BYTES,
        _FORM: picture_bytes + json_bytes,
        _BOTH: max(picture_bytes, data_uri.MAX_CHARACTERS) + json_bytes,
        **dict.fromkeys(_JSON, data_uri.MAX_CHARACTERS + json_bytes),
    }
