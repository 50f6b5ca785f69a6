"""What is wrong, as cards: the sentence, what the system does, what a person can do, and where more is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from video.admin.remedies import Button, buttons
from video.monitoring.problem import Problem

#: Where more of a problem is shown: (model, its page or another one's name, the address's query, the link's words).
_PAGES = {
    "unheard": ("videotask", "changelist", "?stands=due", "These tasks"),
    "behind": ("videotask", "changelist", "?stands=due", "These tasks"),
    "many_failures": ("videotask", "admin-failures", "?in=1h", "Failures by cause"),
    "key_gone": ("providerkey", "changelist", "", "Provider keys"),
    "key_refused": ("providerkey", "changelist", "", "Provider keys"),
    "account_closed": ("provideraccount", "changelist", "", "Provider accounts"),
    "nothing_open": ("provideraccount", "changelist", "", "Provider accounts"),
    "users_off": ("videotask", "changelist", "?stands=off", "These tasks"),
    "circuit_open": ("circuit", "changelist", "", "Circuits"),
    "much_too_short": ("videotask", "changelist", "?warning=much_shorter_than_ordered", "These tasks"),
    "paused": ("pause", "changelist", "", "Pauses"),
    "open_cases": ("generation", "open_cases", "", "Open cases"),
    "failure_not_understood": ("failuretext", "changelist", "", "Failure texts"),
}


#: What a job can do about a problem, after its preview: (verb, filter of the tasks, the button's words).
_PREVIEWS = {"users_off": ("cancel", "stands=off", "Cancel them …")}


@dataclass(frozen=True)
class Card:
    """One problem, as `admin/queues/_problems.html` shows it."""

    problem: Problem
    system: SafeString
    operator: SafeString
    url: str  # of the page that shows more; empty where there is none, or the reader may not see it
    words: str  # of the link to it
    buttons: list[Button]
    preview_url: str = ""  # of an action on all tasks of the problem; empty where there is none, or the reader may not
    preview_words: str = ""


def cards(problems: Iterable[Problem], request: HttpRequest) -> list[Card]:
    """A card for each, in the same order. Runs no statement but those that find the reader's permissions."""
    return [_card(one, request) for one in problems]


def _card(one: Problem, request: HttpRequest) -> Card:
    url, words = _page_of(one, request)
    remedies = buttons(one.remedies, request)
    return Card(one, with_code(one.system), with_code(one.operator), url, words, remedies, *_preview_of(one, request))


def _preview_of(one: Problem, request: HttpRequest) -> tuple[str, str]:
    verb, query, words = _PREVIEWS.get(one.code, ("", "", ""))
    if not verb or not request.user.has_perm("video.change_videotask"):
        return "", ""
    return f"{reverse('admin:video_videotask_all', args=[verb])}?{query}", words


def with_code(text: str) -> SafeString:
    """A sentence for a page: what stands between backticks as code."""
    parts = text.split("`")
    return format_html_join(
        "", "{}", ((format_html("<code>{}</code>", part) if place % 2 else part,) for place, part in enumerate(parts))
    )


def _page_of(one: Problem, request: HttpRequest) -> tuple[str, str]:
    """(address, words) of the page that shows more; empty where there is none, or the reader may not see it."""
    model, page, query, words = _PAGES.get(one.code, ("", "", "", ""))
    if not model or not request.user.has_perm(f"video.view_{model}"):
        return "", ""
    name = page if page.startswith("admin-") else f"admin:video_{model}_{page}"
    return reverse(name) + query, words
