"""A call that came twice with one `Idempotency-Key` happens once, and both get the same answer.

The lock of a key, what the call does, and the row with its answer are one transaction. So a process that dies in the
middle leaves nothing: PostgreSQL undoes what it did, and gives the lock back with its connection, or after the 10 s
for which a transaction may be idle. A refused or failed call has changed nothing, leaves no row, and its key is free.

A create has no row here: the key is a column of its task, so that it still costs one statement, and counts for as long
as the task is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django.utils.crypto import constant_time_compare, salted_hmac

from video.infra import database
from video.infra.errors import Refusal
from video.models import AnsweredCall

KEPT_H = 24
SWEEP_BATCH = 5000


class KeyReused(Refusal):
    """The Idempotency-Key already stands for another request of this user."""

    code = "idempotency_key_reused"


class KeyInUse(Refusal):
    """The first call with this Idempotency-Key is still under way."""

    code = "idempotency_key_in_use"
    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__("The first request with this Idempotency-Key is still under way; ask again in a moment.")


@dataclass(frozen=True)
class Done:
    """What a call has done. `changed`: False if the same call may be made again without any effect."""

    data: dict[str, Any]
    status: int = 200
    changed: bool = True


@dataclass(frozen=True)
class Answer:
    """The status of HTTP and the body, as text. `replayed`: it is that of an earlier call."""

    status: int
    body: str
    replayed: bool


def once(
    user_id: int, call: str, key: str, asked: Any, run: Callable[[], Done], write: Callable[[dict[str, Any]], str]
) -> Answer:
    """Do what `run` does, unless this key of the user's has an answer to `call` already: then that is the answer.

    `asked`: what the request says, as JSON has it. `write`: the body of an answer. Raises KeyReused, KeyInUse, and what
    `run` raises: nothing is changed then.
    """
    with transaction.atomic():
        # The row is read by a statement of its own: it must see what the last holder of the lock has written.
        if not database.value("SELECT pg_try_advisory_xact_lock(%s)", [_lock_of(user_id, call, key)]):
            raise KeyInUse
        earlier = AnsweredCall.objects.filter(user_id=user_id, call=call, key=key, expires_at__gt=Now()).first()
        if earlier is not None:
            if not _is_of(earlier.request_hash, asked):
                raise KeyReused(call)
            return Answer(earlier.status, earlier.answer, replayed=True)
        done = run()
        answer = Answer(done.status, write(done.data), replayed=False)
        if done.changed and not _keep(user_id, call, key, _hash_of(asked, settings.SECRET_KEY), answer):
            raise KeyInUse  # by two locks of one key, which can't be: undo it rather than do it twice
        return answer


def _keep(user_id: int, call: str, key: str, request_hash: str, answer: Answer) -> bool:
    """The row; a former one whose time is over gives way. False: there is one that counts."""
    return database.changed(
        """
        INSERT INTO video_answeredcall (user_id, call, key, request_hash, status, answer, answered_at, expires_at)
        VALUES (%(user)s, %(call)s, %(key)s, %(hash)s, %(status)s, %(answer)s, statement_timestamp(),
            statement_timestamp() + %(hours)s * interval '1 hour')
        ON CONFLICT (user_id, call, key) DO UPDATE SET request_hash = excluded.request_hash, status = excluded.status,
            answer = excluded.answer, answered_at = excluded.answered_at, expires_at = excluded.expires_at
        WHERE video_answeredcall.expires_at <= statement_timestamp()
        """,
        {
            "user": user_id,
            "call": call,
            "key": key,
            "hash": request_hash,
            "status": answer.status,
            "answer": answer.body,
            "hours": KEPT_H,
        },
    )


def _lock_of(user_id: int, call: str, key: str) -> int:
    """The number of the advisory lock."""
    digest = hashlib.sha256(f"{user_id} {call} {key}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def _hash_of(asked: Any, secret: str) -> str:
    text = json.dumps(asked, sort_keys=True)
    return salted_hmac("video.web.idempotency", text, secret=secret, algorithm="sha256").hexdigest()


def _is_of(request_hash: str, asked: Any) -> bool:
    """Whether it is the hash of this request, by the present secret or a former one."""
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return any(constant_time_compare(request_hash, _hash_of(asked, secret)) for secret in secrets)


def forget_task(user_id: int, task_id: str) -> None:
    """Forget the answers that tell this task with its pairs; a batch's answer tells ids only, and stays."""
    database.execute(
        """
        DELETE FROM video_answeredcall WHERE user_id = %s AND call <> 'api-batch' AND strpos(answer, %s) > 0
        """,
        [user_id, task_id],
    )


def forget_user(user_id: int) -> None:
    """Forget all answers to a user. Safe to repeat."""
    AnsweredCall.objects.filter(user_id=user_id).delete()


def sweep() -> int:
    """Delete answers whose time is over, SWEEP_BATCH at most. How many. Safe to repeat."""
    return database.execute(
        """
        DELETE FROM video_answeredcall WHERE id IN (
            SELECT id FROM video_answeredcall WHERE expires_at <= statement_timestamp()
            ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)
        """,
        [SWEEP_BATCH],
    )
