"""Runway adapter: text-to-video and image-to-video.

Sources: https://docs.dev.runwayml.com (errors, task failures, tiers, inputs, versioning), and the types of requests and
replies in the `runwayml` 5.24.0 package; read 2026-11-23. Oddities:

- An empty balance is a 400 like any bad input; only the text tells: "You do not have enough credits to run this task."
- Over the concurrency limit is no error: the task is accepted as THROTTLED. 429 is the daily limit.
- The official client sends a failed create again up to twice and sets no idempotency header, so one call can be billed
  three times. There is no list of tasks and no reference of ours either: an unknown submit stays unknown.
- No call-backs. Polling one task more often than every 5 s is against the rules.
- Ratios are pixels ("1280:720"), from a list that depends on the model and on text or image.
- Prompts are counted in UTF-16 units. Prices come in credits of one cent.
- Start images go as data URIs, so that they need no public host.
- DELETE cancels what runs (never refunded) and erases what is done. A cancelled task may be CANCELLED or 404 later.
- The third part of a SAFETY code is diagnostic, may be wrong, and is not for users' eyes.
- Output links are signed and die after one or two days; each look at the task gives fresh ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from providers import errors
from providers.contract import (
    AccountInfo,
    CancelOutcome,
    GenerationRequest,
    HttpReply,
    HttpRequest,
    JobRef,
    JobState,
    JobStatus,
    ModelLimits,
    Provider,
    Submitted,
)
from providers.failures import job_failed
from providers.models import Sound, capable_model
from providers.runway.models import MODELS
from providers.untrusted import dotted, find_id, safe_count, safe_decimal, safe_id, safe_mapping, safe_text, safe_url

API_VERSION = "2024-11-06"

#: Our ratio and resolution → Runway's pixels. Which of them a model takes is the catalogue's business.
_PIXELS = {
    ("16:9", "720p"): "1280:720",
    ("9:16", "720p"): "720:1280",
    ("4:3", "720p"): "1104:832",
    ("3:4", "720p"): "832:1104",
    ("1:1", "720p"): "960:960",
    ("21:9", "720p"): "1584:672",
    ("16:9", "1080p"): "1920:1080",
    ("9:16", "1080p"): "1080:1920",
}

_STATES = {
    "PENDING": JobState.QUEUED,
    "THROTTLED": JobState.QUEUED,  # accepted, waits for the account's concurrency
    "RUNNING": JobState.RUNNING,
    "SUCCEEDED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
}

#: What an answer to a create proves, by HTTP status. Every status that is not here leaves the outcome unknown: 408, 409
#: and 5xx can follow work that was done, 3xx comes from something that is not the API.
_SUBMIT_ERRORS: Mapping[int, tuple[type[errors.ProviderError], str]] = {
    400: (errors.RequestRejected, "the input did not pass validation"),  # unless its text says otherwise, see below
    401: (errors.KeyRefused, "the key is wrong or disabled, or its account suspended"),
    402: (errors.OutOfCredits, "payment required"),  # not documented by Runway; what the status means everywhere
    # Not documented either. The key was recognised (else 401), so the narrowest answer: this key and this model.
    403: (errors.ModelForbidden, "the account may not use this model"),
    # No such path at this host: it does not offer the model's kind of video. Not the user's fault, and no job.
    404: (errors.ModelForbidden, "the path does not exist"),
    405: (errors.ModelForbidden, "the path takes no POST"),
    413: (errors.RequestRejected, "the request is too large"),
    422: (errors.RequestRejected, "the input did not pass validation"),
    429: (errors.Busy, "the daily limit is reached, or calls come too fast"),
}

_NO_CREDITS = re.compile(r"\b(?:enough|insufficient|out of|no)\s+(?:\w+\s+)?credits?\b", re.IGNORECASE)
_MODERATED = re.compile(r"\b(?:moderation|content policy|safety)\b", re.IGNORECASE)


#: A failed quality check of the finished video: the prompt may be its cause.
_OUTPUT_CHECK = "INTERNAL.BAD_OUTPUT"

#: failureCode prefix (whole parts) → (our code, could another model do it, sentence for the user). First match counts.
_FAILURES: tuple[tuple[str, str, bool, str], ...] = (
    # Refused by what it shows. Trying it on other models is what gets accounts suspended.
    ("SAFETY.INPUT", "moderation", False, errors.REFUSED_BY_SAFETY),
    ("SAFETY.OUTPUT", "moderation", False, "The video provider's safety check refused the finished video."),
    ("SAFETY", "moderation", False, errors.REFUSED_BY_SAFETY),
    ("INPUT_PREPROCESSING.SAFETY", "moderation", False, errors.REFUSED_BY_SAFETY),
    ("INPUT_PREPROCESSING.INTERNAL", "generation_failed", True, errors.INTERNAL_ERROR),
    # Its own quality check; the same model usually fails again.
    (_OUTPUT_CHECK, "generation_failed", True, "The video did not pass the provider's quality check."),
    ("INTERNAL", "generation_failed", True, errors.INTERNAL_ERROR),
    ("ASSET.INVALID", "bad_request", False, errors.BAD_IMAGE),
    ("ASSET", "bad_request", False, errors.BAD_IMAGE),
    ("THIRD_PARTY.UNAVAILABLE", "provider_unavailable", True, "The video model is not available at the moment."),
)

_MODERATION: errors.Outcome = ("moderation", False, errors.REFUSED_BY_SAFETY)
#: Documented: no code means an internal error.
_NO_CODE: errors.Outcome = ("generation_failed", True, errors.INTERNAL_ERROR)


class Runway(Provider):
    """https://docs.dev.runwayml.com"""

    name = "runway"
    title = "Runway"
    cost_unit = "credits"
    unit_usd = Decimal("0.01")
    unit_usd_source = "https://github.com/runwayml/skills (a credit is a cent), read 2026-11-23"
    min_poll_interval_s = 5.0
    result_life_s = 24 * 3600.0  # the shortest life of a link; how long a look still gives fresh ones is not said
    can_cancel = True
    has_account_call = True

    def build_submit(self, request: GenerationRequest, *, key: str, reference: str) -> HttpRequest:
        model, image = capable_model(MODELS, request), request.start_image()
        body: dict[str, Any] = {
            "model": model.id,
            "ratio": _PIXELS[request.aspect_ratio, request.resolution],
            "duration": request.duration_s,
        }
        if request.prompt.strip():
            body["promptText"] = request.prompt
        if image is not None:
            body["promptImage"] = image.data_uri()
        if request.seed is not None:
            body["seed"] = request.seed
        if request.negative_prompt:
            body["negativePrompt"] = request.negative_prompt
        if model.sound is Sound.OPTIONAL:
            body["audio"] = bool(request.sound)  # always said: the default of the two prices is not documented
        path = "image_to_video" if image is not None else "text_to_video"
        return HttpRequest("POST", f"{self.base_url}/v1/{path}", _headers(key), json=body)

    def is_own(self, reply: HttpReply) -> bool:
        """Every documented and every seen error of Runway's is an object with a text in `error`."""
        return isinstance(reply.json_object_or_empty().get("error"), str)

    def read_submit(self, reply: HttpReply) -> Submitted:
        if reply.ok:
            body = reply.json_object_or_empty()
            cost = safe_decimal(safe_mapping(body.get("estimatedCost")).get("credits"))
            return Submitted(find_id(body, "id"), expected_cost=cost)
        raise _submit_error(reply)

    def build_poll(self, jobs: Sequence[JobRef], *, key: str) -> HttpRequest:
        (job,) = jobs
        return HttpRequest("GET", self._task_url(job), _headers(key))

    def read_poll(self, reply: HttpReply, jobs: Sequence[JobRef]) -> dict[str, JobStatus | errors.JobNotFound]:
        (job,) = jobs
        if reply.status == 404:
            return {job.job_id: reply.error(errors.JobNotFound, "Runway does not know the task")}
        task = _read(reply, "a task")
        if task.get("id") is not None and safe_id(task["id"]).lower() != job.job_id.lower():
            raise reply.error(errors.ProviderDown, "Runway answered with another task than was asked for")
        return {job.job_id: _status(task)}

    def build_cancel(self, job: JobRef, *, key: str) -> HttpRequest:
        return HttpRequest("DELETE", self._task_url(job), {**_headers(key), "Accept": "*/*"})  # its answer has no body

    def read_cancel(self, reply: HttpReply) -> CancelOutcome:
        """REQUESTED also for a task that had ended (and is erased now): Runway's 204 does not tell the two apart."""
        if reply.ok:
            return CancelOutcome.REQUESTED
        if reply.status == 404:
            return CancelOutcome.NOT_FOUND
        raise _read_error(reply)

    def build_account(self, *, key: str) -> HttpRequest:
        return HttpRequest("GET", f"{self.base_url}/v1/organization", _headers(key))

    def read_account(self, reply: HttpReply) -> AccountInfo:
        body = _read(reply, "an organization")
        limits = safe_mapping(safe_mapping(body.get("tier")).get("models"))
        usage = safe_mapping(safe_mapping(body.get("usage")).get("models"))
        return AccountInfo(
            balance=safe_decimal(body.get("creditBalance")),
            limits={
                model: ModelLimits(
                    max_concurrent=safe_count(safe_mapping(limits.get(model)).get("maxConcurrentGenerations")),
                    max_per_day=safe_count(safe_mapping(limits.get(model)).get("maxDailyGenerations")),
                    used_today=safe_count(safe_mapping(usage.get(model)).get("dailyGenerations")),
                )
                for model in {**limits, **usage}
            },
        )

    def _task_url(self, job: JobRef) -> str:
        return f"{self.base_url}/v1/tasks/{quote(job.job_id, safe='')}"


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "X-Runway-Version": API_VERSION, "Accept": "application/json"}


