"""The tools: what an assistant may do, told to it in JSON Schema, and done by calls of the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rest_framework.serializers import Field

from media_pipeline.encode.rates import MAX_FPS
from providers.untrusted import storable
from video.actions.order_input import (
    LONGEST_SHOWN,
    MOST_UNKNOWN,
    CreateSerializer,
    Flag,
    FrameRate,
    ImageAddress,
    OneOf,
    Text,
    WholeNumber,
)
from video.api import errors
from video.api.mcp.inner import Api, ToolRefused
from video.api.views.lists import LARGEST_PAGE
from video.api.views.task_list import STATUSES
from video.api.views.video import LONGEST_WAIT_S
from video.models import CreditEntry
from video.models.order import ABOUT

INSTRUCTIONS = (
    "Reelworks makes short videos from a prompt, with or without a start image. create_video costs credits and returns "
    "at once with a taskId; ask video_status with wait until its status is success or failed. Give create_video an "
    "idempotencyKey, a word of your own, so that the same call sent again makes no second video."
)
#: What an assistant is told of a model, of all that GET /api/models has.
_OF_MODEL = (
    "id", "title", "text", "image", "durations", "aspectRatios", "resolutions", "sound", "seed", "negativePrompt",
    "quality", "speed",
)  # fmt: skip
_OF_SLOTS = ("available", "reason")
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """One tool. `run` gets arguments whose names are those of `properties`; the API checks their values."""

    name: str
    title: str
    description: str
    properties: Callable[[], dict[str, Any]]
    run: Callable[[Api, Arguments], dict[str, Any]]
    required: tuple[str, ...] = ()
    hints: Mapping[str, bool] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """As `tools/list` has it."""
        schema: dict[str, Any] = {"type": "object", "properties": self.properties(), "additionalProperties": False}
        if self.required:
            schema["required"] = list(self.required)
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": schema,
            "annotations": {"title": self.title, "openWorldHint": False, **self.hints},
        }

    def call(self, api: Api, arguments: Arguments) -> dict[str, Any]:
        """The tool's result. Raises ToolRefused, and MustWait."""
        known = self.properties()
        unknown = [name for name in arguments if name not in known]
        missing = [name for name in self.required if arguments.get(name) is None]
        if unknown or missing:
            there_are = f"is not known here; there are {', '.join(known)}"
            wrong = [(storable(name[:LONGEST_SHOWN], LONGEST_SHOWN), there_are) for name in unknown[:MOST_UNKNOWN]]
            wrong += [(name, "is missing") for name in missing]
            details = [{"field": name, "message": why} for name, why in wrong]
            raise ToolRefused("invalid_request", errors.joined(details), details)
        return self.run(api, {name: value for name, value in arguments.items() if value is not None})


def _text(arguments: Arguments, name: str) -> str:
    value = arguments[name]
    if not isinstance(value, str):
        raise ToolRefused(
            "invalid_request", f"{name}: must be a string", [{"field": name, "message": "must be a string"}]
        )
    return value


def _order() -> dict[str, Any]:
    """The fields of create, as a schema."""
    return {str(name): _described(str(name), one) for name, one in CreateSerializer().fields.items()}


def _described(name: str, one: Field[Any, Any, Any, Any]) -> dict[str, Any]:
    about = next((about.help for about in ABOUT.values() if about.api == name), "")
    return {**_schema_of(one), **({"description": about} if about else {})}


def _schema_of(one: Field[Any, Any, Any, Any]) -> dict[str, Any]:
    match one:
        case FrameRate():
            return {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_FPS}, {"const": "source"}]}
        case WholeNumber():
            bounds = {"minimum": one.min_value, "maximum": one.max_value}
            return {"type": "integer", **{name: bound for name, bound in bounds.items() if bound is not None}}
        case OneOf():
            return {"type": "string", "enum": list(one.words)}
        case Flag():
            return {"type": "boolean"}
        case ImageAddress():
            return {"type": "string"}
        case Text():
            return {"type": "string", "maxLength": one.max_length}
    return {}


def _list_models(api: Api, arguments: Arguments) -> dict[str, Any]:
    models = [
        {**{name: model[name] for name in _OF_MODEL}, **{name: model["availability"][name] for name in _OF_SLOTS}}
        for model in api.get("/api/models")["models"]
    ]
    order = arguments.get("order")
    return {"models": models, **({} if order is None else {"quote": api.post("/api/video/quote", order)})}


def _create_video(api: Api, arguments: Arguments) -> dict[str, Any]:
    key = _text(arguments, "idempotencyKey") if "idempotencyKey" in arguments else None
    order = {name: value for name, value in arguments.items() if name != "idempotencyKey"}
    made = api.post("/api/video/create", order, idempotency_key=key)
    debits = CreditEntry.objects.filter(task_id=made["taskId"], kind=CreditEntry.Kind.DEBIT)
    return {**made, "credits": -sum(debits.values_list("amount", flat=True))}


def _video_status(api: Api, arguments: Arguments) -> dict[str, Any]:
    wait = {"wait": str(arguments["wait"])} if "wait" in arguments else {}
    found: dict[str, Any] = api.get("/api/video/status", taskId=_text(arguments, "taskId"), **wait)
    return found


def _cancel_video(api: Api, arguments: Arguments) -> dict[str, Any]:
    found: dict[str, Any] = api.post("/api/video/cancel", {"taskId": arguments["taskId"]})
    return found


def _list_videos(api: Api, arguments: Arguments) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/api/video/tasks", **{name: str(value) for name, value in arguments.items()})
    return found


_TASK = {"taskId": {"type": "string", "description": "as create_video or list_videos gave it"}}
_READS = {"readOnlyHint": True, "idempotentHint": True}
TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "list_models",
            "Models and prices",
            "The models that make videos, what each can do, and whether it is available now. With an order, also a "
            "quote: which model would make it, for how many credits, and how soon. Costs nothing.",
            lambda: {"order": {"type": "object", "properties": _order(), "required": ["prompt"]}},
            _list_models,
            hints=_READS,
        ),
        Tool(
            "create_video",
            "Make a video",
            "Starts a video and returns at once with its taskId, what it costs and the seconds that it may take. COSTS "
            "CREDITS, which come back if it fails. The same idempotencyKey with the same order makes no second video.",
            lambda: {
                **_order(),
                "idempotencyKey": {
                    "type": "string",
                    "maxLength": 255,
                    "description": "a word of your own for this video, without spaces; send it again with a retry",
                },
            },
            _create_video,
            required=("prompt",),
            hints={"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False},
        ),
        Tool(
            "video_status",
            "How far a video is",
            "Status, progress, and once it is a success the links to the video and its thumbnail, which need no login "
            "and end after a while. With wait it answers when the status or stage changes. Costs nothing.",
            lambda: {
                **_TASK,
                "wait": {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT_S, "description": "seconds at most"},
            },
            _video_status,
            required=("taskId",),
            hints=_READS,
        ),
        Tool(
            "cancel_video",
            "Cancel a video",
            "Ends a video that is under way; the answer says what becomes of its credits. Safe to repeat.",
            lambda: dict(_TASK),
            _cancel_video,
            required=("taskId",),
            hints={"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True},
        ),
        Tool(
            "list_videos",
            "Your videos",
            "The caller's videos, the newest first, a page at a time; nextCursor leads on. Costs nothing.",
            lambda: {
                "status": {"type": "string", "enum": list(STATUSES)},
                "limit": {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE},
                "cursor": {"type": "string", "description": "the nextCursor of an earlier answer"},
            },
            _list_videos,
            hints=_READS,
        ),
    )
}
