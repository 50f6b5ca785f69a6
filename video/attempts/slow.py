"""Renders that take longer than nearly all of their model: jobs at a provider beyond its 95th percentile."""

from __future__ import annotations

from dataclasses import dataclass

from video.infra import database
from video.infra.durations import span

SAMPLE = 50  # the last successes of a model
FEWEST = 8  # of them, before they say what is usual
LOOKED_AT = 200  # ended attempts of a model: a month of failures must not make the query long

#: The tasks whose render is slow: task_id, model, age_s, p95_s. The models' figures are read once each, by the index
#: `generation_recent_by_model`; simulated and real jobs apart. Only constants are in it.
SLOW = f"""(
    WITH open_job AS MATERIALIZED (
        SELECT g.task_id, g.model, g.simulated,
            extract(epoch FROM statement_timestamp() - g.accepted_at)::float8 AS age_s
        FROM video_generation g JOIN video_videotask t ON t.id = g.task_id
        WHERE g.state = 'accepted' AND t.stage = 'poll' AND t.finished_at IS NULL
    ), usual AS MATERIALIZED (
        SELECT m.model, m.simulated, r.p95_s
        FROM (SELECT DISTINCT model, simulated FROM open_job) m CROSS JOIN LATERAL (
            SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY last.render_s) AS p95_s, count(*) AS renders FROM (
                SELECT extract(epoch FROM ended.ended_at - ended.accepted_at)::float8 AS render_s FROM (
                    SELECT state, simulated, accepted_at, ended_at FROM video_generation
                    WHERE model = m.model AND ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT {LOOKED_AT}
                ) ended
                WHERE ended.state = 'succeeded' AND ended.simulated = m.simulated
                ORDER BY ended.ended_at DESC LIMIT {SAMPLE}
            ) last
        ) r WHERE r.renders >= {FEWEST}
    )
    SELECT o.task_id, o.model, o.age_s, u.p95_s
    FROM open_job o JOIN usual u USING (model, simulated) WHERE o.age_s > u.p95_s
)"""  # noqa: S608 - constants

#: Of a row of video_videotask: its render is slow.
IS_SLOW = f"video_videotask.id IN (SELECT task_id FROM {SLOW} slow)"  # noqa: S608 - a constant


@dataclass(frozen=True)
class SlowRender:
    """One slow render."""

    model: str
    age_s: float
    p95_s: float

    @property
    def words(self) -> str:
        """A sentence for operators."""
        return (
            f"Its render is slow: {self.model} has been at it for {span(self.age_s)}, and 95 of 100 lately took no "
            f"longer than {span(self.p95_s)}. The system waits until the task's deadline."
        )


def number() -> int:
    """How many renders are slow now; one statement."""
    found: int = database.value(f"SELECT count(*) FROM {SLOW} slow")  # noqa: S608 - a constant
    return found


def of_task(task_id: str) -> SlowRender | None:
    """The slow render of this task; None if it has none. One statement."""
    row = database.fetch_one(
        f"SELECT model, age_s, p95_s FROM {SLOW} slow WHERE task_id = %s",  # noqa: S608 - a constant
        [task_id],
    )
    return None if row is None else SlowRender(*row)
