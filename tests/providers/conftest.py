from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.providers.raw_server import Server


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers that behave as a test wants; all are gone afterwards."""
    servers: list[Server] = []

    def start(behave: Any, **kwargs: Any) -> Server:
        servers.append(Server(behave, **kwargs))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
