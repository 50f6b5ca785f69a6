"""The models we offer, as data: abilities, prices, limits, and the names that users may call them by.

Sources, all read as of 2026-11-23 (nothing was called live):
- Runway: https://docs.dev.runwayml.com (models, errors, tiers), the `runwayml` 5.24.0 package's request types, and
  https://github.com/runwayml/skills for credits per second. 1 credit is $0.01.
- Pika, served by fal: https://fal.ai/models/fal-ai/pika (`/api` and `/llms.txt` of each model). Pika runs no public
  video API of its own any more.
- Kling: https://kling.ai/document-api (model pages and price list of the newer standard).

Prices are what the provider charges us, in USD per second of video; what users pay is in credits and set elsewhere.
Quality and speed grades and render times are our judgement from public descriptions, for ranking before there is
anything better: measured figures replace them at run time.

Left out on purpose: models without a published schema (Pika 2.5, Kling o1 and 3.0-omni), those that need more than one
image, and other vendors' models resold by Runway but for Veo.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from providers.contract import GenerationRequest, Reason, ReasonCode

#: When the figures below were last compared with their sources.
CHECKED_ON = "2026-11-23"


class Sound(StrEnum):
    """Whether a model's videos have sound."""

    NEVER = "never"
    OPTIONAL = "optional"  # asked for, and priced by it
    ALWAYS = "always"


class PromptUnit(StrEnum):
    """What a provider counts when it limits a prompt."""

    CHARACTERS = "characters"
    UTF16 = "UTF-16 units"  # an emoji counts two


@dataclass(frozen=True)
class Model:
    """One model. Ratios are "W:H"; an empty `image_ratios` means that the image's own shape decides."""

    id: str
    provider: str
    title: str
    text: bool  # makes a video from a prompt alone
    image: bool  # makes a video from a start image (and a prompt)
    durations_s: frozenset[int]
    text_ratios: tuple[str, ...]
    image_ratios: tuple[str, ...]
    price_usd_per_s: Mapping[str, Decimal]  # by resolution (the render's short side); its keys are the resolutions
    quality: int  # 1..5, 5 is best
    speed: int  # 1..5, 5 is fastest
    typical_render_s: int
    longest_render_s: int  # after that a job that nobody can look up is given up
    prompt_limit: int
    source: str
    sound: Sound = Sound.NEVER
    sound_price_usd_per_s: Mapping[str, Decimal] = field(default_factory=dict)  # where sound is OPTIONAL
    seed: bool = False
    seed_max: int = 2**32 - 1
    negative_prompt: bool = False
    prompt_unit: PromptUnit = PromptUnit.CHARACTERS
    image_needs_prompt: bool = True
    price_note: str = ""  # what is a guess in the prices

    @property
    def resolutions(self) -> tuple[str, ...]:
        return tuple(self.price_usd_per_s)

    def ratios(self, *, image: bool) -> tuple[str, ...]:
        return self.image_ratios if image else self.text_ratios


class UnknownModel(KeyError):
    """No such model or alias. `suggestions` are ids that look alike, best first."""

    def __init__(self, name: str, suggestions: tuple[str, ...]) -> None:
        super().__init__(name)
        self.name = name
        self.suggestions = suggestions

    def __str__(self) -> str:  # KeyError's own would be a quoted repr
        hint = f" Did you mean {' or '.join(self.suggestions)}?" if self.suggestions else ""
        return f"There is no model {self.name[:80]!r}.{hint}"


def _usd(**by_resolution: str) -> Mapping[str, Decimal]:
    return MappingProxyType({name.lstrip("r"): Decimal(price) for name, price in by_resolution.items()})


_RUNWAY_IMAGE_RATIOS = ("16:9", "9:16", "4:3", "3:4", "1:1", "21:9")
_PIKA_RATIOS = ("16:9", "9:16", "1:1", "4:5", "5:4", "3:2", "2:3")
_KLING_RATIOS = ("16:9", "9:16", "1:1")
_RUNWAY_DOCS = "https://docs.dev.runwayml.com"
_PIKA_DOCS = "https://fal.ai/models/fal-ai/pika"
_KLING_DOCS = "https://kling.ai/document-api"

