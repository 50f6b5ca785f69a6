"""An order as clients write it, in the API's words (camelCase), checked strictly: nothing is coerced or ignored.

The API and `generate` read it; the field types also serve the API's other bodies.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cache, cached_property
from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.utils.serializer_helpers import BindingDict

from media_pipeline.encode.cover import AUTO, FIRST, WHAT_IT_MAY_BE, spelled
from media_pipeline.encode.extra_kinds import KINDS
from media_pipeline.encode.extra_kinds import spelled as spelled_kinds
from media_pipeline.encode.rates import MAX_FPS
from media_pipeline.errors import ForbiddenAddress
from media_pipeline.fetch.addresses import check_public_url
from media_pipeline.fetch.links import as_sent
from media_pipeline.pictures import data_uri
from media_pipeline.pictures.headers import HEAD_BYTES, kind_of
from providers import catalogue
from providers.catalogue import UnknownModel
from providers.contract import Reason
from providers.untrusted import storable
from video.actions.visible_text import is_visible
from video.infra.errors import Refusal
from video.models import VideoTask
from video.models.order import SOURCE_FPS, Order, cover_of
from video.models.tasks import MOST_PAIRS
from video.routing import model_choice
from video.routing.private_hosts import origins_allowed
from video.web import uploads
from video.webhooks import receivers

Details = list[dict[str, str]]

LONGEST_TEXT = 10_000  # characters; each model's own limit is far below
# A stranger chooses how many unknown names a body has, and how long they are; the answer's cost and length do not grow
# with either. A suggestion is by far the dearest part.
MOST_UNKNOWN, MOST_SUGGESTED = 10, 3  # names that one answer lists, and those that it looks for a likeness of
LONGEST_SHOWN, LONGEST_SUGGESTED = 80, 40  # characters of such a name
LONGEST_NAME, LONGEST_VALUE = 64, 512  # characters of a pair of metadata
DAY_S = 86_400
MOST_SPENT = 2**31 - 1  # credits
LONGEST_KEPT_S = 3650 * DAY_S
_CONTROLS = re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
LARGEST_SEED = max(model.seed_max for model in catalogue.MODELS)
RATIOS = tuple(dict.fromkeys(r for model in catalogue.MODELS for r in (*model.text_ratios, *model.image_ratios)))


class OrderRefused(Refusal):
    """No model here can make the order. `details` name what is wrong, each with a `message`."""

    def __init__(self, code: str, message: str, details: Details) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class Text(serializers.CharField):
    """A string that is one: numbers are not turned into text. NUL and lone surrogates are refused.

    Never blank, and never without a character that can be seen.
    """

    default_error_messages = {
        "required": "is missing",
        "null": "must be a string, not null",
        "blank": "must not be blank",
        "invisible": "must have a character that can be seen: there are only invisible ones in it",
        "invalid": "must be a string",
        "max_length": "has more than {max_length} characters",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": LONGEST_TEXT, **kwargs})

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str):
            if self.max_length is not None and len(data) > self.max_length:  # first: all else looks at each character
                self.fail("max_length", max_length=self.max_length)
            if not data.strip():
                self.fail("blank")
            if not is_visible(data):
                self.fail("invisible")
        return super().run_validation(data)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data  # as it was sent: a prompt's spaces are its author's


class ImageAddress(Text):
    """Where a start image is: a public https link, an upload of one's own, or the picture itself as data URI; or an
    InlinePicture, of a view that was sent the bytes beside the order.
    """

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, InlinePicture):
            return _begins_well(data)
        if isinstance(data, str) and data_uri.is_data_uri(data):
            return _inline(data)
        return super().run_validation(data)

    def to_internal_value(self, data: Any) -> str:
        url = super().to_internal_value(data)
        if uploads.is_address(url):
            return url.strip()
        try:
            sent = as_sent(url)
            return check_public_url(sent, trusted_origins=origins_allowed(sent))
        except ForbiddenAddress as err:
            raise ValidationError(f"must be a public https link: {err}") from None


class WebhookAddress(Text):
    """Where webhooks are sent: a public https link."""

    def to_internal_value(self, data: Any) -> str:
        try:
            return receivers.checked(super().to_internal_value(data))
        except ForbiddenAddress as err:
            raise ValidationError(f"must be a public https link: {err}") from None


PAIR_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{LONGEST_NAME}}}", re.ASCII)


@dataclass(frozen=True)
class InlinePicture:
    """A picture that came inside the order."""

    data: bytes = dataclass_field(repr=False)


def _inline(text: str) -> InlinePicture:
    """The bytes. Raises PictureRefused if their begin is no picture's."""
    try:
        return _begins_well(InlinePicture(data_uri.decoded(text)))
    except data_uri.BadDataUri as err:
        raise ValidationError(str(err)) from None


