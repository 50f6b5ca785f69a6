"""What a client asks for, checked; before it is a task.

`Order` is the one list of a request's fields. What is derived from it: the INSERT of a task, the order that a retry
makes of its task, what a provider is asked for, the request in a task's details, the facts on its admin page, and the
arguments of `manage.py generate`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from media_pipeline.encode.cover import AUTO, FIRST
from media_pipeline.encode.extra_kinds import KINDS

#: `fps` of an order that keeps the rate of its source: the column holds numbers, clients say "source".
SOURCE_FPS = 0


@dataclass(frozen=True)
class About:
    """What the rest of the program needs to know about one field of an order."""

    api: str  # its name in the API
    help: str  # for the command line
    label: str  # on the admin page
    null_if_blank: bool  # an empty text is null in JSON, and None for a provider


def _asked(api: str, help_text: str, *, label: str = "", null_if_blank: bool = False) -> dict[str, About]:
    in_words = re.sub("[A-Z]", lambda letter: f" {letter[0].lower()}", api).capitalize()
    return {"about": About(api, help_text, label or in_words, null_if_blank)}


#: Fields that came after the first Idempotency-Keys were bound to orders.
_LATER = frozenset({"expires_in_s", "sound", "webhook_url", "cover", "extras"})


@dataclass(frozen=True)
class Order:
    """What a client asks for, checked. The fields stand in the order of the API's JSON."""

    prompt: str = field(metadata=_asked("prompt", "what the video is to show"))
    duration_s: int = field(metadata=_asked("duration", "seconds (default 5)", label="Length"))
    aspect_ratio: str = field(metadata=_asked("aspectRatio", "such as 16:9 (default) or 9:16", label="Ratio"))
    image_url: str = field(
        default="",
        metadata=_asked(
            "imageUrl",
            "https link, upload:// address or data: URI of a start image",
            label="Start image",
            null_if_blank=True,
        ),
    )
    model_requested: str = field(
        default="",
        metadata=_asked("model", "such as runway-gen3, gen4.5, gen4_turbo (default: our choice)", null_if_blank=True),
    )
    policy: str = field(default="balanced", metadata=_asked("policy", "how to choose a model (default balanced)"))
    fallback: bool = field(default=True, metadata=_asked("fallback", "this model or none"))
    quality: str = field(default="medium", metadata=_asked("quality", "of the transcode (default medium)"))
    resolution: str = field(default="source", metadata=_asked("resolution", "the short side (default: as it comes)"))
    fps: int = field(default=30, metadata=_asked("fps", "frames a second, 1 to 60, or source (default 30)"))
    negative_prompt: str = field(
        default="",
        metadata=_asked("negativePrompt", "what it is not to show", label="Not wanted", null_if_blank=True),
    )
    seed: int | None = field(default=None, metadata=_asked("seed", "for repeatable results, where the model can"))
    expires_in_s: int | None = field(
        default=None,
        metadata=_asked("expiresIn", "seconds after which the finished video is deleted", label="Deleted after"),
    )
    sound: bool | None = field(
        default=None,
        metadata=_asked("sound", "with sound, or without any (default: silent where the model lets us choose)"),
    )
    webhook_url: str | None = field(
        default=None, metadata=_asked("webhookUrl", "https link that this task's events are posted to", label="Webhook")
    )
    cover: str | None = field(
        default=None,
        metadata=_asked("cover", "frame of the cover picture: first, auto, or a second (default: as COVER says)"),
    )
    extras: list[str] | None = field(
        default=None,
        metadata=_asked(
            "extras",
            f"what is made beside the video, of {','.join(KINDS)} (default: as EXTRAS says)",
            label="Made beside it",
        ),
    )

    @classmethod
    def of(cls, task: Any) -> Order:
        """The order that a task was made from."""
        return cls(**{name: getattr(task, name) for name in ABOUT})

    def fingerprint(self, **beside: Any) -> str:
        """Equal for equal orders; what an Idempotency-Key is bound to. `beside`: what else the request says, if it
        does.

        Fields that came later count only where they are given, so that earlier keys still stand for their orders.
        """
        asked = {name: value for name, value in asdict(self).items() if not (name in _LATER and value is None)}
        asked |= {name: value for name, value in beside.items() if value}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


#: By the name of the field, which is a column of VideoTask too.
ABOUT: dict[str, About] = {asked.name: asked.metadata["about"] for asked in fields(Order)}


def values(wanted: Any) -> dict[str, Any]:
    """The fields of an order, or of a task made from one, by their names; a blank text is None where it means none."""
    found = {name: getattr(wanted, name) for name in ABOUT}
    return {name: None if value == "" and ABOUT[name].null_if_blank else value for name, value in found.items()}


def fps_of(wanted: Any) -> int | Literal["source"]:
    """The frames a second of an order or a task, as clients write them."""
    return "source" if wanted.fps == SOURCE_FPS else int(wanted.fps)


def cover_of(wanted: Any) -> str | float | None:
    """The cover of an order or a task, as clients write it."""
    return wanted.cover if wanted.cover in (None, FIRST, AUTO) else float(wanted.cover)


def as_json(wanted: Any) -> dict[str, Any]:
    """The same by the API's names, as a task's details show them."""
    found = {**values(wanted), "fps": fps_of(wanted), "cover": cover_of(wanted)}
    return {ABOUT[name].api: value for name, value in found.items()}
