"""Facts about a Generation: each a compare-and-set on the generation's own state, so that a job is paid for once.

`mark_sent` and `mark_resent` alone also need the task's fence. Every other fact is written even by a worker that lost
its lease: a paid job id is never thrown away. Each function returns whether it wrote; False is a normal answer, as when
another process wrote the fact before.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from providers.contract import Submitted
from providers.untrusted import storable
from video.credits import ledger
from video.engine.claims import Claim
from video.engine.sql import SUBMIT_IS_PAUSED
from video.engine.transitions import MARK_RUNNING
from video.infra import database
from video.models import Generation

State = Generation.State
#: The user was switched off between the admission and the submit.
USER_OFF = "user_off"
#: The same, of a pause of anything that the submit needed.
PAUSED = "paused"
#: Nothing was sent since an operator decided so: the task waits again.
NOT_BEGUN = (USER_OFF, PAUSED)
NOT_THE_MODELS_FAULT = (
    "busy",
    "gateway_answer",
    "key_refused",
    "model_forbidden",  # perhaps a slip; where it holds, the account is closed for it
    "out_of_credits",
    "task_ended",
    *NOT_BEGUN,
)


def _change(sql: str, params: dict[str, Any]) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.rowcount == 1


def _end(sql: str, params: dict[str, Any], *, refunds: bool) -> bool:
    """An attempt's end. If its task was cancelled and `refunds`, the credits come back in the same transaction.

    The task is read after the attempt is written, and a cancel reads the attempt after it has written the task: so the
    second of the two always sees the first.
    """
    if not refunds:
        return _change(sql, params)
    with transaction.atomic():
        ended = _change(sql, params)
        if ended:
            _refund_cancelled(params["id"])
        return ended


def _refund_cancelled(generation_id: str) -> None:
    """Give the run's credits back if the task was cancelled and this is its last attempt."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT t.id, t.run FROM video_generation g JOIN video_videotask t ON t.id = g.task_id
            WHERE g.id = %s AND t.status = 'cancelled' AND NOT EXISTS (
                SELECT FROM video_generation newer WHERE newer.task_id = t.id AND newer.attempt > g.attempt)
            """,
            [generation_id],
        )
        row = cursor.fetchone()
    if row is not None:
        ledger.refund(row[0], row[1])


def _hold_task(generation_id: str) -> None:
    """Lock the attempt's task until the transaction ends, for facts that depend on the task's state.

    Without the lock, a task that ends at this moment and the attempt would each read the other's old state.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT FROM video_videotask
            WHERE id = (SELECT task_id FROM video_generation WHERE id = %s) FOR NO KEY UPDATE
            """,
            [generation_id],
        )


#: The attempt's task, locked as `_hold_task` does, for a statement that depends on the state of this row alone: after a
#: wait for the lock it sees this row as it is then, but all others as they were when it began.
_HELD_TASK = """held AS MATERIALIZED (
                SELECT * FROM video_videotask
                WHERE id = (SELECT task_id FROM video_generation WHERE id = %(id)s) FOR NO KEY UPDATE
            )"""


def models_tried(task_id: str, run: int) -> set[str]:
    """Models that were tried in this run and failed; trouble of a key or its account is not a model's fault."""
    ended = Generation.objects.filter(task_id=task_id, run=run).exclude(state__in=Generation.LIVE)
    return set(ended.exclude(error_code__in=NOT_THE_MODELS_FAULT).values_list("model", flat=True))


def mark_sent(claim: Claim, generation: Generation, *, expects_call: bool = False) -> bool:
    """Write down that the submit is about to be sent: planned → unknown, and the task runs.

    Committed right before the socket is opened. Needs the fence, a lease that still holds, and that nothing which the
    submit needs was paused when the statement began; False: do not send.
    `expects_call`: a call-back address goes along.
    """
    return _change(
        f"""
        WITH running AS (
            {MARK_RUNNING} AND EXISTS (
                SELECT FROM video_generation g JOIN video_videotask t ON t.id = g.task_id
                WHERE g.id = %(id)s AND g.state = 'planned' AND NOT {SUBMIT_IS_PAUSED})
            RETURNING id
        )
        UPDATE video_generation g SET state = 'unknown', sent_at = statement_timestamp(), expects_call = %(call)s
        FROM running WHERE g.id = %(id)s AND g.task_id = running.id AND g.state = 'planned'
        """,  # noqa: S608 - a constant
        {
            "id": generation.pk,
            "task": claim.task.pk,
            "fence": claim.fence,
            "deadline": settings.TASK_DEADLINE_SECONDS,
            "call": expects_call,
        },
    )


