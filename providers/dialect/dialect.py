"""What a provider's protocol adds to the common machinery: its paths, its words, its prices, its refusals."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Reversible, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, ClassVar, Protocol

from providers.dialect.jobs import Account, Call, Job, Lane, Phase
from providers.dialect.messages import Later, Reply, Request

_ELSEWHERE = "https://elsewhere.invalid/moved?token=never-to-be-shown"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that gets no. `kind` lets a dialect find its own words and codes; `message` is for "directive" only."""

    status: int
    kind: str  # "status" (by script), "credits", "moderation", "daily_limit", "busy", "directive", "not_found", …
    message: str = ""
    retry_after: str | None = None
    code: str = ""  # the provider's own, from a script's `status=429-1101`; "html" is a proxy's page

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        if self.retry_after is None:
            return ()
        kind, _, ahead_s = self.retry_after.partition(":")
        # Our replies have no `date`, so a client measures it by its own clock.
        said = formatdate(time.time() + int(ahead_s), usegmt=True) if kind == "date" else self.retry_after
        return (("retry-after", said),)

    @property
    def gateway_page(self) -> Reply:
        """The answer of a gateway that stands before the provider, and knows nothing of its protocol; a redirect leads
        to another origin."""
        page = f"<html><head><title>{self.status}</title></head><body><center>nginx</center></body></html>"
        moved = (("location", _ELSEWHERE),) if self.is_redirect else ()
        return Reply(self.status, page.encode(), "text/html", (*moved, *self.headers))

    @property
    def is_redirect(self) -> bool:
        return 300 <= self.status < 400

    @classmethod
    def by_script(cls, value: str, retry_after: str | None = None) -> Refusal:
        """From a directive's value: `429`, `400-credits` or `429-1101`."""
        status, _, code = value.partition("-")
        return cls(int(status), "credits" if code == "credits" else "status", retry_after=retry_after, code=code)


@dataclass(slots=True)
class Draft:
    """A valid submit, in common words."""

    model: str
    prompt: str
    content: str  # canonical text of the body without the client's reference: what must not be made twice
    width_px: int
    height_px: int
    duration_s: int
    audio: bool
    cost: float
    reference: str = ""
    callback_url: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None  # what this provider finds wrong only after it has accepted it
    lane: str = ""  # whose limit it counts against; "" means its model


class Host(Protocol):
    """What a dialect may ask of the simulator that it serves in; `Simulator` says what each member does."""

    limits: dict[str, int]
    daily_limits: dict[str, int]
    credit_balance: float
    good_keys: frozenset[str]
    secrets: dict[str, str]
    kling_webhook_secret: str
    refuse_duplicates: bool

    def now(self) -> float: ...
    def account(self, key: str) -> Account | None: ...
    def named_account(self, name: str) -> Account | None: ...
    def balance(self, account: Account, now: float) -> float: ...
    def lane(self, account: Account, model: str) -> Lane: ...
    def count_invalid(self) -> None: ...
    def submit(self, dialect: Dialect, account: Account, draft: Draft, request: Request) -> Later: ...
    def jobs(self) -> Reversible[Job]: ...
    def find(self, dialect: Dialect, account: Account, job_id: str) -> Job | None: ...
    def find_reference(self, dialect: Dialect, account: Account, reference: str, standard: str) -> Job | None: ...
    def poll(self, dialect: Dialect, jobs: Sequence[Job], answer: Callable[[], Reply]) -> Later: ...
    def cancel(self, job: Job, cost: float) -> None: ...
    def link(self, job: Job, origin: str) -> str: ...


class Dialect(ABC):
    """One protocol. Instances hold no state of jobs: that is the host's, which is the simulator."""

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]  # the longest match among all dialects gets the request
    queues_over_limit: ClassVar[bool] = True  # False: over the limit is refused ("busy") instead of held back
    moderation_failure: ClassVar[str | None] = None  # None: a forbidden prompt is refused at submit, else fails with it
    calls_back_at: ClassVar[frozenset[Phase]] = frozenset()  # of RUNNING and SUCCEEDED, which stands for every end

    def __init__(self, host: Host) -> None:
        self.host = host

    @abstractmethod
    def handle(self, request: Request) -> Later:
        """Answer a request whose path is one of ours."""

    @abstractmethod
    def accept(self, job: Job, request: Request) -> Reply:
        """The answer to a submit that made this job."""

    def refuse(self, refusal: Refusal) -> Reply:
        """The answer to a call that gets no, from the provider or from a proxy before it."""
        by_proxy = refusal.is_redirect or refusal.code == "html"
        return refusal.gateway_page if by_proxy else self.refuse_in_words(refusal)

    @abstractmethod
    def refuse_in_words(self, refusal: Refusal) -> Reply:
        """The same in the provider's own words."""

    def cost_of_failure(self, job: Job) -> float:
        """What a failed job costs in the end: 0 where the provider refunds this failure."""
        return 0.0

    def cost_of_cancel(self, job: Job, now: float) -> float:
        """What a job costs that is cancelled now."""
        return job.expected_cost if job.phase(now) is Phase.RUNNING else 0.0

    def account_of(self, request: Request, scheme: str) -> Account | None:
        """The account of an `Authorization: <scheme> <key>` header; None when there is no such key."""
        found, _, key = request.headers.get("authorization", "").partition(" ")
        return self.host.account(key) if found == scheme else None

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def check(self, account: Account, draft: Draft) -> Refusal | None:
        """A reason of this protocol's own not to make the job; asked in the moment before it is made."""
        return None

    def call_back(self, job: Job, phase: Phase) -> Call:
        """What is sent to `job.callback_url` when the job has come to this phase."""
        raise NotImplementedError(f"{self.name} does not call back")

    def forge(self, job: Job) -> Call:
        """What a stranger would send: a success with another video, without a good signature."""
        raise NotImplementedError(f"{self.name} does not call back")
