from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.rclone import RcloneServer
    from tests.s3 import S3Server


# Of property tests. The same examples at each run of `make test`: its verdict is about the change, not about the dice.
# `make fuzz` throws them.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("fuzz", max_examples=3000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("TESTS_HYPOTHESIS_PROFILE", "repeatable"))

#: Files that start whole systems: few tests, long waits. They begin first, so that no core idles for the last of them.
SYSTEMS = ("system", "e2e", "bench", "browser", "config")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put them in front; `make test` lets xdist hand out the files in this order."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(here).parts[0] not in SYSTEMS)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One S3 server for all tests of a process; each takes a bucket of its own."""
    from tests.s3 import S3Server  # lazily: AWS's library and moto are slow to load

    server = S3Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    """The second S3 server, for a process as well."""
    from tests.rclone import RcloneServer

    server = RcloneServer(tmp_path_factory.mktemp("rclone") / "buckets")
    yield server
    server.stop()


@pytest.fixture(scope="session", autouse=True)
def _answers_as_described() -> Iterator[None]:
    """What any test gets from the API is what the API's document says."""
    from tests import contract  # lazily: it reads the settings

    with contract.watch():
        yield
