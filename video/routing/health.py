"""The health of the models: results of their last jobs, their circuits, and operators' decisions.

A circuit is one row a model. It is closed (no `open_until`), open (until then no new job starts), or half open (that
time is over: a job, the probe, is let through). CIRCUIT_FAULTS faults of the provider in a row open it for a minute;
each further opening takes twice as long, up to a quarter of an hour. A success closes it.

One user's jobs prove little: what fails may be their prompts. So the users behind the faults are kept as witnesses.

- Faults of one user alone open it for that user alone; all others go on. That serves an installation with one user
  too. As soon as a job of another user has a fault as well, it is open for everybody.
- A half-open one that was open for everybody lets one job through, and beside it one of another user, so that nobody's
  job is the only probe. A probe's fault keeps its user out for the next, longer time; the fault of another user's probe
  opens it again for everybody.

While it is open nothing of those whom it keeps out moves it: the ends of jobs that were under way before are no news.
So a row's faults also tell how often it was opened: 5 once, 6 twice, 7 three times.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from django.conf import settings

from providers import catalogue, errors
from providers.ranking import UNMEASURED, ModelHealth, Override
from providers.untrusted import storable
from video.infra import database

log = logging.getLogger(__name__)

OPEN_S = 60  # the first time; doubled by each fault of a probe
LONGEST_OPEN_S = 900
PROBE_S = 600  # probes without a result for so long are given up, and the next ones are let through
MOST_PROBES = 2  # at once, of different users

#: In place of a user's id: a fault that befell jobs of several users at once, or that no request can have caused.
NOBODYS = 0
#: In place of a user's id: anybody whose jobs did not fail and do not probe.
ANOTHER_USER = -1
#: A closed circuit, as its columns say it.
CLOSED: Mapping[str, Any] = MappingProxyType(
    {
        "faults": 0,
        "open_until": None,
        "fault_users": [],
        "is_for_all": False,
        "probing_users": [],
        "probing_since": None,
        "last_error": "",
    }
)

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


# In SQL, of a row `c`. One user's jobs alone failed since it closed, or since it was half open last.
_ALONE = f"(cardinality(c.fault_users) = 1 AND c.fault_users[1] <> {NOBODYS})"
# These were another user's, so the one who asks is not kept out.
_OF_ANOTHER = f"({_ALONE} AND c.fault_users[1] <> %(user)s)"
_IS_PROBED = f"coalesce(c.probing_since > statement_timestamp() - {PROBE_S} * interval '1 second', false)"


# The parts of a `CircuitState`, in the order of `_circuit`.
_CIRCUIT = f"""c.faults, c.open_until IS NOT NULL, coalesce(c.open_until > statement_timestamp(), false),
    c.is_for_all, c.fault_users, CASE WHEN {_IS_PROBED} THEN c.probing_users ELSE '{{}}' END"""
#: One column of a SELECT: the circuits with faults, and the models that operators switched off, as text for
#: `snapshot_of`.
SNAPSHOT = f"""
json_build_object(
    'circuits', (SELECT coalesce(json_agg(json_build_array(c.model, {_CIRCUIT})), '[]')
        FROM video_circuit c WHERE c.faults > 0),
    'off', (SELECT coalesce(json_agg(model), '[]') FROM video_modelsetting WHERE NOT enabled)
)::text"""  # noqa: S608 - constants


def alone(fault_users: list[int]) -> int | None:
    """The one user whose jobs failed, of a circuit's `fault_users`; None for several, and for nobody's faults."""
    return fault_users[0] if len(fault_users) == 1 and fault_users[0] != NOBODYS else None


@dataclass(frozen=True)
class CircuitState:
    """How the circuit of one model stands, and for whom."""

    faults: int
    is_tripped: bool  # open or half open
    is_open: bool  # its time is not over
    is_for_all: bool  # it was open for everybody since it was closed last
    alone: int | None  # the only user whose jobs failed since it closed, or since it was half open last
    probing: frozenset[int]  # users whose jobs try whether the model is well again

    def concerns(self, user_id: int) -> bool:
        """Whether its faults say something about this user's jobs."""
        return self.is_for_all or self.alone in {None, user_id}

    def keeps_out(self, user_id: int) -> bool:
        """Whether no new job of this user may start now."""
        if not self.is_tripped or not self.concerns(user_id):
            return False
        waits = self.is_open and self.alone in {None, user_id}
        return waits or user_id in self.probing or len(self.probing) >= MOST_PROBES

    def named(self) -> set[int]:
        """The users for whom it may stand otherwise than for everybody else."""
        return {*self.probing, *(() if self.alone is None else (self.alone,))}


