"""LOG_FORMAT=json: each line is one object that says what it is about, in each process; nothing secret is in any."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config.logs import JsonFormatter, LineFormatter
from config.supervisor import _as_object
from tests.config.starting import run
from video.infra import log_context

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import logging, threading
from config.start import read_settings
read_settings()
import django
django.setup()
from django.db import connection
log = logging.getLogger("video")
WORDS = ["".join(("can", "ary"))]
log.info("a line\\nof %s words", 5, extra={"facts": {"stage": "poll"}})
cursor = connection.cursor()
cursor.execute("CREATE TEMP TABLE said (words text UNIQUE)")
cursor.execute("INSERT INTO said VALUES (%s)", WORDS)
try:
    cursor.execute("INSERT INTO said VALUES (%s)", WORDS)
except Exception as err:
    log.exception("it failed: %s", err)
logging.getLogger("celery.app.trace").info("Task canary succeeded")
logging.getLogger("celery.worker.strategy").info("Task canary received")
thread = threading.Thread(target=cursor.execute, args=("INSERT INTO said VALUES (%s)", WORDS))
thread.start()
thread.join()
raise ValueError("the last words")
"""


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_of_a_process_is_an_object_tracebacks_and_last_words_too(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    ended = run(tmp_path, str(program), LOG_FORMAT="json")
    assert "canary" not in ended.said
    first, failed, thread, last = objects(ended.said)
    assert (first["message"], first["stage"], first["level"]) == ("a line\nof 5 words", "poll", "INFO")
    assert "its words are left out" in failed["message"]
    assert "Traceback" in failed["exception"]
    assert "UniqueViolation" in thread["exception"]
    assert last["exception"].endswith("ValueError: the last words")
    assert {one["process"] for one in (first, failed, thread, last)} == {first["process"]}


def test_a_line_says_what_its_thread_works_on() -> None:
    record = logging.LogRecord("video", logging.INFO, "", 0, "it moves", (), None)
    with log_context.about(task="task_1", generation="gen_1"):
        shown = json.loads(JsonFormatter().format(record))
    assert (shown["task"], shown["generation"]) == ("task_1", "gen_1")
    assert "request" not in shown
    assert "task" not in json.loads(JsonFormatter().format(record))
    assert LineFormatter().format(record) == "it moves"


@pytest.mark.parametrize(
    "text", ["a\nb\r\x1b[2J", "\x9b31m\u202eowned\u2028", "\ud800", '"}\n{"level": "ERROR"}', "\0"]
)
def test_whatever_is_told_is_one_line_that_no_terminal_obeys(text: str) -> None:
    facts = {"facts": {"outcome": text}}
    record = logging.makeLogRecord(
        {"name": "video", "levelname": "INFO", "msg": "it said %s", "args": (text,), **facts}
    )
    with log_context.about(task=text):
        line = JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    shown = json.loads(line)
    assert (shown["message"], shown["outcome"], shown["task"], shown["level"]) == (
        f"it said {text}",
        text,
        text,
        "INFO",
    )
    assert json.loads(_as_object("web", text))["message"] == text


@pytest.mark.parametrize("form", ["json", "text", ""])
def test_the_web_servers_parent_writes_in_the_same_form(form: str) -> None:
    program = (
        "import json, logging, logging.config; "
        "logging.config.dictConfig(json.load(open('config/granian.json'))); "
        "logging.getLogger('_granian').error('Unexpected exit from %s', 'worker-1'); import sys; "
        "print(sorted(one for one in sys.modules if one in ('celery', 'django', 'config')))"
    )
    environment = {"PATH": os.environ["PATH"], "LOG_FORMAT": form}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n", "it needs none of them"
    if form == "json":
        (line,) = objects(done.stderr)
        assert (line["logger"], line["message"]) == ("_granian", "Unexpected exit from worker-1")
    else:
        assert done.stderr.endswith("ERROR _granian Unexpected exit from worker-1\n")


def test_make_up_adds_the_name_of_the_process_to_each_line() -> None:
    lines = ('{"a": 1}', "plain words", "{not an end", "")
    found = [json.loads(_as_object("web", line)) for line in lines]
    assert found[0] == {"service": "web", "a": 1}
    assert [one["message"] for one in found[1:]] == list(lines[1:])
