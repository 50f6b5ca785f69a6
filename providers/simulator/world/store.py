"""All jobs, and the counters that prove that nothing was submitted twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from providers.dialect.dialect import Draft
from providers.dialect.jobs import Job, Phase

Named = tuple[str, str, str, str]  # provider, its standard, account, reference
SWEEP_EVERY = 1000  # creations between two searches for jobs to forget


@dataclass(slots=True)
class Tally:
    """One content, prompt or reference: how often it came in, and how many jobs it made."""

    received: int = 0
    created: int = 0
    doubled: int = 0  # made while another job of the same was alive or had succeeded: money spent twice
    last: Job | None = None


@dataclass
class Totals:
    received: int = 0
    invalid: int = 0  # refused by validation or authentication, never counted as received
    refused: int = 0
    created: int = 0


@dataclass
class Store:
    """Jobs by id in the order of creation. Ended ones are forgotten above a bound; tallies stay until reset."""

    keep_ended: int
    jobs: dict[str, Job] = field(default_factory=dict)
    contents: dict[str, Tally] = field(default_factory=dict)
    prompts: dict[str, Tally] = field(default_factory=dict)
    references: dict[str, Tally] = field(default_factory=dict)
    by_reference: dict[Named, Job] = field(default_factory=dict)  # the newest of each
    totals: Totals = field(default_factory=Totals)

    def receive(self, provider: str, draft: Draft) -> int:
        """Count a valid submit; how often its prompt has come in by now."""
        self.totals.received += 1
        for tally in self._tallies(provider, draft):
            tally.received += 1
        return self.prompts[draft.prompt].received

    def add(self, job: Job, draft: Draft, now: float) -> None:
        """Count and keep a new job."""
        self.totals.created += 1
        for tally in self._tallies(job.dialect.name, draft):
            last = tally.last
            if last is not None and last.phase(now) not in (Phase.FAILED, Phase.CANCELLED):
                tally.doubled += 1
            tally.created += 1
            tally.last = job
        self.jobs[job.id] = job
        if job.reference:
            self.by_reference[_named(job)] = job
        if self.totals.created % SWEEP_EVERY == 0:
            self._forget(now)

    def _tallies(self, provider: str, draft: Draft) -> Iterable[Tally]:
        yield self.contents.setdefault(content_hash(provider, draft.content), Tally())
        yield self.prompts.setdefault(draft.prompt, Tally())
        if draft.reference:
            yield self.references.setdefault(draft.reference, Tally())

    def _forget(self, now: float) -> None:
        ended = [job.id for job in self.jobs.values() if not job.phase(now).is_live]
        for job_id in ended[: max(0, len(ended) - self.keep_ended)]:
            job = self.jobs.pop(job_id)
            if self.by_reference.get(_named(job)) is job:
                del self.by_reference[_named(job)]


def _named(job: Job) -> Named:
    return job.dialect.name, job.extra.get("standard", ""), job.account.fingerprint, job.reference


def content_hash(provider: str, content: str) -> str:
    return hashlib.sha256(f"{provider}\n{content}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
