"""Slips in the names of settings: told in the file, and in the environment where the name is ours by its prefix."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import names


@pytest.mark.parametrize("name", sorted(names.KNOWN))
def test_every_setting_is_told_by_small_letters_a_letter_less_more_or_swapped(name: str) -> None:
    slips = [name.lower(), name.title(), name + "S", name[:-2] + name[-1] + name[-2]]
    slips += [name.replace("_", "", 1)] if "_" in name else []
    for slip in slips:
        if slip not in names.KNOWN:
            assert names.nearest(slip) in names.KNOWN  # for a few it is a neighbour, such as MAX_WAITING
            assert names.problem_in_file(slip)
    assert names.nearest(name.lower()) == name
    assert names.problem_in_file(name) == "" or name == "REELWORKS_ENV_FILE"


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "PGPORT", "PGHOST", "SENTRY_DSN", "AWS_PROFILE", "AWS_DEFAULT_OUTPUT", "HTTPS_PROXY", "TZ", "LANG",
     "DJANGO_SETTINGS_MODULE", "CELERY_RESULT_BACKEND", "DATABASE_URL_READONLY", "POSTGRES_PASSWORD", "REDIS_URL",
     "WEB_CONCURRENCY", "FAL_KEY", "OPENAI_API_KEY", "SSL_CERT_FILE", "TMPDIR", "COMPOSE_PROJECT_NAME", "DB_HOST"],
)  # fmt: skip
def test_names_of_other_programs_may_stand_in_the_file(name: str) -> None:
    assert names.problem_in_file(name) == ""


def test_in_the_environment_only_names_with_our_prefixes_are_looked_at() -> None:
    names.refuse_misspelt(["DATABASE_URI", "port", "SECRETKEY", "KLING_CLI_TOKEN", "RUNWAY_HOME", "PIKA", *names.KNOWN])
    for slip in ("RUNWAY_APIKEY", "runway_api_key", "Kling_Base_Url", "PIKA_BASE_URI", "reelworks_home", "REELWORKS_X"):
        with pytest.raises(ImproperlyConfigured, match=f"^{slip} is set, but"):
            names.refuse_misspelt([slip])
