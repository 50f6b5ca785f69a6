"""OpenAI's videos at /v1/videos.

Source: the published Python client `openai` 3.57.0 (types/video*.py, resources/videos.py), read 2026-11-28, and what it
sends: a form, also without a file, with `seconds` as text; a create again on 5xx, marked by x-stainless-retry-count.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.http import HttpResponse, HttpResponseRedirect
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request

from video.actions import cancel, delete
from video.actions.order_input import InlinePicture
from video.actions.task_rows import ActionRefused
from video.api import errors, idempotency
from video.api.base import PublicApiView, caller, user_id
from video.api.dialects import base, facts, words
from video.api.dialects.facts import Facts
from video.api.key_login import KeyScope
from video.audit.actors import Unaudited
from video.models import Scope
from video.web import answers, shapes

#: The client asks again after so many milliseconds, else every second.
POLL_AFTER = {"openai-poll-after-ms": "5000"}
PAGE, LARGEST_PAGE = 20, 100
_NAMES = {
    "prompt": "prompt",
    "model": "model",
    "duration": "seconds",
    "aspectRatio": "size",
    "resolution": "size",
    "imageUrl": "input_reference",
}
_KNOWN = frozenset(_NAMES.values())
_OPENROUTERS = frozenset(
    {"duration", "aspect_ratio", "resolution", "frame_images", "input_references", "callback_url", "generate_audio"}
)
_STATUSES = {"pending": "queued", "running": "in_progress", "success": "completed", "failed": "failed"}
_FILES = {"video": "videoUrl", "thumbnail": "thumbnailUrl"}


class OpenAIView(base.DialectView):
    """Errors as `{"error": {"message", "type", "param", "code"}}`."""

    shape = staticmethod(shapes.openai)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        if response.status_code == 409:
            response["x-should-retry"] = "false"  # its client would send it twice more, at once
        return response


def longest_body() -> int:
    """Bytes of a form with a picture, or of JSON with one in it."""
    return int(settings.MAX_BODY_BYTES_OF["/v1/videos"])


class VideosView(OpenAIView):
    """POST /v1/videos: 200 with a new video, or with the one that the same request made before. GET: the caller's."""

    key_scope: KeyScope = MappingProxyType({"GET": Scope.READ, "POST": Scope.CREATE})
    takes = ("after", "limit", "order")
    parser_classes = (MultiPartParser, base.PictureParser)
    longest_body = longest_body

    def post(self, request: Request) -> HttpResponse:
        asked = _asked(request)
        base.refuse_unknown(asked, _KNOWN, _OPENROUTERS)
        beside = words.from_headers(request.META)
        fields = words.merged(_fields(asked), beside)
        task, is_new = base.make(request, asked, fields, {**_NAMES, **beside.places})
        made = facts.of_new(task) if is_new else facts.of(task.pk, request)
        response = answers.as_json(video(made), headers=POLL_AFTER)
        if not is_new:
            response[idempotency.REPLAYED] = "true"
        return response

    def get(self, request: Request) -> HttpResponse:
        given = request.GET
        order = given.get("order", "desc")
        if order not in ("asc", "desc"):
            raise errors.invalid("order", "must be asc or desc")
        after, limit = given.get("after"), _limit(given.get("limit", str(PAGE)))
        found, has_more = facts.page(request, after=after, limit=limit, oldest_first=order == "asc")
        shown = [video(one) for one in found]
        ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
        return answers.as_json({"object": "list", "data": shown, "has_more": has_more, **ends})


class VideoView(OpenAIView):
    """GET /v1/videos/{id}. DELETE: the video, its prompt and picture; one that is under way is cancelled first."""

    key_scope: KeyScope = MappingProxyType({"GET": Scope.READ, "DELETE": Scope.MANAGE})

    def get(self, request: Request, task_id: str) -> HttpResponse:
        return answers.as_json(video(facts.of(task_id, request)), headers=POLL_AFTER)

    def delete(self, request: Request, task_id: str) -> HttpResponse:
        owner = user_id(request)
        try:
            delete.delete(facts.checked_id(task_id), user_id=owner)
        except ActionRefused as refused:
            if refused.code != "task_active":
                raise
            cancel.cancel(task_id, by=Unaudited(caller(request).get_username()), user_id=owner)
            delete.delete(task_id, user_id=owner)
        return answers.as_json({"id": task_id, "object": "video.deleted", "deleted": True})


