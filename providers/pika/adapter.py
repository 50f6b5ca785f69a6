"""Pika adapter: Pika's models on fal's queue. Pika's own API page sends developers there.

Sources: https://fal.ai/docs (inference API, queue, errors, webhooks), https://fal.ai/models/fal-ai/pika, and the
`fal-client` 1.0.3 package; read 2026-11-23. Oddities:

- There is no failed status. A failed request is COMPLETED too: with `error` in the status, or with only a non-2xx
  answer to the result call. So COMPLETED means RESULT_READY, and the result call tells.
- Follow-up URLs hold `owner/app` only (fal-ai/pika/requests/…), never the model's sub-path; submit returns them. They
  are used when they point to our base URL's origin (a key goes nowhere else), else rebuilt from it.
- A bad field is normally found by the model, so the submit succeeds and the result is 422.
- `detail` is a list of errors or a plain text, depending on who failed.
- The scheme is `Key`, not `Bearer`. 403 is often an empty balance ("User is locked. Reason: Exhausted balance.").
- Too much load queues instead of being refused. The server itself runs a failed request again, up to 10 times.
- The official client repeats POSTs whose answer was lost, and there is no idempotency key: several paid jobs. A job is
  found again only by its call-back, which the caller addresses with our reference (`fal_webhook`).
- Status answers 202 until COMPLETED. The result of a cancelled request is 499.
- Start images go as data URIs, which every `image_url` takes: they need no public host and no upload.
- The balance lives on another host (api.fal.ai) and wants an admin key: not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from providers import errors
from providers.contract import (
    CancelOutcome,
    GenerationRequest,
    HttpReply,
    HttpRequest,
    JobRef,
    JobState,
    JobStatus,
    Provider,
    Submitted,
)
from providers.failures import job_failed
from providers.models import capable_model
from providers.pika.models import MODELS
from providers.untrusted import dotted, find_id, safe_id, safe_mapping, safe_text, safe_url, same_origin

#: owner/app, under which every follow-up call lives.
APP = "fal-ai/pika"

_PATHS = {"pika-2.2": f"{APP}/v2.2", "pika-2.1": f"{APP}/v2.1", "pika-turbo": f"{APP}/v2/turbo"}
_FOLLOW_UP = {"response": "", "status": "/status", "cancel": "/cancel"}

_STATES = {
    "IN_QUEUE": JobState.QUEUED,
    "IN_PROGRESS": JobState.RUNNING,
    "COMPLETED": JobState.RESULT_READY,  # or FAILED, when it carries an error
}

#: What fal's queue says in `status` of an answer that is an error.
_WORDS = ("NOT_FOUND", "ALREADY_COMPLETED", *_STATES)

#: What an answer to a submit proves, by HTTP status. What is not here leaves the outcome unknown.
_SUBMIT_ERRORS: Mapping[int, tuple[type[errors.ProviderError], str]] = {
    400: (errors.RequestRejected, "the request was refused"),
    401: (errors.KeyRefused, "the key is missing or wrong"),
    402: (errors.OutOfCredits, "payment required"),  # not documented; what the status means everywhere
    403: (errors.ModelForbidden, "the account may not use this model"),  # but see _account_error
    404: (errors.ModelForbidden, "there is no such model"),  # its path came from our catalogue: not the user's fault
    405: (errors.ModelForbidden, "the path takes no POST"),
    413: (errors.RequestRejected, "the request is too large"),
    422: (errors.RequestRejected, "the input did not pass validation"),
    429: (errors.Busy, "the queue is full, or calls come too fast"),
}

_BAD_INPUT: errors.Outcome = ("bad_request", False, "The video provider refused this request.")
_MODERATION: errors.Outcome = ("moderation", False, errors.REFUSED_BY_SAFETY)
_FAILED: errors.Outcome = ("generation_failed", True, errors.JobFailed.user_message)

#: The model ran and gave nothing: the prompt may be the cause.
_NO_VIDEO = "no_media_generated"

#: `type` or `error_type`, by what it means.
_OUTCOMES: Mapping[errors.Outcome, str] = {
    _MODERATION: "content_policy_violation",
    # The model ended without a video and without a complaint; another model may well make one.
    _FAILED: _NO_VIDEO,
    # The last one is their download of our user's URL.
    ("bad_request", False, errors.BAD_IMAGE): """
        image_too_small image_too_large image_load_error file_too_large face_detection_error file_download_error""",
    _BAD_INPUT: """
        feature_not_supported one_of greater_than greater_than_equal less_than less_than_equal multiple_of
        sequence_too_short sequence_too_long missing bad_request""",
    ("provider_unavailable", True, "The video model is not available at the moment."): """
        downstream_service_error downstream_service_unavailable""",
    ("generation_timeout", True, "The video provider took too long."): """
        generation_timeout request_timeout startup_timeout""",
    ("generation_failed", True, errors.INTERNAL_ERROR): """
        internal_server_error internal_error runner_scheduling_failure runner_connection_timeout
        runner_connection_refused runner_connection_error runner_disconnected runner_incomplete_response
        runner_server_error""",
}
_FAILURES = {kind: outcome for outcome, kinds in _OUTCOMES.items() for kind in kinds.split()}
#: Words of a refusal in a text whose type is not in the table. fal's infrastructure may name a policy too.
_MODERATED = re.compile(
    r"content policy|moderation|safety|nsfw|risk control|likeness|real person|usage guidelines|violat", re.IGNORECASE
)
_CANCELLED = ("client_cancelled", "client_disconnected")


class Pika(Provider):
    """https://fal.ai/models/fal-ai/pika"""

    name = "pika"
    title = "Pika"
    cost_unit = "USD"
    unit_usd = Decimal(1)
    unit_usd_source = "https://fal.ai/models/fal-ai/pika (prices in USD), read 2026-11-23"
    result_life_s = 7 * 24 * 3600.0  # "at least 7 days", by fal's FAQ
    min_poll_interval_s = 3.0  # fal states none; its own client polls ten times a second
    can_cancel = True
    can_call_back = True

    def build_submit(self, request: GenerationRequest, *, key: str, reference: str) -> HttpRequest:
        """fal takes no reference: the caller puts it into `callback_url`."""
        model, image = capable_model(MODELS, request), request.start_image()
        body: dict[str, Any] = {
            "prompt": request.prompt,
            "resolution": request.resolution,
            "duration": request.duration_s,
            # Always said: 2.2's default is "ugly, bad, terrible", which nobody asked for.
            "negative_prompt": request.negative_prompt or "",
        }
        if image is None:
            body["aspect_ratio"] = request.aspect_ratio
        else:
            body["image_url"] = image.data_uri()  # and no aspect_ratio: the image decides
        if request.seed is not None:
            body["seed"] = request.seed
        kind = "text-to-video" if image is None else "image-to-video"
        return HttpRequest(
            "POST",
            f"{self.base_url}/{_PATHS[model.id]}/{kind}",
            _headers(key),
            params={"fal_webhook": request.callback_url} if request.callback_url else None,
            json=body,
        )

    def is_own(self, reply: HttpReply) -> bool:
        """fal's errors have `detail` (a text, a list, seen as an object too), or a word of its queue in `status`.

        A 499 is its word for a cancelled request, whatever the body: no proxy sends one to a client that waits.
        """
        body = reply.json_object_or_empty()
        return reply.status == 499 or isinstance(body.get("detail"), str | list | dict) or body.get("status") in _WORDS

    def read_submit(self, reply: HttpReply) -> Submitted:
        if not reply.ok:
            raise _submit_error(reply)
        body = reply.json_object_or_empty()
        given = {name: safe_url(body.get(f"{name}_url")) for name in _FOLLOW_UP}
        # They are stored: one with a query may be signed, and is rebuilt instead.
        urls = {name: url for name, url in given.items() if url and "?" not in url and len(url) <= 500}
        return Submitted(find_id(body, "request_id"), urls=urls)

    def build_poll(self, jobs: Sequence[JobRef], *, key: str) -> HttpRequest:
        (job,) = jobs
        return HttpRequest("GET", self._follow_up(job, "status"), _headers(key))

    def read_poll(self, reply: HttpReply, jobs: Sequence[JobRef]) -> dict[str, JobStatus | errors.JobNotFound]:
        (job,) = jobs
        if reply.status == 404:
            return {job.job_id: reply.error(errors.JobNotFound, "fal does not know the request")}
        if not reply.ok:
            raise _read_error(reply)
        body = reply.json_object_or_empty()
        if body.get("request_id") and safe_id(body["request_id"]).lower() != job.job_id.lower():
            raise errors.ProviderDown("fal answered with another request than was asked for")
        word = body.get("status")
        if not isinstance(word, str) or not word:
            raise reply.error(errors.ProviderDown, "fal answered with a request that has no status")
        state = _STATES.get(word, JobState.UNRECOGNISED)
        shown = safe_text(word, 60)
        if state is JobState.RESULT_READY and (body.get("error") or body.get("error_type")):
            kind = _type_of(body, reply)
            if kind not in _FAILURES and _LOOKS_LIKE_BAD_INPUT.fullmatch(kind):
                # One of pydantic's hundred types: only the result's 422 proves that the input is at fault.
                return {job.job_id: JobStatus(state, shown)}
            return {job.job_id: _ended_badly(shown, kind, safe_text(body.get("error")))}
        return {job.job_id: JobStatus(state, shown)}

    def build_result(self, job: JobRef, *, key: str) -> HttpRequest:
        return HttpRequest("GET", self._follow_up(job, "response"), _headers(key))

    def read_result(self, reply: HttpReply, job: JobRef) -> JobStatus:
        """FAILED only for fal's own error body (or 499): any other non-2xx is a failed read of a paid job."""
        if reply.ok:
            url = safe_url(safe_mapping(reply.json_object_or_empty().get("video")).get("url"))
            if url is None:
                raise reply.error(errors.ProviderDown, "fal's result has no video in it")
            return JobStatus(JobState.SUCCEEDED, "COMPLETED", progress=1.0, result_url=url)
        if reply.status == 404:
            raise reply.error(errors.JobNotFound, "fal does not know the request")
        body = reply.json_object_or_empty()
        kind, text = _type_of(body, reply), _detail_text(body)
        if reply.status == 499:
            return _ended_badly("COMPLETED", kind or "client_cancelled", text)
        if reply.status in (401, 402, 403, 429):  # about the key or the pace, not about this job
            raise _read_error(reply)
        if reply.status == 400 and "in progress" in text.lower():
            return JobStatus(JobState.RUNNING, "IN_PROGRESS")
        if kind and "detail" in body:
            return _ended_badly("COMPLETED", kind, text, reply.status)
        raise _read_error(reply)

    def build_cancel(self, job: JobRef, *, key: str) -> HttpRequest:
        return HttpRequest("PUT", self._follow_up(job, "cancel"), _headers(key))

    def read_cancel(self, reply: HttpReply) -> CancelOutcome:
        """REQUESTED for any 2xx (a running one may still finish and be billed)."""
        if reply.ok:
            return CancelOutcome.REQUESTED
        if reply.json_object_or_empty().get("status") == "ALREADY_COMPLETED":
            return CancelOutcome.ALREADY_ENDED
        if reply.status == 404:
            return CancelOutcome.NOT_FOUND
        raise _read_error(reply)

    def took_nothing(self, end: JobStatus, *, before: str) -> bool:
        """fal tells no charge. It removes what is queued; what runs may be billed, and so may a 422; a 5xx is not."""
        if end.state is JobState.CANCELLED:
            return before == "IN_QUEUE"
        error = end.error
        if error is None:
            return False
        known = error.provider_code in _FAILURES and error.another_model_could
        return known or (error.http_status or 0) >= 500

    def _follow_up(self, job: JobRef, name: str) -> str:
        url = job.urls.get(name, "")
        if same_origin(url, self.base_url):
            return url
        return f"{self.base_url}/{APP}/requests/{quote(job.job_id, safe='')}{_FOLLOW_UP[name]}"


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Key {key}", "Accept": "application/json"}


