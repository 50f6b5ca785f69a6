from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.s3 import S3Server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One S3 server for all tests of a process; each takes a bucket of its own."""
    from tests.s3 import S3Server  # lazily: AWS's library and moto are slow to load

    server = S3Server()
    yield server
    server.stop()
