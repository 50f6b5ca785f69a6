"""Starts Python programs by forking a process that has their libraries imported: a worker is there in half a second.

Each child is a process of its own: its environment, session, log, signals and death are its own, and it imports the
product itself, with the settings of its own environment. Only the import of the libraries (two of the two and a half
seconds of CPU that a Celery worker's start takes) is shared. What `make up` starts, it starts as users get it: that is
tested in tests/e2e.

Run as a program it reads one JSON object a line: {"argv", "env", "cwd", "log"} starts a program, answered with its
process id; {"look": pid} is answered with its return code, or null while it runs, and {"reap": pid} when it has ended.
Until it is reaped its process id belongs to nobody else. It ends with its standard input.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

#: None of them reads the environment when it is imported.
LIBRARIES = (
    *("celery.bin.celery", "celery.apps.worker", "celery.concurrency.thread"),
    *("celery.worker.worker", "celery.worker.consumer", "celery.fixups.django", "kombu.transport.redis", "redis"),
    *("aiohttp", "requests", "psycopg", "psycopg_pool", "environ", "jinja2", "yaml", "PIL.Image", "rich.progress"),
    *("django.contrib.admin.options", "django.core.management", "django.db.backends.postgresql.base"),
    *("django.db.models", "django.db.migrations.executor", "django.core.files.storage", "django.template.loader"),
    *("django.core.handlers.wsgi", "django.test.signals", "rest_framework.serializers", "jwt"),
)


class Zygote:
    """The process that is forked. It may be used by several threads."""

    def __init__(self) -> None:
        env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.zygote"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, argv: list[str], env: dict[str, str], log: Path) -> int:
        """Start `python {argv}` (`-m module …` or `file …`) in a session of its own; returns its process id."""
        return int(self._ask({"argv": argv, "env": env, "cwd": str(ROOT), "log": str(log)}))

    def look(self, pid: int) -> int | None:
        """What it ended with, as subprocess tells it, or None while it runs."""
        code = self._ask({"look": pid})
        return None if code is None else int(code)

    def reap(self, pid: int) -> int:
        """Wait for its end; returns its return code. The process id means nothing from then on."""
        return int(self._ask({"reap": pid}))

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        assert answer, "the process that starts the others has ended"
        return json.loads(answer)


@functools.cache
def zygote() -> Zygote:
    """The one of this process, begun at its first use."""
    one = Zygote()
    atexit.register(one.stop)
    return one


def _serve() -> dict[str, Any] | None:
    """Answer until the input ends. Returns in a child, with what it is to run, or None at the end."""
    for line in sys.stdin:
        question = json.loads(line)
        answer: int | None
        if "look" in question:
            found = os.waitid(os.P_PID, question["look"], os.WEXITED | os.WNOHANG | os.WNOWAIT)
            answer = None if found is None else _code(found.si_code, found.si_status)
        elif "reap" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["reap"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                return dict(question)
        print(json.dumps(answer), flush=True)
    return None


def _code(how: int, status: int) -> int:
    return status if how == os.CLD_EXITED else -status


def _become(program: dict[str, Any]) -> None:
    """Turn this fork into the program."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(program["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for there, here in ((null, 0), (log, 1), (log, 2)):
        os.dup2(there, here)
    os.close(null)
    os.close(log)
    sys.stdin = open(0)  # noqa: SIM115 - as long as the process lives
    # PYTHONUNBUFFERED is read too early to be of use here.
    sys.stdout = open(1, "w", buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1)  # noqa: SIM115
    os.chdir(program["cwd"])
    os.environ.clear()
    os.environ.update(program["env"])
    argv = program["argv"]
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()
    if (todo := _serve()) is not None:
        _become(todo)
