"""Making a task: the row, its debit and its first event in one transaction, and a bell after the commit."""

from __future__ import annotations

from dataclasses import asdict

from django.conf import settings
from django.db import IntegrityError, connection, transaction

from video import ids
from video.credits import ledger
from video.engine import dispatch
from video.models import TaskEvent, VideoTask
from video.order import Order
from video.routing import model_choice
from video.scheduling import backlog


class KeyReused(Exception):
    """The Idempotency-Key already stands for another order of this user."""


def create(
    user_id: int, order: Order, *, idempotency_key: str | None = None, priority: int = 0
) -> tuple[VideoTask, bool]:
    """A new pending task, paid for; or the one that this key already made. Returns (task, whether it is new).

    `priority`: -100 to 100, among the user's own; for operators.

    Raises InsufficientCredits, TooManyWaiting, KeyReused, and as `choice.eligible_models`; nothing is made then.
    """
    task = VideoTask(
        id=ids.task_id(),
        user_id=user_id,
        request_hash=order.fingerprint() if idempotency_key else "",
        idempotency_key=idempotency_key,
        priority=priority,
        eligible_models=model_choice.eligible_models(order),
        **asdict(order),
    )
    try:
        with transaction.atomic():
            _insert(task)
            ledger.debit(user_id, settings.CREDITS_PER_VIDEO, task_id=task.pk, run=task.run)
    except IntegrityError as err:
        if idempotency_key is None or "task_one_per_idempotency_key" not in str(err):
            raise
        return _made_before(user_id, idempotency_key, order), False
    except (ledger.InsufficientCredits, backlog.TooManyWaiting):
        # The same call may have been paid before by the user's last credits, or taken the last place in line: then it
        # is no new one.
        if idempotency_key is not None:
            earlier = VideoTask.objects.filter(user_id=user_id, idempotency_key=idempotency_key).first()
            if earlier is not None:
                return _same(earlier, order), False
        raise
    transaction.on_commit(dispatch.request_admission)
    return task, True


def _insert(task: VideoTask) -> None:
    """The row and its first event, in one statement, which also counts whether there is room in the line.

    Those who create at the same moment may overstep the limit by as many as they are.
    """
    everybody = backlog.total
    count_all = everybody.is_stale()
    if not count_all and everybody.is_full():
        raise _too_many(task, own=False)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH room AS MATERIALIZED (
                SELECT coalesce((SELECT most_waiting FROM video_usershare WHERE user_id = %(user_id)s), %(most_own)s)
                    AS most_own,
                    CASE WHEN %(count_all)s THEN (SELECT count(*) FROM (
                        SELECT FROM video_videotask WHERE admit_at IS NOT NULL LIMIT %(most)s) line) END AS everybody
            ), own AS MATERIALIZED (
                SELECT count(*) AS waiting FROM (
                    SELECT FROM video_videotask WHERE user_id = %(user_id)s AND admit_at IS NOT NULL
                    LIMIT (SELECT most_own FROM room)) line
            ), made AS (
                INSERT INTO video_videotask (id, user_id, run, prompt, duration_s, aspect_ratio, image_url,
                    policy, fallback, model_requested, eligible_models, negative_prompt, seed, quality, resolution, fps,
                    priority, idempotency_key, request_hash, status, stage, progress, admit_at, fence,
                    claimed_by, park_reason, tries, deaths, error_code,
                    error_message, source_key, output_key, thumbnail_key, has_work_files)
                SELECT %(id)s, %(user_id)s, 1, %(prompt)s, %(duration_s)s, %(aspect_ratio)s, %(image_url)s,
                    %(policy)s, %(fallback)s, %(model_requested)s, %(eligible_models)s::varchar[], %(negative_prompt)s,
                    %(seed)s::bigint, %(quality)s, %(resolution)s, %(fps)s,
                    %(priority)s, %(idempotency_key)s::varchar, %(request_hash)s,
                    'pending', 'generate', 0, statement_timestamp(), 0, '', '', 0, 0, '', '', '', '', '', false
                FROM room, own WHERE own.waiting < room.most_own AND coalesce(room.everybody, 0) < %(most)s
                RETURNING id
            ), told AS (
                INSERT INTO video_taskevent (task_id, run, stage, outcome, fence, worker, detail, error_code)
                SELECT id, 1, 'generate', %(outcome)s, 0, '', '', '' FROM made
            )
            SELECT EXISTS (SELECT FROM made), own.waiting >= room.most_own, room.everybody FROM room, own
            """,
            {
                **{
                    name: getattr(task, name)
                    for name in (
                        "id",
                        "user_id",
                        "prompt",
                        "duration_s",
                        "aspect_ratio",
                        "image_url",
                        "policy",
                        "fallback",
                        "model_requested",
                        "eligible_models",
                        "negative_prompt",
                        "seed",
                        "quality",
                        "resolution",
                        "fps",
                        "priority",
                        "idempotency_key",
                        "request_hash",
                    )
                },
                "outcome": TaskEvent.Outcome.CREATED.value,
                "most_own": settings.MAX_WAITING_PER_USER,
                "most": settings.MAX_WAITING,
                "count_all": count_all,
            },
        )
        made, own_is_full, counted = cursor.fetchone()
    if counted is not None:
        everybody.note(counted)
    if not made:
        raise _too_many(task, own=own_is_full)


def _too_many(task: VideoTask, *, own: bool) -> backlog.TooManyWaiting:
    return backlog.TooManyWaiting(own=own, retry_after_s=backlog.retry_after_s(task.user_id, task.eligible_models))


def _made_before(user_id: int, idempotency_key: str, order: Order) -> VideoTask:
    return _same(VideoTask.objects.get(user_id=user_id, idempotency_key=idempotency_key), order)


def _same(earlier: VideoTask, order: Order) -> VideoTask:
    if earlier.request_hash != order.fingerprint():
        raise KeyReused(earlier.pk)
    return earlier
