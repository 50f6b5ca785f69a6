"""Rows for tests, made the way the product makes them."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection

from providers.contract import Submitted
from video.actions import create
from video.api import tokens
from video.attempts import records
from video.audit.actors import Actor
from video.credits import ledger
from video.engine import claims, transitions
from video.engine.claims import Claim
from video.engine.outcomes import Park
from video.models import AuditRecord, Generation, Stage, VideoTask
from video.models.order import Order
from video.scheduling import admission
from video.web.logins import sessions

#: An operator who acts.
OLGA = Actor("olga", AuditRecord.Via.ADMIN, "198.51.100.7")


def make_user(credit: int = 1000, **more: object) -> AbstractBaseUser:
    """A user with that many credits."""
    user = get_user_model().objects.create_user(f"user-{uuid.uuid4().hex[:12]}", password=None, **more)
    if credit:
        ledger.grant(user.pk, credit)
    return user


def access_token(user: AbstractBaseUser) -> str:
    """A token of a new login of this user."""
    login = sessions.start(user, address="", user_agent="")
    assert login is not None
    return str(tokens.pair_of(user, login)[0])


def make_task(user: AbstractBaseUser | None = None, prompt: str = "A cat", **more: object) -> VideoTask:
    """A pending task in line, debited."""
    owner = user or make_user()
    order = Order(
        **{
            "prompt": prompt,
            "duration_s": 5,
            "aspect_ratio": "16:9",
            # One model, and no other, unless a test asks for a choice.
            "model_requested": "gen4_turbo" if more.get("image_url") else "gen4.5",
            "fallback": False,
            **more,
        }  # type: ignore[arg-type]
    )
    task, _ = create.create(owner.pk, order)
    return VideoTask.objects.get(pk=task.pk)


def live(task_id: str) -> Generation | None:
    """The task's live generation."""
    return Generation.objects.filter(task_id=task_id, state__in=Generation.LIVE).first()


def admitted(task: VideoTask) -> Generation:
    """Its planned generation, after admission."""
    admission.admit()
    generation = live(task.pk)
    assert generation is not None
    return generation


def give_core(task_id: str) -> None:
    """Its turn has come, whoever else waits."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_videotask SET core_at = statement_timestamp() WHERE id = %s AND stage = 'transcode'",
            [task_id],
        )


def claim_one(task_id: str, stage: Stage) -> Claim | None:
    """A claim on this stage of one task, if it is due and unheld."""
    held = claims.claim(stage, [task_id])
    return held[0] if held else None


def park_one(claim: Claim, *, delay_s: float, reason: str, generation_id: str | None = None, **more: Any) -> bool:
    """Whether the claim still held and its task is parked now."""
    claim.generation_id = generation_id or claim.generation_id
    return bool(claims.park([(claim, Park(delay_s, reason, **more))]))


def claimed(task: VideoTask, stage: Stage = Stage.GENERATE) -> Claim:
    """A claim on a due stage; a transcode gets a core for it."""
    if stage is Stage.TRANSCODE:
        give_core(task.pk)
    claim = claim_one(task.pk, stage)
    assert claim is not None
    return claim


def accepted(task: VideoTask, job_id: str = "job-1") -> Generation:
    """Its generation, accepted by the provider; the task stands in poll, due now."""
    generation = admitted(task)
    claim = claimed(task)
    assert records.mark_sent(claim, generation)
    assert records.record_accepted(generation.pk, Submitted(job_id))
    assert transitions.advance(claim, Stage.POLL)
    return Generation.objects.get(pk=generation.pk)


def end_lease(task: VideoTask) -> None:
    """The lease, and nothing else, runs out."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_videotask SET lease_until = statement_timestamp() - interval '1 second' "
            "WHERE id = %s AND lease_until IS NOT NULL",
            [task.pk],
        )


def age(task_id: str, seconds: float = 3600) -> None:
    """Let time pass for one task: every clock of its row, and of its generations, moves into the past."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE video_videotask SET next_run_at = next_run_at - %(s)s * interval '1 second',
                lease_until = lease_until - %(s)s * interval '1 second',
                hinted_at = hinted_at - %(s)s * interval '1 second',
                rung_at = rung_at - %(s)s * interval '1 second', admit_at = admit_at - %(s)s * interval '1 second',
                claimed_at = claimed_at - %(s)s * interval '1 second'
            WHERE id = %(id)s
            """,
            {"s": seconds, "id": task_id},
        )
        cursor.execute(
            """
            UPDATE video_generation SET sent_at = sent_at - %(s)s * interval '1 second',
                not_found_since = not_found_since - %(s)s * interval '1 second',
                look_at = look_at - %(s)s * interval '1 second'
            WHERE task_id = %(id)s
            """,
            {"s": seconds, "id": task_id},
        )


def reload(task: VideoTask) -> VideoTask:
    """The row as it is now."""
    return VideoTask.objects.get(pk=task.pk)


__all__ = [
    "accepted",
    "access_token",
    "admitted",
    "age",
    "claimed",
    "make_task",
    "make_user",
    "reload",
]
