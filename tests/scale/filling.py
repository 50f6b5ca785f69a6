"""A database as it is after a year: nearly all tasks have ended, and a few thousand are under way. Filled by SQL."""

from __future__ import annotations

from django.db import connection

from video.attempts import configured_keys
from video.costs import roll_up
from video.models.order import Order

USERS = 1000
USER = 7  # one of them
RICH = 8  # one who has a quarter of all tasks
ACTIVE = f"task_z{17:025d}"  # a task under way, of that user
ORDER = Order(prompt="A cat", duration_s=5, aspect_ratio="16:9")

_ROWS = """
INSERT INTO auth_user (id, username, password, first_name, last_name, email, is_staff, is_active, is_superuser,
    date_joined)
SELECT i, 'user-' || i, '', '', '', '', false, true, false, now() FROM generate_series(1, %(users)s) i;

INSERT INTO video_account (user_id, balance) SELECT i, 1000 FROM generate_series(1, %(users)s) i;

INSERT INTO video_videotask (id, user_id, run, prompt, duration_s, aspect_ratio, image_url, policy, fallback,
    model_requested, eligible_models, negative_prompt, quality, resolution, fps, idempotency_key, request_hash,
    status, stage, progress, fence, claimed_by, park_reason, tries, deaths, error_code, error_message,
    source_key, output_key, thumbnail_key, has_work_files, video_id, created_at, started_at, finished_at,
    video_bytes, original_bytes, expires_at, gone_at, gone_why, metadata)
SELECT 'task_' || lpad(i::text, 26, '0'),
    CASE WHEN i %% 4 = 1 THEN %(rich)s ELSE 1 + i %% %(users)s END, 1, 'A cat', 5, '16:9', '', 'balanced', true,
    '', ARRAY['gen4.5'], '', 'medium', 'source', 30, CASE WHEN i %% 10 = 0 THEN 'key-' || i END, %(hash)s,
    CASE WHEN failed THEN 'failed' ELSE 'success' END, CASE WHEN failed THEN 'poll' ELSE 'done' END,
    CASE WHEN failed THEN 5 ELSE 100 END, 9, 'host:1', '', 0, 0,
    CASE WHEN failed THEN 'timeout' ELSE '' END, CASE WHEN failed THEN 'It took too long.' ELSE '' END,
    '', CASE WHEN NOT failed AND (gone_why = '' OR i %% (%(tasks)s / 50) = 3) THEN 'a/b.mp4' ELSE '' END, '',
    i %% (%(tasks)s / 50) = 0, CASE WHEN NOT failed THEN 'vid_' || i END, ended, ended, ended,
    5000000, CASE WHEN NOT failed AND gone_why = '' AND i > %(tasks)s - 2000 THEN 5000000 END,
    CASE WHEN i %% 5 = 1 THEN ended + interval '1 year' END, CASE WHEN gone_why <> '' THEN ended END, gone_why,
    CASE WHEN i %% 3 = 0 THEN jsonb_build_object('project', 'p-' || i / %(users)s %% 40) ELSE '{}' END
FROM (
    SELECT i, i %% 50 = 0 AS failed, CASE WHEN i %% 10 = 3 THEN 'expired' ELSE '' END AS gone_why,
        now() - (%(tasks)s - i) * interval '30 seconds' AS ended
    FROM generate_series(1, %(tasks)s) i
) t;

INSERT INTO video_userstorage (user_id, bytes, videos)
SELECT i, 5000000::bigint * (%(tasks)s / %(users)s), %(tasks)s / %(users)s FROM generate_series(1, %(users)s) i;

INSERT INTO video_generation (id, task_id, user_id, run, attempt, account_id, provider, model, key_fingerprint,
    simulated, duration_s, resolution, state, candidates, job_id, job_urls, provider_status, polls, poll_errors,
    not_found, lookups, resent, cost_unit, error_code, error_message, planned_at, sent_at, accepted_at, ended_at)
SELECT 'gen_' || i, 'task_' || lpad(i::text, 26, '0'), 1 + i %% %(users)s, 1, 1, a.id, 'runway', a.model, 'print',
    true, 5, '720p', 'succeeded', '[]', 'job-' || i, '{}', 'SUCCEEDED', 9, 0,
    0, 0, false, '', '', '', ended, ended, ended, ended
FROM (
    SELECT i, now() - (%(tasks)s - i) * interval '30 seconds' AS ended FROM generate_series(1, %(tasks)s) i
) t JOIN LATERAL (
    SELECT id, model FROM video_provideraccount WHERE provider = 'runway' AND model = 'gen4.5' LIMIT 1) a ON true;

INSERT INTO video_taskevent (task_id, run, stage, outcome, fence, worker, detail, error_code, started_at, finished_at)
SELECT 'task_' || lpad(i::text, 26, '0'), 1, 'save', 'succeeded', 9, 'host:1', '', '', ended, ended FROM (
    SELECT i, now() - (%(tasks)s - i) * interval '30 seconds' AS ended FROM generate_series(1, %(tasks)s, 4) i
) t;

INSERT INTO video_creditentry (account_id, kind, amount, task_id, run, note, created_at)
SELECT 1 + i %% %(users)s, 'debit', -10, 'task_' || lpad(i::text, 26, '0'), 1, '',
    now() - (%(tasks)s - i) * interval '30 seconds'
FROM generate_series(1, %(tasks)s, 4) i;
"""

