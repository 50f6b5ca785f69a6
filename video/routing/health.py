"""The health of the models: results of their last jobs, their circuits, and operators' decisions.

A circuit is one row a model. It is closed (no `open_until`), open (until then no new job starts), or half open (that
time is over: one job, the probe, is let through). Five faults of the provider in a row open it for a minute; each
fault of the half-open one opens it again for twice as long, up to a quarter of an hour. A success closes it.

While it is open nothing moves it: the ends of jobs that were under way before are no news. So a row's faults also tell
how often it was opened: 5 once, 6 twice, 7 three times.
"""

from __future__ import annotations

import logging

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now

from providers import catalogue, errors
from providers.ranking import ModelHealth, Override
from video.infra import database
from video.models import Circuit, ModelSetting

log = logging.getLogger(__name__)

OPEN_S = 60  # the first time; doubled by each fault of a probe
LONGEST_OPEN_S = 900
PROBE_S = 600  # a probe without a result for so long is given up, and the next one is let through

SAMPLE = 50  # ended jobs of a model
MOST_READ = 200  # rows a model: those that don't count must not make the query long
SINCE_HOURS = 24
FEWEST_RENDERS = 5  # successes behind a median render time

#: Ends that say nothing of the model: the user's request or wish, or trouble of the key and its account.
DO_NOT_COUNT = (
    "moderation",
    "bad_request",
    "task_ended",
    "cancelled",
    "generation_cancelled",
    "busy",
    "gateway_answer",
    "key_refused",
    "out_of_credits",
    "model_forbidden",
)


def snapshot() -> dict[str, ModelHealth]:
    """Every model of the catalogue, by id; two statements. Simulated jobs and real ones are never mixed."""
    ids = [model.id for model in catalogue.MODELS]
    rows = database.fetch(
        """
        SELECT m.model, s.counted, s.succeeded, s.render_p50_s
        FROM unnest(%(models)s::text[]) AS m (model) CROSS JOIN LATERAL (
            SELECT count(*) AS counted, count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
                CASE WHEN count(*) FILTER (WHERE state = 'succeeded') >= %(fewest)s THEN
                    percentile_cont(0.5) WITHIN GROUP (ORDER BY render_s) FILTER (WHERE state = 'succeeded')
                END AS render_p50_s
            FROM (
                SELECT state, render_s FROM (
                    SELECT state, error_code, simulated, ended_at,
                        extract(epoch FROM ended_at - accepted_at)::float8 AS render_s
                    FROM video_generation
                    WHERE model = m.model AND ended_at > statement_timestamp() - %(hours)s * interval '1 hour'
                    ORDER BY ended_at DESC LIMIT %(most_read)s
                ) ended
                WHERE state <> 'cancelled' AND NOT error_code = ANY(%(do_not_count)s) AND simulated = %(simulated)s
                ORDER BY ended_at DESC LIMIT %(sample)s
            ) counted
        ) s
        """,
        {
            "models": ids,
            "fewest": FEWEST_RENDERS,
            "hours": SINCE_HOURS,
            "most_read": MOST_READ,
            "do_not_count": list(DO_NOT_COUNT),
            "simulated": settings.SIMULATE,
            "sample": SAMPLE,
        },
    )
    measured = {row[0]: row[1:] for row in rows}
    rows = database.fetch(
        """
        SELECT model, faults, coalesce(open_until > statement_timestamp()
            OR (open_until IS NOT NULL AND probing_since > statement_timestamp() - %s * interval '1 second'), false)
        FROM video_circuit
        """,
        [PROBE_S],
    )
    circuits = {row[0]: row[1:] for row in rows}
    found = {}
    for model in ids:
        counted, succeeded, render_p50_s = measured.get(model, (0, 0, None))
        faults, is_open = circuits.get(model, (0, False))
        found[model] = ModelHealth(
            success_rate=succeeded / counted if counted else None,
            render_p50_s=render_p50_s,
            samples=counted,
            circuit_open=is_open,
            recent_faults=faults,
        )
    return found


