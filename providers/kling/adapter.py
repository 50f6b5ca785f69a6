"""Kling adapter: text-to-video and image-to-video on both of Kling's API standards.

Sources: https://kling.ai/document-api (both standards, error codes, concurrency rules, price list; public copies of
2026-09), with behaviour that third parties recorded in 2026-09; read 2026-11-23. The key says which standard is spoken:
a plain API key speaks the newer one (model in the path, `GET /tasks`), `accessKey:secretKey` the older one
(`/v1/videos/…`, JWT). Oddities:

- Branch on the body's `code`, not on HTTP: six codes share 429 and four of them never go away by waiting. `code` may be
  non-zero under HTTP 200, and a failed task is HTTP 200 with `code` 0 and `message` "SUCCEED".
- `succeed` on the older standard, `succeeded` on the newer one.
- `external_task_id` is our reference, and finds an unknown submit again. The older standard refuses a
  second task with the same one (1201 "already exists"), which proves that the first was accepted. It shares a path
  position with Kling's own numeric ids, so it must not look like a number.
- The newer standard leaves unknown ids out of its answer without a word, also for a moment after a create.
- A task is read on the path of its kind (older standard), at most 20 at a time (newer).
- The newer standard ignores keys it does not know, so a wrong name is never reported. No seed, no negative prompt.
- `duration` is a string on the older standard and a number on the newer one.
- Images go as bare base64.
- No cancel, no progress. Failed tasks are not charged, by a third party's price list.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from providers import errors
from providers.contract import (
    AccountInfo,
    GenerationRequest,
    HttpReply,
    HttpRequest,
    JobRef,
    JobState,
    JobStatus,
    Provider,
    Submitted,
)
from providers.kling.failures import failure
from providers.kling.models import MODELS
from providers.models import Model, Sound, capable_model
from providers.untrusted import find_id, safe_decimal, safe_id, safe_mapping, safe_text, safe_url

TOKEN_LIFE_S = 1800
TOKEN_SKEW_S = 5  # Kling's own example: a clock that is a little ahead must not give 1003

#: Our id → the older standard's `model_name`. A missing one is sold on the newer standard only. Always sent: the
#: default is kling-v1, which is gone.
_OLDER_NAMES = {"kling-3.0": "kling-v3", "kling-2.6": "kling-v2-6", "kling-2.5-turbo": "kling-v2-5-turbo"}
_MODES = {"720p": "std", "1080p": "pro"}

_STATES = {
    "submitted": JobState.QUEUED,
    "processing": JobState.RUNNING,
    "succeed": JobState.SUCCEEDED,
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
}

#: Kling's `code` → what it says about a request. Anything else, 5000 to 5002 first of all, leaves a submit unknown (a
#: task may exist after 5002, "timeout, backlog") and is ProviderDown for a read.
_CODES: Mapping[int, tuple[type[errors.ProviderError], str]] = {
    1000: (errors.KeyRefused, "authentication failed"),
    1001: (errors.KeyRefused, "the authorization header is empty"),
    1002: (errors.KeyRefused, "the key is wrong, or a JWT was sent to the newer standard"),
    # Each request signs a fresh token, so signing again would say the same: this machine's clock is wrong.
    1003: (errors.KeyRefused, "the token is not valid yet: check this machine's clock"),
    1004: (errors.KeyRefused, "the token has expired: check this machine's clock"),
    1100: (errors.KeyRefused, "the account is in an abnormal state"),
    1101: (errors.OutOfCredits, "the account is in arrears"),
    1102: (errors.OutOfCredits, "the resource pack is used up or has expired"),
    1103: (errors.ModelForbidden, "the account has no right to this model"),
    1200: (errors.RequestRejected, "a parameter is invalid"),
    1201: (errors.RequestRejected, "a parameter is invalid"),  # also three other things, told by its text: see _by_text
    1202: (errors.ModelForbidden, "the method does not exist"),  # paths come from our tables: not the user's fault
    1203: (errors.ModelForbidden, "the path or model does not exist"),
    1300: (errors.RequestRejected, "the platform's policy refused it"),
    1301: (errors.RequestRejected, "the content check refused it"),
    1302: (errors.Busy, "calls come too fast"),
    1303: (errors.Busy, "too many tasks in parallel"),
    1304: (errors.KeyRefused, "this machine's address is not on the account's whitelist"),
}
_MODERATION_CODES = (1300, 1301)


class Kling(Provider):
    """https://kling.ai/document-api. `now` gives Unix seconds, for signing tokens."""

    name = "kling"
    title = "Kling"
    cost_unit = "units"
    unit_usd = Decimal("0.14")
    unit_usd_source = "https://kling.ai/document-api (price list), read 2026-11-23"
    min_poll_interval_s = 5.0
    result_life_s = 30 * 24 * 3600.0  # "cleared after 30 days"
    can_cancel = False
    can_look_up = True
    has_account_call = True
    can_call_back = True
    max_jobs_per_poll = 20

    def __init__(self, base_url: str, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(base_url)
        self._now = now

    def jobs_per_poll(self, key: str) -> int:
        return 1 if is_pair(key) else self.max_jobs_per_poll

    def refuses_duplicates(self, key: str) -> bool:
        """Whether a second submit with the same reference is refused: known of the older standard only."""
        return is_pair(key)

    def offers(self, model_id: str, key: str) -> bool:
        """A pair speaks the older standard only, which does not have every model."""
        return not is_pair(key) or model_id in _OLDER_NAMES

    def build_submit(self, request: GenerationRequest, *, key: str, reference: str) -> HttpRequest:
        if not reference or reference.isdigit():
            raise ValueError("Kling would take this reference for an id of its own")
        model = capable_model(MODELS, request)
        if not is_pair(key):
            return self._build_newer(model, request, key, reference)
        if not self.offers(model.id, key):
            raise errors.ModelForbidden(f"{model.title} is not on Kling's older standard, which a key pair speaks")
        return self._build_older(model, request, key, reference)

    def is_own(self, reply: HttpReply) -> bool:
        """Every answer of Kling's has its `code`: 0, or four digits. (A gateway's `code` repeats the HTTP status.)"""
        code = _code(reply.json_object_or_empty())
        return code is not None and (code == 0 or 1000 <= code <= 9999)

    def read_submit(self, reply: HttpReply) -> Submitted:
        body = reply.json_object_or_empty()
        code = _code(body)
        if reply.ok and code == 0:
            return Submitted(find_id(body, "id", "task_id", envelope="data"))
        raise _submit_error(reply, code, safe_text(body.get("message")))

    def build_poll(self, jobs: Sequence[JobRef], *, key: str) -> HttpRequest:
        """Raises ValueError for more jobs than `jobs_per_poll(key)`."""
        if not 1 <= len(jobs) <= self.jobs_per_poll(key):
            raise ValueError(f"1 to {self.jobs_per_poll(key)} jobs a poll with this key, not {len(jobs)}")
        if is_pair(key):
            return self._get_older(jobs[0].job_id, key, image_to_video=jobs[0].image_to_video)
        ids = ",".join(job.job_id for job in jobs)
        return HttpRequest("GET", f"{self.base_url}/tasks", self._headers(key), params={"task_ids": ids})

    def read_poll(self, reply: HttpReply, jobs: Sequence[JobRef]) -> dict[str, JobStatus | errors.JobNotFound]:
        if len(jobs) == 1 and _is_unknown_task(reply):
            return {jobs[0].job_id: errors.JobNotFound("Kling does not know the task", provider_code="1201")}
        data = _read(reply)
        if isinstance(data, list):
            if not all(isinstance(task, dict) for task in data):
                raise reply.error(errors.ProviderDown, "Kling answered with a list of something else than tasks")
            found = {safe_id(task.get("id")): task for task in data}
            return {
                job.job_id: _status_newer(found[job.job_id])
                if job.job_id in found
                else errors.JobNotFound("Kling's answer leaves the task out")
                for job in jobs
            }
        if isinstance(data, dict) and len(jobs) == 1 and safe_id(data.get("task_id")) == jobs[0].job_id:
            return {jobs[0].job_id: _status_older(data)}
        raise reply.error(errors.ProviderDown, "Kling answered with something else than the task")

    def took_nothing(self, end: JobStatus, *, before: str) -> bool:
        """A failed task is not charged, and mostly comes without a bill; a bill that says otherwise is believed."""
        return end.state is JobState.FAILED and not end.cost

    def build_lookup(self, reference: str, *, key: str, image_to_video: bool) -> HttpRequest:
        if is_pair(key):
            return self._get_older(reference, key, image_to_video=image_to_video)
        return HttpRequest("GET", f"{self.base_url}/tasks", self._headers(key), params={"external_task_ids": reference})

    def read_lookup(self, reply: HttpReply, reference: str) -> Submitted | None:
        """None is "not seen": a new task may show late, so the caller asks several times before it believes it."""
        if _is_unknown_task(reply):
            return None
        data = _read(reply)
        if data == []:
            return None
        tasks = data if isinstance(data, list) else [data]
        for task in map(safe_mapping, tasks):
            ours = task.get("external_id", safe_mapping(task.get("task_info")).get("external_task_id"))
            if ours == reference:
                return Submitted(find_id(task, "id", "task_id"))
        # Something is there, but not what was asked for: no proof in either direction.
        raise reply.error(errors.ProviderDown, "Kling's answer to a look-up does not carry our reference")

    def build_account(self, *, key: str) -> HttpRequest:
        """Asks for the packs of the last year. Kling allows one such call a second; figures may be 12 hours old."""
        now_ms = int(self._now() * 1000)
        times = {"start_time": str(now_ms - 365 * 86_400_000), "end_time": str(now_ms)}
        return HttpRequest("GET", f"{self.base_url}/account/costs", self._headers(key), params=times)

    def read_account(self, reply: HttpReply) -> AccountInfo:
        """The units left in all packs that are online. No limits: Kling tells none, over them is code 1303."""
        packs = safe_mapping(_read(reply)).get("resource_pack_subscribe_infos")
        if not isinstance(packs, list):
            raise reply.error(errors.ProviderDown, "Kling answered without resource packs")
        left = [
            safe_decimal(pack.get("remaining_quantity"))
            for pack in map(safe_mapping, packs)
            if pack.get("status") == "online"
        ]
        return AccountInfo(balance=sum((amount for amount in left if amount is not None), Decimal(0)))

    def _build_newer(self, model: Model, request: GenerationRequest, key: str, reference: str) -> HttpRequest:
        settings: dict[str, Any] = {"resolution": request.resolution, "duration": request.duration_s}
        if model.sound is Sound.OPTIONAL:
            settings["audio"] = "native" if request.sound else "off"
        if model.id == "kling-3.0":
            settings["multi_shot"] = False  # true by default, and cuts one prompt into scenes
        options: dict[str, Any] = {"external_task_id": reference}
        if request.callback_url:
            options["callback_url"] = request.callback_url
        image = request.start_image()
        if image is None:
            settings["aspect_ratio"] = request.aspect_ratio
            kind, body = "text-to-video", {"prompt": request.prompt}
        else:  # the image decides the shape
            contents = [
                {"type": "prompt", "text": request.prompt},
                {"type": "first_frame", "url": image.base64()},
            ]
            kind, body = "image-to-video", {"contents": contents}  # type: ignore[dict-item]
        url = f"{self.base_url}/{kind}/{model.id}"
        return HttpRequest("POST", url, self._headers(key), json={**body, "settings": settings, "options": options})

    def _build_older(self, model: Model, request: GenerationRequest, key: str, reference: str) -> HttpRequest:
        body: dict[str, Any] = {
            "model_name": _OLDER_NAMES[model.id],
            "prompt": request.prompt,
            "mode": _MODES[request.resolution],
            "duration": str(request.duration_s),
            "external_task_id": reference,
        }
        if model.sound is Sound.OPTIONAL:
            body["sound"] = "on" if request.sound else "off"
        if request.callback_url:
            body["callback_url"] = request.callback_url
        image = request.start_image()
        if image is None:
            body["aspect_ratio"] = request.aspect_ratio
        else:
            body["image"] = image.base64()
        family = _family(image_to_video=image is not None)
        return HttpRequest("POST", f"{self.base_url}/v1/videos/{family}", self._headers(key), json=body)

    def _get_older(self, task: str, key: str, *, image_to_video: bool) -> HttpRequest:
        family = _family(image_to_video=image_to_video)
        return HttpRequest("GET", f"{self.base_url}/v1/videos/{family}/{quote(task, safe='')}", self._headers(key))

    def _headers(self, key: str) -> dict[str, str]:
        token = sign(key, int(self._now())) if is_pair(key) else key
        return {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}


def is_pair(key: str) -> bool:
    """Whether a key is `accessKey:secretKey`, and so speaks the older standard."""
    return ":" in key


def sign(pair: str, now_s: int) -> str:
    """The token (JWT, HS256) that an `accessKey:secretKey` pair signs for itself; good for half an hour.

    By hand: PyJWT warns of every secret shorter than 32 bytes, and silencing a warning is not safe between threads.
    """
    access, _, secret = pair.partition(":")
    claims = {"iss": access, "exp": now_s + TOKEN_LIFE_S, "nbf": now_s - TOKEN_SKEW_S}
    unsigned = f"{_base64url(_compact({'alg': 'HS256', 'typ': 'JWT'}))}.{_base64url(_compact(claims))}"
    return f"{unsigned}.{_base64url(hmac.digest(secret.encode(), unsigned.encode(), hashlib.sha256))}"


def _compact(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _family(*, image_to_video: bool) -> str:
    return "image2video" if image_to_video else "text2video"


def _code(body: Mapping[str, Any]) -> int | None:
    """Kling's code; None when there is none. Seen as a number, taken as digits too."""
    code = body.get("code")
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) <= 6:
        return int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _submit_error(reply: HttpReply, code: int | None, text: str) -> errors.ProviderError:
    shown = "" if code is None else str(code)
    said = f"Kling answered {reply.status}, code {shown or 'unreadable'}: {text}"
    known = None if code is None else _CODES.get(code)
    if known is None or reply.status >= 500:  # under a 5xx, no code proves that nothing was made
        return reply.error(errors.SubmissionUnknown, said, provider_code=shown)
    error, meaning = known
    if code == 1201:
        error = _by_text(text)
    message = f"{said} ({meaning})"
    if code in _MODERATION_CODES:
        return reply.error(
            error, message, code="moderation", user_message=errors.REFUSED_BY_SAFETY, provider_code=shown
        )
    return reply.error(error, message, provider_code=shown)


def _by_text(text: str) -> type[errors.ProviderError]:
    """What a 1201 of a submit means: our reference is taken, the model is gone, or the input is bad."""
    lower = text.lower()
    if "already exist" in lower:
        # "external_task_id … already exists". Not a rejection: the task that has it is ours, and runs.
        return errors.DuplicateReference
    if "model" in lower and any(word in lower for word in ("discontinued", "no longer available", "not supported")):
        return errors.ModelForbidden  # the name came from our catalogue: not the user's fault
    return errors.RequestRejected


def _read(reply: HttpReply) -> Any:
    """`data` of a good answer. Raises ProviderDown, KeyRefused, OutOfCredits or Busy."""
    body = reply.json_object_or_empty()
    code, text = _code(body), safe_text(body.get("message"))
    if reply.ok and code == 0:
        return body.get("data")
    shown = "" if code is None else str(code)
    said = f"Kling answered {reply.status}, code {shown or 'unreadable'}, to a read: {text}"
    error, _ = (None if code is None else _CODES.get(code)) or (errors.ProviderDown, "")
    if code == 1103:
        error = errors.KeyRefused
    elif error is not errors.Busy and (reply.status >= 500 or error not in (errors.KeyRefused, errors.OutOfCredits)):
        error = errors.ProviderDown
    raise reply.error(error, said, provider_code=shown)


def _is_unknown_task(reply: HttpReply) -> bool:
    """The older standard's 1201 "Task not found by id/external id"."""
    body = reply.json_object_or_empty()
    return _code(body) in (1201, 1203) and reply.status < 500 and "not found" in safe_text(body.get("message")).lower()


def _status_newer(task: Mapping[str, Any]) -> JobStatus:
    return _status(task.get("status"), task.get("message"), task.get("outputs"), _units(task.get("billing")))


def _status_older(task: Mapping[str, Any]) -> JobStatus:
    videos = safe_mapping(task.get("task_result")).get("videos")
    units = safe_decimal(task.get("final_unit_deduction"))
    return _status(task.get("task_status"), task.get("task_status_msg"), videos, units)


def _status(word: object, text: object, outputs: object, units: Decimal | None) -> JobStatus:
    """One task. What cannot be read is UNRECOGNISED and not an error: up to 19 others share the answer."""
    shown = safe_text(word, 60)
    state = _STATES.get(shown.lower(), JobState.UNRECOGNISED)
    if state is JobState.FAILED:
        return JobStatus(state, shown, cost=units, error=failure(text))
    if state is JobState.SUCCEEDED:
        url = _first_video(outputs)
        if url is None:
            return JobStatus(JobState.UNRECOGNISED, f"{shown} without a video")
        return JobStatus(state, shown, progress=1.0, result_url=url, cost=units)
    return JobStatus(state, shown)


def _first_video(outputs: object) -> str | None:
    for output in map(safe_mapping, outputs if isinstance(outputs, list) else []):
        url = safe_url(output.get("url"))
        if url is not None and output.get("type", "video") == "video":
            return url
    return None


def _units(billing: object) -> Decimal | None:
    """The charge in units; None when there is no bill, or when it was in cash, which is another unit than the rest."""
    items = [safe_mapping(item) for item in billing] if isinstance(billing, list) else []
    amounts = [safe_decimal(item.get("amount")) for item in items if item.get("charge_type") == "unit"]
    if not items or len(amounts) != len(items) or None in amounts:
        return None
    return sum((amount for amount in amounts if amount is not None), Decimal(0))
