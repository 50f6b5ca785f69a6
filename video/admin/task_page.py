"""What the page of a task has beside its timeline: links, what an operator may do and why not, the call as curl,
webhooks.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.admin.utils import quote
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from providers.registry import BY_NAME
from video.actions import cancel, retry
from video.actions.task_rows import ActionRefused
from video.admin.read_only import clock, link, short
from video.credits.ledger import InsufficientCredits
from video.infra.durations import span
from video.models import Generation, ProviderKey, Status, VideoTask, WebhookDelivery, order
from video.routing import key_labels
from video.webhooks import receivers

MOST_DELIVERIES = 20
NO_PERMISSION = "You may only look: this needs the permission to change tasks."
#: What a create need not say, since it is what a create without it gets.
_DEFAULTS = {
    "policy": "balanced", "fallback": True, "quality": "medium", "resolution": "source", "fps": 30,
}  # fmt: skip
_TONES = {"pending": "running", "delivered": "success", "failed": "failed", "dropped": "cancelled"}


# --- what an operator may do ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """One button: what it would do, or why it can't be used."""

    action: str  # of the list of tasks
    label: str
    is_possible: bool
    why: str


def acts(task: VideoTask, *, may_steer: bool, may_grant: bool) -> list[Act]:
    """The buttons of the page. A retry that needs to be free or anew is possible: its own page asks for that."""
    if not may_steer:
        return [Act("", label, False, NO_PERMISSION) for label in ("Cancel …", "Retry …")]
    cancels = [partial(cancel.would_cancel, task.pk)]
    ways: list[dict[str, bool]] = [{}]
    if task.status in {Status.FAILED, Status.CANCELLED}:
        ways += [{"regenerate": True}, *([{"free": True}, {"free": True, "regenerate": True}] if may_grant else [])]
    retries = [partial(retry.would_retry, task.pk, **way) for way in ways]
    return [
        _act("cancel_chosen", "Cancel …", cancels, is_over=task.status == Status.CANCELLED),
        _act("retry_chosen", "Retry …", retries),
    ]


def _act(action: str, label: str, ways: Iterable[Callable[[], Any]], *, is_over: bool = False) -> Act:
    """By the first way that is possible; else why the first is not."""
    why = ""
    for way in ways:
        try:
            done = way()
        except ActionRefused as err:
            why = why or err.message
        except InsufficientCredits as err:
            why = why or f"Its user is short of credits: {err}"
        else:
            if is_over:
                return Act(action, label, False, "This task was cancelled before.")
            return Act(action, label, True, f"{done.words[:1].upper()}{done.words[1:]}.")
    return Act(action, label, False, why)


# --- links ---------------------------------------------------------------------------------------------------------


def user_link(task: VideoTask, request: HttpRequest) -> str | SafeString:
    """The user's name, as a link for those who may see users."""
    name = task.user.get_username()
    if not request.user.has_perm("auth.view_user"):
        return name
    return format_html('<a href="{}">{}</a>', reverse("admin:auth_user_change", args=[quote(task.user_id)]), name)


def links_of(generations: Sequence[Generation], request: HttpRequest) -> dict[str, list[tuple[str, str | SafeString]]]:
    """By attempt: its key, account, own page, open case and its provider's console, as far as there is one. One query.

    `generations` were read with their accounts.
    """
    names = {(one.provider, one.key_fingerprint) for one in generations}
    keys = {
        (key.provider, key.fingerprint): key
        for key in ProviderKey.objects.filter(fingerprint__in=[fingerprint for _, fingerprint in names])
    }
    return {one.pk: _links(one, keys.get((one.provider, one.key_fingerprint)), request) for one in generations}


def _links(generation: Generation, key: ProviderKey | None, request: HttpRequest) -> list[tuple[str, str | SafeString]]:
    may = request.user.has_perm
    account, called = generation.account, key_labels.of_generation(generation)
    shown = f"{key_labels.of_account(account.provider, account.account, key.label if key else '')} {generation.model}"
    found: list[tuple[str, str | SafeString]] = [
        (
            "Key",
            link("providerkey", key.pk, called) if key is not None and may("video.view_providerkey") else called,
        ),
        ("Account", link("provideraccount", account.pk, shown) if may("video.view_provideraccount") else shown),
    ]
    if may("video.view_generation"):
        found.append(("Attempt", link("generation", generation.pk, short(generation.pk))))
        if generation.sent_at is not None and _is_case(generation):
            address = reverse("admin:video_generation_open_case", args=[generation.pk])
            found.append(("Open case", format_html('<a href="{}">what happens, and what you can do</a>', address)))
    console = console_of(generation)
    if console:
        found.append(("Console", format_html('<a href="{}" rel="noreferrer noopener">{}</a>', console, console)))
    return found


