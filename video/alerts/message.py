"""What a receiver is told, in the shape that it reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

from video.infra.camel import utc
from video.infra.durations import span
from video.models import Alert, AlertMessage

LONGEST_OF_DISCORD = 2000  # characters; source: https://discord.com/developers/docs/resources/webhook, read 2026-11


@dataclass(frozen=True)
class Message:
    """One message. `id` is the same at each try, so that a receiver knows what it had before."""

    id: str
    type: str  # alert.begun, alert.ended or alert.test
    title: str
    text: str
    data: dict[str, Any]
    at: datetime

    @classmethod
    def test(cls) -> Message:
        """What the test button sends."""
        now = timezone.now()
        title = "A test: alerts of Reelworks arrive here."
        return cls(f"alert_test_{now:%Y%m%d%H%M%S%f}", "alert.test", title, title, {"sentence": title}, now)

    def as_webhook(self) -> bytes:
        """Of the Standard Webhooks' shape: type, timestamp, data."""
        return json.dumps({"type": self.type, "timestamp": utc(self.at), "data": self.data}).encode()

    def as_slack(self) -> bytes:
        """Three characters mean something in Slack's text. Source: https://docs.slack.dev/messaging/formatting-message-text"""
        text = self.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return json.dumps({"text": text}).encode()

    def as_discord(self) -> bytes:
        """Nobody is mentioned, whatever the text holds."""
        return json.dumps({"content": self.text[:LONGEST_OF_DISCORD], "allowed_mentions": {"parse": []}}).encode()


def of_row(message_id: int, alert: Alert, what: str) -> Message:
    """The message of a row, by its alert as it is now."""
    over = what == AlertMessage.What.ENDED
    lasted = "" if alert.ended_at is None else span((alert.ended_at - alert.begun_at).total_seconds())
    title = f"Over, after {lasted}: {alert.sentence}" if over else f"Trouble: {alert.sentence}"
    url = f"{settings.PUBLIC_BASE_URL}/admin/" if settings.PUBLIC_BASE_URL else ""
    lines = [title, *([] if over else [f"What you can do: {alert.operator}"]), *([url] if url else [])]
    data = {
        "id": alert.pk,
        "code": alert.code,
        "about": alert.about,
        "sentence": alert.sentence,
        "operator": alert.operator,
        "begunAt": utc(alert.begun_at),
        "endedAt": None if alert.ended_at is None else utc(alert.ended_at),
        "url": url or None,
    }
    at = (alert.ended_at if over else alert.told_at) or datetime.now(UTC)
    return Message(f"alert_{message_id}", f"alert.{what}", title, "\n".join(lines), data, at)
