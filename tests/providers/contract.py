"""What every adapter must do at its provider, over real HTTP: one class of cases for all, and one for each extra.

A new adapter is done when a subclass with its `Variant` passes. Nothing here knows a wire format.
"""

from __future__ import annotations

import socket
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

import pytest
import requests

from providers.contract import (
    CancelOutcome,
    GenerationRequest,
    HttpRequest,
    JobRef,
    JobState,
    JobStatus,
    Provider,
    Submitted,
)
from providers.dialect.jobs import fingerprint as simulators_name
from providers.errors import (
    Busy,
    DuplicateReference,
    JobNotFound,
    KeyRefused,
    NotSent,
    OutOfCredits,
    ProviderDown,
    ProviderError,
    RequestRejected,
    SubmissionUnknown,
)
from providers.http import Sender
from tests.pictures import start_image

E = TypeVar("E", bound=ProviderError)
DEADLINE_S = 10.0
IMAGE: dict[str, Any] = {"image_url": "https://images.example.com/cat.png", "image": start_image()}


@dataclass(frozen=True)
class Variant:
    """One adapter with one kind of key. `failure`: a code with which jobs fail through no fault of the request."""

    adapter: Callable[[str], Provider]
    text_model: str
    image_model: str
    key: str
    poor_key: str  # another good one, whose account the test empties
    bad_keys: tuple[str, ...]
    unknown_job: str
    failure: str
    reports_cost: bool
    moderates_at_submit: bool
    duration_s: int = 5
    signs: bool = False  # a pair whose first half names the account

    @property
    def poor_account(self) -> str:
        """The simulator's name of the account that the test empties."""
        return simulators_name(self.poor_key.partition(":")[0] if self.signs else self.poor_key)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must show nowhere: each key, and each half of a pair."""
        return tuple(part for key in (self.key, self.poor_key, *self.bad_keys) for part in (key, *key.split(":")))


class Simulated:
    """The means: a variant's adapter and sender at a simulator, and prompts of one's own."""

    variant: ClassVar[Variant]

    @pytest.fixture(autouse=True)
    def _at(self, simulator_url: str) -> None:
        self.url = simulator_url
        self.provider = self.variant.adapter(simulator_url)
        self.sender = Sender(simulator_url)

    def order(self, script: str = "", **changes: Any) -> GenerationRequest:
        """A request with a prompt that no other test has, and what is to go wrong with it."""
        prompt = f"A cat on a roof, {uuid.uuid4()}" + (f" [[sim {script}]]" if script else "")
        model = self.variant.image_model if changes.get("image_url") else self.variant.text_model
        return GenerationRequest(
            **{  # type: ignore[arg-type]
                "model": model,
                "prompt": prompt,
                "duration_s": self.variant.duration_s,
                "aspect_ratio": "16:9",
                **changes,
            }
        )

    def build(self, order: GenerationRequest, *, key: str | None = None, reference: str | None = None) -> HttpRequest:
        request = self.provider.build_submit(
            order, key=key or self.variant.key, reference=reference or f"gen_{uuid.uuid4().hex}"
        )
        self.shows_no_key(repr(request), str(request))
        return request

    def send(self, order: GenerationRequest, *, key: str | None = None, reference: str | None = None) -> Submitted:
        request = self.build(order, key=key, reference=reference)
        submitted = self.provider.parse_submit(self.sender.submit(request, deadline_s=DEADLINE_S))
        self.shows_no_key(repr(submitted))
        return submitted

    def start(self, script: str = "", **changes: Any) -> JobRef:
        """A job that was accepted."""
        order, reference = self.order(script, **changes), f"gen_{uuid.uuid4().hex}"
        submitted = self.send(order, reference=reference)
        return JobRef(
            submitted.job_id,
            order.model,
            reference,
            image_to_video=order.image_url is not None,
            urls=submitted.urls,
        )

    def ref(self, job_id: str) -> JobRef:
        return JobRef(job_id, self.variant.text_model, f"gen_{uuid.uuid4().hex}")

    def read(self, request: HttpRequest) -> Any:
        self.shows_no_key(repr(request), str(request))
        return self.sender.read(request, deadline_s=DEADLINE_S)

    def look(self, job: JobRef, *, key: str | None = None) -> JobStatus:
        """How the job stands, as a stage asks for it. Raises JobNotFound too."""
        key = key or self.variant.key
        found = self.provider.parse_poll(self.read(self.provider.build_poll([job], key=key)), [job])
        assert list(found) == [job.job_id]
        status = found[job.job_id]
        if isinstance(status, JobNotFound):
            raise status
        if status.state is JobState.RESULT_READY:
            status = self.provider.parse_result(self.read(self.provider.build_result(job, key=key)), job)
        self.shows_no_key(repr(status))
        return status

    def cancel(self, job: JobRef) -> CancelOutcome:
        return self.provider.parse_cancel(self.read(self.provider.build_cancel(job, key=self.variant.key)))

    def look_up(self, reference: str, *, key: str | None = None) -> Submitted | None:
        request = self.provider.build_lookup(reference, key=key or self.variant.key, image_to_video=False)
        return self.provider.parse_lookup(self.read(request), reference)

    @contextmanager
    def raises(self, kind: type[E], *, exactly: bool = True) -> Iterator[pytest.ExceptionInfo[E]]:
        """The block ends with this error and no relative of it, and nothing about the error shows a key."""
        with pytest.raises(kind) as caught:
            yield caught
        if exactly:
            assert type(caught.value) is kind, repr(caught.value)
        error = caught.value
        self.shows_no_key(
            str(error),
            repr(error),
            error.message,
            error.user_message,
            error.provider_code,
            "".join(traceback.format_exception(error)),
        )

    def shows_no_key(self, *texts: str) -> None:
        for text in texts:
            for secret in self.variant.secrets:
                assert secret not in text

    def ask(self, path: str, **params: str) -> Any:
        """The simulator's own books."""
        reply = requests.get(f"{self.url}/_sim/{path}", params=params, timeout=30)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def tell(self, **changes: Any) -> None:
        reply = requests.post(f"{self.url}/_sim/config", json=changes, timeout=30)
        assert reply.status_code == 200, reply.text

    def created(self, order: GenerationRequest) -> int:
        """How many jobs the provider made of this prompt."""
        return int(self.ask("submits", prompt=order.prompt)["created"])


