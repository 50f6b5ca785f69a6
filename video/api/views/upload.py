"""Send a picture for a video that is to begin with it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import InMemoryUploadedFile
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.http import HttpResponse
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request

from media_pipeline.errors import PictureRefused
from video.api import errors
from video.api.base import ApiView, success, user_id
from video.api.contract import answers
from video.api.contract.describe import Answer, describe
from video.infra.camel import camel
from video.models import Scope
from video.web import uploads

FIELD = "file"
_HOW = f'Send the picture as multipart/form-data, in one field that is called "{FIELD}".'


def longest_upload() -> int:
    """Bytes of the whole body."""
    return int(settings.MAX_BODY_BYTES_OF["/api/video/upload"])


class UploadView(ApiView):
    """POST /api/video/upload: 201 with an address that the caller may give as `imageUrl` until `expiresAt`.

    `type`, `width` and `height` are the picture's as it is kept: upright and without metadata. The same picture sent
    again has the same address, and its time begins anew.
    """

    key_scope = Scope.CREATE
    parser_classes = (MultiPartParser,)
    longest_body = longest_upload

    @describe(
        "Tasks",
        "Upload a start image",
        form=answers.UPLOAD_FORM,
        answers={201: Answer("The picture's address.", answers.UPLOADED)},
        errors="invalid_request invalid_form image_unreadable image_too_large body_too_large unsupported_media_type "
        "too_many_uploads overloaded unavailable",
    )
    def post(self, request: Request) -> HttpResponse:
        file = _only_file(request)
        if file.size is None or file.size > settings.UPLOAD_MAX_BYTES:
            most = f"the picture may have at most {settings.UPLOAD_MAX_BYTES:,} bytes."
            raise errors.invalid(FIELD, most, code="image_too_large", status=413)
        try:
            kept = uploads.keep(user_id(request), file.read())
        except PictureRefused as err:
            raise errors.invalid(FIELD, err.user_message, code=err.code) from None
        shown = "address=url expires_at media_type=type width_px=width height_px=height size_bytes=bytes"
        return success(camel(kept, shown), status=201)


def _only_file(request: Request) -> InMemoryUploadedFile:
    """The one part of the form. Raises ApiError."""
    request._request.upload_handlers = [MemoryFileUploadHandler(request._request)]
    try:
        form: Any = request.data
    except UnsupportedMediaType:
        raise errors.ApiError(415, "unsupported_media_type", _HOW) from None
    except ParseError:
        raise errors.invalid("body", f"is no whole form. {_HOW}", code="invalid_form") from None
    # An empty body comes as an empty dict.
    given = [(name, part) for name, parts in form.lists() for part in parts] if form else []
    if len(given) != 1 or given[0][0] != FIELD or not isinstance(given[0][1], InMemoryUploadedFile):
        raise errors.invalid(FIELD, f"must be the only field, and a file. {_HOW}")
    return given[0][1]
