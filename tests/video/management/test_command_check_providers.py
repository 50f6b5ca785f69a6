"""manage.py check_providers, over HTTP against the simulator."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from providers.api_keys import ApiKey
from providers.dialect.jobs import fingerprint as simulators_name
from tests.system.system import Simulator
from video.attempts import configured_keys
from video.infra.toolkit import toolkit
from video.models import ProviderAccount, ProviderKey
from video.routing import accounts

pytestmark = pytest.mark.django_db

GOOD, OTHER = ApiKey("key_secret_value_one"), ApiKey("key_secret_value_two")
PLAIN = ApiKey("kling_secret_value")
FAL = ApiKey("fal_secret_value")
VALUES = [key.value for key in (GOOD, OTHER, PLAIN, FAL)]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    found = Simulator(tmp_path_factory.mktemp("simulator"))
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def keys(settings: Any, simulator: Simulator) -> Iterator[Any]:
    """Two keys for Runway, one for each of the others; all good at first, and a second apart for Kling."""
    simulator.config(disabled_keys=[], limits={}, advance_s=5, credit_balance=1000, outage=None)
    settings.PROVIDER_BASE_URLS = dict.fromkeys(settings.PROVIDER_BASE_URLS, simulator.url)
    settings.PROVIDER_KEYS = {"runway": (GOOD, OTHER), "pika": (FAL,), "kling": (PLAIN,)}
    settings.KEY_ACCOUNTS = {}
    settings.READ_TIMEOUT_SECONDS = 5
    toolkit.cache_clear()
    yield settings
    toolkit.cache_clear()


def check(*args: str) -> tuple[int, str]:
    """Exit code, and everything that was printed."""
    out = io.StringIO()
    try:
        call_command("check_providers", *args, stdout=out, stderr=out)
    except SystemExit as err:
        return int(err.code or 0), out.getvalue()
    except CommandError as err:
        return err.returncode, f"{out.getvalue()}{err}"
    return 0, out.getvalue()


def test_all_good() -> None:
    code, said = check()
    assert code == 0, said
    for key in (GOOD, OTHER, PLAIN, FAL):
        assert key.fingerprint in said
    assert "gen4.5 0/1000" in said
    assert "credits" in said
    assert "has no account call" in said
    assert "Everything is simulated" in said
    assert not any(value in said for value in VALUES)


def test_json_and_one_provider() -> None:
    code, said = check("--json", "--provider", "runway")
    assert code == 0
    found = json.loads(said)
    assert [one["verdict"] for one in found["keys"]] == ["ok", "ok"]
    one = found["keys"][0]
    assert {"model": "gen4.5", "live": 0, "limit": 1000, "closed": None} in one["models"]
    assert one["balance"] is not None
    assert not any(value in said for value in VALUES)


def test_a_refused_key_is_told_and_left_alone_until_it_is_tried_again_and_exits_1(simulator: Simulator) -> None:
    simulator.config(disabled_keys=[simulators_name(OTHER.value)])
    code, said = check()
    assert code == 1
    assert "refused, tried again in 1" in said
    assert ProviderKey.objects.get(fingerprint=OTHER.fingerprint).retry_at is not None
    assert ProviderKey.objects.get(fingerprint=GOOD.fingerprint).retry_at is None
    assert not any(value in said for value in VALUES)
    simulator.config(disabled_keys=[], advance_s=5)
    assert check()[0] == 0
    assert ProviderKey.objects.get(fingerprint=OTHER.fingerprint).retry_at is None


def test_an_empty_account_exits_1_and_opens_as_soon_as_it_is_topped_up(simulator: Simulator) -> None:
    configured_keys.sync()
    accounts.close_empty("runway", GOOD.fingerprint, "empty")
    simulator.config(credits={simulators_name(GOOD.value): 0})
    code, said = check("--provider", "runway", "--json")
    assert code == 1
    by_key = {one["fingerprint"]: one["verdict"] for one in json.loads(said)["keys"]}
    assert by_key == {GOOD.fingerprint: "out_of_credits", OTHER.fingerprint: "ok"}
    simulator.config(credits={simulators_name(GOOD.value): 50})
    assert check("--provider", "runway")[0] == 0
    assert not ProviderAccount.objects.exclude(closed_reason="").exists()


def test_limits_of_the_provider_are_taken_over(simulator: Simulator) -> None:
    simulator.config(limits={"gen4.5": 3})
    assert "gen4.5 0/3" in check("--provider", "runway")[1]


def test_an_unreachable_provider_exits_1(keys: Any) -> None:
    keys.PROVIDER_BASE_URLS = {**keys.PROVIDER_BASE_URLS, "kling": "http://127.0.0.1:9"}
    toolkit.cache_clear()
    code, said = check("--json")
    assert code == 1
    verdicts = {one["provider"]: one["verdict"] for one in json.loads(said)["keys"]}
    assert verdicts["kling"] == "unreachable"
    assert verdicts["runway"] == "ok"
    assert not any(value in said for value in VALUES)


def test_a_provider_that_is_too_busy_to_answer_exits_1() -> None:
    assert check("--provider", "kling")[0] == 0
    code, said = check("--provider", "kling", "--json")  # Kling allows one such call a second
    assert code == 1
    assert [one["verdict"] for one in json.loads(said)["keys"]] == ["busy"]


def test_no_key_at_all_exits_2(keys: Any) -> None:
    keys.PROVIDER_KEYS = {"runway": (), "pika": (), "kling": (PLAIN,)}
    toolkit.cache_clear()
    code, said = check("--provider", "runway")
    assert code == 2
    assert "RUNWAY_API_KEY" in said
    keys.PROVIDER_KEYS = {"runway": (), "pika": (), "kling": ()}
    toolkit.cache_clear()
    code, said = check("--json")
    assert code == 2
    assert "KLING_API_KEY" in said


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("check_providers", "--provider", "sora")
