"""The clients: each wants its video, and asks again with the same Idempotency-Key until its create is answered."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from bench.chaos.plan import UNKNOWN, Job

CREATORS = 4
WATCHERS = 2
ASK_EVERY_S = 5.0  # how often a page asks for the status of its task
GIVE_UP_S = 120.0  # a create that is refused for so long counts as a breach


@dataclass
class Accepted:
    """A task as its client knows it."""

    job: Job
    task_id: str
    at: float
    status: dict[str, Any] = field(default_factory=dict)
    cancel: str = ""  # what its cancel was answered: what becomes of the credits, or why not
    retry: str = ""  # the same of its retry

    @property
    def is_final(self) -> bool:
        """As far as its client knows."""
        return self.status.get("status") in {"success", "failed"}

    @property
    def to_cancel(self) -> bool:
        """Whether its user wants it cancelled now."""
        after_s = self.job.cancel_after_s
        return after_s is not None and not self.cancel and time.time() >= self.at + after_s

    @property
    def to_retry(self) -> bool:
        """Whether its user wants to try once more. Not where a lost attempt may still turn out to have made a job."""
        if not self.job.retries or self.retry or self.status.get("status") != "failed":
            return False
        return self.status.get("errorCode") != UNKNOWN or str(self.status.get("model")).startswith("gen4")

    @property
    def ended(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.is_final and not self.to_retry and time.time() > self.at + self.job.script.settles_after_s


class Api:
    """A connection to the API as one of the users, by thread."""

    def __init__(self, url: str, tokens: Sequence[str]) -> None:
        self._url, self._tokens = url, tokens
        self._local = threading.local()

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        session: requests.Session = self._local.session
        return session

    def call(self, user: int, method: str, path: str, **more: Any) -> requests.Response:
        """Raises requests.RequestException while the web server is away."""
        headers = {"Authorization": f"Bearer {self._tokens[user]}", **more.pop("headers", {})}
        return self._session().request(method, self._url + path, headers=headers, timeout=30, **more)

    def status(self, user: int, task_id: str) -> dict[str, Any] | None:
        """None while the API can't tell."""
        try:
            reply = self.call(user, "GET", "/api/video/status", params={"taskId": task_id})
        except requests.RequestException:
            return None
        if reply.status_code in {429, 500, 502, 503, 504}:
            return None
        found: dict[str, Any] = reply.json().get("data") or {"status": f"HTTP {reply.status_code}"}
        return found

    def steer(self, user: int, what: str, task_id: str) -> tuple[bool, str] | None:
        """Cancel or retry: (whether it was done, what the answer says); None while the API can't tell."""
        try:
            reply = self.call(user, "POST", f"/api/video/{what}", json={"taskId": task_id})
        except requests.RequestException:
            return None
        if reply.status_code in {429, 500, 502, 503, 504}:
            return None
        body = reply.json()
        if reply.status_code == 200:
            return True, str(body["data"].get("refund") or f"run {body['data'].get('run')}")
        return False, str(body["error"]["code"])


