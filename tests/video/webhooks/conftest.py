from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django.fixtures import Settings

from tests.receiver import Receiver, receiving


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    """A receiver that the operator allows though it is on this machine."""
    with receiving() as one:
        settings.WEBHOOK_PRIVATE_HOSTS = [one.host]
        settings.WEBHOOK_TIMEOUT_SECONDS = 5
        yield one
