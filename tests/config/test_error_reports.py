"""SENTRY_DSN: an error that is logged is reported to a real server, with what we said of it and no word of others."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.config.starting import run
from tests.http_receiver import HttpReceiver, listening

PROGRAM = """
import logging, sys, threading
from config.start import read_settings
read_settings()
import django
django.setup()
from django.db import connection
from video.infra import log_context
WORDS = "".join(("can", "ary of a user"))
log = logging.getLogger("video")

class Request:
    headers = {"Authorization": "Bearer " + WORDS}

def stage(prompt, key, request):
    local = {"prompt": prompt, "key": key}
    raise KeyError(prompt)

def statement(words):
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::int", [words])

log.info("a breadcrumb with %s", WORDS)
log.warning("another with %s", WORDS)
with log_context.about(task="task_1", generation="gen_1"):
    for work in (lambda: stage(WORDS, "rw_live_" + WORDS, Request()), lambda: statement(WORDS)):
        try:
            work()
        except Exception:
            log.exception("%s: %s failed", "task_1", "poll")
key = WORDS.replace(" ", "")
log.error("at https://user:%s@h.example/x?sig=%s with Bearer %s", key, key, key)
from media_pipeline.errors import MediaTimeout
try:
    raise MediaTimeout("ffmpeg did not end")
except MediaTimeout:
    log.exception("it took too long")
thread = threading.Thread(target=stage, args=(WORDS, WORDS, Request()))
thread.start()
thread.join()
"""


def events(receiver: HttpReceiver) -> list[dict[str, Any]]:
    found = []
    for request in receiver.got:
        body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
        _, *items = body.split(b"\n")
        found += [json.loads(one) for one in items if one.startswith(b"{") and b"event_id" in one]
    return found


@pytest.fixture
def http_receiver() -> Iterator[HttpReceiver]:
    with listening() as receiver:
        yield receiver


def test_an_error_is_reported_without_a_word_that_is_not_ours(tmp_path: Path, http_receiver: HttpReceiver) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    dsn = f"http://publickey@127.0.0.1:{http_receiver.port}/1"
    ended = run(tmp_path, str(program), SENTRY_DSN=dsn, SENTRY_ENVIRONMENT="of-tests")
    found = events(http_receiver)
    said = [one["logentry"]["message"] for one in found]
    assert said[:2] == ["task_1: poll failed"] * 2, ended.said
    assert found[0]["tags"] == {"task": "task_1", "generation": "gen_1"}
    assert found[0]["environment"] == "of-tests"
    (first,) = found[0]["exception"]["values"]
    assert (first["type"], first["value"]) == ("KeyError", "its words are left out")
    assert first["stacktrace"]["frames"][-1]["function"] == "stage"
    assert said[2] == "at https://…@h.example/x?… with Bearer …"
    assert (said[3], found[3]["exception"]["values"][0]["value"]) == ("it took too long", "ffmpeg did not end")
    assert len(found) == 5, "what a thread ends with is reported, too"
    text = json.dumps(found)
    assert "canary" not in text
    assert not {"request", "user", "breadcrumbs", "extra", "vars"} & {name for one in found for name in one}
    assert '"vars"' not in text
    assert "SELECT" not in json.dumps([one.get("logentry") for one in found])


@pytest.mark.parametrize("name", ["sentry_sdk", "opentelemetry.sdk", "opentelemetry.exporter"])
def test_what_is_not_asked_for_is_not_imported(tmp_path: Path, name: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom config.start import read_settings\nread_settings()\nimport django\ndjango.setup()\n"
        "from video.pipeline import runner\nfrom video.processes import sweeper\n"
        f"print('there' if {name!r} in sys.modules else 'not there')\n"
    )
    assert run(tmp_path, str(program)).said.splitlines()[-1] == "not there"
