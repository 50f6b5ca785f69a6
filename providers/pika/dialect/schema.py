"""Pika's models on fal: what their inputs may be, what they cost, and how fal words each failure.

Sources: https://fal.ai/models/fal-ai/pika (`/api` and `/llms.txt` of each model), https://fal.ai/docs (Errors, Request
errors). The documentation is silent on the following, chosen here: what is no field is ignored, as pydantic does by
default; `duration` of 2.1 and 2 turbo ("integer, default 5") is 1 to 10; pikascenes takes 1 to 10 images; an empty
prompt is good; 10 s cost double; no failure is charged; a data URI must hold a JPEG, PNG or WebP picture, and what a
URL leads to is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from providers.dialect import shapes
from providers.dialect.messages import is_web_address

Issue = dict[str, Any]
MISSING: Any = object()

RATIOS = ("16:9", "9:16", "1:1", "4:5", "5:4", "3:2", "2:3")
SHORT_PX = {"720p": 720, "1080p": 1080}
MAX_DURATION_S = 10


@dataclass(frozen=True)
class Model:
    usd_per_s: Mapping[str, float]  # by resolution
    images: str = ""  # its field for images: "", image_url, images or image_urls
    free_duration: bool = False  # any number of seconds instead of 5 or 10


def _family(path: str, low: float, high: float, *, free_duration: bool) -> dict[str, Model]:
    prices = {"720p": low, "1080p": high}
    return {
        f"fal-ai/pika/{path}/text-to-video": Model(prices, "", free_duration),
        f"fal-ai/pika/{path}/image-to-video": Model(prices, "image_url", free_duration),
    }


MODELS: Mapping[str, Model] = {
    **_family("v2.2", 0.04, 0.09, free_duration=False),
    "fal-ai/pika/v2.2/pikascenes": Model({"720p": 0.04, "1080p": 0.09}, "images"),
    "fal-ai/pika/v2.2/pikaframes": Model({"720p": 0.04, "1080p": 0.09}, "image_urls"),
    **_family("v2.1", 0.08, 0.08, free_duration=True),
    **_family("v2/turbo", 0.04, 0.04, free_duration=True),
}


class Failure(NamedTuple):
    """How one kind of failure is told: by the model (a list of errors) or by fal (a text)."""

    status: int
    message: str
    by_model: bool = False
    is_retryable: bool = False


_MODEL_422 = {
    "content_policy_violation": "The content could not be processed because it was flagged by a content checker.",
    "no_media_generated": "The model did not generate any media.",
    "image_too_small": "The image is too small.",
    "image_too_large": "The image is too large.",
    "image_load_error": "Failed to load the image. Please ensure it is not corrupted and in a supported format.",
    "file_download_error": "Failed to download the file. Please check that the URL can be reached.",
    "file_too_large": "The file is too large.",
    "face_detection_error": "Could not detect a face in the image.",
    "feature_not_supported": "The feature is not supported.",
}
_BY_FAL = {
    "request_timeout": (504, "Request timed out"),
    "startup_timeout": (504, "Runner startup timed out"),
    "runner_scheduling_failure": (503, "Failed to schedule a runner"),
    "runner_connection_timeout": (503, "Connection to the runner timed out"),
    "runner_connection_refused": (503, "Connection to the runner was refused"),
    "runner_connection_error": (503, "Connection to the runner failed"),
    "runner_disconnected": (503, "The runner disconnected"),
    "runner_incomplete_response": (502, "The runner's response was incomplete"),
    "runner_server_error": (500, "The runner had an error"),
    "internal_error": (500, "Internal error"),
}
FAILURES: Mapping[str, Failure] = {
    **{kind: Failure(422, text, by_model=True) for kind, text in _MODEL_422.items()},
    "internal_server_error": Failure(500, "Internal server error", by_model=True, is_retryable=True),
    "downstream_service_error": Failure(400, "Downstream service error", by_model=True),
    "downstream_service_unavailable": Failure(500, "Downstream service unavailable", by_model=True, is_retryable=True),
    "generation_timeout": Failure(504, "Generation timeout", by_model=True, is_retryable=True),
    **{kind: Failure(status, text, is_retryable=True) for kind, (status, text) in _BY_FAL.items()},
    "client_disconnected": Failure(499, "Client disconnected before the request was completed"),
    "client_cancelled": Failure(499, "Request was cancelled"),
    "bad_request": Failure(400, "Bad request"),
}
#: Scripts are written once for all providers: what Runway's codes mean here.
_SAME_ELSEWHERE = (
    ("SAFETY", "content_policy_violation"),
    ("INPUT_PREPROCESSING.SAFETY", "content_policy_violation"),
    ("ASSET", "image_load_error"),
    ("THIRD_PARTY", "downstream_service_unavailable"),
    ("INTERNAL", "internal_server_error"),
    ("null", "internal_server_error"),
)


def failure(code: str) -> tuple[str, Failure]:
    """The error type and how it is told, for a `fail=` code: fal's own types, Runway's families, or anything else."""
    kind = next((ours for prefix, ours in _SAME_ELSEWHERE if code.startswith(prefix)), code)
    unknown = Failure(422 if kind.startswith(("unsupported_", "image_", "file_")) else 500, kind, by_model=True)
    return kind, FAILURES.get(kind, unknown)


def detail(kind: str, message: str, loc: list[Any], given: Any = None) -> Issue:
    return {"loc": loc, "msg": message, "type": kind, "url": f"https://docs.fal.ai/errors#{kind}", "input": given}


class Input(NamedTuple):
    """A checked body. With issues the rest is whatever a job needs to fail."""

    issues: list[Issue]
    prompt: str
    width_px: int
    height_px: int
    duration_s: int
    resolution: str


def check(model: Model, body: Mapping[str, Any]) -> Input:
    """Every field's issues, as pydantic words them."""
    found = _Findings(body)
    prompt = found.text("prompt", MISSING)
    found.text("negative_prompt", "")
    resolution = found.choice("resolution", "720p", tuple(SHORT_PX))
    if model.free_duration:
        duration_s = found.integer("duration", 5, 1, MAX_DURATION_S)
    else:
        duration_s = found.choice("duration", 5, (5, 10))
    if body.get("seed") is not None:
        found.integer("seed", 0, None, None)
    shape: tuple[int, int] = (16, 9)
    if model.images == "image_url":
        shape = found.image(body.get("image_url", MISSING), ["body", "image_url"]) or shape
    elif model.images:
        shape = found.images(model.images) or shape
    if model.images in ("", "images"):  # elsewhere the image decides
        shape = shapes.parse_ratio(found.choice("aspect_ratio", "16:9", RATIOS))
    width, height = shapes.fit(*shape, SHORT_PX[resolution])
    return Input(found.issues, prompt, width, height, duration_s, resolution)


