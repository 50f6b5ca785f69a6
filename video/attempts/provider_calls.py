"""Talking to a provider about one generation: send it once, poll it, ask it to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from django.conf import settings

from providers.contract import (
    CancelOutcome,
    GenerationRequest,
    HttpReply,
    HttpRequest,
    JobRef,
    JobState,
    JobStatus,
    StartImage,
    Submitted,
)
from providers.errors import Busy, KeyRefused, NotSent, OutOfCredits, ProviderDown, ProviderError
from video.attempts import callbacks, last_answers
from video.engine.outcomes import bounded_s
from video.infra import metrics, tracing
from video.infra.failpoints import failpoint
from video.infra.toolkit import toolkit
from video.models import Generation, VideoTask
from video.routing import model_choice

if TYPE_CHECKING:
    from providers.http_batch import BatchReader

# A worker that was frozen between writing `unknown` and the socket must not send minutes later.
MOST_SECONDS_BEFORE_SEND = 5.0
#: The longest wait in seconds that a provider's answer to a read is granted, whatever it asks for.
LONGEST_PAUSE_S = 60.0
# Errors of a read that tell nothing about the job; never a reason to fail one that is paid for.
READ_TROUBLE = (ProviderDown, KeyRefused, OutOfCredits, Busy)


class KeyGone(Exception):
    """The key that the generation was submitted with is no longer configured."""


class Paused(Exception):
    """Nothing was asked: the provider has just asked for a pause of `wait_s`, or could not be reached."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


PollAnswer = JobStatus | Exception
Parsed = TypeVar("Parsed")


def request_of(task: VideoTask, generation: Generation, image: StartImage | None) -> GenerationRequest:
    """What is asked of the provider for this task, with its start image."""
    request = model_choice.request_of(task, model=generation.model, resolution=generation.resolution)
    callback_url = callbacks.callback_url(generation.pk, generation.provider)
    return replace(request, duration_s=generation.duration_s, callback_url=callback_url, image=image)


def _key(generation: Generation) -> str:
    key = toolkit().key(generation.provider, generation.key_fingerprint)
    if key is None:
        raise KeyGone(generation.key_fingerprint)
    return key.value


def _job(generation: Generation) -> JobRef:
    return JobRef(
        job_id=generation.job_id,
        model=generation.model,
        reference=generation.pk,
        image_to_video=bool(generation.task.image_url),
        urls=generation.job_urls,
    )


class Submission:
    """A submit that is ready to be sent: everything that can go wrong without a socket has gone right."""

    def __init__(self, task: VideoTask, generation: Generation, image: StartImage | None = None) -> None:
        """Raises RequestRejected when the provider's models can't express the task, KeyGone without a key."""
        self._task, self._key = task, _key(generation)
        self._provider = toolkit().provider(generation.provider)
        self._sender = toolkit().sender(generation.provider)
        request = request_of(task, generation, image)
        self.expects_call = request.callback_url is not None
        self._request = self._provider.build_submit(request, key=self._key, reference=generation.pk)

    def send(self) -> Submitted:
        """Send it, once. Raises as `Provider.parse_submit` does, and NotSent."""
        marked_at = time.monotonic()

        def before_send() -> None:
            failpoint("generate.before_send")
            if time.monotonic() - marked_at > MOST_SECONDS_BEFORE_SEND:
                raise NotSent("too long between writing the submit down and sending it")

        with _call(self._provider.name, "submit"):
            reply = self._sender.submit(
                self._request, deadline_s=settings.SUBMIT_TIMEOUT_SECONDS, before_send=before_send
            )
            failpoint("generate.after_send")
            try:
                return self._provider.parse_submit(reply)
            except ProviderError as err:
                err.answer = last_answers.of(reply, key=self._key, written=_written(self._task))
                raise


def look_up(generation: Generation) -> Submitted | None:
    """The job that holds our reference, if the provider shows one. Raises KeyGone and READ_TROUBLE."""
    provider = toolkit().provider(generation.provider)
    request = provider.build_lookup(generation.pk, key=_key(generation), image_to_video=bool(generation.task.image_url))
    with _call(generation.provider, "look_up"):
        reply = toolkit().sender(generation.provider).read(request, deadline_s=settings.READ_TIMEOUT_SECONDS)
        return provider.parse_lookup(reply, generation.pk)


