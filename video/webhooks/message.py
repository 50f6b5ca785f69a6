"""What a webhook says: `{"type", "timestamp", "data"}`, thin: ids, status, times, and where the API has the rest.

No prompt, no link to a file and no secret is in it, so a receiver's log may keep it. Links are absolute if
PUBLIC_BASE_URL is set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings

from video.infra.camel import utc

#: Every event, and when it is sent. The list is closed: a new one is an entry in the changelog.
EVENTS: dict[str, str] = {
    "task.started": "the first job was sent to a provider",
    "task.succeeded": "the video is stored",
    "task.failed": "it ended without a video, and its credits came back",
    "task.cancelled": "it was cancelled",
    "task.resumed": "a retry, or a video that came late, brought it back to running",
}


def body(event: str, facts: Mapping[str, Any], created_at: datetime) -> bytes:
    """The bytes that are signed and sent, the same for each try."""
    task_id = facts["taskId"]
    links = {
        "status": f"{settings.PUBLIC_BASE_URL}/api/video/status?taskId={task_id}",
        "task": f"{settings.PUBLIC_BASE_URL}/api/queues/tasks/{task_id}",
    }
    said = {"type": event, "timestamp": utc(created_at), "data": {**facts, "links": links}}
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
