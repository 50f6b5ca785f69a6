"""What we start gets an environment that was chosen for it, never all of ours with its keys and passwords."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Prints each process that is started with the whole environment.
_WATCHED = """
import sys
sys.addaudithook(lambda event, args: event == "subprocess.Popen" and args[3] is None and print("inherits:", args[1]))
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


def starts() -> Iterator[tuple[str, ast.Call]]:
    """Each call of `subprocess` in the product, with file and line."""
    for part in ("config", "media_pipeline", "providers", "video"):
        for file in sorted((ROOT / part).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess."):
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", node


def test_each_process_that_we_start_is_given_an_environment() -> None:
    found = dict(starts())
    calls = {where: call for where, call in found.items() if ast.unparse(call.func).split(".")[1] in _STARTING}
    assert len(calls) >= 5
    named = {"env", None}  # None: `**options`, which the caller fills
    assert [where for where, call in calls.items() if not named & {word.arg for word in call.keywords}] == []


_STARTING = {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}


@pytest.mark.parametrize("command", ["check", "makemigrations"])
def test_a_command_starts_nothing_that_inherits(command: str) -> None:
    options = {"makemigrations": ["--check", "--dry-run"]}.get(command, [])
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, command, *options],
        cwd=ROOT,
        env={**os.environ, "REELWORKS_ENV_FILE": "", "REELWORKS_SIMULATE": "1", "FFMPEG_BINARY": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "inherits:" not in done.stdout
