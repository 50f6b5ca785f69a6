"""Puts thousands of jobs in flight without the hours that their creates would take.

One task a model goes through the API and is submitted by the product. Each further one is a copy of its rows, and has a
job of its own at the simulator, submitted over the provider's own protocol: for everything that comes after, it is
like the first.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import aiohttp

from bench.system import BenchError

if TYPE_CHECKING:
    from providers.contract import Submitted
    from video.models import CreditEntry, Generation, VideoTask

SUBMITS_AT_ONCE = 32
BATCH = 2_000
POLLS_BEGIN_WITHIN_S = 60.0
#: Polls hardly grow rarer with age beyond it. Jobs past their model's longest render time (1,800 s) are cancelled.
OLDEST_S = 1_000.0


Original = tuple["VideoTask", "Generation", "CreditEntry"]


async def clone(
    session: aiohttp.ClientSession, task_ids: Sequence[str], left_s: Sequence[float], render_s: float, begin_at: float
) -> list[str]:
    """One more job in flight for each of `left_s`, copied from these tasks in turn. Returns the new ids.

    At `begin_at` (`time.monotonic()`) that many seconds of a render of `render_s` are left, and polls become due. Their
    age is then what is gone of the render, up to `OLDEST_S`.
    Raises BenchError when the simulator refuses one. The debits are in the ledger; balances are not touched by this:
    see `fill.add_up`.
    """
    models = await asyncio.to_thread(_originals, task_ids)
    made: list[str] = []
    for first in range(0, len(left_s), BATCH):
        batch = []
        for number, left in enumerate(left_s[first : first + BATCH], start=first):
            begins_in_s = begin_at - time.monotonic()
            age_s = min(render_s - left, OLDEST_S)
            batch.append(_copy(models[number % len(models)], number, left, age_s, begins_in_s))
        shares = (batch[place::SUBMITS_AT_ONCE] for place in range(SUBMITS_AT_ONCE))
        await asyncio.gather(*(_submit_each(session, todo) for todo in shares))
        await asyncio.to_thread(_write, batch)
        made += [task.pk for task, _, _ in batch]
    return made


async def _submit_each(session: aiohttp.ClientSession, todo: Sequence[Original]) -> None:
    for task, generation, _ in todo:
        submitted = await _submit(session, task, generation)
        generation.job_id, generation.job_urls = submitted.job_id, dict(submitted.urls)


def _originals(task_ids: Sequence[str]) -> list[Original]:
    from django.db import connection

    from video.models import CreditEntry, Generation, VideoTask

    found = []
    for task_id in task_ids:
        task = VideoTask.objects.get(pk=task_id)
        generation = Generation.objects.get(task=task, state=Generation.State.ACCEPTED)
        found.append((task, generation, CreditEntry.objects.get(task=task)))
    connection.close()
    return found


def _copy(original: Original, number: int, left_s: float, age_s: float, begins_in_s: float) -> Original:
    from django.utils import timezone

    from video import ids

    task, generation, entry = (copy.copy(row) for row in original)
    now = timezone.now()
    task.pk, generation.pk, entry.pk = ids.task_id(), ids.generation_id(), None
    task.prompt = f"Copy {number} in flight [[sim render={max(1.0, begins_in_s + left_s):.1f}]]"
    task.fence, task.lease_until, task.rung_at, task.hinted_at = 1, None, None, None
    task.next_run_at = now + timedelta(seconds=begins_in_s + random.uniform(0, POLLS_BEGIN_WITHIN_S))
    accepted_at = now + timedelta(seconds=min(0.0, begins_in_s - age_s))
    task.created_at = task.started_at = task.claimed_at = accepted_at
    generation.task, entry.task = task, task
    generation.planned_at = generation.sent_at = generation.accepted_at = accepted_at
    generation.last_polled_at, generation.polls = None, 0
    return task, generation, entry


async def _submit(session: aiohttp.ClientSession, task: VideoTask, generation: Generation) -> Submitted:
    from providers.contract import HttpReply
    from video.attempts import provider_calls
    from video.infra.toolkit import toolkit

    provider, key = (
        toolkit().provider(generation.provider),
        toolkit().key(generation.provider, generation.key_fingerprint),
    )
    assert key is not None
    request = provider.build_submit(provider_calls.request_of(task, generation), key=key.value, reference=generation.pk)
    async with session.request(
        request.method, request.url, headers=request.headers, params=request.params, json=request.json
    ) as reply:
        answer = HttpReply(
            reply.status, {name.lower(): value for name, value in reply.headers.items()}, await reply.read()
        )
    if answer.status >= 300:
        raise BenchError(f"the simulator refused a submit with HTTP {answer.status}")
    return provider.parse_submit(answer)


def _write(batch: Sequence[Original]) -> None:
    from django.db import connection, transaction

    from video.models import CreditEntry, Generation, VideoTask

    with transaction.atomic():
        VideoTask.objects.bulk_create([task for task, _, _ in batch])
        Generation.objects.bulk_create([generation for _, generation, _ in batch])
        CreditEntry.objects.bulk_create([entry for _, _, entry in batch])
    connection.close()
