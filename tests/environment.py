"""The suite's own servers and settings: nothing of the developer's environment or `.env.local` gets in.

A plugin named on pytest's command line (`-p tests.environment`, see pyproject.toml), since pytest-django reads the
settings before any conftest.py is loaded.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_KEPT = {"REELWORKS_REQUIRE_BROWSER"}


def _settable() -> set[str]:
    """Every name that the settings read, so that none of them comes in from outside."""
    text = "".join((ROOT / "config" / name).read_text() for name in ("settings.py", "env.py"))
    names = set(re.findall(r'"([A-Z][A-Z0-9]*_[A-Z0-9_]+|PORT|DEBUG)"', text))
    return names | {f"{provider}_{name}" for provider in ("RUNWAY", "PIKA", "KLING") for name in names}


for _name in list(os.environ):
    if _name not in _KEPT and (_name in _settable() or _name.startswith(("REELWORKS_", "AWS_"))):
        del os.environ[_name]
# All xdist workers of one run share one pair of embedded servers; each checkout has its own.
HOME = (
    Path(tempfile.gettempdir()) / f"reelworks-tests-{os.getuid()}-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
)
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
STORAGE = HOME / "storage" / f"{WORKER}-{os.getpid()}"
os.environ.update(
    REELWORKS_ENV_FILE="",
    REELWORKS_HOME=str(HOME),
    REELWORKS_SIMULATE="1",
    STORAGE_LOCAL_PATH=str(STORAGE),
    SECRET_KEY="tests-tests-tests-tests-tests-tests-tests",
)

import pytest  # noqa: E402 - the environment must be clean before anything reads it


def _start_servers() -> None:
    """Start (or join) the servers; the process that only hands out tests to others holds them up for all."""
    from config import embedded

    number = int(WORKER.removeprefix("gw")) + 1 if WORKER.startswith("gw") else 0
    held = embedded.hold(HOME, fast=True)
    os.environ["CELERY_BROKER_URL"] = held.broker_url.replace("virtual_host=0", f"virtual_host={number}")


_start_servers()


@pytest.fixture(scope="session", autouse=True)
def _clean_storage() -> Iterator[None]:
    yield
    import shutil

    shutil.rmtree(STORAGE, ignore_errors=True)
