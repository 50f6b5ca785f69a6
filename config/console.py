"""What django-unfold shows around each page of the admin: the name, the sidebar, the colours.

An entry of the sidebar is shown to whoever may open its page.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse_lazy


class _Allowed:
    """Whether the reader has each of these permissions; unfold asks for every entry of every page."""

    def __init__(self, *permissions: str) -> None:
        self.permissions = permissions

    def __call__(self, request: HttpRequest) -> bool:
        return request.user.has_perms(self.permissions)


def _entry(title: str, icon: str, page: str, *permissions: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": reverse_lazy(page), "permission": _Allowed(*permissions)}


def _list(title: str, icon: str, model: str) -> dict[str, Any]:
    """The list of a model's rows."""
    return _entry(title, icon, f"admin:{model.replace('.', '_')}_changelist", f"{model.replace('.', '.view_')}")


def _group(title: str, *items: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "items": list(items)}


NAVIGATION = [
    _group(
        "Now",
        _entry("Home", "monitoring", "admin:index"),
        _entry("Queues", "view_timeline", "admin-queues", "video.view_videotask", "video.view_provideraccount"),
        _list("Tasks", "movie", "video.videotask"),
        _list("Alerts", "notifications", "video.alert"),
        _entry("Costs", "payments", "admin-costs", "video.view_videotask", "video.view_provideraccount"),
        _list("Pauses", "pause_circle", "video.pause"),
        _entry("Failures", "error", "admin-failures", "video.view_videotask", "video.view_generation"),
        _entry("Open cases", "help", "admin:video_generation_open_cases", "video.view_generation"),
        _list("Jobs", "play_circle", "video.operatorjob"),
    ),
    _group(
        "Providers",
        _list("Provider accounts", "account_balance", "video.provideraccount"),
        _list("Provider keys", "key", "video.providerkey"),
        _list("Circuits", "electric_bolt", "video.circuit"),
        _list("Model settings", "tune", "video.modelsetting"),
        _list("Failure texts", "translate", "video.failuretext"),
    ),
    _group(
        "Users",
        _list("Users", "group", "auth.user"),
        _list("Groups", "badge", "auth.group"),
        _list("Prices", "sell", "video.pricerule"),
        _list("Credit accounts", "toll", "video.account"),
        _list("Credit entries", "receipt_long", "video.creditentry"),
        _list("User shares", "pie_chart", "video.usershare"),
        _list("API keys", "vpn_key", "video.apikey"),
        _list("Login sessions", "login", "video.loginsession"),
        _list("User erasures", "person_remove", "video.usererasure"),
    ),
    _group(
        "Records",
        _list("Attempts", "call_split", "video.generation"),
        _list("Events", "history", "video.taskevent"),
        _list("Audit", "fact_check", "video.auditrecord"),
        _list("Webhook endpoints", "webhook", "video.webhookendpoint"),
        _list("Webhook deliveries", "outgoing_mail", "video.webhookdelivery"),
    ),
]

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Reelworks",
    "SITE_HEADER": "Reelworks",
    "SITE_SYMBOL": "movie",
    "SITE_URL": None,
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": None,  # its colours too stand in static/reelworks/console.css, so that no style is inline
    "SIDEBAR": {
        "show_search": False,
        "command_search": False,
        "show_all_applications": False,
        "navigation": NAVIGATION,
    },
}