@dataclass(frozen=True)
class Health:
    """What was measured of every model, every circuit with faults, and what operators decided, at one moment."""

    measured: dict[str, ModelHealth]
    circuits: dict[str, CircuitState]
    overrides: dict[str, Override]

    def seen_by(self, user_id: int) -> dict[str, ModelHealth]:
        """Every model of the catalogue, by id, with its circuit as it stands for the jobs of this user."""
        seen = dict(self.measured)
        for model, circuit in self.circuits.items():
            if model in seen and circuit.concerns(user_id):
                seen[model] = replace(
                    seen[model], circuit_open=circuit.keeps_out(user_id), recent_faults=circuit.faults
                )
        return seen

    def kept_out(self) -> list[tuple[int, str]]:
        """(user, model) where a circuit that lets others through keeps out this user; at most three a model."""
        return [
            (user_id, model)
            for model, circuit in sorted(self.circuits.items())
            if not circuit.keeps_out(ANOTHER_USER)
            for user_id in sorted(circuit.named())
            if circuit.keeps_out(user_id)
        ]

    def note_probe(self, model: str, user_id: int) -> None:
        """The user's job is the probe of this model, or asked for it in vain: no other of this user is now."""
        circuit = self.circuits[model]
        self.circuits[model] = replace(circuit, probing=circuit.probing | {user_id})


def snapshot(user_id: int = ANOTHER_USER) -> dict[str, ModelHealth]:
    """Every model of the catalogue, by id, as the jobs of this user find it; one statement."""
    return read().seen_by(user_id)


def read() -> Health:
    """Measurements, circuits and decisions; one statement. Simulated jobs and real ones are never mixed."""
    rows = database.fetch(
        f"""
        SELECT m.model, s.counted, s.succeeded, s.render_p50_s,
            {_CIRCUIT},
            o.enabled, o.price_usd_per_s, o.quality, o.speed
        FROM unnest(%(models)s::text[]) AS m (model)
        LEFT JOIN video_circuit c ON c.model = m.model AND c.faults > 0
        LEFT JOIN video_modelsetting o ON o.model = m.model
        CROSS JOIN LATERAL (
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
        """,  # noqa: S608 - constants
        {
            "models": [model.id for model in catalogue.MODELS],
            "fewest": FEWEST_RENDERS,
            "hours": SINCE_HOURS,
            "most_read": MOST_READ,
            "do_not_count": list(DO_NOT_COUNT),
            "simulated": settings.SIMULATE,
            "sample": SAMPLE,
        },
    )
    return Health(
        {model: _measured(*row[:3]) for model, *row in rows},
        {model: _circuit(*row[3:9]) for model, *row in rows if row[3] is not None},
        {model: Override(*row[9:]) for model, *row in rows if row[9] is not None},
    )


def snapshot_of(text: str) -> Health:
    """Circuits and switches of what `SNAPSHOT` read; nothing is measured."""
    read = json.loads(text)
    return Health(
        {model.id: UNMEASURED for model in catalogue.MODELS},
        {model: _circuit(*circuit) for model, *circuit in read["circuits"]},
        {model: Override(enabled=False) for model in read["off"]},
    )


def _measured(counted: int, succeeded: int, render_p50_s: float | None) -> ModelHealth:
    return ModelHealth(
        success_rate=succeeded / counted if counted else None,
        render_p50_s=render_p50_s,
        samples=counted,
        circuit_open=False,
        recent_faults=0,
    )


def _circuit(
    faults: int, is_tripped: bool, is_open: bool, is_for_all: bool, fault_users: list[int], probing: list[int]
) -> CircuitState:
    return CircuitState(faults, is_tripped, is_open, is_for_all, alone(fault_users), frozenset(probing))


def is_fault(error: errors.ProviderError) -> bool:
    """Whether an error speaks against the provider, and so counts for the circuit.

    Never a refused request, a key, an account, or our own reference sent twice; and of a job's failures none whose
    cause may lie in what was asked for: a refusal, a failed check of the finished video, or a text that nobody knows.
    """
    if isinstance(error, errors.DuplicateReference):
        return False
    if isinstance(error, errors.JobFailed):
        return error.another_model_could and error.is_known and not error.may_be_the_request
    return isinstance(error, errors.SubmissionUnknown | errors.NotSent | errors.ProviderDown)


