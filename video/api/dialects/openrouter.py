"""OpenRouter's video generation at /api/v1/videos.

Sources: the published clients `openrouter` 1.3.84 (Python: video_generation.py, components/video*.py) and
`@openrouter/ai-sdk-provider` 3.1.0 (its video model), read 2026-11-28. Both read more statuses than we have.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.http import HttpResponse, HttpResponseRedirect
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from providers import catalogue
from providers.models import Model, Sound
from video.api import errors, idempotency
from video.api.base import PublicApiView
from video.api.dialects import base, facts, words
from video.api.dialects.facts import Facts
from video.api.views.video import origin_of
from video.models import Scope
from video.routing import model_choice
from video.web import answers, shapes

PATH = shapes.OPENROUTER
_NAMES = {
    "prompt": "prompt",
    "model": "model",
    "duration": "duration",
    "aspectRatio": "aspect_ratio",
    "resolution": "resolution",
    "seed": "seed",
    "sound": "generate_audio",
    "webhookUrl": "callback_url",
    "imageUrl": "frame_images",
}
#: Said of a request, for its sender's own records. They count as what was asked for, and change nothing.
_NOTES = frozenset({"user", "session_id", "trace"})
#: What no model here does.
_NEVER = frozenset({"input_references", "previous_job_id", "creativity", "upscale_factor"})
_KNOWN = frozenset({*_NAMES.values(), *_NOTES, *_NEVER, "size", "provider"})
_OPENAIS = frozenset({"seconds", "input_reference"})
_STATUSES = {"pending": "pending", "running": "in_progress", "success": "completed", "failed": "failed"}
_FRAME = (
    'must be a list of one picture, such as [{"type": "image_url", "frame_type": "first_frame", '
    '"image_url": {"url": "https://…"}}]'
)


class OpenRouterView(base.DialectView):
    """Errors as `{"error": {"code": 400, "message", "metadata": {"code", "details"}}}`."""

    shape = staticmethod(shapes.openrouter)


def longest_body() -> int:
    """Bytes of an order with a picture in it."""
    return int(settings.MAX_BODY_BYTES_OF[PATH])


class VideosView(OpenRouterView):
    """POST /api/v1/videos: 202 with a new job, or with the one that the same request made before."""

    key_scope = Scope.CREATE
    parser_classes = (base.PictureParser,)
    longest_body = longest_body

    def post(self, request: Request) -> HttpResponse:
        asked: dict[str, Any] = dict(request.data)
        base.refuse_unknown(asked, _KNOWN, _OPENAIS)
        inside, beside = _ours(asked.get("provider")), words.from_headers(request.META)
        fields = words.merged(words.merged(_fields(asked), inside), beside)
        task, is_new = base.make(request, asked, fields, {**_NAMES, **inside.places, **beside.places})
        made = facts.of_new(task) if is_new else facts.of(task.pk, request)
        response = answers.as_json(job(made, request), status=202)
        if not is_new:
            response[idempotency.REPLAYED] = "true"
        return response


class VideoView(OpenRouterView):
    """GET /api/v1/videos/{id}."""

    key_scope = Scope.READ

    def get(self, request: Request, task_id: str) -> HttpResponse:
        return answers.as_json(job(facts.of(task_id, request), request))


class ContentView(OpenRouterView):
    """GET /api/v1/videos/{id}/content?index=0: 302 to a signed link, which needs no login."""

    key_scope = Scope.READ
    takes = ("index",)

    def get(self, request: Request, task_id: str) -> HttpResponse:
        if request.GET.get("index", "0") != "0":
            raise errors.invalid("index", "must be 0: each job makes one video")
        return HttpResponseRedirect(facts.file_of(facts.of(task_id, request)))


class ModelsView(OpenRouterView):
    """GET /api/v1/videos/models: the models that have a key here. What is switched off now is in GET /api/models."""

    key_scope = Scope.READ

    def get(self, request: Request) -> HttpResponse:
        return answers.as_json({"data": [_model(model) for model in model_choice.models_here()]})


class UnknownView(PublicApiView):
    """Everything under /api/v1/videos that isn't there, for every method."""

    get_exception_handler = OpenRouterView.get_exception_handler
    shape = staticmethod(shapes.openrouter)

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        raise errors.not_found("address")


