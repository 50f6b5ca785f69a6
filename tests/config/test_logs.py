"""Errors of the database quote rows, and rows hold the words of users: no log line and no traceback has them."""

from __future__ import annotations

from pathlib import Path

from tests.config.starting import run

PROGRAM = """
import logging, threading
from config.start import read_settings
read_settings()
import django
django.setup()
from django.db import DatabaseError, connection

log = logging.getLogger("video")
WORDS = "canary words of a user"
cursor = connection.cursor()
cursor.execute("CREATE TEMP TABLE said (words text CONSTRAINT said_once UNIQUE, number int NOT NULL)")
cursor.execute("INSERT INTO said VALUES (%s, 1)", [WORDS])

def failing(words, number):
    cursor.execute("INSERT INTO said VALUES (%s, %s)", [words, number])

for row in ((WORDS, 1), (WORDS * 2, None), (WORDS * 3, WORDS)):
    try:
        failing(*row)
    except DatabaseError as err:
        log.exception("one")
        log.warning("two: %s", err)
        log.warning("three: %(exc)s", {"exc": err})
        log.error("four: %(exc)s", {"exc": repr(err)}, exc_info=True)
    try:
        failing(*row)
    except DatabaseError as err:
        try:
            raise ValueError("five") from err
        except ValueError:
            log.exception("of another kind")
try:
    cursor.execute("SET statement_timeout = 1")
    cursor.execute("SELECT pg_sleep(5)")
except DatabaseError as err:
    log.warning("six: %s", err)
cursor.execute("SET statement_timeout = 0")
thread = threading.Thread(target=failing, args=(WORDS, 1))
thread.start()
thread.join()
failing(WORDS, 1)
"""


def test_no_log_line_and_no_traceback_has_the_words_of_a_failed_statement(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    ended = run(tmp_path, str(program))
    assert ended.returncode == 1
    assert "canary" not in ended.said
    assert ended.said.count("UniqueViolation, 23505, constraint said_once; its words are left out") >= 6
    assert "NotNullViolation, 23502, table said, column number" in ended.said
    assert "six: canceling statement due to statement timeout (57014)" in ended.said
    assert "in failing" in ended.said
    assert ended.said.rstrip().endswith("its words are left out")