def asked_wait_s(error: Busy) -> float:
    """Seconds for which this answer to a read asks us to wait, within our bound; 0 if it does not ask."""
    return bounded_s(error.retry_after_s or 0, LONGEST_PAUSE_S)


def refuses_duplicates(generation: Generation) -> bool:
    """Whether sending this generation again with its reference surely makes no second job."""
    key = toolkit().key(generation.provider, generation.key_fingerprint)
    return key is not None and toolkit().provider(generation.provider).refuses_duplicates(key.value)


def poll(generation: Generation) -> JobStatus:
    """How the job stands, RESULT_READY followed to its result.

    Raises JobNotFound, KeyGone, and the errors in READ_TROUBLE.
    """
    answer = _poll_with_one_key([generation])[generation.pk]
    if isinstance(answer, Exception):
        raise answer
    return answer


def poll_many(generations: Sequence[Generation], *, last: Collection[str] = ()) -> dict[str, PollAnswer]:
    """How each of these jobs stands, by attempt, or what `poll` would raise; one batch of requests for each key.

    Paused for those of a provider that asked for a pause, or that can't be reached; but for attempts in `last`, which
    are polled for the last time: their video may be ready.
    """
    groups: dict[tuple[str, str], list[Generation]] = {}
    for generation in generations:
        groups.setdefault((generation.provider, generation.key_fingerprint), []).append(generation)
    answers: dict[str, PollAnswer] = {}
    for name_and_key, group in groups.items():
        try:
            _check_pause(name_and_key)
        except Paused as err:
            answers |= dict.fromkeys((one.pk for one in group if one.pk not in last), err)
            group = [one for one in group if one.pk in last]
        try:
            answers |= _poll_with_one_key(group) if group else {}
        except KeyGone as err:
            answers |= dict.fromkeys((one.pk for one in group), err)
    return answers


def _poll_with_one_key(group: list[Generation]) -> dict[str, PollAnswer]:
    name, key = group[0].provider, _key(group[0])
    provider, reader = toolkit().provider(name), toolkit().batch_reader(name)
    jobs = {generation.pk: _job(generation) for generation in group}
    answers: dict[str, PollAnswer] = {}
    size = provider.jobs_per_poll(key)
    shares = [group[at : at + size] for at in range(0, len(group), size)]
    requests = [provider.build_poll([jobs[one.pk] for one in share], key=key) for share in shares]
    replies = _read_many(name, "poll", reader, requests)
    left_out = ProviderDown(f"{name}'s answer leaves out a job that was asked about")
    for share, reply in zip(shares, replies, strict=True):
        asked = [jobs[one.pk] for one in share]
        found = _parsed(reply, partial(provider.parse_poll, jobs=asked))
        for one in share:
            answer = found if isinstance(found, Exception) else found.get(one.job_id) or left_out
            answers[one.pk] = _with_answer(answer, reply, one, key, alone=len(share) == 1)
    ready = [one for one in group if _is_ready(answers[one.pk])]
    requests = [provider.build_result(jobs[one.pk], key=key) for one in ready]
    results = _read_many(name, "result", reader, requests)
    for one, reply in zip(ready, results, strict=True):
        answer = _parsed(reply, partial(provider.parse_result, job=jobs[one.pk]))
        answers[one.pk] = _with_answer(answer, reply, one, key, alone=True)
    _note_pause((name, group[0].key_fingerprint), replies, answers)
    return answers


def _read_many(
    name: str, call: str, reader: BatchReader, requests: Sequence[HttpRequest]
) -> list[HttpReply | ProviderDown]:
    """One batch. It is measured as one call, which is `provider_down` when none of its requests was answered."""
    if not requests:
        return []
    with _call(name, call) as said:
        replies = reader.read_many(requests, deadline_s=settings.READ_TIMEOUT_SECONDS)
        if all(isinstance(reply, ProviderDown) for reply in replies):
            said.outcome = "provider_down"
    return replies


@contextmanager
def _call(provider: str, call: str) -> Iterator[metrics.Timed]:
    """Count, measure and trace what is asked of a provider."""
    with (
        metrics.timed(metrics.PROVIDER_REQUESTS, provider, call) as said,
        tracing.step(f"{provider} {call}", {"reelworks.provider": provider}),
    ):
        yield said