def _begins_well(picture: InlinePicture) -> InlinePicture:
    """The same. Raises PictureRefused if its begin is no picture's."""
    if len(picture.data) > settings.UPLOAD_MAX_BYTES:
        raise ValidationError(f"has a picture of more than {settings.UPLOAD_MAX_BYTES:,} bytes in it")
    kind_of(picture.data[:HEAD_BYTES])
    return picture


class Prompt(Text):
    """A text that makes a video. Its controls, which show nothing and which terminals obey, are left out, but for tabs
    and ends of lines; all else is its author's.
    """

    def to_internal_value(self, data: Any) -> str:
        return _CONTROLS.sub("", super().to_internal_value(data))


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


class FrameRate(WholeNumber):
    """Frames a second: a whole number, or "source", which is stored as a number of its own."""

    default_error_messages = {"invalid": f'must be a whole number from 1 to {MAX_FPS}, or "source"'}

    def to_internal_value(self, data: Any) -> int:
        if data == "source":
            return SOURCE_FPS
        if type(data) is not int or not 1 <= data <= MAX_FPS:
            self.fail("invalid")
        return data


class CoverChoice(serializers.Field[str, Any, Any, Any]):
    """Which frame becomes the cover: a word, or a number of seconds; stored in one spelling."""

    default_error_messages = {"invalid": f"must be {WHAT_IT_MAY_BE}"}

    def to_internal_value(self, data: Any) -> str:
        # Seconds are numbers in JSON: no text of digits.
        if type(data) not in (int, float) and data not in (FIRST, AUTO):
            self.fail("invalid")
        try:
            return spelled(data)
        except ValueError:
            self.fail("invalid")

    def to_representation(self, value: str) -> str:
        return value


class ExtraKinds(serializers.Field[list[str], Any, Any, Any]):
    """What is to be made beside the video: a list of words, each once and in one order."""

    default_error_messages = {"invalid": f"must be a list of some of {', '.join(KINDS)}; [] for none"}

    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, list) or not all(isinstance(one, str) for one in data):
            self.fail("invalid")
        try:
            return spelled_kinds(data)
        except ValueError:
            self.fail("invalid")

    def to_representation(self, value: list[str]) -> list[str]:
        return value


class Flag(serializers.BooleanField):
    """True or false: neither "true" nor 1."""

    default_error_messages = {
        "required": "is missing",
        "null": "must be true or false, not null",
        "invalid": "must be true or false, without quotes",
    }

    def to_internal_value(self, data: Any) -> bool:
        if type(data) is not bool:
            self.fail("invalid")
        return data


_PAIR_VALUE = Prompt(max_length=LONGEST_VALUE)