# Under way: a hundred in line, a hundred in each of three stages. Held by nobody, and due.
_ACTIVE = """
INSERT INTO video_videotask (id, user_id, run, prompt, duration_s, aspect_ratio, image_url, policy, fallback,
    model_requested, eligible_models, negative_prompt, quality, resolution, fps, request_hash,
    status, stage, progress, fence, claimed_by, park_reason, tries, deaths, error_code, error_message,
    source_key, output_key, thumbnail_key, has_work_files, created_at, admit_at, next_run_at, core_at)
SELECT 'task_z' || lpad(i::text, 25, '0'), CASE WHEN i = 17 THEN 7 ELSE i END, 1, 'A cat', 5, '16:9', '',
    'balanced', true,
    '', ARRAY['gen4.5'], '', 'medium', 'source', 30, '', 'running',
    (ARRAY['generate', 'generate', 'poll', 'transcode'])[1 + i %% 4], 0, 9, '', '', 0, 0, '', '',
    '', '', '', false, now(), CASE WHEN i %% 4 = 0 THEN now() END, CASE WHEN i %% 4 > 0 THEN now() END,
    CASE WHEN i %% 4 = 3 AND i %% 8 = 3 THEN now() - interval '1 minute' END
FROM generate_series(1, 400) i;

INSERT INTO video_generation (id, task_id, user_id, run, attempt, account_id, provider, model, key_fingerprint,
    simulated, duration_s, resolution, state, candidates, job_id, job_urls, provider_status, polls, poll_errors,
    not_found, lookups, resent, cost_unit, error_code, error_message, planned_at, sent_at, accepted_at, look_at)
SELECT 'gen_active_' || i, 'task_z' || lpad(i::text, 25, '0'), CASE WHEN i = 17 THEN 7 ELSE i END, 1, 1, a.id,
    'runway', 'gen4.5', 'print', true, 5, '720p', 'accepted', '[]', 'job-active-' || i, '{}', 'RUNNING', 9, 0,
    0, 0, false, '', '', '', now(), now(), now(), CASE WHEN i %% 40 = 1 THEN now() END
FROM generate_series(1, 400) i JOIN LATERAL (
    SELECT id FROM video_provideraccount WHERE provider = 'runway' AND model = 'gen4.5' LIMIT 1) a ON true
WHERE i %% 4 > 0;
"""
TABLES = (
    *("creditentry", "taskevent", "generation", "videotask", "account", "userusage"),
    *("costday", "costtouch", "costrollup"),
)


def fill(tasks: int) -> None:
    """That many ended tasks with an attempt each, every fourth with an event and a debit, and 400 under way."""
    empty()
    configured_keys.sync()  # accounts of the keys that the tests have
    with connection.cursor() as cursor:
        # The rows are right by construction: no trigger looks up a million references.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("SET synchronous_commit = off")
        cursor.execute("SET statement_timeout = 0")  # a million rows take their time
        for statement in filter(str.strip, f"{_ROWS};{_ACTIVE}".split(";\n")):
            cursor.execute(statement, {"users": USERS, "rich": RICH, "tasks": tasks, "hash": ORDER.fingerprint()})
        cursor.execute("SET session_replication_role = DEFAULT")
        cursor.execute("RESET synchronous_commit")
        cursor.execute("VACUUM (ANALYZE)")
        roll_up.rebuild()
        cursor.execute("VACUUM (ANALYZE)")
        cursor.execute("RESET statement_timeout")


def empty() -> None:
    """Nothing of it is left for other tests."""
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(f'video_{table}' for table in TABLES)}, auth_user CASCADE")
