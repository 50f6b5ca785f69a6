"""Runway's rules for the two create bodies, answered the way its Zod schemas answer.

Source: /v1/text_to_video and /v1/image_to_video of API version 2024-11-06, as in `runwayml` 5.24.0. Unknown keys are
refused: what the real one does with them is not documented, and the strict reading finds more bugs.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from providers.dialect import shapes

Issue = dict[str, Any]
Check = Callable[[Any, list[Any]], list[Issue]]  # value and path to what is wrong with it
MISSING: Any = object()

MAX_PROMPT_UNITS = 1000  # UTF-16 code units, as JavaScript counts
MAX_URL_CHARS = 2048
MAX_DATA_URI_CHARS = 5_000_000

WIDE_TALL = ("1280:720", "720:1280")
GEN4_IMAGE = ("1280:720", "720:1280", "1104:832", "832:1104", "960:960", "1584:672")
VEO = ("1280:720", "720:1280", "1080:1920", "1920:1080")


def issue(code: str, path: list[Any], message: str, **more: Any) -> list[Issue]:
    return [{"code": code, **more, "path": path, "message": message}]


def wrong_type(expected: str, value: Any, path: list[Any]) -> list[Issue]:
    return issue(
        "invalid_type", path, f"Invalid input: expected {expected}, received {_type(value)}", expected=expected
    )


def _type(value: Any) -> str:
    if value is MISSING:
        return "undefined"
    names = ((type(None), "null"), (bool, "boolean"), (str, "string"), (int | float, "number"), (list, "array"))
    return next((name for kind, name in names if isinstance(value, kind)), "object")


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def text(least: int, most: int) -> Check:
    def check(value: Any, path: list[Any]) -> list[Issue]:
        if not isinstance(value, str):
            return wrong_type("string", value, path)
        return _sized(utf16_units(value), least, most, path, "string", " characters")

    return check


def integer(least: int, most: int) -> Check:
    def check(value: Any, path: list[Any]) -> list[Issue]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return wrong_type("number", value, path)
        if isinstance(value, float) and not value.is_integer():  # also the infinity that 1e999 is read as
            return wrong_type("int", value, path)
        return _sized(int(value), least, most, path, "number", "")

    return check


def _sized(size: int, least: int, most: int, path: list[Any], origin: str, unit: str) -> list[Issue]:
    verb = "to have " if unit else "to be "
    if size < least:
        message = f"Too small: expected {origin} {verb}>={least}{unit}"
        return issue("too_small", path, message, origin=origin, minimum=least, inclusive=True)
    if size > most:
        message = f"Too big: expected {origin} {verb}<={most}{unit}"
        return issue("too_big", path, message, origin=origin, maximum=most, inclusive=True)
    return []


def one_of(*values: Any) -> Check:
    def check(value: Any, path: list[Any]) -> list[Issue]:
        if any(value == allowed and type(value) is type(allowed) for allowed in values):
            return []
        listed = "|".join(json.dumps(allowed) for allowed in values)
        return issue("invalid_value", path, f"Invalid option: expected one of {listed}", values=list(values))

    return check


def boolean(value: Any, path: list[Any]) -> list[Issue]:
    return [] if isinstance(value, bool) else wrong_type("boolean", value, path)


def moderation(value: Any, path: list[Any]) -> list[Issue]:
    fields = {"publicFigureThreshold": Field(one_of("auto", "low"), required=False)}
    return check_object(value, fields, path)


def image_uri(value: Any, path: list[Any]) -> list[Issue]:
    """An https URL with a domain name, an upload of Runway's, or an image as data URI."""
    if not isinstance(value, str):
        return wrong_type("string", value, path)
    if value.startswith("data:"):
        too_long = _sized(len(value), 1, MAX_DATA_URI_CHARS, path, "string", " characters")
        return too_long or _data_uri(value, path)
    if re.fullmatch(r"runway://\S+", value):
        return []
    too_long = _sized(len(value), 1, MAX_URL_CHARS, path, "string", " characters")
    return too_long or (
        [] if _is_public_https(value) else issue("custom", path, "Invalid asset URL: expected HTTPS and a domain name")
    )


def _data_uri(value: str, path: list[Any]) -> list[Issue]:
    """A whole picture of the kind that its head says."""
    head = re.match(r"data:image/(jpeg|jpg|png|webp);base64,", value)
    data = shapes.from_base64(value[head.end() :]) if head else None
    kind = "JPEG" if head and head[1] == "jpg" else head[1].upper() if head else ""
    if data is None or shapes.image_size(data, kind) is None:
        return issue("custom", path, "Invalid data URI: expected a base64 encoded JPEG, PNG or WebP image")
    return []


