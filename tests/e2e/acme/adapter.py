"""Acme adapter. A film is ordered with `POST /acme/films` and asked for with `GET /acme/films/<id>`."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from providers.acme.models import MODELS
from providers.contract import (
    GenerationRequest,
    HttpReply,
    HttpRequest,
    JobRef,
    JobState,
    JobStatus,
    Provider,
    Submitted,
)
from providers.errors import (
    JobFailed,
    JobNotFound,
    KeyRefused,
    Outcome,
    ProviderDown,
    RequestRejected,
    SubmissionUnknown,
)
from providers.failures import job_failed
from providers.models import capable_model
from providers.untrusted import find_id, safe_id, safe_text, safe_url

_STATES = {
    "waiting": JobState.QUEUED,
    "shooting": JobState.RUNNING,
    "ready": JobState.SUCCEEDED,
    "ruined": JobState.FAILED,
}

#: Acme has one failure, and it is its own.
_RUINED: Outcome = ("generation_failed", True, JobFailed.user_message)


class Acme(Provider):
    """https://films.acme.invalid/docs"""

    name = "acme"
    title = "Acme"
    cost_unit = "USD"
    unit_usd = Decimal(1)
    unit_usd_source = "https://acme.example/prices, read 2026-11-23"
    min_poll_interval_s = 1.0
    can_cancel = False

    def build_submit(self, request: GenerationRequest, *, key: str, reference: str) -> HttpRequest:
        capable_model(MODELS, request)
        film = {"words": request.prompt, "seconds": request.duration_s, "shape": request.aspect_ratio}
        return HttpRequest("POST", f"{self.base_url}/acme/films", {"X-Acme-Key": key}, json=film)

    def is_own(self, reply: HttpReply) -> bool:
        """Acme's errors are objects with one of two words."""
        return not {"wrong", "gone"}.isdisjoint(reply.json_object_or_empty())

    def read_submit(self, reply: HttpReply) -> Submitted:
        if reply.ok:
            return Submitted(find_id(reply.json_object_or_empty(), "film"))
        if reply.status == 401:  # the key was refused before anything was made
            raise KeyRefused("Acme answered 401", http_status=401)
        if reply.status == 422:  # the order was refused before anything was made
            raise RequestRejected("Acme answered 422", http_status=422)
        raise SubmissionUnknown(f"Acme answered {reply.status}", http_status=reply.status)

    def build_poll(self, jobs: Sequence[JobRef], *, key: str) -> HttpRequest:
        (job,) = jobs
        return HttpRequest("GET", f"{self.base_url}/acme/films/{job.job_id}", {"X-Acme-Key": key})

    def read_poll(self, reply: HttpReply, jobs: Sequence[JobRef]) -> dict[str, JobStatus | JobNotFound]:
        (job,) = jobs
        film = reply.json_object_or_empty()
        if reply.status == 404 and "gone" in film:
            return {job.job_id: JobNotFound("Acme does not know the film", http_status=404)}
        if not reply.ok or safe_id(film.get("film")) != job.job_id:
            raise ProviderDown(f"Acme answered {reply.status}", http_status=reply.status)
        word = safe_text(film.get("stage"), 60)
        state = _STATES.get(word, JobState.UNRECOGNISED)
        error = job_failed("acme", _RUINED, title="Acme", text="ruined") if state is JobState.FAILED else None
        return {job.job_id: JobStatus(state, word, result_url=safe_url(film.get("reel")), error=error)}
