"""The tasks that do not get on, each with the whole reason: what is overdue first, then what has waited for longest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from video.engine.position import SQL, State
from video.engine.sql import USERS
from video.infra import database
from video.infra.durations import span
from video.models import Generation

MOST = 10
LATE_S = 60.0  # a task that is due for longer has no worker
LONG_WAIT_S = 600.0  # for a slot or a core

#: What each kind is called, and what is said of it; {since} is how long it has been so.
WORDS = {
    "overdue": (
        "past its deadline",
        "It sleeps beyond its deadline, which was {since} ago; a sweeper wakes such tasks.",
    ),
    "due": ("nobody took it", "It has been due for {since}, and no worker has taken it."),
    "outcome_unknown": ("outcome unknown", "Nobody can tell yet whether the provider has the job."),
    "key_gone": ("key is gone", "The key that its job hangs on is not configured any more."),
    "provider_trouble": ("provider fails", "The provider could not be asked about the job."),
    "job_not_found": ("job not found", "The provider says that it knows no such job."),
    "parked": ("parked", ""),
    "user_off": ("user switched off", "Its user is switched off, so it gets no slot; it has waited for {since}."),
    "slot": ("waits for a slot", "It has waited for a slot for {since}."),
    "core": ("waits for a core", "It has waited for a core for {since}."),
}


@dataclass(frozen=True)
class Stuck:
    """A task that does not get on."""

    task: str
    user: str
    stage: str
    models: list[str]  # that may run it
    kind: str
    since: datetime | None  # when it was due, should have ended, or came into line; None: is not known
    since_s: float | None
    age_s: float  # from create
    next_s: float | None  # until its stage is due
    park_reason: str

    @property
    def label(self) -> str:
        """In a few words."""
        return WORDS[self.kind][0]

    @property
    def reason(self) -> str:
        """All that is known, in sentences."""
        said = WORDS[self.kind][1].format(since=span(self.since_s))
        parked = self.park_reason.rstrip(".")
        if parked:
            said = f"{said} {parked[:1].upper()}{parked[1:]}.".lstrip()
        if self.kind == "slot" and self.models:
            said += f" It may run on {' or '.join(self.models)}."
        if self.next_s is not None and self.next_s > 0:
            said += f" Next try in {span(self.next_s)}."
        return said


def find() -> list[Stuck]:
    """The worst MOST; one statement, by the indexes `task_due` and `task_waiting_for_slot`.

    A job that renders is not stuck. Active tasks are read, ended ones are not.
    """
    rows = database.fetch(
        f"""
        WITH parked AS (
            SELECT video_videotask.id, CASE
                    WHEN video_videotask.deadline_at < statement_timestamp()
                        AND video_videotask.claimed_at < video_videotask.deadline_at THEN 'overdue'
                    WHEN g.state = 'unknown' THEN 'outcome_unknown'
                    WHEN k.id IS NOT NULL THEN 'key_gone'
                    WHEN video_videotask.stage <> 'poll' THEN 'parked'
                    WHEN g.poll_errors > 0 THEN 'provider_trouble'
                    WHEN g.not_found > 0 THEN 'job_not_found' END AS kind,
                CASE WHEN video_videotask.deadline_at < statement_timestamp()
                    THEN video_videotask.deadline_at END AS since
            FROM video_videotask
            LEFT JOIN video_generation g ON g.task_id = video_videotask.id AND g.state {Generation.LIVE_SQL}
            LEFT JOIN video_providerkey k
                ON k.provider = g.provider AND k.fingerprint = g.key_fingerprint AND k.gone_since IS NOT NULL
            WHERE {SQL[State.PARKED]}
        ), due AS (
            SELECT id, 'due' AS kind, next_run_at AS since FROM video_videotask
            WHERE next_run_at < statement_timestamp() - %(late)s * interval '1 second'
                AND (({SQL[State.WAITS_FOR_WORKER]}) OR ({SQL[State.WORKER_SILENT]}))
            ORDER BY next_run_at LIMIT %(most)s
        ), waiting AS (
            SELECT id, CASE WHEN {SQL[State.USER_OFF]} THEN 'user_off' ELSE 'slot' END AS kind, admit_at AS since
            FROM video_videotask
            WHERE admit_at IS NOT NULL AND admit_at < statement_timestamp() - %(long)s * interval '1 second'
            ORDER BY admit_at LIMIT %(most)s
        ), for_core AS (
            SELECT id, 'core' AS kind, next_run_at AS since FROM video_videotask
            WHERE next_run_at < statement_timestamp() - %(long)s * interval '1 second' AND {SQL[State.WAITS_FOR_CORE]}
            ORDER BY next_run_at LIMIT %(most)s
        )
        SELECT t.id, u.username, t.stage, t.eligible_models, found.kind, found.since,
            extract(epoch FROM statement_timestamp() - found.since)::float8,
            extract(epoch FROM statement_timestamp() - t.created_at)::float8,
            extract(epoch FROM t.next_run_at - statement_timestamp())::float8, t.park_reason
        FROM (
            SELECT *, CASE kind WHEN 'overdue' THEN 0 ELSE 2 END AS place FROM parked WHERE kind IS NOT NULL
            UNION ALL SELECT *, 1 FROM due UNION ALL SELECT *, 3 FROM for_core UNION ALL SELECT *, 3 FROM waiting
        ) found JOIN video_videotask t USING (id) JOIN {USERS} u ON u.id = t.user_id
        ORDER BY found.place, t.created_at LIMIT %(most)s
        """,  # noqa: S608 - constants of engine/position.py
        {"late": LATE_S, "long": LONG_WAIT_S, "most": MOST},
    )
    return [Stuck(*row) for row in rows]
