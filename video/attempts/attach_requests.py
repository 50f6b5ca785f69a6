"""An operator's wish to attach a job that was found at its provider: a row that a worker takes up.

Only workers know the values of keys, so the page that takes the wish can't ask the provider itself. A lost message
costs seconds: the sweeper takes up what waits.
"""

from __future__ import annotations

from functools import partial

from django.db import transaction

from providers.untrusted import storable
from video.attempts import unsettled
from video.audit import records
from video.audit.actors import Actor
from video.engine import dispatch
from video.infra.after_commit import after_commit
from video.models import AttachRequest


def ask(generation_id: str, job_id: str, by: Actor) -> str:
    """Write the wish down and ask for a worker; returns the job's id as it was taken. It replaces an earlier wish.

    Raises SettlementRefused for what the rows alone refuse.
    """
    job_id = unsettled.clean_job_id(job_id)
    unsettled.refuse_at_once(generation_id, job_id)
    with transaction.atomic():
        wish = {"job_id": job_id, "asked_by": storable(by.name, 150), "refusal": ""}
        AttachRequest.objects.update_or_create(generation_id=generation_id, defaults=wish)
        records.record(by, "attach", "generation", generation_id, detail=f"asked to attach job {job_id}")
        after_commit(partial(dispatch.request_check, generation_id))
    return job_id


def of(generation_id: str) -> AttachRequest | None:
    """The wish that waits or was refused, if there is one."""
    return AttachRequest.objects.filter(pk=generation_id).first()


def take_up(generation_id: str) -> bool:
    """Attach the job that was asked for, or write down why not. False: nothing waits."""
    wish = AttachRequest.objects.filter(pk=generation_id, refusal="").first()
    if wish is None:
        return False
    mine = AttachRequest.objects.filter(pk=generation_id, job_id=wish.job_id, refusal="")
    try:
        unsettled.attach_job(generation_id, wish.job_id, wish.asked_by)
    except unsettled.SettlementRefused as err:
        mine.update(refusal=storable(str(err), 300))
    else:
        mine.delete()
    return True


def take_up_all() -> int:
    """Take up every wish that waits. Returns how many."""
    waiting = AttachRequest.objects.filter(refusal="").values_list("pk", flat=True)
    return sum(take_up(generation_id) for generation_id in list(waiting))