class Metadata(serializers.Field[Any, Any, Any, Any]):
    """A client's own pairs: an object of at most 16 short strings, whose names may stand in the address of a list."""

    default_error_messages = {
        "invalid": 'must be an object of strings, such as {{"project": "spring"}}',
        "too_many": f"has more than {MOST_PAIRS} pairs",
        "name": f"must have names of 1 to {LONGEST_NAME} letters (a to z), digits and the signs _ . -",
    }

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict):
            self.fail("invalid")
        if len(data) > MOST_PAIRS:
            self.fail("too_many")
        if not all(PAIR_NAME.fullmatch(name) for name in data):
            self.fail("name")
        found = {}
        for name, value in data.items():
            try:
                found[name] = _PAIR_VALUE.run_validation(value)
            except ValidationError as err:
                why = "; ".join(map(str, err.detail))
                raise ValidationError(f"{name} {why}") from None
        return found


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

    @cached_property
    def fields(self) -> BindingDict:
        """One set for all requests: nothing of a request is kept in them, and copying them took as long as a check."""
        return _fields_of(type(self))

    def to_internal_value(self, data: Any) -> Any:
        unknown = self._unknown([name for name in data if name not in self.fields])
        try:
            known = super().to_internal_value(data)
        except ValidationError as err:
            raise ValidationError({**unknown, **dict(err.detail)}) from None  # type: ignore[arg-type]
        if unknown:
            raise ValidationError(unknown)
        return {name: value for name, value in known.items() if value is not None}  # null: not given

    def _unknown(self, names: list[str]) -> dict[str, list[str]]:
        """What is said of unknown names: of the first few one by one, of the rest how many they are."""
        said: dict[str, list[str]] = {}
        for place, name in enumerate(names[:MOST_UNKNOWN]):
            shown = storable(name[:LONGEST_SHOWN], LONGEST_SHOWN)
            said.setdefault(shown, []).append(self._why_unknown(name, suggest=place < MOST_SUGGESTED))
        if len(names) > MOST_UNKNOWN:
            said.setdefault("body", []).append(f"has {len(names) - MOST_UNKNOWN} more names that are not known here")
        return said

    def _why_unknown(self, name: str, *, suggest: bool) -> str:
        near = self._nearest(name) if suggest and len(name) <= LONGEST_SUGGESTED else None
        return f"is not known here; did you mean {near}?" if near else "is not known here; leave it out"

    def _nearest(self, name: str) -> str | None:
        squeezed = {str(known).lower(): str(known) for known in self.fields}
        near = difflib.get_close_matches(name.replace("_", "").lower(), squeezed, n=1)
        return squeezed[near[0]] if near else None


@cache
def _fields_of(serializer: type[Strict]) -> BindingDict:
    return super(Strict, serializer()).fields


def refuse_late_cover(order: Order) -> None:
    """Raise ValidationError for a cover behind the end of the video."""
    at_s = cover_of(order)
    if isinstance(at_s, float) and at_s >= order.duration_s:
        raise ValidationError({"cover": [f"must be below {order.duration_s}, the seconds of the video"]})