MODELS: tuple[Model, ...] = (
    Model(
        id="gen4.5",
        provider="runway",
        title="Runway Gen-4.5",
        text=True,
        image=True,
        durations_s=frozenset(range(2, 11)),
        text_ratios=("16:9", "9:16"),
        image_ratios=_RUNWAY_IMAGE_RATIOS,
        price_usd_per_s=_usd(r720p="0.12"),
        quality=5,
        speed=3,
        typical_render_s=120,
        longest_render_s=1800,
        prompt_limit=1000,
        prompt_unit=PromptUnit.UTF16,
        seed=True,
        source=_RUNWAY_DOCS,
    ),
    Model(
        id="gen4_turbo",
        provider="runway",
        title="Runway Gen-4 Turbo",
        text=False,
        image=True,
        durations_s=frozenset(range(2, 11)),  # an older rule was 5 or 10; 2..10 is from a reseller's page
        text_ratios=(),
        image_ratios=_RUNWAY_IMAGE_RATIOS,
        price_usd_per_s=_usd(r720p="0.05"),
        quality=4,
        speed=5,
        typical_render_s=40,
        longest_render_s=1200,
        prompt_limit=1000,
        prompt_unit=PromptUnit.UTF16,
        image_needs_prompt=False,
        seed=True,
        source=_RUNWAY_DOCS,
    ),
    Model(
        id="veo3.1",
        provider="runway",
        title="Veo 3.1 (through Runway)",
        text=True,
        image=True,
        durations_s=frozenset({4, 6, 8}),
        text_ratios=("16:9", "9:16"),
        image_ratios=("16:9", "9:16"),
        price_usd_per_s=_usd(r720p="0.20", r1080p="0.20"),
        sound=Sound.OPTIONAL,
        sound_price_usd_per_s=_usd(r720p="0.40", r1080p="0.40"),
        quality=5,
        speed=2,
        typical_render_s=150,
        longest_render_s=1800,
        prompt_limit=1000,
        prompt_unit=PromptUnit.UTF16,
        image_needs_prompt=False,
        negative_prompt=True,
        source=_RUNWAY_DOCS,
        price_note="20 to 40 credits a second are published; silent and with sound is our reading of the range",
    ),
    Model(
        id="veo3.1_fast",
        provider="runway",
        title="Veo 3.1 Fast (through Runway)",
        text=True,
        image=True,
        durations_s=frozenset({4, 6, 8}),
        text_ratios=("16:9", "9:16"),
        image_ratios=("16:9", "9:16"),
        price_usd_per_s=_usd(r720p="0.10", r1080p="0.10"),
        sound=Sound.OPTIONAL,
        sound_price_usd_per_s=_usd(r720p="0.15", r1080p="0.15"),
        quality=4,
        speed=4,
        typical_render_s=75,
        longest_render_s=1800,
        prompt_limit=1000,
        prompt_unit=PromptUnit.UTF16,
        image_needs_prompt=False,
        negative_prompt=True,
        source=_RUNWAY_DOCS,
        price_note="10 to 15 credits a second are published; silent and with sound is our reading of the range",
    ),
    Model(
        id="pika-2.2",
        provider="pika",
        title="Pika 2.2",
        text=True,
        image=True,
        durations_s=frozenset({5, 10}),
        text_ratios=_PIKA_RATIOS,
        image_ratios=(),
        price_usd_per_s=_usd(r720p="0.04", r1080p="0.09"),
        quality=3,
        speed=3,
        typical_render_s=90,
        longest_render_s=1800,
        prompt_limit=2000,  # none is stated; ours keeps a body small
        seed=True,
        negative_prompt=True,
        source=_PIKA_DOCS + "/v2.2/text-to-video",
        price_note="published for 5 s; 10 s as double is a guess",
    ),
    Model(
        id="pika-2.1",
        provider="pika",
        title="Pika 2.1",
        text=True,
        image=True,
        durations_s=frozenset({5}),  # "integer, default 5"; no other value or price is stated
        text_ratios=_PIKA_RATIOS,
        image_ratios=(),
        price_usd_per_s=_usd(r720p="0.08", r1080p="0.08"),
        quality=3,
        speed=2,
        typical_render_s=110,
        longest_render_s=1800,
        prompt_limit=2000,
        seed=True,
        negative_prompt=True,
        source=_PIKA_DOCS + "/v2.1/text-to-video",
    ),
    Model(
        id="pika-turbo",
        provider="pika",
        title="Pika 2 Turbo",
        text=True,
        image=True,
        durations_s=frozenset({5}),
        text_ratios=_PIKA_RATIOS,
        image_ratios=(),
        price_usd_per_s=_usd(r720p="0.04", r1080p="0.04"),
        quality=2,
        speed=5,
        typical_render_s=45,
        longest_render_s=1200,
        prompt_limit=2000,
        seed=True,
        negative_prompt=True,
        source=_PIKA_DOCS + "/v2/turbo/text-to-video",
    ),
    Model(
        id="kling-3.0",
        provider="kling",
        title="Kling 3.0",
        text=True,
        image=True,
        durations_s=frozenset(range(3, 16)),
        text_ratios=_KLING_RATIOS,
        image_ratios=(),
        # 4k is left out: only its price with unknown sound is published, and storage is made for 1080p.
        price_usd_per_s=_usd(r720p="0.084", r1080p="0.112"),
        sound=Sound.OPTIONAL,
        sound_price_usd_per_s=_usd(r720p="0.126", r1080p="0.168"),
        quality=5,
        speed=2,
        typical_render_s=180,
        longest_render_s=3600,
        prompt_limit=2500,  # 3072 for text on the newer standard; 2500 holds everywhere
        source=_KLING_DOCS,
    ),
    Model(
        id="kling-3.0-turbo",
        provider="kling",
        title="Kling 3.0 Turbo",
        text=True,
        image=True,
        durations_s=frozenset(range(3, 16)),
        text_ratios=_KLING_RATIOS,
        image_ratios=(),
        price_usd_per_s=_usd(r720p="0.112", r1080p="0.14"),
        sound=Sound.ALWAYS,
        quality=4,
        speed=4,
        typical_render_s=90,
        longest_render_s=3600,
        prompt_limit=2500,
        source=_KLING_DOCS,
    ),
    Model(
        id="kling-2.6",
        provider="kling",
        title="Kling 2.6",
        text=True,
        image=True,
        durations_s=frozenset({5, 10}),
        text_ratios=_KLING_RATIOS,
        image_ratios=(),
        price_usd_per_s=_usd(r720p="0.042", r1080p="0.07"),
        sound=Sound.OPTIONAL,
        sound_price_usd_per_s=_usd(r1080p="0.14"),  # sound at 1080p only
        quality=4,
        speed=3,
        typical_render_s=150,
        longest_render_s=3600,
        prompt_limit=2500,
        source=_KLING_DOCS,
    ),
    Model(
        id="kling-2.5-turbo",
        provider="kling",
        title="Kling 2.5 Turbo",
        text=True,
        image=True,
        durations_s=frozenset({5, 10}),
        text_ratios=_KLING_RATIOS,
        image_ratios=(),
        price_usd_per_s=_usd(r720p="0.042", r1080p="0.07"),
        quality=4,
        speed=4,
        typical_render_s=110,
        longest_render_s=3600,
        prompt_limit=2500,
        source=_KLING_DOCS,
    ),
)