def job(one: Facts, request: Request) -> dict[str, Any]:
    """A task as the clients read it. Its links need no key: one of the clients fetches them without."""
    status, base_url = one.status, origin_of(request)
    shown: dict[str, Any] = {
        "id": one.task.pk,
        "generation_id": one.task.pk,
        "polling_url": f"{base_url}{PATH}/{one.task.pk}",
        "status": "cancelled" if one.is_cancelled else _STATUSES[status["status"]],
    }
    if "error" in status:
        shown["error"] = status["error"]
    if gone := status.get("gone"):
        shown |= {"status": "expired", "error": gone["message"]}
    elif "result" in status:
        shown["unsigned_urls"] = shown["urls"] = [status["result"]["videoUrl"]]
    if "expiresAt" in status:
        shown["expires_at"] = base.unix(status["expiresAt"])
    return shown


def _model(model: Model) -> dict[str, Any]:
    """What a client may ask of a model. The keys that we have no word for must be there all the same."""
    ratios = tuple(dict.fromkeys((*model.text_ratios, *model.image_ratios)))
    checked_on = datetime.fromisoformat(catalogue.CHECKED_ON).replace(tzinfo=UTC)
    return {
        "id": f"{model.provider}/{model.id}",
        "canonical_slug": f"{model.provider}/{model.id}",
        "name": model.title,
        "created": base.unix(checked_on),
        "supported_durations": sorted(model.durations_s),
        "supported_aspect_ratios": list(ratios),
        "supported_resolutions": list(model.resolutions),
        "supported_sizes": words.sizes_of(ratios, model.resolutions),
        "supported_frame_images": ["first_frame"] if model.image else [],
        "generate_audio": model.sound is not Sound.NEVER,
        "seed": model.seed,
        "creativity": None,
        "upscale_factor": None,
        "pricing_skus": None,
        "allowed_passthrough_parameters": [],
    }


def _fields(asked: dict[str, Any]) -> dict[str, Any]:
    """The same in our words. Raises ValidationError."""
    wrong = {name: ["can't be chosen here; leave it out"] for name in _NEVER if asked.get(name) not in (None, [])}
    if wrong:
        raise ValidationError(wrong)
    if asked.get("model") is None:
        raise ValidationError({"model": ["is missing; 'auto' leaves the choice to this server"]})
    fields = words.model_name(asked["model"])
    for ours, theirs in _NAMES.items():
        if theirs not in ("model", "frame_images") and asked.get(theirs) is not None:
            fields[ours] = asked[theirs]
    if asked.get("size") is not None:
        size = words.of_size(asked["size"])
        fields = words.merged(fields, words.Beside(dict(size), dict.fromkeys(size, "size")))
    if frames := asked.get("frame_images"):
        fields["imageUrl"] = _first_frame(frames)
    return fields


def _first_frame(frames: Any) -> str:
    if not isinstance(frames, list) or len(frames) != 1 or not isinstance(frames[0], dict):
        raise ValidationError({"frame_images": [_FRAME]})
    (frame,) = frames
    if frame.get("frame_type") != "first_frame":
        raise ValidationError({"frame_images": ["a video can only begin with a picture here: frame_type first_frame"]})
    picture = frame.get("image_url")
    url = picture.get("url") if isinstance(picture, dict) else None
    if frame.get("type") != "image_url" or not isinstance(url, str):
        raise ValidationError({"frame_images": [_FRAME]})
    return url


def _ours(provider: Any) -> words.Beside:
    """`provider.reelworks`, or `provider.options.reelworks`: fields of our own API. Options of others mean nothing."""
    if provider is not None and not isinstance(provider, dict):
        raise ValidationError({"provider": ["must be an object"]})
    options = (provider or {}).get("options")
    found = (provider or {}).get("reelworks", options.get("reelworks") if isinstance(options, dict) else None)
    if found is not None and not isinstance(found, dict):
        raise ValidationError({"provider.reelworks": ["must be an object with fields of /api/video/create"]})
    return words.Beside(found or {}, {name: f"provider.reelworks.{name}" for name in found or {}})
