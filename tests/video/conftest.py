from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client

from tests.factories import access_token, make_user
from tests.video.machine.crash import Stranger
from tests.video.machine.model import MOST_ATTEMPTS
from tests.video.machine.reading import RECENTLY_S
from video.credits import price
from video.engine import leases
from video.engine.claims import Claim
from video.infra import outage
from video.routing import availability, pauses
from video.scheduling import admission, backlog, estimates

SNIPPET_BODY = {"prompt": "A beautiful sunset over the ocean", "duration": 5, "aspectRatio": "16:9"}


@pytest.fixture(autouse=True)
def _fresh_estimates() -> Iterator[None]:
    estimates._cache.clear()
    price.forget()
    yield
    estimates._cache.clear()
    price.forget()


@pytest.fixture(autouse=True)
def _nothing_known_of_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page has read a moment ago, of another test; and each page reads the pauses, so that its statements are
    as many each time."""
    availability.forget_recent()
    pauses.forget_cached()
    monkeypatch.setattr(pauses, "CACHE_S", -1.0)


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> outage.OutageGate:
    """Open: a test before this one may have closed the process's own."""
    gate = outage.OutageGate()
    monkeypatch.setattr(outage, "gate", gate)
    return gate


@pytest.fixture(autouse=True)
def _uncounted_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "total", backlog.TotalBacklog())


@pytest.fixture(autouse=True)
def _heartbeat_in_a_transaction(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's own transaction holds, no other connection sees: not that of the thread that renews the leases.

    Without this, a stage that takes more than a quarter of a lease on a busy machine would lose it.
    """
    names = {"transactional_db", "django_db_reset_sequences", "live_server"}
    marker = request.node.get_closest_marker("django_db")
    if names & set(request.fixturenames) or (marker is not None and marker.kwargs.get("transaction")):
        return
    renew = leases.renew_leases

    def renewed(held: Sequence[Claim]) -> set[tuple[str, int]]:
        if threading.current_thread().name != "heartbeat":
            return renew(held)
        return {(claim.task.pk, claim.fence) for claim in held}

    monkeypatch.setattr(leases, "renew_leases", renewed)


@pytest.fixture
def user(db: None) -> AbstractBaseUser:
    """Somebody with 1,000 credits."""
    return make_user()


@pytest.fixture
def stranger(db: None) -> AbstractBaseUser:
    """Somebody else with 1,000 credits."""
    return make_user()


def client_of(user: AbstractBaseUser, **headers: Any) -> Client:
    """A browser that is logged in: the token is in its cookie."""
    client = Client(raise_request_exception=False, **headers)
    client.cookies["token"] = access_token(user)
    return client


@pytest.fixture
def client_for() -> Callable[..., Client]:
    """Makes a logged-in client of any user."""
    return client_of


@pytest.fixture
def api(user: AbstractBaseUser) -> Client:
    """The user's logged-in client."""
    return client_of(user)


@pytest.fixture
def order() -> dict[str, Any]:
    """The body that the front end posts."""
    return dict(SNIPPET_BODY)


@pytest.fixture
def other_actor(transactional_db: None, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Stranger]:
    """A second actor for the stories of the state machine, in which no lease ends by itself."""
    settings.STAGE_LEASE_SECONDS = RECENTLY_S
    monkeypatch.setattr(admission, "MAX_ATTEMPTS", MOST_ATTEMPTS)
    actor = Stranger()
    yield actor
    actor.close()
