"""The suite's own servers and settings: nothing of the developer's environment or `.env.local` gets in.

A plugin named on pytest's command line (`-p tests.environment`, see pyproject.toml), since pytest-django reads the
settings before any conftest.py is loaded.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from config.names import KNOWN

_KEPT = {"REELWORKS_REQUIRE_BROWSER", "NO_COLOR"}


_outside = dict(os.environ)
for _name in _outside:
    if _name not in _KEPT and (_name in KNOWN or _name.startswith(("REELWORKS_", "AWS_"))):
        del os.environ[_name]
# One run, one pair of embedded servers, shared by all its xdist workers and by nobody else.
_OWNER = "TESTS_HOME" not in _outside
HOME = Path(_outside.get("TESTS_HOME") or tempfile.mkdtemp(prefix="reelworks-tests-"))
HOME.chmod(0o711)  # PostgreSQL may have to run as another user
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
STORAGE = HOME / "storage" / f"{WORKER}-{os.getpid()}"
os.environ.update(
    TESTS_HOME=str(HOME),  # for the xdist workers, which inherit it
    REELWORKS_ENV_FILE="",
    REELWORKS_HOME=str(HOME),
    REELWORKS_SIMULATE="1",
    STORAGE_LOCAL_PATH=str(STORAGE),
    SECRET_KEY="tests-tests-tests-tests-tests-tests-tests",
)

import pytest  # noqa: E402 - the environment must be clean before anything reads it

from config import embedded  # noqa: E402
from tests import leaks  # noqa: E402


def _start_servers() -> None:
    """Start (or join) the servers; the process that only hands out tests to others holds them up for all."""
    number = int(WORKER.removeprefix("gw")) + 1 if WORKER.startswith("gw") else 0
    held = embedded.hold(HOME, fast=True)
    if _OWNER:
        atexit.register(_remove_servers, held)
    os.environ["CELERY_BROKER_URL"] = held.broker_url.replace("virtual_host=0", f"virtual_host={number}")


def _remove_servers(held: embedded.Held) -> None:
    held.release()
    embedded.remove(HOME)
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the last test of the run: what it left in the logs of its servers, and open to others."""
    if _OWNER:
        told = [*leaks.in_logs((HOME / "log").iterdir()), *leaks.readable_by_others(HOME)]
        if told:
            sys.stderr.write("\n".join(("", "In logs, or readable by others:", *told[:20], "")))
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


_start_servers()


@pytest.fixture(scope="session", autouse=True)
def _clean_storage() -> Iterator[None]:
    yield
    shutil.rmtree(STORAGE, ignore_errors=True)
