"""From a simulation to real keys and back: what was concluded from the one says nothing of the other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from providers.registry import BY_NAME, PROVIDERS
from tests.factories import accepted, make_task
from video.attempts import configured_keys
from video.models import Circuit, Generation, ProviderAccount, ProviderKey
from video.routing import health

pytestmark = pytest.mark.django_db
KEYS, ACCOUNTS = "/admin/video/providerkey/", "/admin/video/provideraccount/"
REAL, SIMULATED = f"key_{'1' * 124}0003", "simulated-runway-key"


def use(settings: Any, text: str, *, simulate: bool) -> None:
    """The settings as of a new start."""
    settings.SIMULATE = simulate
    keys = BY_NAME["runway"].parse_keys(text, variable="RUNWAY_API_KEY")
    settings.PROVIDER_KEYS = {"runway": keys, "pika": (), "kling": ()}
    settings.PROVIDER_BASE_URLS = {
        one.name: "http://127.0.0.1:8900" if simulate else one.default_base_url for one in PROVIDERS
    }
    configured_keys.open_slots()


def shown(client: Client, url: str) -> set[str]:
    words = {"simulator", "1st of RUNWAY_API_KEY, ends in …0003"}
    return {one for one in words if f">{one}<" in client.get(url).content.decode()}


def test_each_hides_the_rows_of_the_other_and_begins_with_closed_circuits(settings: Any, client: Client) -> None:
    client.force_login(get_user_model().objects.create_superuser("olga"))
    simulator, real = {"simulator"}, {"1st of RUNWAY_API_KEY, ends in …0003"}
    ProviderKey.objects.all().delete()
    for _ in range(2):  # there and back, and again
        for text, simulate, in_use in (("simulator=" + SIMULATED, True, simulator), (REAL, False, real)):
            use(settings, text, simulate=simulate)
            assert not Circuit.objects.filter(faults__gt=0).exists()
            assert (shown(client, KEYS), shown(client, ACCOUNTS)) == (in_use, in_use)
            health.note_fault("gen4.5", "runway", "HTTP 500")
            use(settings, text, simulate=simulate)
            assert Circuit.objects.filter(faults=1).exists()  # a new start of the same is no news
    for url in (KEYS, ACCOUNTS):
        assert shown(client, f"{url}?former=all") == simulator | real


def test_a_key_on_which_jobs_hang_stays_in_sight(settings: Any, client: Client) -> None:
    client.force_login(get_user_model().objects.create_superuser("olga"))
    use(settings, REAL, simulate=False)
    generation = accepted(make_task())
    assert not generation.simulated
    use(settings, "simulator=" + SIMULATED, simulate=True)
    assert len(shown(client, KEYS)) == len(shown(client, ACCOUNTS)) == 2
    assert ProviderKey.objects.get(fingerprint=generation.key_fingerprint).gone_since is not None
    use(settings, REAL, simulate=False)  # and its job goes on
    assert ProviderKey.objects.get(fingerprint=generation.key_fingerprint).gone_since is None
    assert Generation.objects.get(pk=generation.pk).state == "accepted"


def test_another_key_at_the_same_address_says_nothing_of_the_models(settings: Any) -> None:
    use(settings, REAL, simulate=False)
    Circuit.objects.create(model="gen4.5", provider="runway", faults=3, open_until=timezone.now() + timedelta(hours=1))
    use(settings, "key_" + "2" * 128, simulate=False)
    assert Circuit.objects.get().faults == 3
    assert ProviderAccount.objects.filter(model="gen4.5").count() == 2
