"""What every provider adapter is: a sans-IO translator between our words and one wire protocol.

An adapter builds requests and reads replies; it never opens a socket (`http.py` sends) and reads no settings (what it
needs arrives in its constructor). So every wire rule is tested without a server.

The others call `parse_…`; an adapter writes `read_…`, which gets only successes and what its own API wrote: an error
that `is_own` does not know came from a proxy, and is judged here for all providers in the same way.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, TypeVar, final

from providers import gateways
from providers.errors import (
    Busy,
    GatewayAnswer,
    JobFailed,
    JobNotFound,
    ProviderDown,
    ProviderError,
    SubmissionUnknown,
)
from providers.untrusted import bounded_cost, safe_id, safe_share, safe_url, storable
from providers.waits import asked_wait_s

ErrorT = TypeVar("ErrorT", bound=ProviderError)


class ReasonCode(StrEnum):
    """Why a model cannot run a job. Code compares these; people read the text beside them."""

    INCAPABLE = "incapable"  # the model cannot make this video; the reason names the field
    SWITCHED_OFF = "switched_off"  # by the operator
    PAUSED = "paused"  # by an operator, for a while: the model, its provider, its accounts, the user, or everything
    NO_KEY = "no_key"  # no key of its provider is configured here
    CIRCUIT_OPEN = "circuit_open"
    CLOSED = "closed"  # each account refuses new jobs: no credits, a cool-down, no active key
    FULL = "full"  # takes jobs, but each slot is taken
    LEFT_OUT = "left_out"  # the task does not want this model


@dataclass(frozen=True)
class Reason:
    """Why a model cannot run a job: a code for programs, a text for people, and the API's name of a wrong field."""

    code: ReasonCode
    text: str
    field: str = ""  # empty where no field of the request is at fault

    def __str__(self) -> str:
        return f"{self.field}: {self.text}" if self.field else self.text


@dataclass(frozen=True)
class StartImage:
    """A start image as a provider gets it: whole, upright, without metadata, and within the model's `ImageLimits`."""

    media_type: str  # image/jpeg, image/png or image/webp, true to the bytes
    data: bytes = field(repr=False)

    def base64(self) -> str:
        """The bytes in base64, without line breaks."""
        return b64encode(self.data).decode("ascii")

    def data_uri(self) -> str:
        """`data:image/jpeg;base64,…` (RFC 2397)."""
        return f"data:{self.media_type};base64,{self.base64()}"


