"""What is logged of the database's errors: their kind, never the words of users that their messages quote."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg

from video.infra import log_context

#: Classes of errors (the first two characters of SQLSTATE) whose first line is about the server and not about values:
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_OF_THE_SERVER = frozenset({"08", "28", "40", "53", "55", "57", "58"})


class LineFormatter(logging.Formatter):
    """Django's and Celery's lines, too, and the tracebacks below them."""

    def format(self, record: logging.LogRecord) -> str:
        args = record.args.values() if isinstance(record.args, dict) else record.args or ()
        raised = record.exc_info[1] if record.exc_info else None
        return without_values(super().format(record), [raised, *(one for one in args if isinstance(one, Exception))])


class JsonFormatter(LineFormatter):
    """One object a line: the same words, what they are about, and the line's facts (`extra={"facts": …}`) beside."""

    def format(self, record: logging.LogRecord) -> str:
        args = record.args.values() if isinstance(record.args, dict) else record.args or ()
        raised = record.exc_info[1] if record.exc_info else None
        errors = [raised, *(one for one in args if isinstance(one, Exception))]
        shown: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": without_values(record.getMessage(), errors),
            **log_context.present(),
            **getattr(record, "facts", {}),
            "process": os.getpid(),
            "thread": record.threadName,
        }
        if record.exc_info:
            shown["exception"] = without_values(self.formatException(record.exc_info), errors)
        return json.dumps(shown, default=str)  # in ASCII: no terminal obeys it


def without_values(text: str, errors: Iterable[BaseException | None]) -> str:
    """The text with what errors of the database, and causes of these errors, say in it replaced by their kind."""
    for error in {id(one): one for top in errors for one in _causes(top)}.values():
        said = str(error)
        if isinstance(error, psycopg.Error) and error.sqlstate and said:
            for spelled in (said, repr(said)[1:-1]):
                text = text.replace(spelled, _kind(error))
    return text


def say_uncaught() -> None:
    """Python's own last words, of the process and of its threads, get the same treatment."""
    sys.excepthook = lambda _kind, error, _trace: _say(error)
    threading.excepthook = lambda args: None if args.exc_type is SystemExit else _say(args.exc_value)


def _say(error: BaseException | None) -> None:
    if error is not None and logging.getLogger().handlers:  # in the form of all other lines, and reported as they are
        logging.getLogger("reelworks.uncaught").critical("an error that nothing expected", exc_info=error)
        return
    sys.stderr.write(without_values("".join(traceback.format_exception(error)), [error]))


def _causes(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[BaseException]:
    if error is not None and id(error) not in seen:
        yield error
        for cause in (error.__cause__, error.__context__):
            yield from _causes(cause, seen | {id(error)})


def _kind(error: psycopg.Error) -> str:
    told = error.diag
    if str(error.sqlstate)[:2] in _OF_THE_SERVER:
        return f"{told.message_primary} ({error.sqlstate})"
    where = [f"{name} {value}" for name, value in (("table", told.table_name), ("column", told.column_name)) if value]
    if told.constraint_name:
        where = [f"constraint {told.constraint_name}"]
    return f"{', '.join([type(error).__name__, str(error.sqlstate), *where])}; its words are left out"


def configured(level: str, form: str = "text") -> dict[str, Any]:
    """Django's LOGGING: lines on stderr, from this level on, as `text` or as `json`."""
    of_celery = "DEBUG" if level == "DEBUG" else "WARNING"  # a stage has a line of ours
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"()": "config.logs.LineFormatter", "format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
            "json": {"()": "config.logs.JsonFormatter"},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Its warning about an answer with odd headers holds the whole address, with the signature of a file's link.
            "urllib3": {"level": "ERROR"},
            "celery.worker.strategy": {"level": of_celery},  # "Task … received"
            "celery.app.trace": {"level": of_celery},  # "Task … succeeded in …"
            # Their lines hold paths, of which one has the token of a forgotten password; the access log has the routes.
            "django.request": {"level": "ERROR"},
            "django.security.csrf": {"level": "ERROR"},
            # The web server's own lines, as all others.
            "_granian": {"handlers": [], "propagate": True},
        },
    }