class Load:
    """Offers the jobs at a rate, no more than `most_open` of them unfinished, and watches each until it ends."""

    def __init__(
        self, api: Api, jobs: Sequence[Job], *, rate: float, most_open: int, on_accepted: Callable[[int], None]
    ) -> None:
        self.api, self.jobs, self.rate, self.most_open = api, jobs, rate, most_open
        self.accepted: dict[int, Accepted] = {}
        self.refused: dict[int, str] = {}  # by number: creates that were never accepted, or answered wrongly
        self.doubled: dict[str, str] = {}  # by task: retries that were done twice
        self.repeats = 0  # calls of create that had to be made again
        self.longest_wait_s = 0.0  # of a client for the answer to its create
        self._on_accepted = on_accepted
        self._next: Iterator[Job] = iter(jobs)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watchers = [threading.Thread(target=self._watch, args=(n,), daemon=True) for n in range(WATCHERS)]
        self._pairs = ThreadPoolExecutor(2 * CREATORS)

    def offer_all(self) -> None:
        """Returns when every create was answered or given up."""
        for watcher in self._watchers:
            watcher.start()
        begin = time.monotonic()
        creators = [threading.Thread(target=self._offer, args=(begin,), daemon=True) for _ in range(CREATORS)]
        for creator in creators:
            creator.start()
        for creator in creators:
            creator.join()

    def wait_ended(self, seconds: float) -> None:
        """Until every accepted task has ended, or the time is over; then each is asked once more."""
        deadline = time.monotonic() + seconds
        while self.open() and time.monotonic() < deadline:
            time.sleep(0.2)
        self._stop.set()
        for watcher in self._watchers:
            watcher.join()
        for task in self.accepted.values():
            task.status = self.api.status(task.job.user, task.task_id) or {}

    def open(self) -> int:
        """How many accepted tasks have not ended as far as their clients know."""
        with self._lock:
            return sum(not task.ended for task in self.accepted.values())

    # --- creating ---

    def _offer(self, begin: float) -> None:
        while True:
            with self._lock:
                job = next(self._next, None)
            if job is None:
                return
            while time.monotonic() < begin + job.number / self.rate or self.open() >= self.most_open:
                time.sleep(0.02)
            started = time.monotonic()
            if job.twice:
                answers = {self._pairs.submit(self._create, job) for _ in range(2)}
                task_ids = {answer.result() for answer in answers} - {None}
            else:
                task_ids = {self._create(job)} - {None}
            self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - started)
            if len(task_ids) != 1:
                self.refused.setdefault(job.number, f"one key gave {sorted(map(str, task_ids))}")
                continue
            with self._lock:
                self.accepted[job.number] = Accepted(job, str(task_ids.pop()), time.time())
                count = len(self.accepted)
            self._on_accepted(count)

    def _create(self, job: Job) -> str | None:
        deadline = time.monotonic() + GIVE_UP_S
        why = ""
        while time.monotonic() < deadline:
            try:
                reply = self.api.call(
                    job.user,
                    "POST",
                    "/api/video/create",
                    json=job.body,
                    headers={"Idempotency-Key": f"chaos-{job.number}"},
                )
            except requests.RequestException as err:
                why = type(err).__name__
            else:
                if reply.status_code in {200, 201}:
                    return str(reply.json()["data"]["taskId"])
                why = f"HTTP {reply.status_code}: {reply.text[:300]}"
                if reply.status_code not in {429, 500, 502, 503, 504}:
                    break
            self.repeats += 1
            time.sleep(0.3 + random.random() / 5)
        self.refused[job.number] = why
        return None

    # --- watching ---

    def _watch(self, share: int) -> None:
        asked: dict[int, float] = {}
        while not self._stop.wait(0.1):
            with self._lock:
                mine = [task for n, task in self.accepted.items() if n % WATCHERS == share and not task.ended]
            now = time.monotonic()
            for task in mine:
                if task.to_cancel:
                    self._cancel(task)
                first = now - ASK_EVERY_S * random.random()
                if now - asked.setdefault(task.job.number, first) < ASK_EVERY_S:
                    continue
                asked[task.job.number] = now
                task.status = self.api.status(task.job.user, task.task_id) or task.status
                if task.to_retry:
                    self._retry(task)
                if self._stop.is_set():
                    return

    def _cancel(self, task: Accepted) -> None:
        answer = self.api.steer(task.job.user, "cancel", task.task_id)
        if answer is not None:
            task.cancel = answer[1]

    def _retry(self, task: Accepted) -> None:
        """By an impatient user, who clicks twice."""
        clicks = [self._pairs.submit(self.api.steer, task.job.user, "retry", task.task_id) for _ in range(2)]
        answers = [answer for click in clicks if (answer := click.result()) is not None]
        if sum(done for done, _ in answers) > 1:
            self.doubled[task.task_id] = f"both of two retries were done: {answers}"
        if answers:
            task.retry = max(answers)[1]
            task.status = self.api.status(task.job.user, task.task_id) or {}