def _submit_error(reply: HttpReply) -> errors.ProviderError:
    body = reply.json_object_or_empty()
    text = _error_text(body)
    known = _SUBMIT_ERRORS.get(reply.status)
    if known is None:
        return reply.error(errors.SubmissionUnknown, f"Runway answered {reply.status}: {text}")
    kind, meaning = known
    message = f"Runway answered {reply.status}, {meaning}" + (f": {text}" if text else "")
    if kind is not errors.RequestRejected:
        return reply.error(kind, message)
    if _NO_CREDITS.search(text):
        return reply.error(errors.OutOfCredits, f"Runway answered {reply.status}: {text}")
    fields = _fields_at_fault(body)
    if fields == {"model"}:
        # The name came from our catalogue, so a model that went out of service must not end the user's task.
        return reply.error(errors.ModelForbidden, f"Runway no longer takes this model: {text}")
    if _MODERATED.search(text):
        return reply.error(errors.RequestRejected, message, code="moderation", user_message=errors.REFUSED_BY_SAFETY)
    if "promptImage" in fields or text.startswith("promptImage"):
        return reply.error(errors.RequestRejected, message, user_message=errors.BAD_IMAGE)
    return reply.error(errors.RequestRejected, message)


def _status(task: Mapping[str, Any]) -> JobStatus:
    word = task.get("status")
    if not isinstance(word, str) or not word:
        raise errors.ProviderDown("Runway answered with a task that has no status")
    state = _STATES.get(word, JobState.UNRECOGNISED)
    cost = safe_decimal(safe_mapping(task.get("cost")).get("credits"))
    shown = safe_text(word, 60)
    if state is JobState.RUNNING:
        return JobStatus(state, shown, progress=_progress(task.get("progress")))
    if state is JobState.SUCCEEDED:
        output = task.get("output")
        url = safe_url(output[0]) if isinstance(output, list) and output else None
        if url is None:  # a paid job: look again, never fail it for a reply that we cannot read
            raise errors.ProviderDown("Runway says that the task succeeded, but gives no output")
        return JobStatus(state, shown, progress=1.0, result_url=url, cost=cost)
    if state is JobState.FAILED:
        return JobStatus(state, shown, cost=cost, error=_failure(task))
    return JobStatus(state, shown, cost=cost)


