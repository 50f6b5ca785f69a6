"""What every provider adapter is: a sans-IO translator between our words and one wire protocol.

An adapter builds requests and reads replies; it never opens a socket (`http.py` sends) and reads no settings (what it
needs arrives in its constructor). So every wire rule is tested without a server.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar

from providers.errors import JobFailed, JobNotFound


@dataclass(frozen=True)
class GenerationRequest:
    """One video, as asked of one model. The same values are stored on the attempt and charged for."""

    model: str  # the provider's own model id, e.g. "gen4.5"
    prompt: str
    duration_s: int
    aspect_ratio: str  # "16:9"; the adapter translates
    image_url: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    resolution: str = "720p"  # of the provider's render: its short side
    callback_url: str | None = None  # where the provider may ring when the job moves


@dataclass(frozen=True)
class HttpRequest:
    """A request to be sent as it is. Its repr shows no header, query or body: keys live there."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Mapping[str, str] | None = field(default=None, repr=False)
    json: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class HttpReply:
    """An answer, whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is not."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Submitted:
    """Proof that a job exists. `urls` are follow-up addresses that the provider gave (fal); never signed ones."""

    job_id: str
    urls: Mapping[str, str] = field(default_factory=dict)
    expected_cost: Decimal | None = None  # in the provider's own unit


@dataclass(frozen=True)
class JobRef:
    """What is needed to ask for a job again."""

    job_id: str
    model: str
    reference: str  # ours, sent with the submit where the provider takes one
    image_to_video: bool = False  # Kling's older standard has a path for each kind
    urls: Mapping[str, str] = field(default_factory=dict)


class JobState(StrEnum):
    """The provider's word for a job, in ours."""

    QUEUED = "queued"
    RUNNING = "running"
    RESULT_READY = "result_ready"  # ended; `build_result` must be asked how (fal)
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNRECOGNISED = "unrecognised"  # a status we do not know: wait and alert, never fail a paid job


@dataclass(frozen=True)
class JobStatus:
    """One look at a job."""

    state: JobState
    provider_status: str = ""  # verbatim, for the operator
    progress: float | None = None  # 0..1, None when the provider gives none
    result_url: str | None = field(default=None, repr=False)  # often signed: never stored, never logged
    cost: Decimal | None = None  # final charge in the provider's own unit; 0 when fully refunded
    error: JobFailed | None = None  # with FAILED


class CancelOutcome(StrEnum):
    """What a cancel call proved. Only a later look at the job tells how it ended."""

    REQUESTED = "requested"
    ALREADY_ENDED = "already_ended"
    NOT_FOUND = "not_found"


class Provider(ABC):
    """One adapter an instance, bound to one base URL. Stateless, so safe between threads."""

    name: ClassVar[str]
    title: ClassVar[str]
    cost_unit: ClassVar[str]  # "credits", "units", "USD"
    min_poll_interval_s: ClassVar[float]  # the provider's own rule for polling one job
    can_cancel: ClassVar[bool]
    max_jobs_per_poll: ClassVar[int] = 1

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")

    @abstractmethod
    def build_submit(self, request: GenerationRequest, *, key: str, reference: str) -> HttpRequest:
        """The HTTP request that starts one generation; sending it is the caller's business, once.

        `reference` is ours and unique per generation, so that reconciliation can find the job again.
        Raises RequestRejected if no model of this provider can express the request.
        """

    @abstractmethod
    def parse_submit(self, reply: HttpReply) -> Submitted:
        """The provider's job id, or the error that says what the caller does now.

        Raises RequestRejected, KeyRefused, OutOfCredits, ModelForbidden, Busy (see `retry_after_s`), and
        SubmissionUnknown for every answer that does not prove that no job exists.
        """

    @abstractmethod
    def build_poll(self, jobs: Sequence[JobRef], *, key: str) -> HttpRequest:
        """The request that looks at up to `max_jobs_per_poll` jobs."""

    @abstractmethod
    def parse_poll(self, reply: HttpReply, jobs: Sequence[JobRef]) -> dict[str, JobStatus | JobNotFound]:
        """What the reply says of each job, by job id; every job asked for is in it.

        Raises ProviderDown, KeyRefused or Busy when the reply says nothing about the jobs.
        """

    def build_result(self, job: JobRef, *, key: str) -> HttpRequest:
        """The request for the outcome of a job in RESULT_READY; only such providers have one."""
        raise TypeError(f"{self.name} has no result call")

    def parse_result(self, reply: HttpReply, job: JobRef) -> JobStatus:
        """How a job in RESULT_READY ended. Raises as `parse_poll` does."""
        raise TypeError(f"{self.name} has no result call")

    def build_cancel(self, job: JobRef, *, key: str) -> HttpRequest:
        """The request that asks the provider to stop a job; only where `can_cancel`."""
        raise TypeError(f"{self.name} cannot cancel")

    def parse_cancel(self, reply: HttpReply) -> CancelOutcome:
        """What the answer to a cancel proved. Raises ProviderDown, KeyRefused or Busy."""
        raise TypeError(f"{self.name} cannot cancel")
