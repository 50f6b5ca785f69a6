"""Every call with what schemathesis makes of its description, good and bad, with all of its checks.

By API key and without a login. `make fuzz` asks more than 10,000 times, other things each time, and by cookie as well.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
import schemathesis
from django.conf import settings as django_settings
from django.core.handlers.wsgi import WSGIHandler
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from tests.factories import make_user
from video.api.contract import openapi
from video.models import Scope
from video.web.logins import api_keys
from video.web.logins.api_keys import KeyOrder

FUZZ = os.environ.get("TESTS_HYPOTHESIS_PROFILE") == "fuzz"
#: Of each call and login, beside the cases that the description itself has: limits, left-out fields, other methods.
EXAMPLES = 120 if FUZZ else 3
#: A body may be well-formed and refused all the same, for what no schema can say: a text in which nothing shows, a
#: length that the named model does not make, a present password that is another, bytes that are no picture.
JUDGED = ["2xx", "3xx", "400", "401", "402", "403", "404", "409", "413", "429", "5xx"]
#: What is longer than a field may be is longer than a body may be, too, if it is long enough.
REFUSED = ["400", "401", "403", "404", "405", "406", "409", "411", "413", "415", "422", "429", "5xx"]
CONFIG = SchemathesisConfig.from_dict(
    {
        "generation": {"deterministic": not FUZZ, "max-examples": EXAMPLES},
        "checks": {
            "negative_data_rejection": {"expected-statuses": REFUSED},
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "501"]},  # no e-mail here
        },
        "operations": [
            {
                "include-method": ["POST", "PATCH"],
                "checks": {"positive_data_acceptance": {"expected-statuses": JUDGED}},
            },
            # A cursor goes with one order.
            {
                "include-path": "/api/video/tasks",
                "checks": {"positive_data_acceptance": {"expected-statuses": JUDGED}},
            },
            # A day that no calendar has, and what only staff may ask for.
            {
                "include-path": "/api/usage",
                "checks": {"positive_data_acceptance": {"expected-statuses": JUDGED}},
            },
        ],
    }
)
schema = schemathesis.openapi.from_dict(openapi.document(), config=CONFIG)
schema.app = WSGIHandler()


@dataclass
class Login:
    """By which way the requests of a test are logged in, and with what token."""

    way: str = "none"
    token: str = ""


LOGIN = Login()


@schema.auth()
class Auth:
    """schemathesis asks it for each case; its own checks leave it out, to see that a call is refused then."""

    def get(self, case: Any, context: Any) -> str:
        return LOGIN.token

    def set(self, case: Any, token: str, context: Any) -> None:
        if LOGIN.way == "key":
            case.headers["Authorization"] = f"Bearer {token}"
        elif LOGIN.way == "cookie":
            case.cookies["token"] = token


@pytest.fixture(params=["key", "cookie", "none"] if FUZZ else ["key", "none"])
def _login(request: pytest.FixtureRequest, transactional_db: None) -> None:
    """A key that may do all that keys may, or a token of no session, so that no call ends it."""
    user = make_user(credit=10_000)
    LOGIN.way = request.param
    if LOGIN.way == "key":
        LOGIN.token = api_keys.make(user, KeyOrder("fuzz", tuple(Scope)))[1]
        return
    claims = {"user_id": user.pk, "exp": time.time() + 3600}
    LOGIN.token = jwt.encode(claims, django_settings.SIMPLE_JWT["SIGNING_KEY"], algorithm="HS256")


@pytest.mark.hypothesis
@pytest.mark.usefixtures("_login")
@schema.parametrize()
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
def test_answers_are_as_described(case: Any) -> None:
    case.call_and_validate(headers={"Accept-Encoding": "identity"})  # it does not unpack what a WSGI app packs
