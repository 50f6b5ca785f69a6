"""One real simulator process for all tests of this folder; each test uses prompts and keys of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.providers.simulator.client import Client, KlingClient, PikaClient, Receiver, RunwayClient, running

AS_AT_THE_START: dict[str, Any] = {
    "faults": [], "outage": None, "limits": {}, "daily_limits": {}, "render_seconds": 0.05, "disabled_keys": [],
    "kling_webhook_secret": "", "refuse_duplicates": False,
}  # fmt: skip


@pytest.fixture(scope="session")
def simulator_base() -> Iterator[str]:
    with running("--canned", "--render-seconds", "0.05") as base:
        yield base


def _lend(one: Client) -> Iterator[Any]:
    yield one
    one.sim("config", **AS_AT_THE_START)
    one.http.close()


@pytest.fixture
def client(simulator_base: str) -> Iterator[RunwayClient]:
    yield from _lend(RunwayClient(simulator_base))


@pytest.fixture
def pika(simulator_base: str) -> Iterator[PikaClient]:
    yield from _lend(PikaClient(simulator_base))


@pytest.fixture
def kling(simulator_base: str) -> Iterator[KlingClient]:
    yield from _lend(KlingClient(simulator_base))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()
