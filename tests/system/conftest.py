from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from tests.system.forks import ForkServer
from tests.system.system import Simulator, System, environment, running
from video.infra.toolkit import toolkit


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them; `--dist loadfile` keeps a file, and the processes that it starts, in one xdist worker."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.pipeline)
            item.add_marker(pytest.mark.django_db(transaction=True))  # so that the database is made at all


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failure comes with what its processes said last, and with what every unfinished task waits for."""
    report = yield
    if report.failed and call.when == "call":
        for system in (value for value in item.funcargs.values() if isinstance(value, System)):  # type: ignore[attr-defined]
            report.sections.append(("unfinished tasks", unfinished()))
            report.sections += [(f"end of {name}", text) for name, text in system.ends_of_logs()]
    return report


def unfinished() -> str:
    """One line a task that has not ended."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT t FROM video_videotask t WHERE finished_at IS NULL ORDER BY id LIMIT 10")
        return "\n".join(str(row[0]) for row in cursor.fetchall())


@pytest.fixture
def _django_db_helper(database: str) -> None:
    """Instead of pytest-django's: no transaction around a test and no emptying after it, other processes work here."""


@pytest.fixture(scope="module")
def database(django_db_setup: None, django_db_blocker: pytest.FixtureRequest) -> Iterator[str]:
    """The test database with rows that other processes see; emptied when the file is done."""
    toolkit.cache_clear()  # of a test before, which had a storage of its own
    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        yield connection.settings_dict["NAME"]
        call_command("flush", verbosity=0, interactive=False)
        shutil.rmtree(settings.STORAGE_LOCAL_PATH, ignore_errors=True)  # the ids of users begin anew
        connection.close()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """Quick, and with files that need no transcode unless a test asks for another frame rate."""
    simulator = Simulator(tmp_path_factory.mktemp("simulator"), "--canned", "--fps", "30", "--render-seconds", "0")
    yield simulator
    simulator.stop()


@pytest.fixture
def system(database: str, simulator: Simulator, tmp_path: Path) -> Iterator[System]:
    """Processes that one test starts for itself."""
    with running(tmp_path, simulator) as system:
        yield system


@pytest.fixture(scope="module")
def forks(database: str, simulator: Simulator) -> Iterator[ForkServer]:
    """Children that may die."""
    forks = ForkServer(database, environment(simulator))
    yield forks
    forks.close()
