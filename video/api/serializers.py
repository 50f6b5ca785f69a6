"""What clients send, in their words (camelCase), checked without mercy or guessing: nothing is coerced or ignored."""

from __future__ import annotations

import difflib
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from media_pipeline.addresses import check_public_url, origin
from media_pipeline.errors import ForbiddenAddress
from providers import catalogue
from providers.base import GenerationRequest
from providers.catalogue import Model, UnknownModel
from video.api.errors import ApiError
from video.creation import Order
from video.models import VideoTask

DEFAULT_MODEL = "runway-gen3"  # what runs when the client names none; admission decides the same
LONGEST_TEXT = 10_000  # characters; each model's own limit is far below
#: Planned, and refused until then: a client must not believe that they work.
NOT_YET = frozenset({"policy", "fallback", "webhookUrl"})
RATIOS = tuple(dict.fromkeys(r for model in catalogue.MODELS for r in (*model.text_ratios, *model.image_ratios)))


class Text(serializers.CharField):
    """A string that is one: numbers are not turned into text. Never blank; NUL and lone surrogates are refused."""

    default_error_messages = {
        "required": "is missing",
        "null": "must be a string, not null",
        "blank": "must not be blank",
        "invalid": "must be a string",
        "max_length": "has more than {max_length} characters",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": LONGEST_TEXT, **kwargs})

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str) and not data.strip():
            self.fail("blank")
        return super().run_validation(data)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data  # as it was sent: a prompt's spaces are its author's


class WholeNumber(serializers.IntegerField):
    """An integer that is one: neither "5" nor 5.0 nor true."""

    default_error_messages = {
        "required": "is missing",
        "null": "must be a whole number, not null",
        "invalid": "must be a whole number without quotes, such as 5",
        "min_value": "must be at least {min_value}",
        "max_value": "must be at most {max_value}",
    }

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return data


class OneOf(Text):
    """One of a few words."""

    def __init__(self, words: list[str] | tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words = tuple(words)

    def to_internal_value(self, data: Any) -> str:
        if data not in self.words:
            raise ValidationError(f"must be one of {', '.join(self.words)}")
        return str(data)


class Strict(serializers.Serializer[Any]):
    """Refuses names that it doesn't know, together with everything else that is wrong."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = {name[:80]: [self._why_unknown(name)] for name in data if name not in self.fields}
        try:
            known = super().to_internal_value(data)
        except ValidationError as err:
            raise ValidationError({**unknown, **dict(err.detail)}) from None  # type: ignore[arg-type]
        if unknown:
            raise ValidationError(unknown)
        return {name: value for name, value in known.items() if value is not None}  # null: not given

    def _why_unknown(self, name: str) -> str:
        if name in NOT_YET:
            return "can't be chosen yet; leave it out"
        squeezed = {str(known).lower(): str(known) for known in self.fields}
        near = difflib.get_close_matches(name.replace("_", "").lower()[:80], squeezed, n=1)
        return f"is not known here; did you mean {squeezed[near[0]]}?" if near else "is not known here; leave it out"


class LoginSerializer(Strict):
    """POST /api/auth/login."""

    username = Text(max_length=150)
    password = Text(max_length=1024)


class RefreshSerializer(Strict):
    """POST /api/auth/refresh: the body is for clients that keep no cookies."""

    refreshToken = Text(required=False, allow_null=True, source="refresh_token")


class CreateSerializer(Strict):
    """POST /api/video/create. `validated_data["order"]` is what will be made, `["model"]` the one that would run."""

    prompt = Text()
    duration = WholeNumber(required=False, allow_null=True, source="duration_s")
    aspectRatio = OneOf(RATIOS, required=False, allow_null=True, source="aspect_ratio")
    imageUrl = Text(required=False, allow_null=True, source="image_url")
    model = Text(required=False, allow_null=True, max_length=80, source="model_requested")
    quality = OneOf(VideoTask.Quality.values, required=False, allow_null=True)
    resolution = OneOf(VideoTask.Resolution.values, required=False, allow_null=True)
    fps = WholeNumber(required=False, allow_null=True, min_value=1, max_value=120)
    negativePrompt = Text(required=False, allow_null=True, source="negative_prompt")
    seed = WholeNumber(required=False, allow_null=True)

    def validate_imageUrl(self, url: str | None) -> str | None:
        if url is not None:
            try:
                check_public_url(url, trusted_origins=_excepted(url))
            except ForbiddenAddress as err:
                raise ValidationError(f"must be a public https link: {err}") from None
        return url

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        order = Order(**{"duration_s": 5, "aspect_ratio": "16:9", **attrs})
        model = _model(order)
        _refuse_impossible(model, order)
        return {"order": order, "model": model}


def _excepted(url: str) -> frozenset[str]:
    """The URL's own origin if PRIVATE_HOSTS_ALLOWED has its host (or host:port), else nothing."""
    try:
        parts = urlsplit(url)
        allowed = {parts.hostname, parts.netloc.lower()} & {host.lower() for host in settings.PRIVATE_HOSTS_ALLOWED}
        return frozenset({origin(url)}) if allowed else frozenset()
    except ValueError:
        return frozenset()


def _model(order: Order) -> Model:
    """The model that would run. Raises ValidationError, or ApiError `model_unavailable`."""
    try:
        model = catalogue.find(order.model_requested or DEFAULT_MODEL, image=bool(order.image_url))
    except UnknownModel as err:
        raise ValidationError({"model": [str(err)]}) from None
    available = available_providers()
    if model.provider in available:
        return model
    others = [other.id for other in catalogue.MODELS if other.provider in available]
    hint = f"available are {', '.join(others)}" if others else "no provider has a key on this server"
    named = order.model_requested or f"the default, {model.id}"
    message = f"{named} can't be used: {model.provider} has no key on this server; {hint}"
    raise ApiError(400, "model_unavailable", f"model: {message}.", [{"field": "model", "message": message}])


def available_providers() -> frozenset[str]:
    """Providers that have both an adapter and a key here."""
    from video import kit  # it brings HTTP clients and media code, which most API calls need not wait for

    return frozenset(adapter.name for adapter in kit.ADAPTERS if settings.PROVIDER_KEYS.get(adapter.name))


def _refuse_impossible(model: Model, order: Order) -> None:
    why = catalogue.can(
        model,
        GenerationRequest(
            model=model.id,
            prompt=order.prompt,
            duration_s=order.duration_s,
            aspect_ratio=order.aspect_ratio,
            image_url=order.image_url or None,
            negative_prompt=order.negative_prompt or None,
            seed=order.seed,
        ),
    )
    if why is not None:
        field, _, message = why.partition(": ")
        raise ValidationError({field: [message]})
    length = catalogue.prompt_length(model, order.negative_prompt)
    if length > model.prompt_limit:
        message = f"{model.title} takes at most {model.prompt_limit} {model.prompt_unit}, this has {length}"
        raise ValidationError({"negativePrompt": [message]})


def fields_of(request: Request, serializer: type[Strict]) -> Any:
    """The checked fields of a body. Raises ValidationError, which the API answers as 400 `invalid_request`."""
    checked = serializer(data=request.data)
    checked.is_valid(raise_exception=True)
    return checked.validated_data
