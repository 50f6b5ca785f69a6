"""Pause and resume: everything, a provider, a model, an account or a user. One code path for admin, command and API.

A pause stops new submits only. What is at a provider goes on: it is polled, fetched and delivered. From the commit of a
pause on no claim begins a submit of what it covers: admission, the claim of the stage and the statement that marks a
submit as sent each look at the pauses. A submit that was marked before leaves within 5 s (`provider_calls`), or never.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from providers import catalogue
from providers.registry import BY_NAME
from providers.untrusted import storable
from video.actions.task_rows import ActionRefused
from video.audit import records
from video.audit.actors import Actor
from video.engine import dispatch
from video.infra import database
from video.infra.after_commit import after_commit
from video.models import Pause, ProviderAccount
from video.routing import availability, pauses

Kind = Pause.Kind


@dataclass(frozen=True)
class Target:
    """What is paused or resumed."""

    kind: Pause.Kind
    subject: str = ""
    user_id: int | None = None


EVERYTHING = Target(Kind.EVERYTHING)
LONGEST_S = 366 * 86400


class WrongTarget(ActionRefused):
    """What is named can't be paused: there is none of that name, or not just one thing is named."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__("invalid_request", message)
        self.field = field


def target(
    *, everything: bool = False, provider: str = "", model: str = "", account: str = "", user: str = ""
) -> Target:
    """What these words name: one of them, or provider and account together.

    Raises WrongTarget where there is none of that name, and for none or several.
    """
    given = [everything, bool(provider) and not account, bool(model), bool(account), bool(user)]
    if sum(given) != 1 or (account and not provider):
        raise WrongTarget("body", "must name one: everything, provider, model, user, or account with its provider")
    if everything:
        return EVERYTHING
    if user:
        return Target(Kind.USER, user_id=_user(user))
    if account:
        return Target(Kind.ACCOUNT, _account(_provider(provider), account))
    if provider:
        return Target(Kind.PROVIDER, _provider(provider))
    return Target(Kind.MODEL, _model(model))


def _unknown(field: str, name: str, known: list[str]) -> WrongTarget:
    return WrongTarget(field, f"{storable(name, 80)} is not known here; there are: {', '.join(known) or 'none yet'}")


def _user(name: str) -> int:
    users = get_user_model()
    found = users._default_manager.filter(**{users.USERNAME_FIELD: storable(name, 150)}).first()
    if found is None:
        raise WrongTarget("user", f"{storable(name, 150)} is no user's name")
    return int(found.pk)


def _provider(name: str) -> str:
    if name not in BY_NAME:
        raise _unknown("provider", name, sorted(BY_NAME))
    return name


def _model(name: str) -> str:
    if name not in catalogue.BY_ID:
        raise _unknown("model", name, sorted(catalogue.BY_ID))
    return name


def _account(provider: str, account: str) -> str:
    known = list(
        ProviderAccount.objects.filter(provider=provider)
        .order_by("account")
        .values_list("account", flat=True)
        .distinct()
    )
    if account not in known:
        raise _unknown("account", account, known)
    return pauses.subject_of_account(provider, account)


def pause(wanted: Target, *, actor: Actor, reason: str = "", until: datetime | None = None) -> tuple[Pause, bool]:
    """Pause it; what is paused already gets this reason and end instead. Returns the pause, and whether it is new.

    Pause and record of the audit are one transaction. `until`: when it ends by itself. Raises WrongTarget for an end
    that is over.
    """
    reason = storable(reason, 200)
    with transaction.atomic():
        if until is not None and database.value(
            "SELECT %s::timestamptz <= statement_timestamp() + interval '1 second'", [until]
        ):
            raise WrongTarget("until", "the end of the pause is over; give a later one")
        _close_outdated(wanted)
        before = _rows(wanted).select_for_update().first()
        if before is None:
            made, is_new = Pause.objects.get_or_create(
                kind=wanted.kind,
                subject=wanted.subject,
                user=None if wanted.user_id is None else get_user_model()(pk=wanted.user_id),
                ended_at=None,
                defaults={"reason": reason, "until": until, "paused_by": storable(actor.name, 150) or "unnamed"},
            )
        else:
            made, is_new = before, False
        if not is_new:
            Pause.objects.filter(pk=made.pk).update(reason=reason, until=until)
        made = Pause.objects.select_related("user").get(pk=made.pk)
        detail = f"{pauses.of_row(made).what}{f' until {pauses.minute(until)}' if until else ''}"
        records.record(
            actor, "pause", "pause", made.pk, reason=reason, detail=detail if is_new else f"changed: {detail}"
        )
        after_commit(_forget)
        if not is_new:
            after_commit(dispatch.request_admission)  # its end may be earlier now
    return made, is_new


def resume(pause_id: int, *, actor: Actor, reason: str = "") -> Pause:
    """End a pause now, and ask for an admission. Raises ActionRefused `not_paused` for one that has ended."""
    with transaction.atomic():
        found = Pause.objects.select_related("user").select_for_update(of=("self",)).filter(pk=pause_id).first()
        live = Q(ended_at=None) & (Q(until=None) | Q(until__gt=Now()))
        if found is None or not Pause.objects.filter(live, pk=pause_id).update(
            ended_at=Now(), ended_by=storable(actor.name, 150) or "unnamed"
        ):
            raise ActionRefused("not_paused", "This pause has ended.")
        records.record(actor, "resume", "pause", pause_id, reason=reason, detail=pauses.of_row(found).what)
        after_commit(_forget)
        after_commit(dispatch.request_admission)
    found.refresh_from_db()
    return found


def live_pause_of(wanted: Target) -> Pause:
    """The pause in force of just this object. Raises ActionRefused `not_paused` where there is none."""
    found = _rows(wanted).filter(Q(until=None) | Q(until__gt=Now())).first()
    if found is None:
        raise ActionRefused("not_paused", "This is not paused.")
    return found


def in_seconds(seconds: float) -> datetime:
    """The time so many seconds from now, by the database's clock."""
    found: datetime = database.value("SELECT statement_timestamp() + %s * interval '1 second'", [seconds])
    return found


def _rows(wanted: Target) -> QuerySet[Pause]:
    rows = Pause.objects.filter(kind=wanted.kind, subject=wanted.subject, ended_at=None)
    return rows.filter(user_id=wanted.user_id) if wanted.user_id is not None else rows


def _close_outdated(wanted: Target) -> None:
    """Write down the end of one whose time is over, so that it is not in the new one's way."""
    _rows(wanted).filter(until__lte=Now()).update(ended_at=F("until"))


def _forget() -> None:
    pauses.forget_cached()
    availability.forget_recent()