def _failure(task: Mapping[str, Any]) -> errors.JobFailed:
    given = task.get("failureCode")
    provider_code, text = safe_text(given, 100), safe_text(task.get("failure"))
    outcome: errors.Outcome | None = next(
        (row[1:] for row in _FAILURES if f"{provider_code}.".startswith(f"{row[0]}.")), None
    )
    if outcome is None and _MODERATED.search(safe_text(task.get("failure"), 2000)):
        outcome = _MODERATION
    elif given in (None, ""):
        outcome = _NO_CODE
    return job_failed(
        "runway",
        outcome,
        title="Runway",
        text=text,
        provider_code=provider_code,
        codeless="no failureCode",
        may_be_the_request=f"{provider_code}.".startswith(f"{_OUTPUT_CHECK}."),
    )


def _read(reply: HttpReply, what: str) -> dict[str, Any]:
    if not reply.ok:
        raise _read_error(reply)
    try:
        return reply.json_object()
    except ValueError:
        raise reply.error(errors.ProviderDown, f"Runway answered {reply.status} without {what}") from None


def _read_error(reply: HttpReply) -> errors.ProviderError:
    if reply.status in (401, 403):
        return reply.error(errors.KeyRefused, f"Runway answered {reply.status} to a read")
    text = _error_text(reply.json_object_or_empty())
    if reply.status == 429:
        return reply.error(errors.Busy, f"Runway answered 429 to a read: {text}")
    return reply.error(errors.ProviderDown, f"Runway answered {reply.status} to a read: {text}")


def _error_text(body: Mapping[str, Any]) -> str:
    """`error`, and the first issues: {"error": "Validation of body failed", "issues": [{"path": ["duration"], …}]}."""
    parts = [safe_text(body.get("error"))]
    issues = body.get("issues")
    for issue in issues[:3] if isinstance(issues, list) else []:
        path = safe_mapping(issue).get("path")
        where = dotted(path)
        parts.append(f"{where}: {safe_text(safe_mapping(issue).get('message'), 120)}")
    return safe_text("; ".join(part for part in parts if part), 500)


def _fields_at_fault(body: Mapping[str, Any]) -> set[str]:
    issues = body.get("issues")
    paths = [safe_mapping(issue).get("path") for issue in issues] if isinstance(issues, list) else []
    return {path[0] for path in paths if isinstance(path, list) and path and isinstance(path[0], str)}


def _progress(value: object) -> float | None:
    amount = safe_decimal(value)
    return None if amount is None else float(amount)
