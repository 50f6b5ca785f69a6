"""The form of the lines that the web server's parent process writes; it has no settings, and imports nothing of ours.

config/granian.json names it. The lines of the process that answers are those of `config.logs`.
"""

from __future__ import annotations

import json
import logging
import os
import time


class Json(logging.Formatter):
    """One object a line, with the names that our own lines have."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        shown = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": os.getpid(),
        }
        return json.dumps(shown)


def formatter() -> logging.Formatter:
    """What LOG_FORMAT asks for; the process that answers refuses what is neither."""
    if os.environ.get("LOG_FORMAT", "").strip().lower() == "json":
        return Json()
    return logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
