"""docs/webhooks.md says what the code does: its events, outcomes and pauses, and its Python verifies a message."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from video.models import WebhookTry
from video.webhooks import message, schedule, signing

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "webhooks.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """First cell → second, of the tables below a heading."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|$", part, re.MULTILINE))


def test_the_events_are_those_of_the_code() -> None:
    assert rows("Events") == message.EVENTS


def test_the_outcomes_are_those_of_the_code() -> None:
    assert list(rows("When it does not arrive")) == WebhookTry.Outcome.values


def test_the_pauses_are_those_of_the_code() -> None:
    (said,) = re.findall(r"after ((?:\d+ (?:s|min|h),?\s(?:and )?)+)", PAGE)
    unit = {"s": 1, "min": 60, "h": 3600}
    assert tuple(int(n) * unit[u] for n, u in re.findall(r"(\d+) (s|min|h)", said)) == schedule.PAUSES_S


def test_the_python_of_the_page_verifies_a_message_and_refuses_another() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    secret = signing.new_secret()
    headers = signing.headers("msg_1", b'{"type":"task.started"}', [signing.encrypted(secret)])
    assert names["receive"](secret, b'{"type":"task.started"}', headers) == {"type": "task.started"}
    assert names["receive"](secret, b'{"type":"task.failed"}', headers) is None
