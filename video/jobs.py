"""Talking to a provider about one generation: send it once, look at it, ask it to stop."""

from __future__ import annotations

import time

from django.conf import settings

from providers.base import CancelOutcome, GenerationRequest, JobRef, JobState, JobStatus, Submitted
from providers.errors import Busy, JobNotFound, KeyRefused, NotSent, OutOfCredits, ProviderDown
from video import inbound
from video.failpoints import failpoint
from video.kit import kit
from video.models import Generation, VideoTask

# A worker that was frozen between writing `unknown` and the socket must not send minutes later.
MOST_SECONDS_BEFORE_SEND = 5.0


# What may come of a read that says nothing about the job; never a reason to fail one that is paid for.
READ_TROUBLE = (ProviderDown, KeyRefused, OutOfCredits, Busy)


class KeyGone(Exception):
    """The key that the generation was submitted with is no longer configured."""


def request_of(task: VideoTask, generation: Generation) -> GenerationRequest:
    """What is asked of the provider for this task."""
    return GenerationRequest(
        model=generation.model,
        prompt=task.prompt,
        duration_s=generation.duration_s,
        aspect_ratio=task.aspect_ratio,
        image_url=task.image_url or None,
        negative_prompt=task.negative_prompt or None,
        seed=task.seed,
        resolution=generation.resolution,
        callback_url=inbound.callback_url(generation.pk, generation.provider),
    )


def _key(generation: Generation) -> str:
    key = kit().key(generation.provider, generation.key_fingerprint)
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

    def __init__(self, task: VideoTask, generation: Generation) -> None:
        """Raises RequestRejected when the provider's models can't express the task, KeyGone without a key."""
        self._provider = kit().provider(generation.provider)
        self._sender = kit().sender(generation.provider)
        request = request_of(task, generation)
        self.expects_call = request.callback_url is not None
        self._request = self._provider.build_submit(request, key=_key(generation), reference=generation.pk)

    def send(self) -> Submitted:
        """Send it, once. Raises as `Provider.parse_submit` does, and NotSent."""
        marked_at = time.monotonic()

        def before_send() -> None:
            failpoint("generate.before_send")
            if time.monotonic() - marked_at > MOST_SECONDS_BEFORE_SEND:
                raise NotSent("too long between writing the submit down and sending it")

        reply = self._sender.submit(self._request, deadline_s=settings.SUBMIT_TIMEOUT_SECONDS, before_send=before_send)
        failpoint("generate.after_send")
        return self._provider.parse_submit(reply)


def look_up(generation: Generation) -> Submitted | None:
    """The job that holds our reference, if the provider shows one. Raises KeyGone and READ_TROUBLE."""
    provider = kit().provider(generation.provider)
    request = provider.build_lookup(generation.pk, key=_key(generation), image_to_video=bool(generation.task.image_url))
    reply = kit().sender(generation.provider).read(request, deadline_s=settings.READ_TIMEOUT_SECONDS)
    return provider.parse_lookup(reply, generation.pk)


def refuses_duplicates(generation: Generation) -> bool:
    """Whether sending this generation again with its reference surely makes no second job."""
    key = kit().key(generation.provider, generation.key_fingerprint)
    return key is not None and kit().provider(generation.provider).refuses_duplicates(key.value)


def look(generation: Generation) -> JobStatus:
    """How the job stands, RESULT_READY followed to its result.

    Raises JobNotFound, KeyGone, and the errors in READ_TROUBLE.
    """
    provider, sender = kit().provider(generation.provider), kit().sender(generation.provider)
    key, job = _key(generation), _job(generation)
    deadline_s = settings.READ_TIMEOUT_SECONDS
    status = provider.parse_poll(sender.read(provider.build_poll([job], key=key), deadline_s=deadline_s), [job])[
        job.job_id
    ]
    if isinstance(status, JobNotFound):
        raise status
    if status.state is JobState.RESULT_READY:
        status = provider.parse_result(sender.read(provider.build_result(job, key=key), deadline_s=deadline_s), job)
    return status


def result_url(generation: Generation) -> str:
    """A fresh link to the finished video. Never stored: links are signed and die.

    Raises as `look`, and ProviderDown when the provider gives none though the job had succeeded.
    """
    status = look(generation)
    if status.state is not JobState.SUCCEEDED or not status.result_url:
        raise ProviderDown(f"{generation.provider} gave no link to a job that had succeeded ({status.provider_status})")
    return status.result_url


def cancel(generation: Generation) -> CancelOutcome | None:
    """Ask the provider to stop the job; None where it can't. Raises ProviderDown, KeyRefused, Busy, KeyGone."""
    provider = kit().provider(generation.provider)
    if not provider.can_cancel:
        return None
    request = provider.build_cancel(_job(generation), key=_key(generation))
    return provider.parse_cancel(
        kit().sender(generation.provider).read(request, deadline_s=settings.READ_TIMEOUT_SECONDS)
    )


def took_nothing(generation: Generation, end: JobStatus) -> bool:
    """Whether the provider surely charges nothing for this job, which ended so."""
    return kit().provider(generation.provider).took_nothing(end, before=generation.provider_status)


def result_life_s(provider_name: str) -> float | None:
    """For how many seconds the provider keeps a finished video; None when nobody says."""
    return kit().provider(provider_name).result_life_s


def poll_interval_s(provider_name: str) -> float:
    """Seconds between two looks at one job at least: as set, and never under a real provider's own rule."""
    interval: float = settings.POLL_INTERVAL_SECONDS[provider_name]
    if settings.SIMULATE:
        return interval
    return max(interval, kit().provider(provider_name).min_poll_interval_s)
