"""What keys and accounts are called, in every place that shows one."""

from __future__ import annotations

import json
from contextlib import suppress
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client

from providers.registry import BY_NAME
from tests.factories import accepted, make_task
from video.attempts import configured_keys
from video.models import Generation, ProviderAccount, ProviderKey
from video.monitoring import overview
from video.routing import key_labels

pytestmark = pytest.mark.django_db

SECRET = f"key_{'4' * 124}0003"
STUDIO, THIRD, GROUPED = "studio", "2nd of RUNWAY_API_KEY, ends in …0003", "main"


@pytest.fixture
def keys(settings: Any) -> tuple[str, str, str]:
    """Three keys of Runway: one with a name, one without, one in a group. Their fingerprints."""
    parsed = BY_NAME["runway"].parse_keys(
        f"studio:key_of_the_first,{SECRET},backup=key_of_a_group", variable="RUNWAY_API_KEY"
    )
    settings.PROVIDER_KEYS = {"runway": parsed, "pika": (), "kling": ()}
    one, two, three = (key.fingerprint for key in parsed)
    settings.KEY_ACCOUNTS = {("runway", three): "main"}
    configured_keys.sync()
    return one, two, three


def test_of_keys_and_accounts(keys: tuple[str, str, str]) -> None:
    one, two, three = keys
    assert [key_labels.of("runway", each) for each in keys] == [STUDIO, THIRD, "backup"]
    assert key_labels.of_account("runway", one) == STUDIO
    assert key_labels.of_account("runway", two) == THIRD
    assert key_labels.of_account("runway", "main") == "main"
    assert key_labels.of("runway", "0" * 12) == "0" * 12  # of which nothing is known
    assert key_labels.every() == {("runway", one): STUDIO, ("runway", two): THIRD, ("runway", three): "backup"}


def test_a_key_that_is_gone_keeps_its_last_label(
    keys: tuple[str, str, str], settings: Any, django_assert_num_queries: Any
) -> None:
    generation = accepted(make_task(model_requested="gen4.5"))
    Generation.objects.filter(pk=generation.pk).update(key_fingerprint=keys[1], simulated=False)
    settings.PROVIDER_KEYS = {**settings.PROVIDER_KEYS, "runway": settings.PROVIDER_KEYS["runway"][:1]}
    settings.KEY_ACCOUNTS = {}
    configured_keys.sync()
    with django_assert_num_queries(1):
        assert key_labels.of("runway", keys[1]) == THIRD
    with django_assert_num_queries(1):
        (row,) = key_labels.with_labels(Generation.objects.all())
        assert key_labels.of_generation(row) == f"{THIRD} (gone)"
    (problem,) = [one for one in overview.read().problems if one.code == "key_gone"]
    assert problem.sentence.startswith(f'Key "{THIRD}" of runway is gone from the settings')


def test_a_new_name_is_stored_at_the_next_sync(keys: tuple[str, str, str], settings: Any) -> None:
    renamed = BY_NAME["runway"].parse_keys("team-a=key_of_the_first", variable="RUNWAY_API_KEY")
    settings.PROVIDER_KEYS = {**settings.PROVIDER_KEYS, "runway": renamed}
    configured_keys.sync()
    assert ProviderKey.objects.get(fingerprint=keys[0]).label == "team-a"
    assert ProviderKey.objects.count() == 3  # the fingerprint is what it is known by


def test_every_page_command_and_answer_calls_a_key_the_same(keys: tuple[str, str, str], client: Client) -> None:
    generation = accepted(make_task(model_requested="gen4.5"))
    account = ProviderAccount.objects.get(account=keys[1], model="gen4.5")
    Generation.objects.filter(pk=generation.pk).update(key_fingerprint=keys[1], account=account)
    ProviderKey.objects.filter(fingerprint=keys[0]).update(state="quarantined")
    client.force_login(get_user_model().objects.create_superuser("olga"))
    for page in (
        "providerkey/", "provideraccount/", "generation/", f"generation/{generation.pk}/change/",
        f"videotask/{generation.task_id}/change/", f"generation/open-cases/{generation.pk}/", "../queues/",
    ):  # fmt: skip
        answer = client.get(f"/admin/video/{page}" if page[0] != "." else "/admin/queues/")
        assert answer.status_code == 200, page
        assert THIRD in answer.content.decode(), page
        assert SECRET not in answer.content.decode(), page
        assert "40003" not in answer.content.decode(), page
    for command in (["queue_status"], ["reconcile", generation.pk, "--dry-run"]):
        for asked in (command, [*command, "--json"]):
            said = StringIO()
            with suppress(SystemExit):
                call_command(*asked, stdout=said)
            assert THIRD.split(",")[0] in " ".join(said.getvalue().split()), asked
    told = json.loads(said.getvalue())["cases"][0]
    assert (told["keyFingerprint"], told["keyLabel"]) == (keys[1], THIRD)
    sentences = [one.sentence for one in overview.read().problems]
    assert 'runway refused key "studio" again and again.' in sentences
