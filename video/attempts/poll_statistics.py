"""Figures on each model's and account's jobs, for `poll_policy.py`; measured every half minute in each process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from django.conf import settings

from providers import catalogue
from video.attempts import poll_policy, provider_calls
from video.attempts.poll_policy import PollPolicy, TypicalDurations
from video.infra import database
from video.infra.toolkit import toolkit
from video.models import Generation

CACHE_S = 30.0
SAMPLE = 50  # successes; more would follow a provider's mood too slowly
LOOKED_AT = 200  # ended attempts of a model: a month of failures must not make the query long

# Call-backs are expected while most of the last ended jobs that asked for one got one.
CALLS_LOOKED_AT = 20  # a model
FEWEST_CALLS = 4
CALLED_SHARE = 0.75


@dataclass(frozen=True)
class _Measured:
    at: float  # time.monotonic()
    usual: dict[str, TypicalDurations | None] = field(default_factory=dict)  # by model
    calls_back: frozenset[str] = frozenset()  # providers
    open_jobs: dict[int, int] = field(default_factory=dict)  # of all models of an account, by each of its rows


_measured: _Measured | None = None
_measuring = threading.Lock()


def next_look_s(generation: Generation, age_s: float) -> float:
    """Seconds until the next poll of an open job, `age_s` seconds after the provider accepted it."""
    return poll_policy.next_look_s(policy_of(generation), age_s, seed=f"{generation.pk}{generation.polls}")


def spread_s(generation: Generation) -> float:
    """Seconds that spread the polls of jobs which all wait for the same moment."""
    known = policy_of(generation)
    return poll_policy.fraction_of(f"{generation.pk}{generation.polls}") * max(known.least_s, known.share_s)


def render_s(model: str) -> float:
    """How long a render of this model usually takes, in seconds: as measured, else as the catalogue thinks."""
    known = _known().usual.get(model)
    return known.middle_s if known is not None else float(catalogue.BY_ID[model].typical_render_s)


def policy_of(generation: Generation) -> PollPolicy:
    """What is known of jobs such as this one. At most two statements in half a minute, for all models together."""
    known, provider = _known(), generation.provider
    key = toolkit().key(provider, generation.key_fingerprint)
    return PollPolicy(
        least_s=provider_calls.poll_interval_s(provider),
        usual=known.usual.get(generation.model),
        prior_s=None if settings.SIMULATE else catalogue.BY_ID[generation.model].typical_render_s,
        share_s=poll_policy.share_s(
            known.open_jobs.get(generation.account_id, 1),
            jobs_per_request=1 if key is None else toolkit().provider(provider).jobs_per_poll(key.value),
            requests_per_s=settings.POLL_REQUESTS_PER_SECOND[provider],
        ),
        call_expected=generation.expects_call and provider in known.calls_back,
    )


def _known() -> _Measured:
    """The figures; one thread measures, the others go on with the old ones meanwhile."""
    global _measured
    known = _measured
    if known is not None and time.monotonic() - known.at < CACHE_S:
        return known
    if not _measuring.acquire(blocking=known is None):
        assert known is not None
        return known
    try:
        if _measured is known:
            _measured = _measure()
        assert _measured is not None
        return _measured
    finally:
        _measuring.release()


def _measure() -> _Measured:
    at = time.monotonic()
    rows = database.fetch(
        """
        SELECT m.model, r.renders, c.asked, c.called
        FROM unnest(%(models)s::text[]) AS m (model)
        CROSS JOIN LATERAL (
            SELECT array_agg(render_s) AS renders FROM (
                SELECT render_s FROM (
                    SELECT state, simulated, ended_at,
                        extract(epoch FROM ended_at - accepted_at)::float8 AS render_s
                    FROM video_generation WHERE model = m.model AND ended_at IS NOT NULL
                    ORDER BY ended_at DESC LIMIT %(looked_at)s
                ) ended
                WHERE state = 'succeeded' AND simulated = %(simulated)s ORDER BY ended_at DESC LIMIT %(sample)s
            ) last
        ) r
        CROSS JOIN LATERAL (
            SELECT count(*) AS asked, count(*) FILTER (WHERE called) AS called FROM (
                SELECT coalesce(t.hinted_at >= e.sent_at, false) AS called FROM (
                    SELECT task_id, sent_at, ended_at, expects_call, state FROM video_generation
                    WHERE model = m.model AND ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT %(looked_at)s
                ) e JOIN video_videotask t ON t.id = e.task_id
                WHERE e.expects_call AND e.state IN ('succeeded', 'failed')
                ORDER BY e.ended_at DESC LIMIT %(calls)s
            ) last
        ) c
        """,
        {
            "models": [model.id for model in catalogue.MODELS],
            "simulated": settings.SIMULATE,
            "sample": SAMPLE,
            "looked_at": LOOKED_AT,
            "calls": CALLS_LOOKED_AT,
        },
    )
    usual: dict[str, TypicalDurations | None] = {}
    asked, called = Counter[str](), Counter[str]()
    for model, renders, model_asked, model_called in rows:
        provider = catalogue.BY_ID[model].provider
        usual[model] = poll_policy.usual(renders or ())
        asked[provider] += model_asked
        called[provider] += model_called
    rows = database.fetch(
        f"""
        SELECT a.id, (sum(coalesce(o.jobs, 0)) OVER (PARTITION BY a.provider, a.account))::int
        FROM video_provideraccount a LEFT JOIN (
            SELECT account_id, count(*) AS jobs FROM video_generation
            WHERE state {Generation.LIVE_SQL} GROUP BY account_id
        ) o ON o.account_id = a.id
        """  # noqa: S608 - a constant
    )
    open_jobs = {row[0]: row[1] for row in rows}
    believed = {name for name, n in asked.items() if n >= FEWEST_CALLS and called[name] >= CALLED_SHARE * n}
    return _Measured(at, usual, frozenset(believed), open_jobs)