def is_paused(generation_id: str) -> bool:
    """Whether operators have paused something that a submit of this attempt needs."""
    found: bool = database.value(
        f"""SELECT EXISTS (SELECT FROM video_generation g JOIN video_videotask t ON t.id = g.task_id
            WHERE g.id = %s AND {SUBMIT_IS_PAUSED})""",  # noqa: S608 - a constant
        [generation_id],
    )
    return found


def put_back(generation_id: str) -> bool:
    """Nothing left this machine after all: unknown → planned, the same row is sent later.

    If the task has ended meanwhile it is never sent: it is rejected, which frees its slot.
    """
    return _end(
        f"""
        WITH {_HELD_TASK}
        UPDATE video_generation g SET look_at = NULL,
            state = CASE WHEN t.finished_at IS NULL THEN 'planned' ELSE 'rejected' END,
            sent_at = CASE WHEN t.finished_at IS NOT NULL THEN g.sent_at END,
            ended_at = CASE WHEN t.finished_at IS NOT NULL THEN statement_timestamp() END,
            error_code = CASE WHEN t.finished_at IS NULL THEN g.error_code ELSE 'task_ended' END
        FROM held t WHERE g.id = %(id)s AND g.state = 'unknown'
        """,  # noqa: S608 - a constant
        {"id": generation_id},
        refunds=True,
    )


def record_accepted(generation_id: str, submitted: Submitted) -> bool:
    """The provider has the job: unknown (or given up as lost) → accepted, with its id."""
    with transaction.atomic():
        _hold_task(generation_id)
        return _change(
            f"""
            UPDATE video_generation g SET job_id = %(job)s, job_urls = %(urls)s::jsonb,
                expected_cost = coalesce(%(cost)s, expected_cost), accepted_at = statement_timestamp(),
                -- If the task has another live attempt by now, or waits for one, this one stays lost, but its paid job
                -- is still known.
                state = CASE WHEN now.another THEN 'lost' ELSE 'accepted' END,
                ended_at = CASE WHEN now.another THEN g.ended_at END,
                -- A job whose task no longer waits for it, or that is to stop, is checked at once.
                look_at = CASE WHEN now.ended OR now.another OR g.cancel_wanted_at IS NOT NULL
                    THEN statement_timestamp() END,
                error_code = '', error_message = ''
            FROM (
                SELECT t.finished_at IS NOT NULL OR t.stage NOT IN ('generate', 'poll') AS ended,
                    t.admit_at IS NOT NULL OR EXISTS (
                    SELECT FROM video_generation o
                    WHERE o.task_id = t.id AND o.id <> %(id)s AND o.state {Generation.LIVE_SQL}
                ) AS another
                FROM video_videotask t JOIN video_generation s ON s.task_id = t.id WHERE s.id = %(id)s
            ) now
            WHERE g.id = %(id)s AND (g.state = 'unknown' OR (g.state = 'lost' AND g.job_id = ''))
            """,  # noqa: S608 - a constant
            {
                "id": generation_id,
                "job": submitted.job_id,
                "urls": json.dumps(dict(submitted.urls)),
                "cost": submitted.expected_cost,
            },
        )


def record_unknown(generation_id: str) -> bool:
    """Our call ended, and what it ended with proves nothing."""
    return _change(
        """
        UPDATE video_generation SET unknown_since = statement_timestamp()
        WHERE id = %(id)s AND state = 'unknown' AND unknown_since IS NULL
        """,
        {"id": generation_id},
    )


