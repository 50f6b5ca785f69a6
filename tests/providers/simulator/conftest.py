"""One real simulator process for all tests of this folder; each test uses prompts and keys of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.providers.simulator.client import RunwayClient, start


@pytest.fixture(scope="session")
def simulator_base() -> Iterator[str]:
    process, base = start("--canned", "--render-seconds", "0.05")
    yield base
    process.terminate()
    assert process.wait(5) == 0


@pytest.fixture
def client(simulator_base: str) -> Iterator[RunwayClient]:
    one = RunwayClient(simulator_base)
    yield one
    one.sim("config", faults=[], outage=None, limits={}, daily_limits={}, render_seconds=0.05, disabled_keys=[])
    one.http.close()