@dataclass(frozen=True)
class GenerationRequest:
    """One video, as asked of one model. The same values are stored on the attempt and charged for."""

    model: str  # the catalogue's model id, e.g. "gen4.5"; the adapter turns it into the provider's path or name
    prompt: str
    duration_s: int
    aspect_ratio: str  # "16:9"; the adapter translates
    image_url: str | None = None  # where the client has the start image; the provider gets `image`, never this
    negative_prompt: str | None = None
    seed: int | None = None
    resolution: str = "720p"  # of the provider's render: its short side
    sound: bool | None = None  # None: none where it can be chosen, and whatever the model makes elsewhere
    callback_url: str | None = None  # where the provider may call back when the job moves
    image: StartImage | None = field(default=None, repr=False)  # what is at `image_url`, by the time of a submit

    def start_image(self) -> StartImage | None:
        """What a submit hands over; None for a video from text. Raises ValueError where it was not fetched."""
        if self.image is None and self.image_url is not None:
            raise ValueError("a start image is wanted, and nobody has fetched it")
        return self.image


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
        try:
            return json.loads(self.body, parse_int=_whole)
        except RecursionError as err:  # a megabyte of "[" is a bad reply, not our crash
            raise ValueError("nested too deeply") from err

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises ValueError when it is anything else."""
        body = self.json()
        if not isinstance(body, dict):
            raise ValueError(f"a JSON object was expected, not {type(body).__name__}")
        return body

    def json_object_or_empty(self) -> dict[str, Any]:
        """The same for an error reply, where a missing or odd body must not hide the status."""
        try:
            return self.json_object()
        except ValueError:
            return {}

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def error(self, kind: type[ErrorT], message: str, **more: Any) -> ErrorT:
        """An error because of this reply: it has the status, and Busy the time that the provider asks us to wait."""
        if issubclass(kind, Busy):
            more["retry_after_s"] = self.retry_after_s()
        return kind(message, http_status=self.status, **more)

    def retry_after_s(self) -> float | None:
        """Seconds that the provider asks us to wait, see `waits`."""
        return asked_wait_s(self.headers)


@dataclass(frozen=True)
class Submitted:
    """Proof that a job exists. `urls` are follow-up addresses that the provider gave (fal); never signed ones.

    From `parse_…` a row takes it as it is.
    """

    job_id: str  # from `read_…` empty if the answer has none
    urls: Mapping[str, str] = field(default_factory=dict)
    expected_cost: Decimal | None = None  # in the provider's own unit
    clamped: tuple[str, ...] = ()  # what the provider told beyond all bounds, in our words: "expected cost"


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
    """What one poll says of a job. From `parse_…` a row takes it as it is."""

    state: JobState
    provider_status: str = ""  # verbatim, for the operator
    progress: float | None = None  # 0..1, None when the provider gives none
    result_url: str | None = field(default=None, repr=False)  # often signed: never stored, never logged
    cost: Decimal | None = None  # final charge in the provider's own unit; 0 when fully refunded
    error: JobFailed | None = None  # with FAILED
    clamped: tuple[str, ...] = ()  # what the provider told beyond all bounds, in our words: "cost", "progress"
    answer: str = ""  # of a bad end: what the provider answered, as it may be kept; set by who has the answer


@dataclass(frozen=True)
class ModelLimits:
    """What one account may do with one model; None is "no limit", or a count that the provider does not give."""

    max_concurrent: int | None = None
    max_per_day: int | None = None  # rolling 24 hours
    used_today: int | None = None


@dataclass(frozen=True)
class AccountInfo:
    """An account as the provider sees it, for the operator's page and for benching an empty one."""

    balance: Decimal | None  # in the provider's own unit; None when it did not say
    limits: Mapping[str, ModelLimits] = field(default_factory=dict)  # by the provider's model id


class CancelOutcome(StrEnum):
    """What a cancel call proved. Only a later poll says how the job ended."""

    REQUESTED = "requested"
    ALREADY_ENDED = "already_ended"
    NOT_FOUND = "not_found"


