"""The monitoring dashboard: operators follow tasks here. It shows what the tables say; no state is edited by hand."""

from __future__ import annotations

from django.contrib import admin

from video.admin import (
    accounts,
    alerts,
    api_keys,
    attempts,
    audit,
    failure_texts,
    jobs,
    logins,
    money,
    pauses,
    prices,
    shares,
    tasks,
    users,
    webhooks,
)

admin.site.index_title = "What is going on"

__all__ = [
    "accounts",
    "alerts",
    "api_keys",
    "attempts",
    "audit",
    "failure_texts",
    "jobs",
    "logins",
    "money",
    "pauses",
    "prices",
    "shares",
    "tasks",
    "users",
    "webhooks",
]