def record_not_found_by_reference(generation_id: str) -> int:
    """A look-up by our reference found nothing; returns how many did."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_generation SET lookups = lookups + 1 WHERE id = %s AND state = 'unknown' RETURNING lookups",
            [generation_id],
        )
        row = cursor.fetchone()
        return int(row[0]) if row else 0


def mark_resent(claim: Claim, generation: Generation) -> bool:
    """Write down that the same attempt is about to be sent once more, with the same reference; False: do not send.

    Only for a provider that refuses a reference that it has seen. Needs the fence, as `mark_sent` does.
    """
    return _change(
        """
        UPDATE video_generation g SET resent = true, sent_at = statement_timestamp(), unknown_since = NULL, lookups = 0
        FROM video_videotask t
        WHERE g.id = %(id)s AND g.state = 'unknown' AND NOT g.resent AND t.id = g.task_id AND t.fence = %(fence)s
            AND t.stage = 'generate' AND t.status = 'running' AND t.lease_until > statement_timestamp()
        """,
        {"id": generation.pk, "fence": claim.fence},
    )


def want_cancel(generation_id: str) -> bool:
    """The provider is to be asked to stop this job. False when that was noted before, or the job has ended."""
    return _change(
        """
        UPDATE video_generation SET cancel_wanted_at = statement_timestamp()
        WHERE id = %(id)s AND state IN ('unknown', 'accepted') AND cancel_wanted_at IS NULL
        """,
        {"id": generation_id},
    )


def record_rejected(generation_id: str, *, code: str, message: str) -> bool:
    """Proof that no job exists: unknown or planned → rejected, which frees the slot. A cancelled task is refunded."""
    return _end(
        """
        UPDATE video_generation SET state = 'rejected', ended_at = statement_timestamp(), error_code = %(code)s,
            error_message = %(message)s, look_at = NULL
        WHERE id = %(id)s AND state IN ('planned', 'unknown')
        """,
        {"id": generation_id, "code": storable(code, 60), "message": storable(message, 1000)},
        refunds=True,
    )


NOT_FOUND_TIMES = 3
NOT_FOUND_SECONDS = 60


def record_not_found(generation_id: str) -> bool:
    """The provider says that it has no such job. True once that makes it lost: three in a row over a minute."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_generation SET last_polled_at = statement_timestamp(), polls = polls + 1,
                not_found = not_found + 1, not_found_since = coalesce(not_found_since, statement_timestamp())
            WHERE id = %(id)s AND state = 'accepted'
            RETURNING not_found >= %(times)s
                AND not_found_since <= statement_timestamp() - %(seconds)s * interval '1 second'
            """,
            {"id": generation_id, "times": NOT_FOUND_TIMES, "seconds": NOT_FOUND_SECONDS},
        )
        row = cursor.fetchone()
    return bool(row and row[0])


def record_ended(
    generation_id: str,
    state: Generation.State,
    *,
    cost: Decimal | None = None,
    provider_status: str = "",
    code: str = "",
    message: str = "",
    another_model_could: bool = True,
    took_nothing: bool = False,
    result_life_s: float | None = None,
) -> bool:
    """The job's verified end: accepted (or lost, by late truth) → succeeded, failed or cancelled. Frees the slot.

    A video that comes after its task has failed is left to reconcile, which delivers it.
    `another_model_could`: of an end without a video, whether the task may go on with another model.
    `took_nothing`: the provider surely charges nothing for it; a cancelled task is refunded then, and only then.
    `result_life_s`: for how long the provider keeps the video, where that is known.
    """
    if state not in {State.SUCCEEDED, State.FAILED, State.CANCELLED}:
        raise ValueError(f"{state} is not a job's end")
    return _end(
        f"""
        WITH {_HELD_TASK}
        UPDATE video_generation g SET state = %(state)s, ended_at = statement_timestamp(),
            reported_cost = %(cost)s, provider_status = %(word)s, error_code = %(code)s,
            error_message = %(message)s, another_model_could = %(another)s, took_nothing = %(took_nothing)s,
            last_polled_at = statement_timestamp(), polls = g.polls + 1,
            look_at = CASE WHEN %(state)s = 'succeeded' AND t.status = 'failed' THEN statement_timestamp() END,
            result_dies_at = statement_timestamp() + %(life)s * interval '1 second'
        FROM held t WHERE g.id = %(id)s AND g.job_id <> '' AND g.state IN ('accepted', 'lost')
        """,  # noqa: S608 - a constant
        {
            "id": generation_id,
            "state": state.value,
            "cost": cost,
            "word": storable(provider_status, 60),
            "code": storable(code, 60),
            "message": storable(message, 1000),
            "another": another_model_could,
            "took_nothing": took_nothing,
            "life": result_life_s,
        },
        refunds=took_nothing and state is not State.SUCCEEDED,
    )


def record_provenance(generation_id: str, *, aigc_tag: str, has_c2pa: bool) -> bool:
    """What the provider's file says about its origin. Only what it says is written: most files say nothing."""
    return bool(aigc_tag or has_c2pa) and _change(
        "UPDATE video_generation SET aigc_tag = %(tag)s, has_c2pa = %(c2pa)s WHERE id = %(id)s AND state = 'succeeded'",
        {"id": generation_id, "tag": aigc_tag, "c2pa": has_c2pa},
    )