class Contract(Simulated):
    """Every adapter."""

    # --- submit, then success ---

    def test_text_to_video_ends_with_a_video_to_download(self) -> None:
        job = self.start()
        status = self.look(job)
        assert (status.state, status.progress, status.error) == (JobState.SUCCEEDED, 1.0, None)
        assert status.result_url is not None
        assert status.result_url not in repr(status)  # signed: it opens without a key
        video = requests.get(status.result_url, timeout=90)
        assert (video.status_code, video.headers["content-type"]) == (200, "video/mp4")
        assert video.content[4:8] == b"ftyp"

    def test_image_to_video_ends_with_a_link(self) -> None:
        status = self.look(self.start(**IMAGE))
        assert status.state is JobState.SUCCEEDED
        assert status.result_url

    def test_the_charge_is_reported_where_the_provider_tells_it(self) -> None:
        job = self.start()
        charged = self.ask("jobs", id=job.job_id)["jobs"][0]["cost"]
        assert charged > 0
        cost = self.look(job).cost
        if self.variant.reports_cost:
            assert cost is not None
            assert float(cost) == pytest.approx(charged)
        else:
            assert cost is None

    def test_a_job_that_runs_is_neither_done_nor_failed(self) -> None:
        status = self.look(self.start("render=60"))
        assert status.state in {JobState.QUEUED, JobState.RUNNING}
        assert status.error is None
        assert status.progress is None or 0 <= status.progress < 1

    def test_ids_are_short_enough_to_be_stored(self) -> None:
        job = self.start()
        assert 0 < len(job.job_id) <= 120
        assert job.job_id.strip() == job.job_id

    # --- what the provider refuses ---

    def test_forbidden_content_is_moderation_and_no_other_model_is_tried(self) -> None:
        if self.variant.moderates_at_submit:
            with self.raises(RequestRejected) as refused:
                self.send(self.order("moderation"))
            assert refused.value.code == "moderation"
            return
        status = self.look(self.start("moderation"))
        assert status.state is JobState.FAILED
        assert status.error is not None
        assert (status.error.code, status.error.another_model_could) == ("moderation", False)

    def test_a_bad_key_is_refused_at_submit_and_at_a_look(self) -> None:
        job = self.start()
        for bad in self.variant.bad_keys:
            order = self.order()
            with self.raises(KeyRefused):
                self.send(order, key=bad)
            assert self.created(order) == 0
            with self.raises(KeyRefused):
                self.look(job, key=bad)

    def test_an_empty_account_is_out_of_credits_however_it_is_said(self) -> None:
        poor = self.variant.poor_key
        self.tell(credits={self.variant.poor_account: 0})
        order = self.order()
        with self.raises(OutOfCredits):
            self.send(order, key=poor)
        assert self.created(order) == 0

    def test_too_fast_is_busy_for_as_long_as_the_provider_says(self) -> None:
        order = self.order("status=429 retry_after=7")
        with self.raises(Busy) as busy:
            self.send(order)
        assert busy.value.retry_after_s == 7
        assert self.created(order) == 0

    def test_busy_without_a_time_says_so(self) -> None:
        with self.raises(Busy) as busy:
            self.send(self.order("status=429"))
        assert busy.value.retry_after_s is None

    # --- submits that prove nothing ---

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_a_server_error_proves_nothing_job_or_no_job(self, status: int) -> None:
        for script, jobs in ((f"status={status}", 0), (f"status_after={status}", 1)):
            order = self.order(script)
            with self.raises(SubmissionUnknown):
                self.send(order)
            assert self.created(order) == jobs

    @pytest.mark.parametrize("script", ["lost_reply", "lost_reply_reset", "garbage"])
    def test_a_job_whose_answer_is_lost_or_garbled_stays_unknown_and_is_not_sent_twice(self, script: str) -> None:
        order = self.order(script)
        with self.raises(SubmissionUnknown):
            self.send(order)
        assert self.ask("submits", prompt=order.prompt) == {"received": 1, "created": 1, "doubled": 0}

    def test_a_reset_before_the_job_stays_unknown_too(self) -> None:
        order = self.order("reset")
        with self.raises(SubmissionUnknown):
            self.send(order)
        assert self.created(order) == 0

    def test_a_silent_provider_is_unknown_when_the_time_is_over(self) -> None:
        request = self.build(self.order("hang=5"))
        with self.raises(SubmissionUnknown):
            self.sender.submit(request, deadline_s=0.2)

    def test_a_refused_connection_is_not_sent(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port meanwhile
            nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
            self.provider, self.sender = self.variant.adapter(nowhere), Sender(nowhere)
            with self.raises(NotSent):
                self.send(self.order())
            with self.raises(ProviderDown):
                self.look(self.ref(self.variant.unknown_job))

    def test_a_key_is_sent_to_its_own_provider_only(self) -> None:
        request = self.build(self.order())
        elsewhere = Sender("http://127.0.0.1:9")
        with self.raises(NotSent, exactly=False):
            elsewhere.submit(request, deadline_s=DEADLINE_S)

    # --- looks ---

    def test_a_failure_after_acceptance_is_verified_and_another_model_may_try(self) -> None:
        status = self.look(self.start(f"fail={self.variant.failure}"))
        assert status.state is JobState.FAILED
        assert status.result_url is None
        assert status.error is not None
        assert status.error.another_model_could
        assert status.error.user_message.endswith(".")
        self.shows_no_key(str(status.error), repr(status.error))

    def test_an_unknown_job_is_not_found(self) -> None:
        with self.raises(JobNotFound):
            self.look(self.ref(self.variant.unknown_job))

    def test_a_job_that_the_provider_lost_is_not_found(self) -> None:
        job = self.start()
        requests.post(f"{self.url}/_sim/jobs/{job.job_id}", json={"state": "lost"}, timeout=30)
        with self.raises(JobNotFound):
            self.look(job)

    def test_a_status_that_nobody_documented_is_unrecognised_and_no_failure(self) -> None:
        status = self.look(self.start("unknown_status=60"))
        assert (status.state, status.error) == (JobState.UNRECOGNISED, None)
        assert status.provider_status.lower() == "awaiting_review"  # verbatim, for the operator

    @pytest.mark.parametrize("script", ["poll_status=503x1", "poll_status=500x1", "poll_garbage=1"])
    def test_a_look_that_failed_says_nothing_about_the_job(self, script: str) -> None:
        job = self.start(script)
        with self.raises(ProviderDown):
            self.look(job)
        assert self.look(job).state is JobState.SUCCEEDED

    def test_looks_that_come_too_fast_are_busy(self) -> None:
        job = self.start("poll_status=429x1 retry_after=3")
        with self.raises(Busy) as busy:
            self.look(job)
        assert busy.value.retry_after_s == 3
        assert self.look(job).state is JobState.SUCCEEDED

    # --- promises ---

    def test_what_it_says_it_can_do_is_what_this_suite_asks_of_it(self) -> None:
        promised = {
            CanCancel: self.provider.can_cancel,
            CanLookUp: self.provider.can_look_up,
            RefusesDuplicates: self.provider.refuses_duplicates(self.variant.key),
            TellsTheAccount: self.provider.has_account_call,
        }
        assert {extra for extra, said in promised.items() if said} == {
            extra for extra in promised if isinstance(self, extra)
        }
        assert 1 <= self.provider.jobs_per_poll(self.variant.key) <= self.provider.max_jobs_per_poll


class CanCancel(Simulated):
    """Adapters with `can_cancel`."""

    def test_a_running_job_stops_and_is_cancelled_or_gone(self) -> None:
        job = self.start("render=60")
        assert self.cancel(job) is CancelOutcome.REQUESTED
        assert self.look(job).state is JobState.CANCELLED

    def test_a_provider_that_forgets_a_cancelled_job_says_that_it_has_none(self) -> None:
        job = self.start("render=60 cancel=404")
        assert self.cancel(job) is CancelOutcome.REQUESTED
        with self.raises(JobNotFound):
            self.look(job)

    def test_a_cancel_that_changes_nothing_is_seen_at_the_next_look(self) -> None:
        job = self.start("render=60 cancel=ignored")
        assert self.cancel(job) is CancelOutcome.REQUESTED
        assert self.look(job).state in {JobState.QUEUED, JobState.RUNNING}

    def test_a_cancel_that_failed_proves_nothing(self) -> None:
        job = self.start("render=60 cancel=503")
        with self.raises(ProviderDown):
            self.cancel(job)
        assert self.look(job).state in {JobState.QUEUED, JobState.RUNNING}

    def test_a_job_that_nobody_knows(self) -> None:
        assert self.cancel(self.ref(self.variant.unknown_job)) is CancelOutcome.NOT_FOUND

    def test_a_cancel_after_the_end_is_no_error(self) -> None:
        job = self.start()
        assert self.look(job).state is JobState.SUCCEEDED
        assert self.cancel(job) in {CancelOutcome.REQUESTED, CancelOutcome.ALREADY_ENDED}


class CanLookUp(Simulated):
    """Adapters with `can_look_up`."""

    def test_a_job_whose_answer_was_lost_is_found_by_our_reference(self) -> None:
        reference = f"gen_{uuid.uuid4().hex}"
        order = self.order("lost_reply")
        with self.raises(SubmissionUnknown):
            self.send(order, reference=reference)
        found = self.look_up(reference)
        assert found is not None
        job = JobRef(found.job_id, order.model, reference, urls=found.urls)
        assert self.look(job).state is JobState.SUCCEEDED
        assert self.ask("jobs", id=found.job_id)["jobs"][0]["reference"] == reference

    def test_nothing_was_made_is_none(self) -> None:
        reference = f"gen_{uuid.uuid4().hex}"
        with self.raises(SubmissionUnknown):
            self.send(self.order("reset"), reference=reference)
        assert self.look_up(reference) is None

    def test_a_look_up_with_a_bad_key_proves_nothing(self) -> None:
        for bad in self.variant.bad_keys:
            with self.raises(KeyRefused):
                self.look_up(f"gen_{uuid.uuid4().hex}", key=bad)


class RefusesDuplicates(Simulated):
    """Adapters that promise, for this kind of key, that one reference makes one job."""

    def test_the_same_reference_again_makes_no_second_job(self) -> None:
        order, reference = self.order("lost_reply=1"), f"gen_{uuid.uuid4().hex}"
        with self.raises(SubmissionUnknown):
            self.send(order, reference=reference)
        with self.raises(DuplicateReference):
            self.send(order, reference=reference)
        assert self.created(order) == 1

    def test_it_makes_the_job_that_the_first_send_did_not(self) -> None:
        order, reference = self.order("reset=1"), f"gen_{uuid.uuid4().hex}"
        with self.raises(SubmissionUnknown):
            self.send(order, reference=reference)
        assert self.send(order, reference=reference).job_id
        assert self.created(order) == 1


class TellsTheAccount(Simulated):
    """Adapters with `has_account_call`."""

    def test_the_balance_of_an_empty_account_is_nothing(self) -> None:
        poor = self.variant.poor_key
        # Some bound how often this call may come; the simulator's clock is ours to move.
        self.tell(credits={self.variant.poor_account: 0}, advance_s=2)
        info = self.provider.parse_account(self.read(self.provider.build_account(key=poor)))
        assert info.balance == Decimal(0)
        self.shows_no_key(repr(info))

    def test_a_bad_key_is_refused(self) -> None:
        for bad in self.variant.bad_keys:
            with self.raises(KeyRefused):
                self.provider.parse_account(self.read(self.provider.build_account(key=bad)))