class CreateSerializer(Strict):
    """POST /api/video/create and quote. `validated_data["order"]` is what will be made, `["models"]` are those that may
    make it, the likely one first, `["metadata"]` the client's own pairs, `["most_credits"]` what it is ready to pay,
    `["picture"]` the bytes of a start image that came along, else None: the order then names the upload of these bytes.

    A model that is named and can't do what is asked is the client's mistake, whatever `fallback` says: that is for
    failures. Only a `fallback: true` in so many words also gets past a named model whose provider has no key here.
    """

    prompt = Prompt()
    duration = WholeNumber(required=False, allow_null=True, min_value=1, source="duration_s")
    aspectRatio = OneOf(RATIOS, required=False, allow_null=True, source="aspect_ratio")
    imageUrl = ImageAddress(required=False, allow_null=True, source="image_url")
    model = Text(required=False, allow_null=True, max_length=80, source="model_requested")
    policy = OneOf(VideoTask.Policy.values, required=False, allow_null=True)
    fallback = Flag(required=False, allow_null=True)
    quality = OneOf(VideoTask.Quality.values, required=False, allow_null=True)
    resolution = OneOf(VideoTask.Resolution.values, required=False, allow_null=True)
    fps = FrameRate(required=False, allow_null=True)
    negativePrompt = Prompt(required=False, allow_null=True, source="negative_prompt")
    seed = WholeNumber(required=False, allow_null=True, min_value=0, max_value=LARGEST_SEED)
    expiresIn = WholeNumber(
        required=False, allow_null=True, min_value=1, max_value=LONGEST_KEPT_S, source="expires_in_s"
    )
    metadata = Metadata(required=False, allow_null=True)
    sound = Flag(required=False, allow_null=True)
    webhookUrl = WebhookAddress(required=False, allow_null=True, source="webhook_url")
    cover = CoverChoice(required=False, allow_null=True)
    extras = ExtraKinds(required=False, allow_null=True)
    maxCredits = WholeNumber(required=False, allow_null=True, min_value=0, max_value=MOST_SPENT, source="most_credits")

    def validate_expiresIn(self, seconds: int | None) -> int | None:
        """Not longer than the operator keeps any video."""
        most = int(settings.KEEP_VIDEOS_DAYS * DAY_S)
        if seconds is not None and most and seconds > most:
            raise ValidationError(f"must be at most {most} seconds: no video is kept for longer here")
        return seconds

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        metadata, most = attrs.pop("metadata", {}), attrs.pop("most_credits", None)
        inline = attrs.get("image_url")
        picture = inline.data if isinstance(inline, InlinePicture) else None
        if picture is not None:
            attrs = {**attrs, "image_url": uploads.address_of(picture)}
        order = Order(**{"duration_s": 5, "aspect_ratio": "16:9", **attrs})
        refuse_late_cover(order)
        models = _models(order, fallback_said=attrs.get("fallback") is True)
        return {
            "order": order,
            "models": models,
            "picture": picture,
            "metadata": metadata,
            "most_credits": most,
        }


def _models(order: Order, *, fallback_said: bool) -> list[str]:
    """Ids of the models that may run the order. Raises ValidationError and OrderRefused."""
    try:
        return model_choice.eligible_models(replace(order, fallback=fallback_said))
    except UnknownModel as err:
        raise ValidationError({"model": [str(err)]}) from None
    except model_choice.ModelUnavailable as err:
        raise unavailable(order, err.reasons) from None
    except model_choice.NoCapableModel as err:
        raise _incapable(err.reasons) from None


def unavailable(order: Order, reasons: dict[str, Reason]) -> OrderRefused:
    """The refusal of an order that no model of this server may run, though nothing is wrong with it."""
    others = [model.id for model in model_choice.models_here() if model.id not in reasons]
    hint = f"available are {', '.join(others)}" if others else "leave the model out, or ask the operator"
    if not model_choice.models_here():
        message = "no provider has a key on this server"
    elif order.model_requested:
        model = catalogue.find(order.model_requested, image=bool(order.image_url))
        why = reasons.get(model.id, "not available")
        message = f"{order.model_requested} can't be used here: {why}; {hint}"
    else:
        message = "no model that could make this video is available here"
    return OrderRefused("model_unavailable", f"model: {message}.", [{"field": "model", "message": message}])


def _incapable(reasons: dict[str, Reason]) -> OrderRefused | ValidationError:
    """The refusal of a video that no model can make; `reasons` by model id.

    One field that is wrong for every model is named like any other wrong field; else each model's own reason is listed.
    """
    # A model for the other kind of request (text or image) hides what is wrong, if another model names another field.
    telling = [why for why in reasons.values() if why.field not in ("", "imageUrl")] or list(reasons.values())
    fields = {why.field for why in telling if why.field}
    if len(fields) == 1:
        return ValidationError({fields.pop(): ["; ".join(why.text if why.field else "" for why in telling)]})
    details = [{"model": model, "field": why.field or "model", "message": why.text} for model, why in reasons.items()]
    message = f"No model can make this video; {' and '.join(sorted(fields))} don't go together."
    return OrderRefused("no_capable_model", message, details)


def flatten(detail: Any) -> Details:
    """The nested errors of a ValidationError as [{field, message}]."""
    return [
        {"field": field, "message": str(message)}
        for field, messages in (detail if isinstance(detail, dict) else {"body": detail}).items()
        for message in (messages if isinstance(messages, list) else [messages])
    ]