def record_lost(generation_id: str, *, code: str, message: str = "") -> bool:
    """Given up: its slot is freed and its expected cost stays booked as possibly spent. Late truth may still come.

    A cancelled task whose submit was never answered is refunded; one whose job was known is not.
    """
    return give_up_unknown(generation_id, code=code, message=message) or _change(
        """
        UPDATE video_generation SET state = 'lost', ended_at = statement_timestamp(), error_code = %(code)s,
            error_message = %(message)s, look_at = NULL
        WHERE id = %(id)s AND state = 'accepted'
        """,
        {"id": generation_id, "code": code, "message": message},
    )


def check_later(generation_id: str, delay_s: float) -> bool:
    """A job that outlived its task is checked again in `delay_s` seconds."""
    return _change(
        """
        UPDATE video_generation SET look_at = statement_timestamp() + %(delay)s * interval '1 second'
        WHERE id = %(id)s AND job_id <> '' AND state IN ('accepted', 'lost')
        """,
        {"id": generation_id, "delay": delay_s},
    )


def check_again(generation_id: str, soonest_s: float) -> bool:
    """A job that is to stop is checked again: after a quarter of its age, at least `soonest_s`, at most an hour."""
    return _change(
        """
        UPDATE video_generation SET look_at = statement_timestamp() + interval '1 second' * least(3600, greatest(
            %(soonest)s, extract(epoch FROM statement_timestamp() - accepted_at) / 4))
        WHERE id = %(id)s AND state = 'accepted' AND cancel_wanted_at IS NOT NULL
        """,
        {"id": generation_id, "soonest": soonest_s},
    )


def look_up_later(generation_id: str, delay_s: float) -> bool:
    """A submit without an answer, whose task no longer waits for it, is looked up by our reference in `delay_s`."""
    return _change(
        """
        UPDATE video_generation SET look_at = statement_timestamp() + %(delay)s * interval '1 second'
        WHERE id = %(id)s AND state = 'unknown'
        """,
        {"id": generation_id, "delay": delay_s},
    )


def give_up_unknown(generation_id: str, *, code: str = "outcome_unknown", message: str = "") -> bool:
    """No truth came: unknown → lost, which frees the slot. False: a call-back has brought the job a moment ago.

    A cancelled task is refunded.
    """
    return _end(
        """
        UPDATE video_generation SET state = 'lost', ended_at = statement_timestamp(), error_code = %(code)s,
            error_message = %(message)s, look_at = NULL
        WHERE id = %(id)s AND state = 'unknown'
        """,
        {"id": generation_id, "code": code, "message": message},
        refunds=True,
    )


def stop_checking(generation_id: str) -> bool:
    """A job that was given up, or whose late video is delivered, is not checked any more."""
    return _change(
        """
        UPDATE video_generation SET look_at = NULL
        WHERE id = %(id)s AND state IN ('lost', 'succeeded') AND look_at IS NOT NULL
        """,
        {"id": generation_id},
    )


def expire_unknown(window_s: dict[str, float]) -> int:
    """Unknown ones past their provider's longest render time become lost, which frees their slots. Returns how many.

    Only those whose task has ended: a task that still stands in generate settles its own attempt first. If it was
    cancelled it is refunded.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_generation g SET state = 'lost', ended_at = statement_timestamp(),
                error_code = 'outcome_unknown', look_at = NULL
            FROM video_videotask t, unnest(%s::text[], %s::float8[]) AS longest (provider, seconds)
            WHERE t.id = g.task_id AND t.finished_at IS NOT NULL AND g.state = 'unknown'
                AND longest.provider = g.provider
                AND g.sent_at < statement_timestamp() - longest.seconds * interval '1 second'
            RETURNING g.id
            """,
            [list(window_s), list(window_s.values())],
        )
        expired = [row[0] for row in cursor.fetchall()]
        for generation_id in expired:
            _refund_cancelled(generation_id)
        return len(expired)