def _parsed(reply: HttpReply | ProviderDown, parse: Callable[[HttpReply], Parsed]) -> Parsed | Exception:
    """What the adapter reads in a reply. A reply that it stumbles over must not hide those to the others."""
    if isinstance(reply, ProviderDown):
        return reply
    try:
        return parse(reply)
    except Exception as err:  # raised again where its own job is decided on
        return err


_BAD_ENDS = frozenset({JobState.FAILED, JobState.CANCELLED})


def _with_answer(
    found: PollAnswer, reply: HttpReply | ProviderDown, generation: Generation, key: str, *, alone: bool
) -> PollAnswer:
    """The same, with what the provider answered where that is not routine. `alone`: it speaks of this job only."""
    is_bad = isinstance(found, ProviderError) or (isinstance(found, JobStatus) and found.state in _BAD_ENDS)
    if isinstance(reply, ProviderDown) or not is_bad:
        return found
    said = last_answers.of(reply, key=key, written=_written(generation.task), job_id=generation.job_id, alone=alone)
    if isinstance(found, JobStatus):
        return replace(found, answer=said)
    if isinstance(found, ProviderError):
        found.answer = said
    return found


def _written(task: VideoTask) -> list[str]:
    """What of a task is its user's own words."""
    return [task.prompt, task.negative_prompt]


def _is_ready(answer: PollAnswer) -> bool:
    return isinstance(answer, JobStatus) and answer.state is JobState.RESULT_READY


# --- a provider that asked for a pause, or that can't be reached ----------------------------------------------------

#: Until when (time.monotonic) this process asks nothing more with a key.
_paused_until: dict[tuple[str, str], float] = {}
OUT_OF_REACH_S = 15.0
FEWEST_FOR_OUT_OF_REACH = 5


def _check_pause(name_and_key: tuple[str, str]) -> None:
    left_s = _paused_until.get(name_and_key, 0.0) - time.monotonic()
    if left_s > 0:
        raise Paused(f"{name_and_key[0]} is left alone for a while", left_s)


def _note_pause(
    name_and_key: tuple[str, str], replies: list[HttpReply | ProviderDown], answers: dict[str, PollAnswer]
) -> None:
    """A "too many requests" for one job holds for all of the key; when no request of a batch is answered, the next
    batches wait too."""
    asked_s = max((asked_wait_s(answer) for answer in answers.values() if isinstance(answer, Busy)), default=0.0)
    if asked_s:
        _paused_until[name_and_key] = time.monotonic() + asked_s
    elif len(replies) >= FEWEST_FOR_OUT_OF_REACH and all(isinstance(reply, ProviderDown) for reply in replies):
        _paused_until[name_and_key] = time.monotonic() + OUT_OF_REACH_S


def result_url(generation: Generation) -> str:
    """A fresh link to the finished video. Never stored: links are signed and die.

    Raises as `poll`, and ProviderDown when the provider gives none though the job had succeeded.
    """
    status = poll(generation)
    if status.state is not JobState.SUCCEEDED or not status.result_url:
        raise ProviderDown(f"{generation.provider} gave no link to a job that had succeeded ({status.provider_status})")
    return status.result_url


def cancel(generation: Generation) -> CancelOutcome | None:
    """Ask the provider to stop the job; None where it can't. Raises ProviderDown, KeyRefused, Busy, KeyGone."""
    provider = toolkit().provider(generation.provider)
    if not provider.can_cancel:
        return None
    request = provider.build_cancel(_job(generation), key=_key(generation))
    with _call(generation.provider, "cancel"):
        return provider.parse_cancel(
            toolkit().sender(generation.provider).read(request, deadline_s=settings.READ_TIMEOUT_SECONDS)
        )


def poll_interval_s(provider_name: str) -> float:
    """Seconds between two polls of one job at least: as set, and never under a real provider's own rule."""
    interval: float = settings.POLL_INTERVAL_SECONDS[provider_name]
    if settings.SIMULATE:
        return interval
    return max(interval, toolkit().provider(provider_name).min_poll_interval_s)