class ContentView(OpenAIView):
    """GET /v1/videos/{id}/content?variant=video|thumbnail: 302 to a signed link, which needs no login."""

    key_scope = Scope.READ
    takes = ("variant",)

    def get(self, request: Request, task_id: str) -> HttpResponse:
        variant = request.GET.get("variant", "video")
        if variant not in _FILES:
            raise errors.invalid("variant", f"must be one of {', '.join(_FILES)}")
        return HttpResponseRedirect(facts.file_of(facts.of(task_id, request), _FILES[variant]))


class UnknownView(PublicApiView):
    """Everything under /v1 that isn't there, for every method."""

    get_exception_handler = OpenAIView.get_exception_handler
    shape = staticmethod(shapes.openai)

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        raise errors.not_found("address")


def video(one: Facts) -> dict[str, Any]:
    """A task as the client reads it. There is no `cancelled` there: it is a failure with this code."""
    status = one.status
    gone = status.get("gone") or {}
    error = {"code": status["errorCode"], "message": status["error"]} if "error" in status else None
    return {
        "id": one.task.pk,
        "object": "video",
        "status": _STATUSES[status["status"]],
        "progress": status["progress"],
        "created_at": base.unix(one.created_at),
        "completed_at": base.unix(one.task.finished_at) if status["status"] == "success" else None,
        "expires_at": base.unix(gone.get("at") or status.get("expiresAt")),
        "model": one.model,
        "prompt": one.task.prompt,
        "seconds": str(one.task.duration_s),
        "size": one.size,
        "remixed_from_video_id": None,
        "error": error,
    }


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) or not 1 <= int(text) <= LARGEST_PAGE:
        raise errors.invalid("limit", f"must be a whole number from 1 to {LARGEST_PAGE}")
    return int(text)


def _asked(request: Request) -> dict[str, Any]:
    """The fields that were sent, as JSON or as a form; a file as InlinePicture."""
    request._request.upload_handlers = [MemoryFileUploadHandler(request._request)]
    try:
        sent: Any = request.data
    except ParseError:
        raise errors.invalid("body", "is no whole form", code="invalid_form") from None
    if not hasattr(sent, "lists"):
        return dict(sent)
    asked: dict[str, Any] = {}
    for name, parts in sent.lists():
        if len(parts) > 1:
            raise ValidationError({base.shown(name): ["is given twice"]})
        asked[name] = _part(name, parts[0])
    if "input_reference[image_url]" in asked:  # how clients write an object into a form
        asked["input_reference"] = {"image_url": asked.pop("input_reference[image_url]")}
    return asked


def _part(name: str, part: Any) -> Any:
    if not isinstance(part, UploadedFile):
        return part
    if name != "input_reference":
        raise ValidationError({base.shown(name): ["must not be a file"]})
    if (part.size or 0) > settings.UPLOAD_MAX_BYTES:
        most = f"the picture may have at most {settings.UPLOAD_MAX_BYTES:,} bytes."
        raise errors.invalid(name, most, code="image_too_large", status=413)
    return InlinePicture(part.read())


def _fields(asked: dict[str, Any]) -> dict[str, Any]:
    """The same in our words."""
    fields = words.model_name(asked.get("model"))
    if (prompt := asked.get("prompt")) is not None:
        fields["prompt"] = prompt
    if (seconds := asked.get("seconds")) is not None:
        fields["duration"] = _seconds(seconds)
    if (size := asked.get("size")) is not None:
        fields |= words.of_size(size)
    if (reference := asked.get("input_reference")) is not None:
        fields["imageUrl"] = _picture(reference)
    return fields


def _seconds(value: Any) -> int:
    if type(value) is int:
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,6}", value, re.ASCII):
        raise ValidationError({"seconds": ["must be a whole number of seconds, such as 8"]})
    return int(value)


def _picture(reference: Any) -> Any:
    if isinstance(reference, InlinePicture):
        return reference
    url = reference.get("image_url") if isinstance(reference, dict) and len(reference) == 1 else None
    if not isinstance(url, str):
        raise ValidationError(
            {"input_reference": ['must be a picture as file, or an object {"image_url": "https://…"}']}
        )
    return url
