"""What a model is, and whether it can make a video: the words that each provider's `models.py` is written in.

Prices are what the provider charges us, in USD per second of video; what users pay is in credits and set elsewhere.
Quality and speed grades and render times are our judgement from public descriptions, for ranking before there is
anything better: measured figures replace them at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from providers.contract import GenerationRequest, Reason, ReasonCode
from providers.errors import RequestRejected


class Sound(StrEnum):
    """Whether a model's videos have sound."""

    NEVER = "never"
    OPTIONAL = "optional"  # asked for, and priced by it
    ALWAYS = "always"


class PromptUnit(StrEnum):
    """What a provider counts when it limits a prompt."""

    CHARACTERS = "characters"
    UTF16 = "UTF-16 units"  # an emoji counts two


JPEG, PNG, WEBP = "image/jpeg", "image/png", "image/webp"


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What a model takes as a start image. A picture of another type, or with more bytes, is encoded anew to fit."""

    types: tuple[str, ...] = (JPEG, PNG, WEBP)
    max_bytes: int = 5_000_000  # of the file, before base64
    least_px: int = 1  # of its short side
    widest: float = 50.0  # of its long side to its short one


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model. Ratios are "W:H"; an empty `image_ratios` means that the image's own shape decides."""

    id: str
    provider: str
    title: str
    text: bool = True  # makes a video from a prompt alone
    image: bool = True  # makes a video from a start image (and a prompt)
    durations_s: frozenset[int]
    text_ratios: tuple[str, ...]
    image_ratios: tuple[str, ...] = ()
    price_usd_per_s: Mapping[str, Decimal]  # by resolution (the render's short side); its keys are the resolutions
    quality: int  # 1..5, 5 is best
    speed: int  # 1..5, 5 is fastest
    typical_render_s: int
    longest_render_s: int  # after that a job that can no longer be polled is given up
    prompt_limit: int
    source: str
    sound: Sound = Sound.NEVER
    sound_price_usd_per_s: Mapping[str, Decimal] = field(default_factory=dict)  # where sound is OPTIONAL
    seed: bool = False
    seed_max: int = 2**32 - 1
    negative_prompt: bool = False
    prompt_unit: PromptUnit = PromptUnit.CHARACTERS
    image_needs_prompt: bool = True
    image_limits: ImageLimits = ImageLimits()
    price_note: str = ""  # what is a guess in the prices

    @property
    def resolutions(self) -> tuple[str, ...]:
        return tuple(self.price_usd_per_s)

    def ratios(self, *, image: bool) -> tuple[str, ...]:
        return self.image_ratios if image else self.text_ratios


def usd(**by_resolution: str) -> Mapping[str, Decimal]:
    """Prices in USD by resolution: `usd(r720p="0.12")`."""
    return MappingProxyType({name.lstrip("r"): Decimal(price) for name, price in by_resolution.items()})


def can(model: Model, request: GenerationRequest) -> Reason | None:
    """Why the model cannot make this video, with the field that is at fault; None when it can.

    `request.model` is not read.
    """
    image = request.image_url is not None
    if image and not model.image:
        return _incapable("imageUrl", f"{model.title} makes videos from text only")
    if not image and not model.text:
        return _incapable("imageUrl", f"{model.title} needs a start image")
    if not request.prompt.strip() and (not image or model.image_needs_prompt):
        return _incapable("prompt", f"{model.title} needs one")
    length = prompt_length(model, request.prompt)
    if length > model.prompt_limit:
        return _incapable(
            "prompt", f"{model.title} takes at most {model.prompt_limit} {model.prompt_unit}, this has {length}"
        )
    if request.duration_s not in model.durations_s:
        return _incapable(
            "duration", f"{model.title} makes {_spoken(model.durations_s)} seconds, not {request.duration_s}"
        )
    ratios = model.ratios(image=image)
    if ratios and request.aspect_ratio not in ratios:
        what = "from an image" if image else "from text"
        return _incapable("aspectRatio", f"{model.title} makes {', '.join(ratios)} {what}, not {request.aspect_ratio}")
    if request.resolution not in model.resolutions:
        return _incapable("resolution", f"{model.title} makes {', '.join(model.resolutions)}, not {request.resolution}")
    if request.sound is False and model.sound is Sound.ALWAYS:
        return _incapable("sound", f"{model.title} makes videos with sound only")
    if request.sound and model.sound is Sound.NEVER:
        return _incapable("sound", f"{model.title} makes silent videos")
    if request.sound and model.sound is Sound.OPTIONAL and request.resolution not in model.sound_price_usd_per_s:
        return _incapable("sound", f"{model.title} makes sound at {', '.join(model.sound_price_usd_per_s)} only")
    if request.negative_prompt and not model.negative_prompt:
        return _incapable("negativePrompt", f"{model.title} takes none")
    if request.seed is not None and not model.seed:
        return _incapable("seed", f"{model.title} takes none")
    if request.seed is not None and not 0 <= request.seed <= model.seed_max:
        return _incapable("seed", f"{model.title} takes 0 to {model.seed_max}")
    length = prompt_length(model, request.negative_prompt or "")
    if length > model.prompt_limit:
        text = f"{model.title} takes at most {model.prompt_limit} {model.prompt_unit}, not {length}"
        return _incapable("negativePrompt", text)
    return None


def has_sound(model: Model, asked: bool | None) -> bool:
    """Whether the model's video has sound, of a request that it can make."""
    return model.sound is Sound.ALWAYS or (model.sound is Sound.OPTIONAL and asked is True)


def image_problem(model: Model, width_px: int, height_px: int) -> Reason | None:
    """Why the model cannot begin with a picture of this size, as it is seen; None when it can."""
    limits, short, long = model.image_limits, *sorted((width_px, height_px))
    size = f"{width_px}x{height_px} pixels"
    if short < limits.least_px:
        return _incapable("imageUrl", f"{model.title} needs at least {limits.least_px} pixels a side, this has {size}")
    if long > limits.widest * short:
        return _incapable(
            "imageUrl", f"{model.title} takes 1:{limits.widest:g} to {limits.widest:g}:1, this has {size}"
        )
    return None


def capable_model(models: Sequence[Model], request: GenerationRequest) -> Model:
    """The one of a provider's models that the request names. Raises RequestRejected unless it can make the video."""
    model = next((model for model in models if model.id == request.model), None)
    if model is None:
        raise RequestRejected(f"the provider has no model {request.model!r}")
    reason = can(model, request)
    if reason is not None:
        raise RequestRejected(str(reason), user_message=str(reason))
    return model


def _incapable(field: str, text: str) -> Reason:
    return Reason(ReasonCode.INCAPABLE, text, field)


def prompt_length(model: Model, prompt: str) -> int:
    """The prompt's length as this provider counts it."""
    if model.prompt_unit is PromptUnit.UTF16:
        return len(prompt.encode("utf-16-le", "surrogatepass")) // 2
    return len(prompt)


def _spoken(durations_s: frozenset[int]) -> str:
    several = sorted(durations_s)
    if len(several) > 2 and several == list(range(several[0], several[-1] + 1)):
        return f"{several[0]} to {several[-1]}"
    return " or ".join(str(one) for one in several)
