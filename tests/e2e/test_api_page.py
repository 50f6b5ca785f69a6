"""The code blocks of README.md and docs/api.md, run as they stand beside a `make up` that simulates.

Only the address of the server is another one, since its port may be taken; and what a reader of the README fills in is
filled in: a task's id, a link, a picture.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from docs import make_clients
from tests.browser.snippet import SNIPPET
from tests.e2e.conftest import ROOT, Up, bare_environment, free_port

ADDRESS = "http://127.0.0.1:8000"
NEEDS_NPM = os.environ.get("TESTS_REQUIRE_NPM") == "1"
VIDEO = re.compile(r"http://127\.0\.0\.1:\d+/storage/\S+\.mp4\?\S+")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def demo(project: Path) -> Iterator[Up]:
    up = Up(project, POLL_INTERVAL_SECONDS="0.3")
    yield up
    up.stop()


def run(argv: list[str | Path], folder: Path, **environment: str) -> str:
    """Its output. Fails with all that it said."""
    done = subprocess.run(
        argv, cwd=folder, env=bare_environment(**environment), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_curl(demo: Up, tmp_path: Path) -> None:
    [block] = blocks("docs/api.md", "sh")
    run(["sh", "-euc", block.replace(ADDRESS, demo.url)], tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["data"]["status"] == "success"
    assert (tmp_path / "cat.mp4").read_bytes()[4:8] == b"ftyp"


def test_python(demo: Up, tmp_path: Path) -> None:
    plain, _ = blocks("docs/api.md", "python")
    assert VIDEO.fullmatch(run([sys.executable, "-c", plain.replace(ADDRESS, demo.url)], tmp_path).strip())


def test_the_typed_python_client(demo: Up, tmp_path: Path) -> None:
    make_clients.python(tmp_path)
    _, typed = blocks("docs/api.md", "python")
    assert VIDEO.fullmatch(run([sys.executable, "-c", typed.replace(ADDRESS, demo.url)], tmp_path).strip())


def test_typescript(demo: Up, tmp_path: Path) -> None:
    """Its types are checked, then it is run."""
    if not NEEDS_NPM and not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("needs node and npm; TESTS_REQUIRE_NPM=1 makes that a failure")
    try:
        make_clients.typescript(tmp_path)
    except subprocess.CalledProcessError:
        if NEEDS_NPM:
            raise
        pytest.skip("npm can't install its packages here; TESTS_REQUIRE_NPM=1 makes that a failure")
    [block] = blocks("docs/api.md", "ts")
    (tmp_path / "main.ts").write_text(block.replace(ADDRESS, demo.url))
    options = ["--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom"]
    run(["node_modules/.bin/tsc", *options, "main.ts"], tmp_path)
    assert VIDEO.fullmatch(run(["node", "main.js"], tmp_path).strip())


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_front_ends_snippet_is_the_one_that_the_browser_tests_run(page: str) -> None:
    assert blocks(page, "js") == [SNIPPET.lstrip()]


def test_the_calls_of_the_readme(demo: Up, tmp_path: Path) -> None:
    """Each line with curl, in order; a task is waited for before it is asked for what only a finished one has."""
    readme = (ROOT / "README.md").read_text()
    calls = re.findall(r"^    (curl .*)$", readme, re.MULTILINE)
    assert len(calls) > 15
    Image.new("RGB", (640, 360), "orange").save(tmp_path / "cat.jpg")
    known: dict[str, str] = {}
    made: list[str] = []
    for line in calls:
        if made:
            known["task_…"] = made[-1]
        reply = _call(line, demo, tmp_path, known)
        if " -o " in line or "/events" in line:
            continue
        answer = json.loads(reply)
        assert answer["success"] or _may_be_refused(line, answer), f"{line}\n{answer}"
        if answer["success"] and "/api/video/create" in line:
            made.append(answer["data"]["taskId"])
        elif "-X DELETE" in line:
            made.pop()  # what comes next is of one that is left
        elif "/api/video/upload" in line:
            known["upload://…"] = answer["data"]["url"]
    assert (tmp_path / "cat.mp4").read_bytes()[4:8] == b"ftyp"
    assert (tmp_path / "start.bin").stat().st_size == 1024


#: What a reader fills in, or can't have without a terminal or a screen.
FILLED_IN = {
    "createsuperuser": "createsuperuser --noinput --username root --email root@example.com",
    "create_user NAME": "create_user ada --generate",
    "grant_credits NAME": "grant_credits ada",
    " --open": "",
}


def test_the_commands_of_the_readme(demo: Up, tmp_path: Path) -> None:
    """Each line with manage.py, in order. What goes on until Ctrl-C is interrupted once it has said something."""
    Image.new("RGB", (640, 360), "orange").save(tmp_path / "cat.jpg")
    lines = re.findall(
        r"^    \.venv/bin/python manage\.py (.*?)(?:  +#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert len(lines) == 13
    task = ""
    for line in lines:
        for placeholder, value in {**FILLED_IN, "cat.jpg": str(tmp_path / "cat.jpg"), "task_…": task}.items():
            line = line.replace(placeholder, value)
        if "--watch" in line or line.startswith("simulator"):
            _interrupted(demo, shlex.split(line))
            continue
        done = demo.manage(*shlex.split(line))
        # What was made a moment ago may be done already.
        is_late = line.startswith("cancel_tasks") and "its video is stored" in done.stdout
        assert done.returncode == 0 or is_late, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        task = next(iter(re.findall(r"task_[0-9a-z]{20,}", done.stdout + done.stderr)), task)


def _interrupted(demo: Up, words: list[str]) -> None:
    environment = {**demo.environment, "SIMULATOR_PORT": str(free_port()), "PYTHONUNBUFFERED": "1"}
    command = [".venv/bin/python", "manage.py", *words]
    with subprocess.Popen(
        command, cwd=demo.project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), words
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode in (0, 130), f"{words}: {process.returncode}\n{said[-2000:]}"


def _may_be_refused(line: str, answer: dict[str, dict[str, str]]) -> bool:
    """Steering a task that was made a moment ago depends on how far it is."""
    codes = {
        "cancel": {"not_cancellable"},
        "retry": {"not_retryable", "attempt_unsettled"},
        "render": {"not_finished", "original_gone"},
    }
    return any(f"/api/video/{call}" in line and answer["error"]["code"] in codes[call] for call in codes)


def _call(line: str, demo: Up, folder: Path, known: dict[str, str]) -> str:
    if "/storage/…" in line or "-X DELETE" in line:
        known["/storage/…"] = _ended(demo, folder, known["task_…"])
    for placeholder, value in known.items():
        line = line.replace(placeholder, value)
    assert "…" not in line, line
    patience = "--max-time 2 " if "/events" in line else ""
    line = line.replace("curl ", f"curl -sS {patience}", 1).replace(ADDRESS, demo.url)
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, env=bare_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 or patience, done.stderr
    return done.stdout


def _ended(demo: Up, folder: Path, task: str) -> str:
    """Waits for the end of a task; the path of its video, if there is one."""
    while True:
        url = f"{demo.url}/api/video/status?taskId={task}&wait=30"
        reply = run(["curl", "-sS", "-b", "jar", url], folder)
        status = json.loads(reply)["data"]
        if status["status"] in ("success", "failed"):
            found = status.get("result", {}).get("videoUrl") or ""
            return found.removeprefix(demo.url)