def _is_case(generation: Generation) -> bool:
    """Whether the page of open cases has something to say of the attempt."""
    if generation.state == Generation.State.ACCEPTED:
        return not generation.task.is_active
    return generation.state in {Generation.State.UNKNOWN, Generation.State.LOST}


def console_of(generation: Generation) -> str:
    """The address of the provider's own console, where the job can be looked for; empty for a simulated one."""
    entry = BY_NAME.get(generation.provider)
    return entry.console_url if entry is not None and not generation.simulated else ""


# --- the order as a call -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curl:
    """A create of the same order, for a shell, and what of it was left out."""

    command: str
    notes: list[str]


def curl_of(task: VideoTask) -> Curl | None:
    """The create call; None for a render, and for a task whose owner has deleted its prompt.

    No secret is in it: `$TOKEN` stands for the login, and what may be one in a link is left out.
    """
    if task.render_of_id is not None or task.is_deleted:
        return None
    asked = {
        name: value for name, value in order.as_json(task).items() if value is not None and _DEFAULTS.get(name) != value
    }
    notes = []
    if asked.pop("webhookUrl", None):
        notes.append("webhookUrl is left out: its receiver would be told of this copy, and the link may hold a token.")
    image = str(asked.get("imageUrl", ""))
    if image.startswith(("http://", "https://")) and (parts := urlsplit(image)).query:
        asked["imageUrl"] = parts._replace(query="", fragment="").geturl()
        notes.append("The link of the start image is cut at its query, which may be a signature.")
    if image.startswith("upload:"):
        notes.append("The start image is an upload: only its owner's token can name it.")
    if task.metadata:
        asked["metadata"] = task.metadata
    base = settings.PUBLIC_BASE_URL or f"http://127.0.0.1:{settings.PORT}"
    lines = (
        f"curl -sS {shlex.quote(f'{base}/api/video/create')}",
        '-H "Authorization: Bearer $TOKEN"',
        f"-H {shlex.quote('Content-Type: application/json')}",
        f"-d {shlex.quote(json.dumps(asked, ensure_ascii=False))}",
    )
    return Curl(" \\\n  ".join(lines), notes)


# --- webhooks ------------------------------------------------------------------------------------------------------


def deliveries_of(task: VideoTask) -> list[dict[str, Any]]:
    """The last webhooks that told of the task, each with its tries. Two queries. Of a URL only the host is shown."""
    rows = task.webhook_deliveries.select_related("endpoint").prefetch_related("tries_made")
    return [_delivery(row) for row in rows.order_by("-created_at", "-id")[:MOST_DELIVERIES]]


def _delivery(row: WebhookDelivery) -> dict[str, Any]:
    host = receivers.host_of(row.url if row.endpoint is None else row.endpoint.url)
    return {
        "link": link("webhookdelivery", row.pk, row.event),
        "host": host if row.endpoint is None else link("webhookendpoint", row.endpoint.pk, host or row.endpoint.pk),
        "tone": _TONES[row.state],
        "state": row.state,
        "next": clock(row.due_at),
        "tries": [
            {
                "number": one.number,
                "when": clock(one.started_at),
                "outcome": one.outcome or "no end was written",
                "status": one.http_status or "",
                "took": span((one.ended_at - one.started_at).total_seconds()) if one.ended_at else "",
                "detail": one.detail,
            }
            for one in sorted(row.tries_made.all(), key=lambda each: each.number)
        ],
    }


def context(task: VideoTask, request: HttpRequest, generations: Sequence[Generation]) -> dict[str, Any]:
    """What the template needs beside the timeline."""
    may_steer = request.user.has_perm("video.change_videotask")
    return {
        "acts": acts(task, may_steer=may_steer, may_grant=request.user.has_perm("video.add_creditentry")),
        "user_link": user_link(task, request),
        "links": links_of(generations, request),
        "curl": curl_of(task),
        "deliveries": deliveries_of(task) if request.user.has_perm("video.view_webhookdelivery") else [],
    }