def _is_public_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme != "https" or "." not in host or re.search(r"\s", url):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def images(*positions: str) -> Check:
    """One image, or a list of images with a position, each position once."""

    def check(value: Any, path: list[Any]) -> list[Issue]:
        if not isinstance(value, list):
            return image_uri(value, path)
        size = _sized(len(value), 1, len(positions), path, "array", " items")
        if size:
            return size
        fields = {"uri": Field(image_uri), "position": Field(one_of(*positions))}
        found = [one for number, item in enumerate(value) for one in check_object(item, fields, [*path, number])]
        if not found and len({item["position"] for item in value}) < len(value):
            return issue("custom", path, "Each position may be used once")
        return found

    return check


@dataclass(frozen=True)
class Field:
    check: Check
    required: bool = True


@dataclass(frozen=True)
class Model:
    """One model on one endpoint."""

    fields: Mapping[str, Field]
    default_duration_s: int
    credits_per_s: int
    silent_credits_per_s: int | None = None  # None: it has no sound at all

    @property
    def has_audio(self) -> bool:
        return self.silent_credits_per_s is not None


COMMON = {"model": Field(text(1, 100)), "seed": Field(integer(0, 4294967295), required=False)}
_PROMPT = text(1, MAX_PROMPT_UNITS)
_MODERATED = {"contentModeration": Field(moderation, required=False)}
# Only mp4: the other formats of gen4.5 cost extra and are not simulated.
_GEN45 = {"promptText": Field(_PROMPT), "duration": Field(integer(2, 10)), **_MODERATED,
          "outputFormat": Field(one_of("mp4"), required=False)}  # fmt: skip
_VEO = {"ratio": Field(one_of(*VEO)), "duration": Field(one_of(4, 6, 8), required=False),
        "audio": Field(boolean, required=False), "negativePrompt": Field(_PROMPT, required=False)}  # fmt: skip
_VEO_TEXT = {**_VEO, "promptText": Field(_PROMPT)}
_VEO_IMAGE = {**_VEO, "promptText": Field(_PROMPT, required=False), "promptImage": Field(images("first", "last"))}

TEXT_TO_VIDEO = {
    "gen4.5": Model({**_GEN45, "ratio": Field(one_of(*WIDE_TALL))}, 5, 12),
    "veo3.1": Model(_VEO_TEXT, 8, 40, 20),
    "veo3.1_fast": Model(_VEO_TEXT, 8, 15, 10),
}
IMAGE_TO_VIDEO = {
    "gen4.5": Model({**_GEN45, "ratio": Field(one_of(*GEN4_IMAGE)), "promptImage": Field(images("first"))}, 5, 12),
    "gen4_turbo": Model(
        {"promptImage": Field(images("first")), "ratio": Field(one_of(*GEN4_IMAGE)),
         "promptText": Field(_PROMPT, required=False), "duration": Field(integer(2, 10), required=False), **_MODERATED},
        10, 5,
    ),
    "veo3.1": Model(_VEO_IMAGE, 8, 40, 20),
    "veo3.1_fast": Model(_VEO_IMAGE, 8, 15, 10),
}  # fmt: skip


def check_object(value: Any, fields: Mapping[str, Field], path: list[Any]) -> list[Issue]:
    """Every field's issues, then the keys nobody knows."""
    if not isinstance(value, dict):
        return wrong_type("object", value, path)
    found: list[Issue] = []
    for name, rule in fields.items():
        item = value.get(name, MISSING)
        if item is not MISSING or rule.required:
            found += rule.check(item, [*path, name])
    unknown = [name for name in value if name not in fields]
    if unknown:
        listed = ", ".join(json.dumps(name) for name in unknown)
        found += issue("unrecognized_keys", path, f"Unrecognized key{'s' * (len(unknown) > 1)}: {listed}", keys=unknown)
    return found


def check_body(body: Any, models: Mapping[str, Model]) -> list[Issue]:
    """What is wrong with a create body; empty when nothing is."""
    if not isinstance(body, dict):
        return wrong_type("object", body, [])
    name = body.get("model", MISSING)
    if not isinstance(name, str):
        return wrong_type("string", name, ["model"])
    if name not in models:
        return issue(
            "invalid_union",
            ["model"],
            "Invalid input",
            errors=[],
            note="No matching discriminator",
            discriminator="model",
        )
    return check_object(body, {**COMMON, **models[name].fields}, [])
