"""A provider more is one folder and one line: with both, a video is made through the real pipeline."""

from __future__ import annotations

import difflib
import shutil
import subprocess
from pathlib import Path

import av
import pytest

from tests.e2e.conftest import ROOT, bare_environment

FOLDER = Path(__file__).parent / "acme"
ADDED = '    "acme",\n'


@pytest.fixture(scope="module")
def with_acme(project: Path) -> Path:
    """A copy of the project with Acme's folder, and its name behind the others in the registry."""
    shutil.copytree(FOLDER, project / "providers" / "acme")
    registry = project / "providers" / "registry.py"
    before, last, after = registry.read_text().partition('    "kling",\n')
    assert last
    registry.write_text(before + last + ADDED + after)
    return project


def manage(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """One management command in the copy, with everything simulated."""
    return subprocess.run(
        [".venv/bin/python", "manage.py", *args],
        cwd=project,
        env=bare_environment(REELWORKS_ENV_FILE="", REELWORKS_SIMULATE="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture(scope="module")
def made(with_acme: Path) -> subprocess.CompletedProcess[str]:
    """One video of Acme's, made as `make demo` makes its own."""
    order = ("A cat that nobody has seen", "--model", "acme-1", "--duration", "5", "--wait")
    return manage(with_acme, "up", "--then", "generate", *order)


def test_it_is_one_line(with_acme: Path) -> None:
    path = Path("providers") / "registry.py"
    ours, theirs = ((root / path).read_text().splitlines() for root in (ROOT, with_acme))
    changed = [line for line in difflib.ndiff(ours, theirs) if line[0] in "+-"]
    assert changed == [f"+ {ADDED.rstrip()}"]


def test_a_video_of_it_is_finished(made: subprocess.CompletedProcess[str], with_acme: Path) -> None:
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    [video] = with_acme.glob("storage/*/videos/vid_*.mp4")
    with av.open(str(video)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.duration is not None
        assert 4.8 < container.duration / 1_000_000 < 5.3


def test_the_attempt_names_it(made: subprocess.CompletedProcess[str], with_acme: Path) -> None:
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    program = "from video.models import Generation; print(list(Generation.objects.values_list('provider', 'model')))"
    asked = manage(with_acme, "shell", "-c", program)
    assert asked.returncode == 0, asked.stderr[-3000:]
    assert asked.stdout.strip().splitlines()[-1] == "[('acme', 'acme-1')]"
