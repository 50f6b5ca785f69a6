"""Nobody else can list the home or read what is in it, also when it was made with other modes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.embedded import home as home_folder
from config.embedded.places import Place
from config.running import Running, System

ROOT = Path(__file__).resolve().parents[2]
AS_ROOT = os.geteuid() == 0


def modes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): f"{path.lstat().st_mode & 0o777:o}" for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A home as it was made before, by a umask of 022."""
    home = tmp_path / "home"
    for folder in ("log", "run", "valkey", "storage/7"):
        (home / folder).mkdir(parents=True)
    for file in ("secret_key", "log/web.log", "run/up.json", "valkey/data", "storage/7/a.mp4"):
        (home / file).write_text("x")
        (home / file).chmod(0o644)
    for path in (home, *(path for path in home.rglob("*") if path.is_dir())):
        path.chmod(0o755)
    (home / "run" / "link").symlink_to("/etc/passwd")
    return home


def test_an_old_home_is_mended_and_it_is_said_once(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert home_folder.readable_by_others(old)
    home_folder.mend(old)
    assert capsys.readouterr().err == f"REELWORKS_HOME ({old}) could be read by others. It is private now.\n"
    found = modes(old)
    assert found.pop("run/link") == "777"
    assert found == {
        ".": "711" if AS_ROOT else "700",  # for the database's user
        "secret_key": "600",
        "log": "700",
        "log/web.log": "600",
        "run": "700",
        "run/up.json": "600",
        "valkey": "700",
        "valkey/data": "644",
        "storage": "755",
        "storage/7": "755",
        "storage/7/a.mp4": "644",
    }
    assert not home_folder.readable_by_others(old)
    home_folder.mend(old)
    assert not capsys.readouterr().err
    assert os.stat("/etc/passwd").st_mode & 0o777 == 0o644


def test_a_folder_that_holds_other_things_too_is_not_closed(old: Path) -> None:
    (old / "my letters").mkdir()
    home_folder.mend(old)
    assert modes(old)["."] == "755"
    assert modes(old)["secret_key"] == "600"
    assert home_folder.readable_by_others(old)


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    home_folder.mend(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("umask", [0o022, 0])
def test_a_new_home_is_private(tmp_path: Path, umask: int) -> None:
    home = tmp_path / "above" / "home"
    before = os.umask(umask)
    try:
        place = Place.of(home, "valkey", folder="valkey", suffix="vk")
        place.prepare_home()
        place.open_log().close()
        running = Running(home)
        assert running.claim()
        running.tell(System(1, "", simulate=True, simulator_url="", ready=False))
        running.guests_gone()
        assert {path: mode for path, mode in modes(home).items() if mode not in {"700", "600"}} == {}
        assert modes(home)["."] == "700"
    finally:
        os.umask(before)
    running.release()


def test_settings_make_it_private_before_anything_is_in_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {"PATH": os.environ["PATH"], "REELWORKS_HOME": str(home), "REELWORKS_ENV_FILE": ""}
    command = [sys.executable, "-c", "import config.settings"]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert not done.stderr
        assert modes(home) == {".": "700", "secret_key": "600"}
    (home / "secret_key").chmod(0o644)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "It is private now" in done.stderr
    assert modes(home) == {".": "700", "secret_key": "600"}