def _submit_error(reply: HttpReply) -> errors.ProviderError:
    body = reply.json_object_or_empty()
    kind, text = _type_of(body, reply), _detail_text(body)
    said = f"fal answered {reply.status}: {text}" if text else f"fal answered {reply.status}"
    known = _SUBMIT_ERRORS.get(reply.status)
    if known is None:
        return reply.error(errors.SubmissionUnknown, said, provider_code=kind)
    error, meaning = known
    message = f"{said} ({meaning})"
    if reply.status == 403:
        error = _account_error(text) or error
    if error is not errors.RequestRejected:
        return reply.error(error, message, provider_code=kind)
    # Without a known type, the status says whose fault it is.
    code, another, sentence = _classify(kind, 422) or _BAD_INPUT
    if another:
        # An error of the model's own under a status of bad input: it may have run, so nothing is proven.
        return reply.error(errors.SubmissionUnknown, message, provider_code=kind)
    return reply.error(errors.RequestRejected, message, code=code, user_message=sentence, provider_code=kind)


def _account_error(text: str) -> type[errors.ProviderError] | None:
    """What a 403's text says of the account, else None: "User is locked. Reason: Exhausted balance. Top up your …"."""
    lower = text.lower()
    if "balance" in lower:
        return errors.OutOfCredits
    if "locked" in lower or "top_up" in lower:
        return errors.KeyRefused  # only fal's support can unlock it, so the operator must see it
    return None