def note_fault(model: str, provider: str, error_text: str, user_id: int = NOBODYS) -> None:
    """Count a fault of the provider, and open the model's circuit where that is due; one statement.

    `user_id`: whose job it befell; NOBODYS for one that is no single user's, which counts as everybody's. An open
    circuit isn't written by those whom it keeps out, so a thousand failing reads cost a thousand look-ups and no row
    version. `error_text` is shown to operators: errors of the adapters hold no key and no signed link.
    """
    error = storable(error_text, 300)
    row = database.fetch_one(
        f"""
        INSERT INTO video_circuit AS c (model, provider, faults, last_error, fault_users, is_for_all, open_until)
        VALUES (%(model)s, %(provider)s, 1, %(error)s, ARRAY[%(user)s]::bigint[],
            %(opens_after)s <= 1 AND %(user)s = {NOBODYS},
            CASE WHEN %(opens_after)s <= 1 THEN statement_timestamp() + interval '1 second' * %(open)s END)
        ON CONFLICT (model) DO UPDATE SET
            (faults, fault_users, last_error, is_for_all, open_until, probing_users, probing_since) = (
            SELECT n.faults, n.users, excluded.last_error,
                c.is_for_all OR (n.faults >= %(opens_after)s
                    AND (cardinality(n.users) > 1 OR n.users[1] = {NOBODYS})),
                CASE WHEN n.faults >= %(opens_after)s THEN statement_timestamp() + interval '1 second'
                    * least(%(longest)s, %(open)s * 2 ^ least(n.faults - %(opens_after)s, 20)) END,
                n.probing, CASE WHEN cardinality(n.probing) > 0 THEN c.probing_since END
            FROM (
                SELECT c.faults + CASE WHEN is_second THEN 0 ELSE 1 END AS faults,
                    CASE WHEN c.faults >= %(opens_after)s AND NOT is_second THEN excluded.fault_users
                        WHEN %(user)s = ANY(c.fault_users) OR cardinality(c.fault_users) > 1 THEN c.fault_users
                        ELSE c.fault_users || excluded.fault_users END AS users,
                    array_remove(c.probing_users, %(user)s) AS probing
                -- Of another user than the one who is kept out: the second witness of the same opening.
                FROM (SELECT c.faults >= %(opens_after)s AND {_OF_ANOTHER} AS is_second) s
            ) n)
        WHERE c.open_until IS NULL OR c.open_until <= statement_timestamp() OR {_OF_ANOTHER}
        RETURNING c.faults, c.open_until, {_ALONE}
        """,  # noqa: S608 - constants
        {
            "model": model,
            "provider": provider,
            "error": error,
            "user": user_id,
            "opens_after": settings.CIRCUIT_FAULTS,
            "open": OPEN_S,
            "longest": LONGEST_OPEN_S,
        },
    )
    if row is not None and row[1] is not None:
        whom = f"user {user_id} alone" if row[2] else "everybody"
        log.error("%s: the circuit is open for %s, faults in a row: %s: %s", model, whom, row[0], error)


def note_success(model: str, provider: str, user_id: int = NOBODYS) -> None:
    """A job of this user ended well: the model's circuit is closed, its faults are forgotten; one statement.

    A circuit that is open for this user stays as it is: such a job was sent before it opened. A model without faults
    isn't written.
    """
    database.execute(
        f"""
        UPDATE video_circuit c SET faults = 0, open_until = NULL, fault_users = '{{}}', is_for_all = false,
            probing_users = '{{}}', probing_since = NULL
        WHERE c.model = %(model)s AND c.provider = %(provider)s AND c.faults > 0
            AND (c.open_until IS NULL OR c.open_until <= statement_timestamp() OR {_OF_ANOTHER})
        """,  # noqa: S608 - constants
        {"model": model, "provider": provider, "user": user_id},
    )


def is_half_open(health: ModelHealth) -> bool:
    """Whether a job of this model would be a probe, so that it needs `take_probe`. `health`: as its user sees it."""
    return health.recent_faults >= settings.CIRCUIT_FAULTS and not health.circuit_open


def take_probe(model: str, user_id: int = NOBODYS) -> bool:
    """Whether a job of this user may be sent to this model; of a half-open circuit it then is a probe.

    True at once where the circuit is closed or does not concern this user; False where it keeps the user out, and while
    a probe of this user, or of two others, is under way. One statement. In a transaction that is rolled back the probe
    was never taken.
    """
    may: bool = database.value(
        f"""
        WITH taken AS (
            UPDATE video_circuit c SET
                probing_users = CASE WHEN {_IS_PROBED} THEN c.probing_users ELSE '{{}}' END || %(user)s::bigint,
                probing_since = CASE WHEN {_IS_PROBED} THEN c.probing_since ELSE statement_timestamp() END
            WHERE c.model = %(model)s AND c.open_until IS NOT NULL
                AND (c.open_until <= statement_timestamp() OR {_OF_ANOTHER})
                AND (c.is_for_all OR NOT {_OF_ANOTHER})
                AND (NOT {_IS_PROBED}
                    OR (cardinality(c.probing_users) < %(most)s AND NOT %(user)s = ANY(c.probing_users)))
            RETURNING c.model
        )
        SELECT EXISTS (SELECT FROM taken) OR NOT EXISTS (
            SELECT FROM video_circuit c WHERE c.model = %(model)s AND c.open_until IS NOT NULL
                AND (c.is_for_all OR NOT {_OF_ANOTHER}))
        """,  # noqa: S608 - constants
        {"model": model, "user": user_id, "most": MOST_PROBES},
    )
    return may


def give_back_probe(model: str, user_id: int = NOBODYS) -> None:
    """This user's probe ended without a verdict on the model (cancelled, refused as a request): another may go.

    One statement. Without it the next is let through ten minutes after the probe was taken.
    """
    database.execute(
        """
        UPDATE video_circuit SET probing_users = array_remove(probing_users, %(user)s),
            probing_since = CASE WHEN cardinality(array_remove(probing_users, %(user)s)) > 0 THEN probing_since END
        WHERE model = %(model)s AND probing_since IS NOT NULL
            AND (%(user)s = ANY(probing_users) OR cardinality(probing_users) = 0)
        """,
        {"model": model, "user": user_id},
    )
