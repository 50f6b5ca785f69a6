"""What both dialects say in another way than the API: sizes, model names, and what only we know."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rest_framework.exceptions import ValidationError

from providers import catalogue
from providers.catalogue import UnknownModel
from video.actions.order_input import RATIOS, CreateSerializer

#: Model names that leave the choice to us: OpenRouter's clients must name one.
AUTO = "auto"
OUR_CHOICE = frozenset({AUTO, f"reelworks/{AUTO}"})
#: Headers with what a dialect has no word for: `x-reelworks-negative-prompt` is `negativePrompt`.
HEADERS = "HTTP_X_REELWORKS_"
#: Fields with lists, objects or fractions.
_AS_JSON = frozenset({"metadata", "extras", "cover"})
_SIZE = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})", re.ASCII)
_SHORT_SIDES = {"480p": 480, "720p": 720, "1080p": 1080}
#: A size means the nearest ratio and resolution that differ by no more: 1792x1024 is 16:9, and 1080p.
_NEAR_RATIO, _NEAR_SIDE = 0.02, 0.1


def of_size(text: Any, *, field: str = "size") -> dict[str, str]:
    """`aspectRatio` and `resolution` of a size such as 1280x720. Raises ValidationError."""
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValidationError({field: ["must be a width and a height in pixels, such as 1280x720"]})
    width, height = int(match[1]), int(match[2])
    ratio = min(RATIOS, key=lambda one: abs(_number(one) * height / width - 1))
    side = min(_SHORT_SIDES, key=lambda one: abs(_SHORT_SIDES[one] / min(width, height) - 1))
    if abs(_number(ratio) * height / width - 1) > _NEAR_RATIO:
        raise ValidationError({field: [f"has a shape that no model makes; there are {', '.join(RATIOS)}"]})
    if abs(_SHORT_SIDES[side] / min(width, height) - 1) > _NEAR_SIDE:
        sides = ", ".join(str(side) for side in _SHORT_SIDES.values())
        raise ValidationError({field: [f"must have a short side of about {sides} pixels"]})
    return {"aspectRatio": ratio, "resolution": side}


def size_of(ratio: str, resolution: str) -> str:
    """The size that a video of this order will have, as far as is known before it is there."""
    short, shape = _SHORT_SIDES.get(resolution, _SHORT_SIDES["720p"]), _number(ratio)
    long = round(short * max(shape, 1 / shape) / 2) * 2
    return f"{long}x{short}" if shape >= 1 else f"{short}x{long}"


def sizes_of(ratios: tuple[str, ...], resolutions: tuple[str, ...]) -> list[str]:
    """All sizes of a model, the smaller ones first."""
    return [size_of(ratio, resolution) for resolution in resolutions for ratio in ratios]


def _number(ratio: str) -> float:
    width, _, height = ratio.partition(":")
    return int(width) / int(height)


def model_name(text: Any) -> dict[str, Any]:
    """`model` of a name as clients write it: ours, an alias, or either behind a vendor's name and a slash.

    Empty where the choice is ours. What nobody knows is left as it is, for the order's own check.
    """
    if not isinstance(text, str):
        return {} if text is None else {"model": text}
    name = text.strip()
    if name.lower() in OUR_CHOICE:
        return {}
    for known in (name, name.partition("/")[2]):
        try:
            catalogue.find(known, image=False)
        except UnknownModel:
            continue
        return {"model": known}
    return {"model": text}


@dataclass(frozen=True)
class Beside:
    """Fields of the API that came beside a dialect's own, and where each was said."""

    fields: dict[str, Any]
    places: dict[str, str]


def from_headers(meta: Mapping[str, Any]) -> Beside:
    """What the headers `x-reelworks-…` say. Raises ValidationError for one that there isn't."""
    sent = {key: value for key, value in meta.items() if key.startswith(HEADERS)}
    known = {f"HTTP_{_header_of(name).upper().replace('-', '_')}": name for name in _fields()} if sent else {}
    found = Beside({}, {})
    for key, value in sent.items():
        if key not in known:
            shown = key.removeprefix("HTTP_").replace("_", "-").lower()[:80]
            there_are = ", ".join(sorted(_header_of(name) for name in known.values()))
            raise ValidationError({shown: [f"is not known here; there are {there_are}"]})
        if not value.isascii():
            raise ValidationError({_header_of(known[key]): ["must be ASCII"]})
        found.fields[known[key]] = _value(known[key], value)
        found.places[known[key]] = _header_of(known[key])
    return found


def _value(field: str, text: str) -> Any:
    """A number or a truth value where the text is one, else the text; JSON where the field takes more."""
    if field == "negativePrompt":
        return text
    if field in _AS_JSON:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text  # a word, such as `auto`; else the field says what it must be
    if re.fullmatch(r"-?[0-9]{1,20}", text, re.ASCII):
        return int(text)
    return text == "true" if text in ("true", "false") else text


def _header_of(field: str) -> str:
    return "x-reelworks-" + re.sub("([A-Z])", r"-\1", field).lower()


def _fields() -> list[str]:
    """What a dialect may not know; all that it has a word for itself is said with that."""
    names = [str(name) for name in CreateSerializer().fields]
    return [name for name in names if name not in ("prompt", "model", "imageUrl")]


def merged(said: Mapping[str, Any], beside: Beside) -> dict[str, Any]:
    """Both together. Raises ValidationError for what both say differently."""
    for name, value in beside.fields.items():
        if name in said and said[name] != value:
            raise ValidationError({beside.places[name]: ["is said twice, and differently"]})
    return {**said, **beside.fields}
