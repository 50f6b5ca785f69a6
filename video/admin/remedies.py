"""Buttons for what a problem's card names: done at once, or asked for as a job. Each has its own permission."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from video.actions import jobs, provider_remedies
from video.audit.actors import Actor
from video.infra.durations import count
from video.models import Circuit, OperatorJob, ProviderAccount, ProviderKey
from video.monitoring.remedies import Remedy
from video.web.actors import of_request

Kind = OperatorJob.Kind


@dataclass(frozen=True)
class Act:
    """What a button does. `run` returns what to say, or the job that does it."""

    permission: str
    run: Callable[[str, Actor], str | OperatorJob]
    confirm: str = ""  # what the browser asks first


@dataclass(frozen=True)
class Button:
    """A remedy as one reader sees it."""

    remedy: Remedy
    confirm: str
    refusal: str  # why this reader can't use it; empty: they can


def buttons(remedies: Iterable[Remedy], request: HttpRequest) -> list[Button]:
    """A button for each. Runs no statement but those that find the reader's permissions."""
    found = []
    for one in remedies:
        act = ACTS[one.name]
        may = request.user.has_perm(act.permission)
        refusal = "" if may else f"Your account lacks the permission {act.permission}."
        found.append(Button(one, act.confirm, refusal))
    return found


def remedy_view(request: HttpRequest) -> HttpResponse:
    """POST /admin/remedies/: `name`, `object`, `reason`, and `next`, the page to go back to."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    act = ACTS.get(request.POST.get("name", ""))
    if act is None:
        return HttpResponseBadRequest("There is no such button.")
    if not request.user.has_perm(act.permission):
        raise PermissionDenied
    name = request.POST.get("object", "")
    if "\0" in name:
        return HttpResponseBadRequest("There is nothing of that name.")
    done = act.run(name, of_request(request))
    if isinstance(done, OperatorJob):
        return HttpResponseRedirect(reverse("admin:video_operatorjob_change", args=[done.pk]))
    messages.success(request, done)
    back = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure())
    return HttpResponseRedirect(back if is_ours else reverse("admin-queues"))


def _activate(name: str, by: Actor) -> str:
    return provider_remedies.activate(_keys(name), by=by).words or "This key was active already, or is gone."


def _drain(name: str, by: Actor) -> str:
    changed = provider_remedies.drain(_keys(name), by=by)
    return "No new job starts with this key." if changed else "This key was draining already, or is gone."


def _open(name: str, by: Actor) -> str:
    provider, account, model = [*name.split("|"), "", ""][:3]
    rows = ProviderAccount.objects.filter(provider=provider, account=account)
    changed = provider_remedies.open_again(rows.filter(model=model) if model else rows, by=by)
    return f"Opened {count(changed, 'account')}; waiting tasks may start there now." if changed else _OPEN_BEFORE


_OPEN_BEFORE = "This account was open already."


def _close(model: str, by: Actor) -> str:
    changed = provider_remedies.close(Circuit.objects.filter(pk=model), by=by)
    return f"Jobs may start with {model} now." if changed else "This circuit was closed already."


def _check(name: str, by: Actor, *, of: str) -> OperatorJob:
    provider, rest = [*name.split("|"), ""][:2]
    return jobs.ask(Kind.CHECK_KEYS, jobs.of_check_keys(provider, **{of: rest}), by=by)[0]


def _keys(name: str) -> QuerySet[ProviderKey]:
    provider, fingerprint = [*name.split("|"), ""][:2]
    return ProviderKey.objects.filter(provider=provider, fingerprint=fingerprint)


#: By the name of the remedy.
ACTS: dict[str, Act] = {
    "activate_key": Act("video.change_providerkey", _activate, "Let jobs start with this key again?"),
    "drain_key": Act("video.change_providerkey", _drain, "Start no new job with this key?"),
    "check_key": Act("video.change_providerkey", lambda name, by: _check(name, by, of="fingerprint")),
    "check_account": Act("video.change_providerkey", lambda name, by: _check(name, by, of="account")),
    "check_keys": Act("video.change_providerkey", lambda _, by: _check("", by, of="fingerprint")),
    "open_account": Act("video.change_provideraccount", _open, "Open this account again?"),
    "close_circuit": Act("video.change_circuit", _close, "Close this circuit and forget its faults?"),
    "check_ledger": Act("video.change_videotask", lambda _, by: jobs.ask(Kind.CHECK_LEDGER, {}, by=by)[0]),
    "look_at_storage": Act(
        "video.change_videotask", lambda _, by: jobs.ask(Kind.CLEANUP_STORAGE, jobs.of_cleanup(None), by=by)[0]
    ),
    "reconcile": Act("video.change_generation", lambda _, by: jobs.ask(Kind.RECONCILE, {}, by=by)[0]),
}
