"""A provider's last answer that was not routine, kept with the attempt for the operator: an error, or a job's bad end.

As it came, but for what must not be kept: keys and tokens, the prompt, and where links lead, which are often signed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from providers.contract import HttpReply
from providers.untrusted import hide_credentials, safe_origin, shortened
from video.attempts.failure_texts import hide_echo
from video.infra import database

#: Characters of an answer that are kept, and bytes that are read for it.
LONGEST, MOST_READ = 2000, 50_000
HIDDEN = "[hidden]"
_LINK = re.compile(r"https?://[^\s\"'<>\\]+", re.IGNORECASE)
_SECRET = re.compile(r"token|secret|signature|authori[sz]ation|api_?key|password|cookie", re.IGNORECASE)
_MOST_DEEP, _MOST_MEMBERS = 12, 200


def of(reply: HttpReply, *, key: str, written: Sequence[str], job_id: str = "", alone: bool = True) -> str:
    """What is kept of an answer: "HTTP 400: {…}", at most 2,000 characters.

    `key` is the key that was sent, `written` what the user wrote. Not `alone`: the answer speaks of several jobs, and
    nothing but the part of `job_id` is kept.
    """
    text = reply.body[:MOST_READ].decode("utf-8", "replace")
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        body = text if alone else ""
    else:
        body = _part_of(body, job_id) if not alone else body
    words = _words(body, _Hide(key, written), 0)
    shown = words if isinstance(words, str) else json.dumps(words, ensure_ascii=False)
    return shortened(f"HTTP {reply.status}: {shown}" if body else f"HTTP {reply.status}", LONGEST)


class _Hide:
    """What is taken out of a text."""

    def __init__(self, key: str, written: Sequence[str]) -> None:
        self._keys = [part for part in {key, *key.split(":")} if len(part) >= 8]
        self._written = [text for text in written if text.strip()]

    def __call__(self, text: str) -> str:
        text = hide_credentials(text[: LONGEST * 4])
        for key in self._keys:
            text = text.replace(key, HIDDEN)
        text = _LINK.sub(lambda found: f"{safe_origin(found[0])}/{HIDDEN}", text)
        for prompt in self._written:
            text = hide_echo(text, prompt)
        return text


def _words(value: Any, hide: _Hide, depth: int) -> Any:
    """The same value with each of its texts, names too, made safe."""
    if isinstance(value, str):
        return hide(value)
    if depth > _MOST_DEEP:
        return "…"
    if isinstance(value, list):
        return [_words(one, hide, depth + 1) for one in value[:_MOST_MEMBERS]]
    if isinstance(value, dict):
        return {
            hide(str(name)): HIDDEN if _SECRET.search(str(name)) and one else _words(one, hide, depth + 1)
            for name, one in list(value.items())[:_MOST_MEMBERS]
        }
    return value


def _part_of(body: Any, job_id: str, depth: int = 0) -> Any:
    """The object that has the job's id, of a body about several; empty if there is none."""
    if not job_id or depth > _MOST_DEEP:
        return ""
    if isinstance(body, dict) and job_id in (str(one) for one in body.values() if isinstance(one, str | int)):
        return body
    inside = body.values() if isinstance(body, dict) else body if isinstance(body, list) else ()
    return next((found for one in inside if (found := _part_of(one, job_id, depth + 1))), "")


def keep(answers: Mapping[str, str]) -> None:
    """Write down what each of these attempts was answered, by id. One statement; none where there is nothing.

    A trigger (migration 0049) keeps nothing of a task that its owner has deleted.
    """
    said = {pk: text for pk, text in sorted(answers.items()) if text}
    if not said:
        return
    database.execute(
        """
        WITH given AS MATERIALIZED (
            SELECT * FROM unnest(%(ids)s::text[], %(texts)s::text[]) AS s (id, said)
        ), held AS MATERIALIZED (
            SELECT g.id FROM video_generation g JOIN given ON given.id = g.id ORDER BY g.id FOR UPDATE OF g
        )
        UPDATE video_generation g SET last_answer = given.said, last_answer_at = statement_timestamp()
        FROM given JOIN held ON held.id = given.id WHERE g.id = given.id
        """,
        {"ids": list(said), "texts": list(said.values())},
    )
