"""Call-backs: one heap of moments, one timer for its head, few threads that deliver.

A job with a `callback_url` has one live entry in the heap: when it starts to run (if its dialect calls back then) or
when it ends. A changed plan pushes a new entry; the old one finds at its moment that nothing has happened, and is
dropped.
Deliveries that wait (late by script, or tried again) lie in the same heap.

Retries: neither provider's are certain (fal's documents say ten in two hours, later notes differ; Kling says nothing),
so chosen here: three tries, one and five seconds apart; 2xx is success, 3xx is final. Moments are on the simulator's
clock, so `advance_s` brings them on.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import urllib3

from providers.dialect.faults import CallbackFault
from providers.dialect.jobs import Call, Job, Phase

RETRY_AFTER_S = (1.0, 5.0)
THREADS = 4
REMEMBERED = 2000
MAX_ANSWER_BYTES = 64 * 1024
_TIMEOUT = urllib3.Timeout(connect=5.0, read=15.0)
_PLAIN = CallbackFault()


@dataclass(slots=True)
class Delivery:
    """One message to one address; `tries` counts what was sent of it."""

    job_id: str
    url: str
    call: Call
    forged: bool = False
    tries: int = 0


class Callbacks:
    """Calls the addresses that clients gave with their jobs. All but `_work` runs in the event loop."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._order = itertools.count()
        self._threads: list[threading.Thread] = []
        self._outbox: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._pool = urllib3.PoolManager(num_pools=THREADS, maxsize=THREADS, retries=False, timeout=_TIMEOUT)
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self.reset()

    def reset(self) -> None:
        self._heap: list[tuple[float, int, Job | Delivery]] = []
        self._running_sent: dict[str, bool] = {}  # of every job whose end was not sent yet: whether its start was
        self.log: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.answers: Counter[str] = Counter()  # by status, or "error"
        self.rearm()

    def close(self) -> None:
        """Forget what waits; a delivery that is on its way dies with the process."""
        self.reset()
        for _ in self._threads:
            self._outbox.put(None)

    def watch(self, job: Job) -> None:
        """Follow a new job, before it has its times."""
        fault = job.faults.callback or _PLAIN
        if fault.forged:
            self._send(job, job.dialect.forge(job), fault, forged=True)
        if not fault.never:
            self._running_sent[job.id] = Phase.RUNNING not in job.dialect.calls_back_at
            job.watcher = self._planned

    def rearm(self) -> None:
        """Set the timer to the head of the heap; also after the clock has moved."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_at = math.inf
        self._arm()

    # --- moments ---

    def _planned(self, job: Job) -> None:
        moment = self._moment(job)
        if moment is not None:
            self._push(moment, job)

    def _moment(self, job: Job) -> float | None:
        """When there is something to send next; None when never, or not known."""
        sent = self._running_sent.get(job.id)
        if sent is None:
            return None
        moment = job.end_at if sent else min(job.run_at, job.end_at)
        return moment if math.isfinite(moment) else None

    def _push(self, moment: float, item: Job | Delivery) -> None:
        heapq.heappush(self._heap, (moment, next(self._order), item))
        self._arm()

    def _arm(self) -> None:
        if not self._heap or self._heap[0][0] >= self._armed_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed_at = self._heap[0][0]
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._armed_at - self._now()), self._fire)

    def _fire(self) -> None:
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            _, _, item = heapq.heappop(self._heap)
            if isinstance(item, Delivery):
                self._hand_out(item)
            else:
                self._catch_up(item, now)
        self.rearm()

    def _catch_up(self, job: Job, now: float) -> None:
        """Send what has happened to a job by now, in order."""
        while (moment := self._moment(job)) is not None and moment <= now:
            if job.deleted:  # the provider does not know it any more
                del self._running_sent[job.id]
                return
            if self._running_sent[job.id]:
                del self._running_sent[job.id]
                self._send_phase(job, job.phase(now))
                return
            self._running_sent[job.id] = True
            if not job.cancelled:  # else it may never have run
                self._send_phase(job, Phase.RUNNING)
            self._planned(job)

    def _send_phase(self, job: Job, phase: Phase) -> None:
        self._send(job, job.dialect.call_back(job, phase), job.faults.callback or _PLAIN)

    def _send(self, job: Job, call: Call, fault: CallbackFault, *, forged: bool = False) -> None:
        assert job.callback_url is not None  # only such jobs are watched
        for _ in range(1 if forged else fault.copies):
            delivery = Delivery(job.id, job.callback_url, call, forged)
            if forged or not fault.late_s:
                self._hand_out(delivery)
            else:
                self._push(self._now() + fault.late_s, delivery)

    # --- delivering ---

    def _hand_out(self, delivery: Delivery) -> None:
        self._loop = asyncio.get_running_loop()
        if len(self._threads) < THREADS:
            thread = threading.Thread(target=self._work, name=f"callback-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        delivery.tries += 1
        self._outbox.put(delivery)

    def _work(self) -> None:
        while (delivery := self._outbox.get()) is not None:
            try:
                answer = str(self._post(delivery))
            except Exception as err:  # whatever the address or the network does, the next delivery must go out
                answer = f"error: {type(err).__name__}"
            loop = self._loop
            if loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._answered, delivery, answer)

    def _post(self, delivery: Delivery) -> int:
        body = delivery.call.body
        headers = {"Content-Type": "application/json", "User-Agent": "reelworks-simulator", **delivery.call.sign(body)}
        reply = self._pool.request(
            "POST", delivery.url, body=body, headers=headers, redirect=False, preload_content=False
        )
        try:
            reply.read(MAX_ANSWER_BYTES)
        finally:
            reply.close()
        return reply.status

    def _answered(self, delivery: Delivery, answer: str) -> None:
        self.answers[answer.partition(":")[0]] += 1
        self.log.append(
            {
                "job": delivery.job_id, "event": delivery.call.event, "url": delivery.url, "answer": answer,
                "try": delivery.tries, "forged": delivery.forged,
            }
        )  # fmt: skip
        is_final = answer[0] in "23" or delivery.forged
        if not is_final and delivery.tries <= len(RETRY_AFTER_S):
            self._push(self._now() + RETRY_AFTER_S[delivery.tries - 1], delivery)