class _Findings:
    """Reads fields; what is wrong goes into `issues`, and a harmless value comes back."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = body
        self.issues: list[Issue] = []

    def _add(self, kind: str, message: str, loc: list[Any], given: Any, **ctx: Any) -> None:
        self.issues.append(detail(kind, message, loc, given) | ({"ctx": ctx} if ctx else {}))

    def text(self, name: str, default: Any) -> str:
        value = self.body.get(name, default)
        if value is MISSING:
            self._add("missing", "Field required", ["body", name], dict(self.body))
        elif isinstance(value, str):
            return value
        else:
            self._add("string_type", "Input should be a valid string", ["body", name], value)
        return ""

    def choice(self, name: str, default: Any, allowed: tuple[Any, ...]) -> Any:
        value = self.body.get(name, default)
        if any(value == one and type(value) is type(one) for one in allowed):
            return value
        listed = [json.dumps(one).replace('"', "'") for one in allowed]
        expected = f"{', '.join(listed[:-1])} or {listed[-1]}"
        self._add("literal_error", f"Input should be {expected}", ["body", name], value, expected=expected)
        return default

    def integer(self, name: str, default: int, least: int | None, most: int | None) -> int:
        value = self.body.get(name, default)
        if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
            value = int(value)  # pydantic's lax mode
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self._add("int_type", "Input should be a valid integer", ["body", name], value)
            return default
        if least is not None and value < least:
            message = f"Input should be greater than or equal to {least}"
            self._add("greater_than_equal", message, ["body", name], value, ge=least)
            return default
        if most is not None and value > most:
            message = f"Input should be less than or equal to {most}"
            self._add("less_than_equal", message, ["body", name], value, le=most)
            return default
        return value

    def image(self, value: Any, loc: list[Any]) -> tuple[int, int] | None:
        """The picture's size, where its bytes came along."""
        if value is MISSING:
            self._add("missing", "Field required", loc, dict(self.body))
        elif not isinstance(value, str):
            self._add("string_type", "Input should be a valid string", loc, value)
        elif value.startswith("data:"):
            size = _data_uri_size(value)
            if size is None:
                self._add("image_load_error", _MODEL_422["image_load_error"], loc, value[:100])
            return size
        elif not is_web_address(value):
            self._add("file_download_error", _MODEL_422["file_download_error"], loc, value[:100])
        return None

    def images(self, name: str) -> tuple[int, int] | None:
        """pikascenes' `[{"image_url": …}]`, or pikaframes' `["…", …]` with at least two."""
        value = self.body.get(name, MISSING)
        least, most = (1, 10) if name == "images" else (2, 5)
        if value is MISSING:
            self._add("missing", "Field required", ["body", name], dict(self.body))
        elif not isinstance(value, list):
            self._add("list_type", "Input should be a valid list", ["body", name], value)
        elif not least <= len(value) <= most:
            kind, word = ("too_short", "at least") if len(value) < least else ("too_long", "at most")
            message = f"List should have {word} {least if len(value) < least else most} items, not {len(value)}"
            self._add(kind, message, ["body", name], None)
        else:
            sizes = []
            for number, item in enumerate(value):
                if name == "images":
                    item = item.get("image_url", MISSING) if isinstance(item, dict) else item
                sizes.append(self.image(item, ["body", name, number]))
            return sizes[0]
        return None


def _data_uri_size(uri: str) -> tuple[int, int] | None:
    head, comma, data = uri.partition(",")
    if not comma:
        return None
    content = shapes.from_base64(data) if head.endswith(";base64") else unquote_to_bytes(data)
    return shapes.image_size(content, "JPEG", "PNG", "WEBP") if content else None
