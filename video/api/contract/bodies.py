"""The JSON Schema of a request's body, read off the serializer that checks it."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from rest_framework import serializers
from rest_framework.fields import empty

from media_pipeline.encode.cover import AUTO, FIRST, LATEST_S
from media_pipeline.encode.extra_kinds import KINDS
from media_pipeline.encode.rates import MAX_FPS
from providers import catalogue
from video.actions.order_input import (
    LONGEST_NAME,
    LONGEST_VALUE,
    CoverChoice,
    CreateSerializer,
    ExtraKinds,
    Flag,
    FrameRate,
    Metadata,
    OneOf,
    Strict,
    Text,
    WholeNumber,
)
from video.actions.render_input import RenderSerializer
from video.api.bodies import IDS, EventList, Several
from video.api.contract.answers import TASK_PATTERN
from video.api.contract.shapes import Schema, maybe, named, resolved, shape
from video.models.order import ABOUT, Order
from video.models.tasks import MOST_PAIRS
from video.webhooks.message import EVENTS

#: What the fields of an order mean, and what is sent when they are left out. A field's own `help_text` comes first.
_ORDER = {
    "prompt": "What the video is to show. Each model has its own limit (`promptLimit` of GET /api/models).",
    "duration": "Seconds. Each model has its own list (`durations` of GET /api/models).",
    "aspectRatio": "Width to height. From a start image, some models take the image's own shape.",
    "imageUrl": "A start image: a public https link, an `upload://` address of POST /api/video/upload, or the picture "
    "itself as `data:image/…;base64,…` (JPEG, PNG or WebP).",
    "model": "The id or an alias of a model of GET /api/models. Without it, `policy` decides.",
    "policy": "How a model is chosen where none is named.",
    "fallback": "Whether another model may make the video when one has failed.",
    "quality": "Of the transcode to H.264.",
    "resolution": "The short side of the finished video; `source` keeps that of the render.",
    "fps": f'Frames a second of the finished video, 1 to {MAX_FPS}, or "source" for those of the render.',
    "negativePrompt": "What the video is not to show, for models with `negativePrompt`.",
    "seed": "Makes results repeatable, for models with `seed`.",
    "expiresIn": "Seconds after the success at which the video is deleted. The operator may keep videos for less.",
    "maxCredits": "What the client is ready to pay, in credits: what a quote said. A higher price is refused.",
    "metadata": f"The client's own pairs: at most {MOST_PAIRS} short texts, which answers have and lists find.",
    "sound": "Whether the video is to have sound; left out: silent where the model lets us choose.",
    "webhookUrl": "A public https link that this task's events are posted to, signed.",
    "cover": f'Which frame `thumbnailUrl` shows: "{FIRST}", "{AUTO}", or a second of the video; left out: as `COVER` '
    "of the server says.",
    "extras": "What is made beside the video; left out: as `EXTRAS` of the server says.",
}
_RENDER = {
    "taskId": "The task whose video is rendered anew.",
    "aspectRatio": "Width to height: the whole picture, on black where it does not fill the frame.",
}
_DEFAULTS = {
    **{one.metadata["about"].api: one.default for one in fields(Order) if one.default not in (MISSING, "", None)},
    "duration": 5,
    "aspectRatio": "16:9",
}
#: Of a text: no NUL, and not blank. That it must have a character that shows is more than a pattern can say.
_VISIBLE = r"^[^\x00]*[^\x00\s][^\x00]*$"
_LIMITS: dict[str, Schema] = {
    "duration": {"enum": sorted({seconds for model in catalogue.MODELS for seconds in model.durations_s})},
    "model": {"examples": ["runway-gen3", "pika-1.0", "kling"]},
    "prompt": {"examples": ["A cat walking in a garden"]},
    "imageUrl": {"examples": ["https://example.com/cat.jpg"]},
}


def body_of(serializer: type[Strict]) -> Schema:
    """A reference to the component of this body. Names that are not in it are refused."""
    checked = serializer()
    is_order = issubclass(serializer, CreateSerializer)
    about = _ORDER if is_order else _ORDER | _RENDER if serializer is RenderSerializer else {}
    found: Schema = {
        "type": "object",
        "properties": {
            name: _field(name, field, about=about, is_order=is_order) for name, field in checked.fields.items()
        },
        "additionalProperties": False,
    }
    if required := [name for name, field in checked.fields.items() if field.required]:
        found["required"] = required
    return named(f"{serializer.__name__.removesuffix('Serializer')}Request", found)


def order_as_told() -> Schema:
    """An order as a task's details tell it: every field of a create, defaults filled in, null where nothing was asked.

    The texts of a deleted task are empty, so their limits are left out.
    """
    asked = resolved(body_of(CreateSerializer))["properties"]
    left_out = ("default", "minLength", "pattern", "examples")
    fields = {
        about.api: {name: value for name, value in asked[about.api].items() if name not in left_out}
        for about in ABOUT.values()
    }
    return shape("Order", "What was asked for, defaults included.", **fields)


def _field(name: str, field: Any, *, about: dict[str, str], is_order: bool) -> Schema:
    told = field.help_text or about.get(name) or (ABOUT[field.source].help if field.source in ABOUT else "")
    found = {**_kind(field), **(_LIMITS.get(name, {}) if is_order else {}), "description": str(told)}
    if is_order and name in _DEFAULTS:
        found["default"] = _DEFAULTS[name]
    elif field.default is not empty:
        found["default"] = field.default
    return maybe(found) if field.allow_null else found


def _kind(field: Any) -> Schema:
    """Type and limits. Raises TypeError for a field that nothing here knows: it needs a line of its own."""
    match field:
        case OneOf():
            return {"type": "string", "enum": list(field.words)}
        case FrameRate():
            whole = {"type": "integer", "minimum": 1, "maximum": MAX_FPS}
            return {"anyOf": [whole, {"type": "string", "const": "source"}]}
        case CoverChoice():
            second = {"type": "number", "minimum": 0, "maximum": LATEST_S}
            return {"anyOf": [{"type": "string", "enum": [FIRST, AUTO]}, second]}
        case ExtraKinds():
            return {"type": "array", "items": {"type": "string", "enum": list(KINDS)}}
        case EventList():
            return {"type": "array", "items": {"type": "string", "enum": list(EVENTS)}}
        case Several():
            one = {"type": "string", "pattern": TASK_PATTERN} if field.what == IDS else body_of(CreateSerializer)
            found = {"type": "array", "items": one, "minItems": 1, "maxItems": field.most}
            return {**found, "uniqueItems": True} if field.what == IDS else found
        case Metadata():
            value = {"type": "string", "minLength": 1, "maxLength": LONGEST_VALUE, "pattern": _VISIBLE}
            names = {"pattern": f"^[A-Za-z0-9_.-]{{1,{LONGEST_NAME}}}$"}
            found = {"type": "object", "additionalProperties": value, "propertyNames": names}
            return {**found, "maxProperties": MOST_PAIRS}
        case Text():
            return _without_none(type="string", minLength=1, maxLength=field.max_length, pattern=_VISIBLE)
        case WholeNumber():
            return _without_none(type="integer", minimum=field.min_value, maximum=field.max_value)
        case Flag():
            return {"type": "boolean"}
        case Strict():
            return body_of(type(field))
        case serializers.ListField():
            kind = {"type": "array", "items": _kind(field.child)}
            return _without_none(**kind, minItems=field.min_length, maxItems=field.max_length)
        case serializers.DictField():
            return {"type": "object", "additionalProperties": _kind(field.child)}
    raise TypeError(f"There is no schema for a {type(field).__name__}; add it to {__name__}.")


def _without_none(**schema: Any) -> Schema:
    return {name: value for name, value in schema.items() if value is not None}