BY_ID: Mapping[str, Model] = MappingProxyType({model.id: model for model in MODELS})

#: Other names in lower case: (id for text, id for image). Retired ids mean what comes nearest to them today; the answer
#: to the user says which model really ran.
ALIASES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        # Runway took gen3a_turbo (and veo3) out of service in June 2026; it never made videos from text alone.
        "runway": ("gen4.5", "gen4_turbo"),
        "runway-gen3": ("gen4.5", "gen4_turbo"),
        "gen3a_turbo": ("gen4.5", "gen4_turbo"),
        "gen3": ("gen4.5", "gen4_turbo"),
        "gen-3": ("gen4.5", "gen4_turbo"),
        "gen-4.5": ("gen4.5", "gen4.5"),
        "gen4": ("gen4.5", "gen4_turbo"),
        "gen4-turbo": ("gen4_turbo", "gen4_turbo"),
        "veo3": ("veo3.1", "veo3.1"),
        # No API model was ever called "Pika 1.0"; 2.2 is Pika's best on fal, at the cheapest price.
        "pika": ("pika-2.2", "pika-2.2"),
        "pika-1.0": ("pika-2.2", "pika-2.2"),
        "pika-2-turbo": ("pika-turbo", "pika-turbo"),
        **{
            f"fal-ai/pika/{path}{kind}": (ours, ours)
            for path, ours in (("v2.2", "pika-2.2"), ("v2.1", "pika-2.1"), ("v2/turbo", "pika-turbo"))
            for kind in ("", "/text-to-video", "/image-to-video")
        },
        "kling": ("kling-2.5-turbo", "kling-2.5-turbo"),
        "kling-v3": ("kling-3.0", "kling-3.0"),
        "kling-v2-6": ("kling-2.6", "kling-2.6"),
        "kling-v2-5-turbo": ("kling-2.5-turbo", "kling-2.5-turbo"),
        # "The model 'kling-v1' has been discontinued"; the rest exist on the older standard only, and go one by one.
        **dict.fromkeys(
            ("kling-v1", "kling-v1-5", "kling-v1-6", "kling-v2-master", "kling-v2-1", "kling-v2-1-master"),
            ("kling-2.5-turbo", "kling-2.5-turbo"),
        ),
    }
)


def find(model_or_alias: str, *, image: bool) -> Model:
    """The model that a name means today; some names mean one for text and another for images.

    Raises UnknownModel, with what looks alike.
    """
    name = model_or_alias.strip().lower()
    if name in BY_ID:
        return BY_ID[name]
    if name in ALIASES:
        return BY_ID[ALIASES[name][1 if image else 0]]
    raise UnknownModel(model_or_alias, tuple(difflib.get_close_matches(name, [*BY_ID, *ALIASES], n=3, cutoff=0.6)))


def can(model: Model, request: GenerationRequest) -> Reason | None:
    """Why the model cannot make this video, with the field that is at fault; None when it can."""
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
    return None


def _incapable(field: str, text: str) -> Reason:
    return Reason(ReasonCode.INCAPABLE, text, field)


def price_usd(model: Model, duration_s: int, resolution: str, sound: bool = False) -> Decimal:
    """What the provider charges for one video, in USD. Raises ValueError for a resolution that the model lacks."""
    with_sound = sound and model.sound is Sound.OPTIONAL
    prices = model.sound_price_usd_per_s if with_sound else model.price_usd_per_s
    if resolution not in prices:
        raise ValueError(f"{model.id} has no price for {resolution}{' with sound' if with_sound else ''}")
    return prices[resolution] * duration_s


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
