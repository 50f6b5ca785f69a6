"""How long a new task will probably take: what the last ones took, and how many stand in line before it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from providers.catalogue import Model

SAMPLE = 50  # successes; a median of more would follow a provider's mood too slowly
LOOKED_AT = 200  # ended attempts of any kind: a month of failures must not make the query long
SINCE_DAYS = 30
FEWEST = 3  # one odd video is no measurement
LINE_COUNTED = 10_000
CACHE_S = 30.0

# Before there is anything measured: polling, download, transcode, thumbnail and save of a video of 5 s on one core.
OWN_SHARE_S = 8
SIMULATED_S = 10


@dataclass(frozen=True)
class _Figures:
    taken_s: float | None  # from the slot to the finished video, in the median
    waiting: int
    slots: int


_cache: dict[str, tuple[float, _Figures]] = {}


def expected_seconds(model: Model) -> int:
    """Seconds from now until a new task of this model is done. At most one query each 30 s and model, in a process."""
    figures = _figures(model)
    taken_s = figures.taken_s if figures.taken_s is not None else _prior_s(model)
    slots = figures.slots or max(1, settings.SLOTS_PER_KEY * len(settings.PROVIDER_KEYS.get(model.provider, ())))
    return max(1, math.ceil(taken_s + figures.waiting / slots * taken_s))


def forget() -> None:
    """Measure again at the next call; for tests."""
    _cache.clear()


def _prior_s(model: Model) -> float:
    return SIMULATED_S if settings.SIMULATE else model.typical_render_s + OWN_SHARE_S


def _figures(model: Model) -> _Figures:
    known = _cache.get(model.id)
    if known is None or time.monotonic() - known[0] > CACHE_S:
        # Two threads may both measure; that costs a query, a lock would cost one at every create.
        known = (time.monotonic(), _measure(model))
        _cache[model.id] = known
    return known[1]


def _measure(model: Model) -> _Figures:
    """Waiting for a slot is left out of the time taken: the line in front of a new task is counted as it is now."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT
                (SELECT CASE WHEN count(*) >= %(fewest)s THEN percentile_cont(0.5) WITHIN GROUP (ORDER BY taken) END
                 FROM (
                    SELECT extract(epoch FROM t.finished_at - g.planned_at)::float8 AS taken
                    FROM (
                        SELECT task_id, planned_at, ended_at, state FROM video_generation
                        WHERE model = %(model)s AND simulated = %(simulated)s AND ended_at IS NOT NULL
                            AND ended_at > statement_timestamp() - %(days)s * interval '1 day'
                        ORDER BY ended_at DESC LIMIT %(looked_at)s
                    ) g JOIN video_videotask t ON t.id = g.task_id
                    WHERE g.state = 'succeeded' AND t.status = 'success'
                    ORDER BY g.ended_at DESC LIMIT %(sample)s
                 ) recent),
                (SELECT count(*) FROM (
                    SELECT FROM video_videotask WHERE admit_at IS NOT NULL AND %(model)s = ANY(eligible_models)
                    LIMIT %(line)s
                 ) line),
                (SELECT coalesce(sum(slots), 0) FROM video_provideraccount
                 WHERE provider = %(provider)s AND model = %(model)s AND closed_reason = '' AND account = ANY(%(keys)s))
            """,
            {
                "fewest": FEWEST,
                "model": model.id,
                "simulated": settings.SIMULATE,
                "days": SINCE_DAYS,
                "looked_at": LOOKED_AT,
                "sample": SAMPLE,
                "line": LINE_COUNTED,
                "provider": model.provider,
                "keys": [key.fingerprint for key in settings.PROVIDER_KEYS.get(model.provider, ())],
            },
        )
        taken_s, waiting, slots = cursor.fetchone()
    return _Figures(taken_s, int(waiting), int(slots))