class Provider(ABC):
    """One adapter an instance, bound to one base URL. Stateless, so safe between threads."""

    name: ClassVar[str]
    title: ClassVar[str]
    cost_unit: ClassVar[str]  # "credits", "units", "USD"
    unit_usd: ClassVar[Decimal]  # what one of these costs us
    unit_usd_source: ClassVar[str]  # where that is written, and when it was read
    min_poll_interval_s: ClassVar[float]  # the provider's own rule for polling one job
    can_cancel: ClassVar[bool]
    can_look_up: ClassVar[bool] = False  # by our reference, with `build_lookup`
    has_account_call: ClassVar[bool] = False  # `build_account`
    can_call_back: ClassVar[bool] = False  # takes `GenerationRequest.callback_url`
    max_jobs_per_poll: ClassVar[int] = 1
    result_life_s: ClassVar[float | None] = None  # a finished video can be had for so long; None: not documented

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")

    def jobs_per_poll(self, key: str) -> int:
        """How many jobs one `build_poll` takes with this key; at most `max_jobs_per_poll`."""
        return self.max_jobs_per_poll

    def refuses_duplicates(self, key: str) -> bool:
        """Whether a second submit with the same reference surely makes no second job."""
        return False

    def offers(self, model_id: str, key: str) -> bool:
        """Whether this kind of key speaks an API that has the model. False: a submit would raise ModelForbidden.

        `key` may be its shape only (`ApiKey.shape`).
        """
        return True

    @abstractmethod
    def build_submit(self, request: GenerationRequest, *, key: str, reference: str) -> HttpRequest:
        """The HTTP request that starts one generation; sending it is the caller's business, once.

        `reference` is ours and unique per generation, so that reconciliation can find the job again.
        Raises RequestRejected if no model of this provider can express the request, and ModelForbidden if another
        key could (Kling's two standards offer different models).
        """

    @abstractmethod
    def is_own(self, reply: HttpReply) -> bool:
        """Whether the body of an error is JSON in the shape in which this provider's API writes its errors.

        A page, a text, an empty body and JSON of another shape (`{"message": "Forbidden"}`) are not. Never raises.
        """

    @final
    def parse_submit(self, reply: HttpReply) -> Submitted:
        """The provider's job id, or the error that says what the caller does now.

        Raises RequestRejected, KeyRefused, OutOfCredits, ModelForbidden, Busy (see `retry_after_s`), GatewayAnswer, and
        SubmissionUnknown for every answer that does not prove that no job exists.
        """
        if reply.ok or self._is_own(reply):
            return self._with_id(self.read_submit(reply), reply, SubmissionUnknown)
        if gateways.proves_no_job(reply.status, reply.body):
            raise reply.error(GatewayAnswer, self._not_own(reply))
        raise reply.error(SubmissionUnknown, self._not_own(reply))

    @abstractmethod
    def read_submit(self, reply: HttpReply) -> Submitted:
        """`parse_submit` for a success, and for an error in the provider's own words.

        An answer that is in no table of the adapter is SubmissionUnknown. A success may come back with any id, cost and
        urls: what a row can't hold is refused or bounded here, for all providers.
        """

    @abstractmethod
    def build_poll(self, jobs: Sequence[JobRef], *, key: str) -> HttpRequest:
        """The request that polls up to `max_jobs_per_poll` jobs."""

    @final
    def parse_poll(self, reply: HttpReply, jobs: Sequence[JobRef]) -> dict[str, JobStatus | JobNotFound]:
        """What the reply says of each job, by job id; every job asked for is in it.

        Raises ProviderDown, KeyRefused, OutOfCredits (fal locks reads too) or Busy when the reply says nothing about
        the jobs.
        """
        self._check_read(reply)
        found = self.read_poll(reply, jobs)
        return {job_id: _bounded(one) if isinstance(one, JobStatus) else one for job_id, one in found.items()}

    @abstractmethod
    def read_poll(self, reply: HttpReply, jobs: Sequence[JobRef]) -> dict[str, JobStatus | JobNotFound]:
        """`parse_poll` for a success, and for an error in the provider's own words."""

    def build_result(self, job: JobRef, *, key: str) -> HttpRequest:
        """The request for the outcome of a job in RESULT_READY; only such providers have one."""
        raise TypeError(f"{self.name} has no result call")

    @final
    def parse_result(self, reply: HttpReply, job: JobRef) -> JobStatus:
        """How a job in RESULT_READY ended. Raises as `parse_poll` does, and JobNotFound."""
        self._check_read(reply)
        return _bounded(self.read_result(reply, job))

    def read_result(self, reply: HttpReply, job: JobRef) -> JobStatus:
        """`parse_result` for a success, and for an error in the provider's own words."""
        raise TypeError(f"{self.name} has no result call")

    def build_cancel(self, job: JobRef, *, key: str) -> HttpRequest:
        """The request that asks the provider to stop a job; only where `can_cancel`."""
        raise TypeError(f"{self.name} cannot cancel")

    @final
    def parse_cancel(self, reply: HttpReply) -> CancelOutcome:
        """What the answer to a cancel proved. Raises ProviderDown, KeyRefused or Busy."""
        self._check_read(reply)
        return self.read_cancel(reply)

    def read_cancel(self, reply: HttpReply) -> CancelOutcome:
        """`parse_cancel` for a success, and for an error in the provider's own words."""
        raise TypeError(f"{self.name} cannot cancel")

    def took_nothing(self, end: JobStatus, *, before: str) -> bool:
        """Whether the provider surely charges nothing for a job that ended so, without a video. Not sure: False.

        `before`: its own word (`JobStatus.provider_status`) at the last poll before that; empty if there was none.
        """
        return end.cost == 0

    def build_lookup(self, reference: str, *, key: str, image_to_video: bool) -> HttpRequest:
        """The request that finds a job by our reference after an unknown submit; only where `can_look_up`."""
        raise TypeError(f"{self.name} cannot look jobs up by reference")

    @final
    def parse_lookup(self, reply: HttpReply, reference: str) -> Submitted | None:
        """The job that carries our reference, or None when the provider knows none (yet: a new one may show late).

        Raises ProviderDown, KeyRefused, OutOfCredits or Busy when the reply proves neither.
        """
        self._check_read(reply)
        found = self.read_lookup(reply, reference)
        return None if found is None else self._with_id(found, reply, ProviderDown)

    def read_lookup(self, reply: HttpReply, reference: str) -> Submitted | None:
        """`parse_lookup` for a success, and for an error in the provider's own words."""
        raise TypeError(f"{self.name} cannot look jobs up by reference")

    def build_account(self, *, key: str) -> HttpRequest:
        """The request for the account's balance and limits; only where `has_account_call`."""
        raise TypeError(f"{self.name} has no account call")

    @final
    def parse_account(self, reply: HttpReply) -> AccountInfo:
        """Balance and limits. Raises ProviderDown, KeyRefused, OutOfCredits or Busy."""
        self._check_read(reply)
        return self.read_account(reply)

    def read_account(self, reply: HttpReply) -> AccountInfo:
        """`parse_account` for a success, and for an error in the provider's own words."""
        raise TypeError(f"{self.name} has no account call")

    def _with_id(self, found: Submitted, reply: HttpReply, without_id: type[ProviderError]) -> Submitted:
        """The job as its row takes it. Raises `without_id` for an id that is none, or that no row holds: it may be a
        paid job, of which nothing more is known."""
        job_id = safe_id(found.job_id)
        if not job_id:
            raise reply.error(without_id, f"{self.title} answered {reply.status} without a job id that a row holds")
        cost = bounded_cost(found.expected_cost)
        clamped = ("expected cost",) if _is_less(cost, found.expected_cost) else ()
        urls = {name: url for name, url in found.urls.items() if safe_url(url)}
        return replace(found, job_id=job_id, urls=urls, expected_cost=cost, clamped=clamped)

    def _is_own(self, reply: HttpReply) -> bool:
        return self.is_own(reply) and not gateways.is_foreign_json(reply.headers, reply.json_object_or_empty())

    def _check_read(self, reply: HttpReply) -> None:
        """Raise Busy or ProviderDown for an error that the provider's API did not write: no news of key or job."""
        if reply.ok or self._is_own(reply):
            return
        raise reply.error(Busy if reply.status == 429 else ProviderDown, self._not_own(reply))

    def _not_own(self, reply: HttpReply) -> str:
        """What an operator reads of such an answer. No text of the page: it may quote the request with its key."""
        target = gateways.redirect_target(reply.status, reply.headers)
        if target is None:
            return f"{self.title} was not reached: something in front of its API answered {reply.status}"
        setting = f"{self.name.upper()}_BASE_URL"
        return (
            f"{self.title} answered {reply.status}, a redirect to {target}: "
            f"{setting} must be the address of the API itself"
        )


def _bounded(status: JobStatus) -> JobStatus:
    """The same as a row takes it, whatever the adapter let through: the statement of a whole batch holds it."""
    cost, progress = bounded_cost(status.cost), safe_share(status.progress)
    clamped = [
        name
        for name, kept, told in (("cost", cost, status.cost), ("progress", progress, status.progress))
        if _is_less(kept, told)
    ]
    word = storable(status.provider_status, 60)
    return replace(status, provider_status=word, progress=progress, cost=cost, clamped=tuple(clamped))


def _is_less(kept: Decimal | float | None, told: Decimal | float | None) -> bool:
    return kept is not None and told is not None and kept < told


def _whole(digits: str) -> int | float:
    """An integer of a JSON text. One with more digits than any amount has is read as a float, as 1e400 is: infinite
    from 310 digits on. Python itself refuses to read one with more than 4,300, and the whole answer with it."""
    return int(digits) if len(digits) <= 40 else float(digits)
