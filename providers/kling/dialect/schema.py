"""Kling's models on both standards, their rules for create bodies, and their prices in units ($0.14 each).

Sources: https://kling.ai/document-api (text and image to video of both standards, capability map, price list; public
copies of 2026-09). Units of the older standard follow from its price per clip. The documentation is silent on the
following, chosen here, strictly where that finds more bugs: a value outside the capability map is 400 / 1201; so are
`cfg_scale` for v2 models and a `data:` prefix on images, on both standards; `image_tail` for a model or mode without
end frames is refused; masks, elements and voices are not simulated; unknown keys are ignored (known of the newer
standard). A picture that is too small or too long fails the task later, as the known texts do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.dialect import shapes
from providers.dialect.dialect import Draft
from providers.dialect.messages import is_web_address

SHORT_PX = {"720p": 720, "1080p": 1080, "4k": 2160}
RATIOS = ("16:9", "9:16", "1:1")
MAX_PROMPT = 2500
MIN_IMAGE_PX = 300
MAX_RATIO = 2.5
PIXELS_FAILURE = "image_pixel"
RATIO_FAILURE = "image_ratio"

_FIVE_TEN = (5, 10)
_LONG = tuple(range(3, 16))


class Invalid(Exception):
    """A call that Kling refuses; the text is its message, `code` its code."""

    def __init__(self, message: str, code: int = 1201) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(frozen=True)
class Older:
    """A `model_name` of the older standard. Units by mode and second; masters have no mode."""

    units: Mapping[str, float]
    durations: tuple[int, ...] = _FIVE_TEN
    text: bool = True
    image: bool = True
    end_frame: tuple[str, ...] = ()  # the modes that take one
    sound_units: Mapping[str, float] = field(default_factory=dict)
    cfg_scale: bool = False
    multi_shot: bool = False
    newer_name: str = ""  # the same model version there; limits count by it


def _clips(std: float, pro: float) -> dict[str, float]:
    """Units a second from the price of 5 s in USD."""
    return {"std": std / 0.14 / 5, "pro": pro / 0.14 / 5}


OLDER: Mapping[str, Older] = {
    "kling-v1-5": Older(_clips(0.28, 0.49), text=False, end_frame=("pro",), cfg_scale=True),
    "kling-v1-6": Older(_clips(0.28, 0.49), end_frame=("pro",), cfg_scale=True),
    "kling-v2-master": Older({"pro": 2.0}),
    "kling-v2-1-master": Older({"pro": 2.0}),
    "kling-v2-1": Older(_clips(0.28, 0.49), text=False, end_frame=("pro",)),
    "kling-v2-5-turbo": Older(_clips(0.21, 0.35), end_frame=("pro",), newer_name="kling-2.5-turbo"),
    "kling-v2-6": Older(_clips(0.21, 0.35), end_frame=("pro",), sound_units={"pro": 1.0}, newer_name="kling-2.6"),
    "kling-v3": Older(
        {"std": 0.6, "pro": 0.8, "4k": 3.0}, _LONG, end_frame=("std", "pro", "4k"),
        sound_units={"std": 0.9, "pro": 1.2, "4k": 3.0}, cfg_scale=True, multi_shot=True, newer_name="kling-3.0",
    ),
}  # fmt: skip
DISCONTINUED = ("kling-v1",)
RESOLUTION_OF_MODE = {"std": "720p", "pro": "1080p", "4k": "4k"}


@dataclass(frozen=True)
class Newer:
    """A model of the newer standard. Units by resolution and second."""

    units: Mapping[str, float]
    durations: tuple[int, ...] = _FIVE_TEN
    sound_units: Mapping[str, float] = field(default_factory=dict)  # where sound can be asked for
    always_sound: bool = False
    end_frame: tuple[str, ...] = ()  # the resolutions that take one
    text_prompt: int = MAX_PROMPT
    image_prompt: int = MAX_PROMPT


NEWER: Mapping[str, Newer] = {
    "kling-3.0-turbo": Newer({"720p": 0.8, "1080p": 1.0}, _LONG, always_sound=True, text_prompt=3072),
    "kling-3.0": Newer(
        {"720p": 0.6, "1080p": 0.8, "4k": 3.0}, _LONG, {"720p": 0.9, "1080p": 1.2, "4k": 3.0},
        end_frame=("720p", "1080p", "4k"), text_prompt=3072, image_prompt=3072,
    ),
    "kling-2.6": Newer({"720p": 0.3, "1080p": 0.5}, sound_units={"1080p": 1.0}, end_frame=("1080p",)),
    "kling-2.5-turbo": Newer({"720p": 0.3, "1080p": 0.5}, end_frame=("1080p",)),
}  # fmt: skip


def check_older(body: Mapping[str, Any], *, image: bool) -> Draft:
    """A good body in common words, still without its content. Raises Invalid."""
    name = body.get("model_name", "kling-v1")
    if name in DISCONTINUED:
        raise Invalid(f"The model '{name}' has been discontinued and is no longer available.")
    model = OLDER.get(name) if isinstance(name, str) else None
    if model is None or not (model.image if image else model.text):
        raise Invalid(f"model_name value '{name}' is not supported by this API")
    several = model.multi_shot and body.get("multi_shot") is True
    prompt = _text(body, "prompt", "prompt", MAX_PROMPT, required=not several)
    _text(body, "negative_prompt", "negative_prompt", MAX_PROMPT)
    mode = body.get("mode", "std")
    if mode not in (tuple(model.units) if len(model.units) > 1 else ("std", "pro")):
        raise _invalid("mode", mode)
    mode = mode if mode in model.units else "pro"
    duration = body.get("duration", "5")
    if not isinstance(duration, str) or duration not in map(str, model.durations):
        raise _invalid("duration", duration)
    scale = body.get("cfg_scale")
    if scale is not None:
        if not model.cfg_scale:
            raise Invalid(f"cfg_scale is not supported by {name}")
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= 1:
            raise _invalid("cfg_scale", scale)
    if body.get("camera_control") is not None:
        raise Invalid("camera_control is only supported in std mode with 5s duration and kling-v1")
    sound = body.get("sound", "off")
    if sound not in ("on", "off") or (sound == "on" and mode not in model.sound_units):
        raise _invalid("sound", sound)
    shape, failure = (16, 9), None
    if image:
        tail = body.get("image_tail") or None
        if not body.get("image") and tail is None:
            raise Invalid("image and image_tail cannot both be empty")
        if tail is not None and (mode not in model.end_frame or sound == "on"):
            raise Invalid(f"image_tail is not supported in {mode} mode by {name}")
        for given, what, most_mb in ((body.get("image") or None, "image", 10), (tail, "image_tail", 10)):
            if given is not None:
                shape, failure = _image(given, what, most_mb, failure)
    else:
        shape = _ratio(body, "")
    duration_s = int(duration)
    units = (model.sound_units if sound == "on" else model.units)[mode] * duration_s
    width, height = shapes.fit(*shape, SHORT_PX[RESOLUTION_OF_MODE[mode]])
    return Draft(
        name, prompt, "", width, height, duration_s, sound == "on", units, *_common(body, ""), failure,
        model.newer_name or name,
    )  # fmt: skip


def check_newer(name: str, body: Mapping[str, Any], *, image: bool) -> Draft:
    """The same for a name in NEWER. Raises Invalid."""
    model = NEWER[name]
    settings, options = (_object(body, field) for field in ("settings", "options"))
    frames: dict[str, str] = {}
    if image:
        prompt, frames = _contents(body.get("contents"), model.image_prompt)
    else:
        prompt = _text(body, "prompt", "prompt", model.text_prompt, required=True)
    resolution = settings.get("resolution", "720p")
    if not isinstance(resolution, str) or resolution not in model.units:
        raise _invalid("settings.resolution", resolution)
    duration = settings.get("duration", 5)
    if isinstance(duration, bool) or not isinstance(duration, int) or duration not in model.durations:
        raise _invalid("settings.duration", duration)
    sound = False
    if model.sound_units:
        audio = settings.get("audio", "off")
        sound = audio == "native"
        if audio not in ("native", "off") or (sound and resolution not in model.sound_units):
            raise _invalid("settings.audio", audio)
    if name == "kling-3.0" and not isinstance(settings.get("multi_shot", True), bool):
        raise _invalid("settings.multi_shot", settings["multi_shot"])
    shape, failure = (16, 9), None
    if image:
        if "last_frame" in frames and resolution not in model.end_frame:
            raise Invalid(f"last_frame is not supported at {resolution} by {name}")
        for what, url in frames.items():
            shape, failure = _image(url, what, 50, failure)
    else:
        shape = _ratio(settings, "settings.")
    units = (model.sound_units if sound else model.units)[resolution] * duration
    width, height = shapes.fit(*shape, SHORT_PX[resolution])
    return Draft(
        name, prompt, "", width, height, duration, sound or model.always_sound, units, *_common(options, "options."),
        failure, name,
    )  # fmt: skip


def _ratio(values: Mapping[str, Any], prefix: str) -> tuple[int, int]:
    ratio = values.get("aspect_ratio", "16:9")
    if ratio not in RATIOS:
        raise _invalid(f"{prefix}aspect_ratio", ratio)
    return shapes.parse_ratio(ratio)


def _contents(contents: Any, longest: int) -> tuple[str, dict[str, str]]:
    """The prompt, and the frames with the first one last: its shape counts."""
    if not isinstance(contents, list) or not contents:
        raise Invalid("contents cannot be empty")
    found: dict[str, str] = {}
    prompt: str | None = None
    for item in contents:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "prompt" and prompt is None:
            prompt = _text(item, "text", "contents.text", longest, required=True)
        elif kind in ("first_frame", "last_frame") and kind not in found:
            found[kind] = _text(item, "url", "contents.url", 100_000_000, required=True)
        else:
            raise _invalid("contents.type", kind)
    if "first_frame" not in found:
        raise Invalid("first_frame cannot be empty")
    if prompt is None:
        raise Invalid("prompt cannot be empty")
    return prompt, dict(sorted(found.items(), reverse=True))


def _common(values: Mapping[str, Any], prefix: str) -> tuple[str, str | None, dict[str, Any]]:
    """Reference, call-back, and the watermark as an extra."""
    reference = _text(values, "external_task_id", f"{prefix}external_task_id", 500)
    url = _text(values, "callback_url", f"{prefix}callback_url", 2048)
    if url and not is_web_address(url):
        raise _invalid(f"{prefix}callback_url", url)
    watermark = values.get("watermark_info") or {}
    if not isinstance(watermark, dict) or not isinstance(watermark.get("enabled", False), bool):
        raise _invalid(f"{prefix}watermark_info", watermark)
    return reference, url or None, {"watermark": watermark.get("enabled", False)}


def _image(given: Any, what: str, most_mb: int, failure: str | None) -> tuple[tuple[int, int], str | None]:
    """The picture's shape where its bytes came along, and what will be found wrong with it later."""
    if not isinstance(given, str):
        raise _invalid(what, given)
    if given.startswith(("http://", "https://")):
        if not is_web_address(given):
            raise _invalid(what, given)
        return (16, 9), failure
    data = shapes.from_base64(given)
    if data is None:
        raise Invalid(f"{what}: File is not in a valid base64 format")
    if len(data) > most_mb * 1024 * 1024:
        raise Invalid(f"{what}: File size exceeds {most_mb}MB")
    size = shapes.image_size(data, "JPEG", "PNG")
    if size is None:
        raise Invalid(f"{what}: File format is not supported")
    if min(size) < MIN_IMAGE_PX:
        failure = failure or PIXELS_FAILURE
    elif max(size) / min(size) > MAX_RATIO:
        failure = failure or RATIO_FAILURE
    return size, failure


def _text(values: Mapping[str, Any], name: str, shown: str, longest: int, *, required: bool = False) -> str:
    value = values.get(name)
    if value is None or value == "":
        if required:
            raise Invalid(f"{shown} cannot be empty")
        return ""
    if not isinstance(value, str):
        raise _invalid(shown, value)
    if len(value) > longest:
        raise Invalid(f"{shown} cannot exceed {longest} characters")
    return value


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise _invalid(name, value)
    return value or {}


def _invalid(name: str, value: Any) -> Invalid:
    return Invalid(f"{name} value '{str(value)[:100]}' is invalid")
