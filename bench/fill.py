"""Fills the tables in SQL, as fast as the database takes rows: tasks that have ended, and a load of active ones.

Rows are as the product leaves them, constraints hold; only foreign keys aren't checked while they are inserted.
"""

from __future__ import annotations

from typing import Any

from bench.system import MANY_CREDITS

CHUNK = 100_000
USERS = 20
LAST_DAY = 1_000  # tasks that ended in it, so that what looks at a day sees the same however many there are
#: (how many, SQL of its status, stage and clocks, whether an accepted job belongs to it)
ACTIVE = (
    (600, "'pending', 'generate', now() - n * interval '100 ms', NULL, NULL, ''", False),
    (1000, "'running', 'poll', NULL, now() + interval '1 hour', NULL, 'runway: running'", True),
    (100, "'running', 'poll', NULL, now() - interval '2 s', NULL, 'runway: running'", True),
    (50, "'running', 'download', NULL, now() - interval '1 s', now() + interval '1 day', ''", False),
    (50, "'running', 'download', NULL, now() + interval '1 hour', NULL, 'HTTP 502'", False),
    (200, "'running', 'transcode', NULL, now() - interval '5 s', NULL, ''", False),
)
_TASK = """
    INSERT INTO video_videotask (id, user_id, run, prompt, duration_s, aspect_ratio, image_url, policy, fallback,
        model_requested, eligible_models, negative_prompt, quality, resolution, fps, request_hash, progress, claimed_by,
        tries, deaths, error_code, error_message, source_key, output_key, thumbnail_key, has_work_files, fence,
        status, stage, admit_at, next_run_at, lease_until, park_reason, video_id, created_at, finished_at)
    SELECT {id}, (%(users)s::int[])[1 + mod(n, {users})], 1, 'A cat walking in a garden', 5, '16:9', '', 'balanced',
        true, '', ARRAY['gen4.5'], '', 'medium', 'source', 30, '', {progress}, '',
        0, 0, {error}, {error}, '', {key}, {key}, false, 7,
        {where}, {video_id}, {created_at}, {finished_at}
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
_GENERATION = """
    INSERT INTO video_generation (id, task_id, user_id, run, attempt, account_id, provider, model, key_fingerprint,
        simulated, duration_s, resolution, state, candidates, job_id, job_urls, provider_status, polls, poll_errors,
        not_found, lookups, resent, cost_unit, error_code, error_message, planned_at, sent_at, accepted_at, ended_at)
    SELECT {id}, {task}, (%(users)s::int[])[1 + mod(n, {users})], 1, 1, %(account)s, 'runway', 'gen4.5', %(key)s,
        true, 5, '720p',
        {state}, '[]', 'job-' || {task}, '{{}}', 'RUNNING', 5, 0, 0, 0, false, 'credits', '', '', {at},
        {at}, {at}, {ended_at}
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""


def users() -> list[int]:
    """Ids of the users that own all of it."""
    from django.contrib.auth import get_user_model

    from video.credits import ledger

    model = get_user_model()
    found = []
    for number in range(USERS):
        user, made = model.objects.get_or_create(username=f"filler-{number}")
        if made:
            ledger.grant(user.pk, MANY_CREDITS)
        found.append(user.pk)
    return found


def finished(first: int, last: int) -> None:
    """Tasks `first` to `last` that have ended in the past month, one in twenty failed: each with an attempt, five
    events, its debit and where it failed its refund. The first 1,000 ended in the last day, none in the last hour."""
    for start in range(first, last + 1, CHUNK):
        _finished(start, min(last, start + CHUNK - 1))


def task_id(number: int) -> str:
    """The id of a finished task."""
    return f"task_{number:026d}"


