"""The files that set Reelworks up elsewhere are sound, and say the same as the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import env_file
from config.names import KNOWN
from config.supervisor import read_procfile
from tests.test_docs import rows

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = (
    "deploy/run",
    "deploy/image/install",
    "deploy/image/healthy",
    "deploy/make-database.sh",
    ".ci/run",
    ".ci/install",
)
#: What compose.yaml itself asks for, and no program of ours.
OF_COMPOSE = {"POSTGRES_PASSWORD", "SITE", "REELWORKS_VERSION"}
PROCESSES = set(read_procfile(ROOT / "Procfile")) - {"simulator"}


def checked(*argv: str | Path) -> str:
    """What a program of the virtual environment says; it must be content."""
    done = subprocess.run(
        [Path(sys.executable).parent / argv[0], *argv[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def test_the_dockerfile_and_the_scripts_have_no_finding() -> None:
    checked("hadolint", "Dockerfile")
    checked("shellcheck", *SCRIPTS)


def test_the_compose_file_is_one_and_starts_every_process_of_the_procfile() -> None:
    checked("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")
    services = compose()["services"].values()
    started = [tuple(one["command"]) for one in services if one.get("image", "").startswith("reelworks:")]
    assert sorted(started) == sorted((name,) for name in PROCESSES)


def test_the_compose_file_sets_nothing_that_the_settings_do_not_know() -> None:
    ours = [one for one in compose()["services"].values() if one.get("image", "").startswith("reelworks:")]
    assert {name for one in ours for name in one["environment"]} - set(KNOWN) == set()
    asked = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "compose.yaml").read_text()))
    assert asked - set(KNOWN) == OF_COMPOSE


def test_each_process_of_the_compose_file_is_bounded_in_what_it_may() -> None:
    for one in compose()["services"].values():
        if one.get("image", "").startswith("reelworks:"):
            assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"])
            assert one["security_opt"] == ["no-new-privileges:true"]


def test_the_example_of_settings_can_be_read_and_names_only_what_there_is() -> None:
    text = (ROOT / ".env.example").read_text()
    assert set(env_file.parse(text.encode(), ".env.example")) <= set(KNOWN)
    named = set(re.findall(r"^(?:# )?([A-Z_]+)=", text, re.MULTILINE))
    assert named - OF_COMPOSE <= set(rows())
    assert {name for name, value in env_file.parse(text.encode(), "").items() if value} == set()  # no key in it


def test_the_dockerfile_copies_what_there_is_and_the_ignore_file_lets_it_in() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for name in line.split()[:-1]}
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(name.startswith(one) for one in allowed), name
    packages = {one.parent.name for one in ROOT.glob("*/__init__.py")} - {"bench", "tests"}
    assert packages <= {name.rstrip("/") for name in copied}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd's own programs")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for file in (ROOT / "deploy" / "systemd").iterdir():
        (tmp_path / file.name).write_text(file.read_text().replace("/opt/reelworks", str(ROOT)))
    units = [str(tmp_path / f"reelworks@{name}.service") for name in sorted(PROCESSES - {"release"})]
    argv = ["systemd-analyze", "verify", "--man=no", *units, str(tmp_path / "reelworks.target")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "reelworks" in line]
    assert (done.returncode, said) == (0, [])
    wanted = (ROOT / "deploy/systemd/reelworks.target").read_text()
    assert set(re.findall(r"reelworks@([a-z]+)\.service", wanted)) == PROCESSES - {"release"}
    score = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(tmp_path / "reelworks@.service")]
    assert subprocess.run(score, capture_output=True, check=False).returncode == 0  # an exposure of at most 2.0


@pytest.mark.parametrize("name", ["", "nothing", "web;id", "../x"])
def test_the_runner_refuses_what_is_no_process(name: str) -> None:
    done = subprocess.run([ROOT / "deploy/run", name], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "it has: release web worker" in done.stderr
