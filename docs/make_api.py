"""Writes what is made from the descriptions of the API: docs/openapi.json and docs/errors.md. It starts no server.

    make api

The document is that of a server with default settings, whatever the environment says.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT, ERRORS = ROOT / "docs" / "openapi.json", ROOT / "docs" / "errors.md"

INTRODUCTION = """\
# Errors

Made from the code by `make api`; a test holds that it is complete. Every error answer is

    {"success": false, "error": {"code": "…", "message": "…", "details": …}}

`code` is for programs and never changes its meaning; new ones may come. `message` is for people. `details` is a list
of `{"field", "message"}` where fields are wrong, else an object with facts. Nothing was changed by a refused call.

Answers with 429, 503 and `idempotency_key_in_use` have the header `Retry-After` in seconds. Which call can answer what
is in the [document](openapi.json), call by call.
"""
OF_TASKS = """
## Failed tasks

A task that failed has `error` (for people) and `errorCode` in its [status](api.md), and its credits came back. An
attempt at a provider has an `errorCode` of its own in the task's details.

| `errorCode` | what it means | what to do |
|---|---|---|
"""


def document() -> str:
    """docs/openapi.json as it should be."""
    from video.api.contract import openapi

    return json.dumps(openapi.document(), ensure_ascii=False, indent=1) + "\n"


def errors() -> str:
    """docs/errors.md as it should be."""
    from video.api.contract.codes import CODES
    from video.api.contract.task_codes import TASK_CODES

    head = "\n## Answers\n\n| `code` | HTTP | what it means | what to do |\n|---|---|---|---|\n"
    rows = (
        f"| `{name}` | {', '.join(map(str, code.statuses))} | {code.meaning} | {code.remedy} |\n"
        for name, code in CODES.items()
    )
    of_tasks = (f"| `{name}` | {meaning} | {remedy} |\n" for name, (meaning, remedy) in TASK_CODES.items())
    return "".join((INTRODUCTION, head, *rows, OF_TASKS, *of_tasks))


def main() -> None:
    """Write both."""
    from config.names import KNOWN

    for name in KNOWN & set(os.environ):
        del os.environ[name]
    os.environ.update(
        DJANGO_SETTINGS_MODULE="config.settings",
        REELWORKS_ENV_FILE="",
        REELWORKS_SIMULATE="1",
        # Never used; without them the embedded servers would be started.
        DATABASE_URL="postgres://nobody:nothing@127.0.0.1:1/none",
        CELERY_BROKER_URL="redis://127.0.0.1:1/0",
        SECRET_KEY="made-for-the-document-made-for-the-document-made",  # noqa: S106 - signs nothing
    )
    import django

    django.setup()
    DOCUMENT.write_text(document())
    ERRORS.write_text(errors())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