def _read_error(reply: HttpReply) -> errors.ProviderError:
    body = reply.json_object_or_empty()
    text = _detail_text(body)
    said = f"fal answered {reply.status} to a read: {text}" if text else f"fal answered {reply.status} to a read"
    if reply.status in (401, 403):
        return reply.error(_account_error(text) or errors.KeyRefused, said)
    if reply.status == 429:
        return reply.error(errors.Busy, said)
    return reply.error(errors.ProviderDown, said, provider_code=_type_of(body, reply))


def _ended_badly(shown: str, kind: str, text: str, status: int | None = None) -> JobStatus:
    if kind in _CANCELLED:
        return JobStatus(JobState.CANCELLED, shown)
    outcome = _classify(kind, status)
    if outcome is None and _MODERATED.search(text):
        outcome = _MODERATION
    error = job_failed(
        "pika",
        outcome,
        title="fal",
        text=text,
        provider_code=kind,
        codeless="no error type",
        http_status=status,
        may_be_the_request=kind == _NO_VIDEO,
    )
    return JobStatus(JobState.FAILED, shown, error=error)


_LOOKS_LIKE_BAD_INPUT = re.compile(r"missing|enum|extra_forbidden|\w+_(type|error|parsing|invalid|mismatch|short|long)")


def _classify(kind: str, status: int | None) -> errors.Outcome | None:
    """What a type of error means; None for one that is in no table."""
    if kind in _FAILURES:
        return _FAILURES[kind]
    # 422 is the model's answer to bad input; its types are pydantic's (a hundred) and fal's own `unsupported_…`.
    if status == 422 or kind.startswith("unsupported_"):
        return _BAD_INPUT
    return None


def _details(body: Mapping[str, Any]) -> list[Any]:
    """The errors in `detail`: a list by the documents, seen as a single object too; none in a text."""
    detail = body.get("detail")
    return detail if isinstance(detail, list) else [detail] if isinstance(detail, dict) else []


def _type_of(body: Mapping[str, Any], reply: HttpReply) -> str:
    """The error's type: the first `detail[].type`, `error_type`, or the header that repeats it."""
    for item in _details(body):
        kind = safe_text(safe_mapping(item).get("type"), 100)
        if kind:
            return kind
    return safe_text(body.get("error_type"), 100) or safe_text(reply.headers.get("x-fal-error-type"), 100)


def _detail_text(body: Mapping[str, Any]) -> str:
    """`detail` as one line, with the field of each error; `input`, which may hold the whole prompt, is left out."""
    if isinstance(body.get("detail"), str):
        return safe_text(body["detail"])
    parts = []
    for item in _details(body)[:3]:
        error = safe_mapping(item)
        where = dotted(error.get("loc"))
        parts.append(": ".join(part for part in (where, safe_text(error.get("msg"), 120)) if part))
    return safe_text("; ".join(part for part in parts if part), 500)
