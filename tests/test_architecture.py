"""Conventions that a test keeps, so that nobody has to police them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("config", "video", "providers", "media_pipeline")
SOURCES = sorted(
    path
    for folder in (*PACKAGES, "tests", "bench", "docs")
    for path in (ROOT / folder).rglob("*.py")
    if "migrations" not in path.parts
)
RULES = ROOT / "pyproject.toml"


def test_imports_point_down() -> None:
    """The contracts are in pyproject.toml; another process, since import-linter is slow to forget what it imported."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_layers_are_those_of_the_design() -> None:
    text = RULES.read_text()
    assert 'layers = ["config", "video", "providers | media_pipeline"]' in text
    for package in PACKAGES:
        assert f'"{package}"' in text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_for_later(path: Path) -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    found = [
        f"{number}: {line.strip()}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_status_and_stage_have_few_writers() -> None:
    """The engine moves a task, the actions make it, cancel it and retry it."""
    allowed = {"engine", "actions", "attempts", "scheduling", "processes"}
    writes = re.compile(r"(UPDATE|INSERT INTO) video_videotask")
    found = {
        path.relative_to(ROOT / "video").parts[0]
        for path in (ROOT / "video").rglob("*.py")
        if "migrations" not in path.parts and writes.search(path.read_text())
    }
    assert found <= allowed, found - allowed


def test_only_the_ledger_writes_the_ledger() -> None:
    writes = re.compile(
        r"(UPDATE|INSERT INTO) video_(account|creditentry)|\b(Account|CreditEntry)\.objects\.(bulk_)?(create|update)"
    )
    found = {
        path.name
        for path in (ROOT / "video").rglob("*.py")
        if "migrations" not in path.parts and writes.search(path.read_text())
    }
    assert found == {"ledger.py"}


def test_celery_gets_names_and_ids_only() -> None:
    """No countdown, no ETA and no retry(): waiting is a row with a time."""
    for path in (ROOT / "video").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword):
                assert node.arg not in {"countdown", "eta"}, f"{path.name}:{node.value.lineno}"
            if isinstance(node, ast.Attribute) and node.attr == "retry" and isinstance(node.value, ast.Name):
                assert node.value.id != "self", f"{path.name}:{node.lineno}"