def overrides() -> dict[str, Override]:
    """What operators decided, by model; one statement."""
    return {
        row.model: Override(
            enabled=row.enabled, price_usd_per_s=row.price_usd_per_s, quality=row.quality, speed=row.speed
        )
        for row in ModelSetting.objects.all()
    }


def is_fault(error: errors.ProviderError) -> bool:
    """Whether an error speaks against the provider, and so counts for the circuit.

    Never a refused request, a key, an account, or our own reference sent twice.
    """
    if isinstance(error, errors.DuplicateReference):
        return False
    if isinstance(error, errors.JobFailed):
        return error.another_model_could
    return isinstance(error, errors.SubmissionUnknown | errors.NotSent | errors.ProviderDown)


def note_fault(model: str, provider: str, error_text: str) -> None:
    """Count a fault of the provider, and open the model's circuit where that is due; one statement.

    An open circuit isn't written at all, so a thousand failing reads cost a thousand look-ups and no row version.
    `error_text` is shown to operators: errors of the adapters hold no key and no signed link.
    """
    row = database.fetch_one(
        """
        INSERT INTO video_circuit AS c (model, provider, faults, last_error)
        VALUES (%(model)s, %(provider)s, 1, %(error)s)
        ON CONFLICT (model) DO UPDATE SET faults = c.faults + 1, last_error = excluded.last_error,
            probing_since = NULL,
            open_until = CASE WHEN c.faults + 1 >= %(opens_after)s THEN statement_timestamp() + interval '1 second'
                * least(%(longest)s, %(open)s * 2 ^ least(c.faults + 1 - %(opens_after)s, 20)) END
        WHERE c.open_until IS NULL OR c.open_until <= statement_timestamp()
        RETURNING faults, open_until
        """,
        {
            "model": model,
            "provider": provider,
            "error": error_text[:300],
            "opens_after": settings.CIRCUIT_FAULTS,
            "open": OPEN_S,
            "longest": LONGEST_OPEN_S,
        },
    )
    if row is not None and row[1] is not None:
        log.error("%s: the circuit is open after %s faults in a row: %s", model, row[0], error_text[:300])


def note_success(model: str, provider: str) -> None:
    """A job of the model ended well: its circuit is closed and its faults are forgotten; one statement.

    An open circuit stays as it is: such a job was sent before it opened. A model without faults isn't written.
    """
    not_open = Q(open_until__isnull=True) | Q(open_until__lte=Now())
    circuit = Circuit.objects.filter(not_open, model=model, provider=provider, faults__gt=0)
    circuit.update(faults=0, open_until=None, probing_since=None)


def is_half_open(health: ModelHealth) -> bool:
    """Whether a job of this model would be the probe, so that it needs `take_probe`."""
    return health.recent_faults >= settings.CIRCUIT_FAULTS and not health.circuit_open


def take_probe(model: str) -> bool:
    """Whether a job may be sent to this model; the first to ask of a half-open circuit gets its only probe.

    True at once for a closed circuit; False for an open one, and while another's probe is under way. One statement.
    In a transaction that is rolled back the probe was never taken.
    """
    may: bool = database.value(
        """
            WITH taken AS (
                UPDATE video_circuit SET probing_since = statement_timestamp()
                WHERE model = %(model)s AND open_until <= statement_timestamp()
                    AND (probing_since IS NULL
                        OR probing_since <= statement_timestamp() - %(probe)s * interval '1 second')
                RETURNING model
            )
            SELECT EXISTS (SELECT FROM taken)
                OR NOT EXISTS (SELECT FROM video_circuit WHERE model = %(model)s AND open_until IS NOT NULL)
            """,
        {"model": model, "probe": PROBE_S},
    )
    return may


def give_back_probe(model: str) -> None:
    """The probe ended without a verdict on the model (cancelled, refused as a request): another may go.

    One statement. Without it the next is let through ten minutes after the probe was taken.
    """
    Circuit.objects.filter(model=model, probing_since__isnull=False).update(probing_since=None)
