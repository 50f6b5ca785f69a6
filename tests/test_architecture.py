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


def _writers(model: str, table: str) -> set[str]:
    """The modules of video/ that write this table: in SQL, or through the model's manager, a queryset or `save`."""
    sql = re.compile(rf"\b(UPDATE|INSERT INTO|DELETE FROM)\s+{table}\b", re.IGNORECASE)
    writing = {"update", "create", "bulk_create", "bulk_update", "get_or_create", "update_or_create", "delete"}
    found = set()
    for path in (ROOT / "video").rglob("*.py"):
        if "migrations" in path.parts:
            continue
        text = path.read_text()
        writes = sql.search(text) is not None
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                written = ast.unparse(node.func.value)
                name = node.func.attr
                writes |= name in writing and written.startswith(f"{model}.objects")
                writes |= name == "save" and written.startswith(f"{model}(")
        if writes:
            found.add(str(path.relative_to(ROOT / "video")))
    return found


#: `manage.py seed_demo`, and only while simulating: rows of a made-up past, which no move of a task can write.
MADE_UP_PAST = "management/demo_data/history.py"


def test_only_the_engine_and_the_actions_write_tasks() -> None:
    found = _writers("VideoTask", "video_videotask") - {MADE_UP_PAST}
    outside = {name for name in found if not name.startswith(("engine/", "actions/"))}
    assert not outside
    assert {"engine/transitions.py", "actions/create.py"} <= found


def test_only_the_attempts_write_generations() -> None:
    found = _writers("Generation", "video_generation") - {MADE_UP_PAST}
    outside = {name for name in found if not name.startswith("attempts/")}
    assert not outside
    assert "attempts/records.py" in found


def test_only_one_module_writes_failure_texts() -> None:
    assert _writers("FailureText", "video_failuretext") == {"attempts/failure_texts.py"}


@pytest.mark.parametrize(
    ("model", "table", "module"),
    [
        ("LoginSession", "video_loginsession", "web/logins/sessions.py"),
        ("LoginThrottle", "video_loginthrottle", "web/logins/throttle.py"),
        ("RecoveryCode", "video_recoverycode", "web/logins/second_factor.py"),
    ],
)
def test_only_the_logins_write_logins(model: str, table: str, module: str) -> None:
    assert _writers(model, table) == {module}


def test_only_the_logins_make_keys() -> None:
    """What a key spends is counted where it is debited; when a secret was used last, where it is looked at."""
    assert _writers("ApiKey", "video_apikey") == {"credits/key_spend.py", "web/logins/api_keys.py"}
    assert _writers("RequestWindow", "video_requestwindow") == {"web/request_limits.py"}
    assert _writers("ApiKeySecret", "video_apikeysecret") == {"web/logins/api_keys.py", "api/key_login.py"}


def test_only_one_module_writes_uploads() -> None:
    assert _writers("Upload", "video_upload") == {"web/uploads.py"}


def test_only_one_module_writes_answered_calls() -> None:
    assert _writers("AnsweredCall", "video_answeredcall") == {"web/idempotency.py"}


def test_only_the_ledger_writes_the_ledger() -> None:
    writes = re.compile(
        r"(UPDATE|INSERT INTO) video_(account|creditentry)|\b(Account|CreditEntry)\.objects\.(bulk_)?(create|update)"
    )
    found = {
        str(path.relative_to(ROOT / "video"))
        for path in (ROOT / "video").rglob("*.py")
        if "migrations" not in path.parts and writes.search(path.read_text())
    }
    assert found == {"credits/ledger.py", MADE_UP_PAST}


def test_celery_gets_names_and_ids_only() -> None:
    """No countdown, no ETA and no retry(): waiting is a row with a time."""
    for path in (ROOT / "video").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword):
                assert node.arg not in {"countdown", "eta"}, f"{path.name}:{node.value.lineno}"
            if isinstance(node, ast.Attribute) and node.attr == "retry" and isinstance(node.value, ast.Name):
                assert node.value.id != "self", f"{path.name}:{node.lineno}"


def test_what_follows_a_commit_goes_through_one_door() -> None:
    """`after_commit`: an error of Django's own `on_commit` would fail the answer to what was committed."""
    found = {
        str(path.relative_to(ROOT))
        for folder in ("video", "config")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "on_commit"
    }
    assert found == {"video/infra/after_commit.py"}


def test_every_command_reads_its_arguments_with_care() -> None:
    """`PlainCommand` refuses what no row and no terminal takes."""
    found = {
        path.name: [ast.unparse(base) for base in node.bases]
        for path in (ROOT / "video" / "management" / "commands").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Command"
    }
    assert len(found) >= 13
    assert {name for name, bases in found.items() if "BaseCommand" in bases} == set()


SHARED_SQL = {
    "UNHELD": r"lease_until IS NULL OR (\w+\.)?lease_until <=? statement_timestamp\(\)(?! -)",
    "LISTENING": r"NOT draining AND gone_at IS NULL",
    "RECORD_EVENT": r"INSERT INTO video_taskevent",
    "Generation.LIVE_SQL": r"IN \('planned', 'unknown', 'accepted'\)",
}


@pytest.mark.parametrize("name", SHARED_SQL)
def test_what_statements_share_is_spelled_out_once(name: str) -> None:
    """In engine/sql.py, or beside the model; other statements include the constant."""
    home = "video/models/generations.py" if name.startswith("Generation.") else "video/engine/sql.py"
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "video").rglob("*.py")
        if "migrations" not in path.parts and re.search(SHARED_SQL[name], path.read_text())
    }
    assert found == {home}, f"use {name}"


PRODUCT = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in PACKAGES]


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_and_modules_stay_short(path: Path) -> None:
    """A function has at most 60 lines, a module at most 450; a longer one is several."""
    text = path.read_text()
    assert text.count("\n") <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{node.name}, line {node.lineno}"


def test_the_root_of_video_holds_packages_only() -> None:
    """A module is found by its package; beside them only what Django or a migration imports by name."""
    entries = {path.name for path in (ROOT / "video").iterdir() if path.name != "__pycache__"}
    assert {name for name in entries if name.endswith(".py")} == {"__init__.py", "apps.py", "checks.py", "ids.py"}
    assert len(entries) <= 24


@pytest.mark.parametrize("package", sorted(path.parent.name for path in (ROOT / "video").glob("*/__init__.py")))
def test_each_package_says_what_lives_in_it(package: str) -> None:
    if package != "migrations":
        tree = ast.parse((ROOT / "video" / package / "__init__.py").read_text())
        assert len(ast.get_docstring(tree) or "") > 60