def _finished(first: int, last: int) -> None:
    at = f"""now() - CASE WHEN n <= {LAST_DAY} THEN interval '1 hour' + n * interval '1 minute'
        ELSE interval '1 day' + mod(n, 2500000) * interval '1 second' END"""
    failed = "mod(n, 20) = 0"
    task = "'task_' || lpad(n::text, 26, '0')"
    where = f"""CASE WHEN {failed} THEN 'failed' ELSE 'success' END, CASE WHEN {failed} THEN 'poll' ELSE 'done' END,
        NULL, NULL, NULL, ''"""
    params = _params(first, last)
    _run(
        [
            _TASK.format(
                users=USERS,
                id=task,
                progress=f"CASE WHEN {failed} THEN 30 ELSE 100 END",
                error=f"CASE WHEN {failed} THEN 'timeout' ELSE '' END",
                key="'u/videos/' || n",
                where=where,
                video_id=f"CASE WHEN NOT {failed} THEN 'vid_' || lpad(n::text, 26, '0') END",
                created_at=f"{at} - interval '90 seconds'",
                finished_at=at,
            ),
            _GENERATION.format(
                users=USERS,
                id="'gen_' || lpad(n::text, 26, '0')",
                task=task,
                state=f"CASE WHEN {failed} THEN 'failed' ELSE 'succeeded' END",
                at=f"{at} - interval '80 seconds'",
                ended_at=at,
            ),
            f"""
            INSERT INTO video_taskevent (task_id, run, generation_id, stage, outcome, fence, worker, detail, error_code,
                started_at, finished_at)
            SELECT {task}, 1, NULL, step.stage, step.outcome, 1, 'bench:1', '', '',
                {at} - interval '1 second', {at} - step.before * interval '1 second'
            FROM generate_series(%(first)s::bigint, %(last)s::bigint) n, LATERAL (VALUES
                ('generate', 'created', 90), ('generate', 'admitted', 80), ('generate', 'advanced', 79),
                ('poll', CASE WHEN {failed} THEN 'failed' ELSE 'advanced' END, 10), ('save', 'succeeded', 0)
            ) step (stage, outcome, before) WHERE NOT ({failed} AND step.stage = 'save')
            """,
            f"""
            INSERT INTO video_creditentry (account_id, kind, amount, task_id, run, note, created_at)
            SELECT (%(users)s::int[])[1 + mod(n, {USERS})], kind, CASE WHEN kind = 'debit' THEN -10 ELSE 10 END,
                {task}, 1, '', {at}
            FROM generate_series(%(first)s::bigint, %(last)s::bigint) n, LATERAL (VALUES ('debit'), ('refund')) k (kind)
            WHERE kind = 'debit' OR mod(n, 20) = 0
            """,
        ],
        params,
    )


def active() -> int:
    """The load of ACTIVE, with jobs at the provider and moves in the last minutes. Returns how many tasks."""
    place = 0
    for number, where, with_job in ACTIVE:
        task = f"'task_z' || lpad((n + {place})::text, 25, '0')"
        statements = [
            _TASK.format(
                users=USERS,
                id=task,
                progress="CASE WHEN n > 0 THEN 10 ELSE 0 END",
                error="''",
                key="''",
                where=where,
                video_id="NULL",
                created_at="now() - interval '5 minutes'",
                finished_at="NULL",
            )
        ]
        if with_job:
            statements.append(
                _GENERATION.format(
                    users=USERS,
                    id=f"'gen_z' || lpad((n + {place})::text, 25, '0')",
                    task=task,
                    state="'accepted'",
                    at="now() - interval '4 minutes'",
                    ended_at="NULL",
                )
            )
        statements.append(
            f"""
            INSERT INTO video_taskevent (task_id, run, stage, outcome, fence, worker, detail, error_code,
                started_at, finished_at)
            SELECT {task}, 1, step.stage, step.outcome, 1, 'bench:1', '', '',
                now() - (mod(n, 800) + 1) * interval '1 second', now() - mod(n, 800) * interval '1 second'
            FROM generate_series(%(first)s::bigint, %(last)s::bigint) n,
                LATERAL (VALUES ('generate', 'admitted'), ('generate', 'advanced')) step (stage, outcome)
            """
        )
        _run(statements, _params(1, number))
        place += number
    return place


def freshen(seconds: float) -> None:
    """The active load as it was `seconds` ago: its clocks and its moves go along with the time."""
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in (
            """
            UPDATE video_videotask SET admit_at = admit_at + %(s)s * interval '1 second',
                next_run_at = next_run_at + %(s)s * interval '1 second',
                created_at = created_at + %(s)s * interval '1 second'
            WHERE id LIKE 'task\\_z%%'
            """,
            """
            UPDATE video_taskevent SET started_at = started_at + %(s)s * interval '1 second',
                finished_at = finished_at + %(s)s * interval '1 second'
            WHERE task_id LIKE 'task\\_z%%'
            """,
        ):
            cursor.execute(statement, {"s": seconds})


def settle() -> None:
    """Balances as the entries make them; statistics and visibility as autovacuum leaves them after a while."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        add_up()
        for table in ("video_videotask", "video_generation", "video_taskevent", "video_creditentry"):
            cursor.execute(f"VACUUM (ANALYZE) {table}")
        cursor.execute("RESET statement_timeout")


def add_up() -> None:
    """Balances as the entries make them."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_account a SET balance = total FROM (
                SELECT account_id, sum(amount) AS total FROM video_creditentry GROUP BY account_id
            ) e WHERE e.account_id = a.user_id AND a.balance <> total
            """
        )


def _params(first: int, last: int) -> dict[str, Any]:
    from video.models import ProviderAccount, ProviderKey

    account = ProviderAccount.objects.get(provider="runway", model="gen4.5")
    key = ProviderKey.objects.get(provider="runway")
    return {"first": first, "last": last, "users": users(), "account": account.pk, "key": key.fingerprint}


def _run(statements: list[str], params: dict[str, Any]) -> None:
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        for statement in statements:
            cursor.execute(statement, params)
