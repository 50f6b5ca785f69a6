"""What both dialects share: the way of an order, its repeats, and a task's facts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpResponse
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from media_pipeline.errors import PictureRefused
from providers.untrusted import storable
from video.actions import create
from video.actions.order_input import LONGEST_SHOWN, MOST_UNKNOWN, CreateSerializer, InlinePicture
from video.api import errors, idempotency
from video.api.base import ApiView, key_id, user_id
from video.api.parsing import OrderParser
from video.infra.errors import Refusal
from video.models import VideoTask

#: A client that says it repeats a request may have waited this long for the first answer, and then some.
MARKED_REPEAT_S = 1800.0
OTHER_MOUNT = "belongs to the other dialect: OpenAI's is at /v1/videos, OpenRouter's at /api/v1/videos"
RETRY_MARK = "HTTP_X_STAINLESS_RETRY_COUNT"


class DialectView(ApiView):
    """A view whose errors are in a dialect's shape."""

    shape: ClassVar[Callable[..., dict[str, Any]]]

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], HttpResponse]:
        """Of REST framework: what makes an answer of an exception."""

        def handler(exc: Exception, context: dict[str, Any]) -> HttpResponse:
            error = errors.translate(exc, context["request"])
            shown = type(self).shape(error.status_code, error.code, error.message, error.details)
            return errors.answer(exc, error, shown)

        return handler


def _renamed(error: errors.ApiError, names: Mapping[str, str]) -> errors.ApiError:
    """The error with a dialect's names of fields, in its details and at the places of its message that name them."""
    if not isinstance(error.details, list):
        return error
    for one in error.details:
        if (ours := one.get("field", "")) in names:
            one["field"] = names[ours]
            error.message = error.message.replace(f"{ours}: ", f"{names[ours]}: ")
    return error


class PictureParser(OrderParser):
    """A JSON body that may hold a picture as data URI where its dialect has it."""

    def place_of_picture(self, order: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
        """OpenAI's `input_reference.image_url`, or OpenRouter's `frame_images[0].image_url.url`."""
        frames = order.get("frame_images")
        if isinstance(frames, list) and frames and isinstance(frames[0], dict):
            place, name = frames[0].get("image_url"), "url"
        else:
            place, name = order.get("input_reference"), "image_url"
        return (place, name) if isinstance(place, dict) else None


def make(
    request: Request, asked: Mapping[str, Any], fields: dict[str, Any], names: Mapping[str, str]
) -> tuple[VideoTask, bool]:
    """The task of a request, and whether it is new. `asked`: all that was sent; `fields`: the same in our words;
    `names`: what the sender calls each of them.

    Without an Idempotency-Key of the caller's, what was asked for is the key, while the first task is young: the
    official clients send a create again when its answer is lost, and know no key. Raises ApiError.
    """
    key = idempotency.key_of(request)
    window_s = None if key is not None else _window_s(request)
    checked = CreateSerializer(data=fields)
    try:
        checked.is_valid(raise_exception=True)
        wanted = checked.validated_data
        if window_s is not None:
            key = _derived_key(asked, wanted["order"].fingerprint(metadata=wanted["metadata"]))
        return create.create(
            user_id(request), **wanted, idempotency_key=key, repeat_within_s=window_s, api_key=key_id(request)
        )
    except (ValidationError, Refusal, PictureRefused) as err:
        raise _renamed(errors.translate(err), names) from None


def _window_s(request: Request) -> float | None:
    """For how long the same request is a repeat; None for never."""
    if not settings.REPEAT_WINDOW_SECONDS:
        return None
    is_marked = request.META.get(RETRY_MARK, "0").strip() not in ("", "0")
    return max(settings.REPEAT_WINDOW_SECONDS, MARKED_REPEAT_S if is_marked else 0)


def _derived_key(asked: Mapping[str, Any], fingerprint: str) -> str:
    """A key that no client can send, as theirs have no blank: equal for what says the same, a file's bytes included,
    in whatever order and encoding it came.
    """
    try:
        said = json.dumps([asked, fingerprint], sort_keys=True, default=_digest)
    except RecursionError:
        raise errors.ApiError(400, "invalid_json", "The body is nested too deeply.") from None
    return f"repeat {hashlib.sha256(said.encode()).hexdigest()}"


def _digest(value: Any) -> str:
    if not isinstance(value, InlinePicture):
        raise TypeError(type(value).__name__)
    return hashlib.sha256(value.data).hexdigest()


def unix(at: datetime | str | None) -> int | None:
    """Seconds since 1970, of a time or of how the API writes it."""
    if at is None:
        return None
    return int((datetime.fromisoformat(at) if isinstance(at, str) else at).timestamp())


def refuse_unknown(asked: Mapping[str, Any], known: Mapping[str, str] | frozenset[str], others: frozenset[str]) -> None:
    """Raise ValidationError for names that the dialect doesn't have; `others` are those of the other one."""
    wrong = [name for name in asked if name not in known][:MOST_UNKNOWN]
    if wrong:
        there_are = f"is not known here; there are {', '.join(sorted(known))}"
        raise ValidationError({shown(name): [OTHER_MOUNT if name in others else there_are] for name in wrong})


def shown(name: str) -> str:
    """A name that a stranger chose, as an answer may repeat it."""
    return storable(name[:LONGEST_SHOWN], LONGEST_SHOWN)
