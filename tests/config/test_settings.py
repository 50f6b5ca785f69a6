"""What the environment may say, and how the start is stopped when it says something wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from psycopg_pool.base import AttemptWithBackoff

from config import names
from providers.api_keys import fingerprint
from tests.config.starting import ROOT, Ended, run


def load(tmp_path: Path, show: str = "'ok'", **variables: str) -> Ended:
    """Read the settings in a process of its own, and print."""
    script = tmp_path / "show.py"
    script.write_text(
        f"from config.start import read_settings\nread_settings()\nfrom django.conf import settings\nprint({show})\n"
    )
    return run(tmp_path, str(script), **{"DATABASE_URL": "", "CELERY_BROKER_URL": "", **variables})


BUCKET = {"STORAGE_URL": "s3://reels?region=eu-central-1"}
BAD = {
    "an unknown name of ours": ({"REELWORKS_SIMULAT": "1"}, "Did you mean REELWORKS_SIMULATE?"),
    "a near miss of a key": ({"RUNWAY_API_KEYS": "a"}, "the setting is called RUNWAY_API_KEY"),
    "another near miss": ({"KLING_APIKEY": "a"}, "the setting is called KLING_API_KEY"),
    "a key twice": ({"RUNWAY_API_KEY": "key_aaaaaaaa,key_aaaaaaaa"}, "RUNWAY_API_KEY"),
    "a port that is none": ({"PORT": "http"}, "PORT must be a whole number"),
    "a port out of range": ({"PORT": "70000"}, "PORT must be a whole number from 1 to 65,535"),
    "a flag that is none": ({"REELWORKS_SIMULATE": "perhaps"}, "REELWORKS_SIMULATE must be 1 or 0"),
    "another database": ({"DATABASE_URL": "sqlite:///x.db"}, "PostgreSQL only"),
    "a base URL that is none": ({"RUNWAY_BASE_URL": "api.example.com"}, "RUNWAY_BASE_URL must be"),
    "a short secret": ({"SECRET_KEY": "short"}, "SECRET_KEY must have at least 32"),
    "a webhook secret that is none": ({"KLING_WEBHOOK_SECRET": "key_aaaaaaaa"}, "KLING_WEBHOOK_SECRET must be whsec_"),
    "a webhook secret that can be guessed": (
        {"KLING_WEBHOOK_SECRET": "whsec_eA=="},
        "KLING_WEBHOOK_SECRET must have at",
    ),
    "a short key of tokens": ({"JWT_SIGNING_KEY": "x" * 31}, "JWT_SIGNING_KEY must have at least 32"),
    "a short former secret": ({"SECRET_KEY_FALLBACKS": f"{'x' * 40},short"}, "SECRET_KEY_FALLBACKS: each entry"),
    "webhook keys without TLS": ({"PIKA_WEBHOOK_JWKS_URL": "http://rest.fal.ai/jwks"}, "must be an https address"),
    "an origin with a path": ({"FRONTEND_ORIGINS": "https://a.example/app"}, "FRONTEND_ORIGINS"),
    "an odd SameSite": ({"COOKIE_SAMESITE": "some"}, "COOKIE_SAMESITE must be"),
    "a lease that is too long": ({"STAGE_LEASE_SECONDS": "60"}, "STAGE_LEASE_SECONDS must be a number from 1 to 20"),
    "a group that is none": ({"KEY_ACCOUNTS": "studio=key_aaaaaaaa"}, "KEY_ACCOUNTS: each entry must look like"),
    "a key where a fingerprint belongs": ({"KEY_ACCOUNTS": "runway:studio=key_aaaaaaaa"}, "must list names"),
    "a fingerprint of no key": (
        {"RUNWAY_API_KEY": "key_aaaaaaaa", "KEY_ACCOUNTS": "runway:studio=0123456789ab"},
        "KEY_ACCOUNTS names fingerprints that no configured key has: runway 0123456789ab",
    ),
    "a bucket without its region": ({"STORAGE_URL": "s3://reels"}, "STORAGE_URL needs a region"),
    "another kind of storage": ({"STORAGE_URL": "gs://reels"}, "STORAGE_URL must have the form s3://"),
    "half a key": ({**BUCKET, "AWS_ACCESS_KEY_ID": "a"}, "AWS_SECRET_ACCESS_KEY is missing beside AWS_ACCESS_KEY_ID"),
    "the other half": ({**BUCKET, "AWS_SECRET_ACCESS_KEY": "a"}, "AWS_ACCESS_KEY_ID is missing"),
    "a public endpoint that is none": (
        {**BUCKET, "STORAGE_PUBLIC_ENDPOINT": "cdn"},
        "STORAGE_PUBLIC_ENDPOINT must give",
    ),
    "a public endpoint of no bucket": ({"STORAGE_PUBLIC_ENDPOINT": "https://x.example"}, "STORAGE_URL is not"),
    "an offload to nobody": ({"STORAGE_OFFLOAD": "nginx"}, "STORAGE_OFFLOAD must be off, x-accel-redirect or"),
    "an offload without a place": (
        {"STORAGE_OFFLOAD": "x-sendfile:here"},
        "STORAGE_OFFLOAD must have an absolute path",
    ),
    "an offload of a bucket": ({**BUCKET, "STORAGE_OFFLOAD": "x-sendfile"}, "must be off with STORAGE_URL"),
    "a CDN that is none": ({**BUCKET, "STORAGE_CDN_URL": "cdn"}, "STORAGE_CDN_URL must be an address such as"),
    "a CDN's links without a CDN": ({**BUCKET, "STORAGE_CDN_LINKS": "plain"}, "STORAGE_CDN_URL is not"),
    "a CDN of no bucket": ({"STORAGE_CDN_URL": "https://x.example"}, "STORAGE_CDN_URL is set, but STORAGE_URL is not"),
    "links of no kind": (
        {**BUCKET, "STORAGE_CDN_URL": "https://x.example", "STORAGE_CDN_LINKS": "open"},
        "STORAGE_CDN_LINKS must be signed or plain",
    ),
    "an encryption that is none": ({**BUCKET, "STORAGE_ENCRYPTION": "rot13"}, "must be bucket, AES256 or aws:kms"),
    "a key for another encryption": (
        {**BUCKET, "STORAGE_ENCRYPTION": "AES256", "STORAGE_KMS_KEY": "alias/reels"},
        "STORAGE_ENCRYPTION is not aws:kms",
    ),
    "a key that is none": (
        {**BUCKET, "STORAGE_ENCRYPTION": "aws:kms", "STORAGE_KMS_KEY": "two words"},
        "STORAGE_KMS_KEY must be the id",
    ),
    "a class that takes hours": ({**BUCKET, "STORAGE_CLASS": "GLACIER"}, "read at once, such as GLACIER_IR"),
    "a class that is none": ({**BUCKET, "STORAGE_CLASS": "cheap"}, "STORAGE_CLASS must be the name of a class"),
    "a class of no bucket": ({"STORAGE_CLASS": "STANDARD_IA"}, "STORAGE_CLASS is set, but STORAGE_URL is not"),
    "links that S3 won't honour": (
        {**BUCKET, "LINK_LIFETIME_SECONDS": "500000"},
        "LINK_LIFETIME_SECONDS may be 483840",
    ),
    "a list of preloads without what it wants": (
        {"HSTS_PRELOAD": "1", "HSTS_INCLUDE_SUBDOMAINS": "1", "HSTS_SECONDS": "86400"},
        "HSTS_PRELOAD needs HSTS_INCLUDE_SUBDOMAINS=1 and HSTS_SECONDS=31536000",
    ),
    "a redirect that would go round": (
        {"HTTPS_REDIRECT": "1", "PUBLIC_BASE_URL": "https://video.example.com"},
        "HTTPS_REDIRECT needs BEHIND_TLS_PROXY=1",
    ),
    "a file that is not there": ({"REELWORKS_ENV_FILE": "nowhere.env"}, "nowhere.env"),
}


@pytest.mark.parametrize(("variables", "message"), BAD.values(), ids=BAD.keys())
def test_a_wrong_value_stops_the_start_and_names_the_variable(
    tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    done = load(tmp_path, **variables)
    done.is_one_sentence(message)
    assert "key_aaaaaaaa" not in done.said


def test_https_brings_its_cookies_and_its_redirect(tmp_path: Path) -> None:
    """A browser takes a cookie called __Host-… from this very host only, over TLS, for every path."""
    show = (
        "settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME, settings.SESSION_COOKIE_SECURE, "
        "settings.HSTS_SECONDS, settings.HTTPS_REDIRECT"
    )
    by_https = {"PUBLIC_BASE_URL": "https://video.example.com"}
    for variables, said in (
        ({}, "sessionid csrftoken False 0 False"),
        (by_https, "__Host-sessionid __Host-csrftoken True 86400 False"),
        ({**by_https, "BEHIND_TLS_PROXY": "1"}, "__Host-sessionid __Host-csrftoken True 86400 True"),
        ({**by_https, "COOKIE_SECURE": "0"}, "sessionid csrftoken False 86400 False"),
    ):
        assert load(tmp_path, show, **variables).said.strip() == said


def test_the_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "local.env"
    file.write_text("CREDITS_PER_VIDEO=7\nPORT=9001\n")
    done = load(tmp_path, "settings.CREDITS_PER_VIDEO, settings.PORT", REELWORKS_ENV_FILE=str(file), PORT="9002")
    assert done.said.split() == ["(7,", "9002)"] or done.said.strip() == "7 9002", done.said


def test_with_simulation_on_no_configured_key_or_address_is_even_looked_at(tmp_path: Path) -> None:
    done = load(
        tmp_path,
        "[k.value for ks in settings.PROVIDER_KEYS.values() for k in ks], settings.PROVIDER_BASE_URLS",
        REELWORKS_SIMULATE="1",
        RUNWAY_API_KEY="key_real",
        RUNWAY_BASE_URL="https://canary.example",
        PIKA_API_KEY="key_real",
        PIKA_BASE_URL="https://canary.example",
        KLING_API_KEY="a_real:b_real",
        KLING_BASE_URL="https://canary.example",
    )
    assert done.returncode == 0, done.said
    assert "real" not in done.said
    assert "canary" not in done.said


def test_call_backs_are_checked_with_the_simulators_keys_exactly_while_simulating(tmp_path: Path) -> None:
    show = "settings.PIKA_WEBHOOK_JWKS_URL, repr(settings.KLING_WEBHOOK_SECRET)"
    mine = {
        "PIKA_WEBHOOK_JWKS_URL": "http://127.0.0.1:7/jwks",
        "KLING_WEBHOOK_SECRET": "whsec_YSBzZWNyZXQgb2YgS2xpbmcncw==",
    }
    done = load(tmp_path, show, REELWORKS_SIMULATE="1", REELWORKS_SIMULATOR_URL="http://127.0.0.1:9", **mine)
    assert done.said.strip() == "http://127.0.0.1:9/.well-known/jwks.json ''", done.said
    # Plain http only from where the jobs go too.
    done = load(tmp_path, show, PIKA_BASE_URL="http://127.0.0.1:7", **mine)
    assert done.said.strip() == "http://127.0.0.1:7/jwks 'whsec_YSBzZWNyZXQgb2YgS2xpbmcncw=='", done.said
    done = load(tmp_path, show)
    assert done.said.strip() == "https://rest.fal.ai/.well-known/jwks.json ''", done.said


def test_keys_are_grouped_into_accounts_by_fingerprint(tmp_path: Path) -> None:
    group = f"runway:studio={fingerprint('key_real')}"
    done = load(tmp_path, "settings.KEY_ACCOUNTS", RUNWAY_API_KEY="key_real,key_other", KEY_ACCOUNTS=group)
    assert done.said.strip() == str({("runway", fingerprint("key_real")): "studio"}), done.said
    simulating = load(tmp_path, "settings.KEY_ACCOUNTS", KEY_ACCOUNTS=group, REELWORKS_SIMULATE="1")
    assert simulating.said.strip() == "{}", simulating.said


def test_with_a_real_key_nothing_is_simulated(tmp_path: Path) -> None:
    done = load(
        tmp_path,
        "settings.SIMULATE, {n: len(k) for n, k in settings.PROVIDER_KEYS.items()}, settings.PROVIDER_BASE_URLS",
        RUNWAY_API_KEY="key_real",
        REELWORKS_SIMULATOR_URL="http://127.0.0.1:9",
    )
    assert "False" in done.said
    assert "{'runway': 1, 'pika': 0, 'kling': 0}" in done.said
    assert "127.0.0.1" not in done.said


def test_keys_never_show_in_what_settings_print(tmp_path: Path) -> None:
    done = load(tmp_path, "settings.PROVIDER_KEYS", RUNWAY_API_KEY="key_very_secret")
    assert done.returncode == 0
    assert "very_secret" not in done.said


def test_the_bucket_and_its_keys_are_read_and_not_shown(tmp_path: Path) -> None:
    done = load(
        tmp_path,
        "settings.OBJECT_STORAGE, settings.OBJECT_STORAGE_FOR_CLIENTS.endpoint, settings.OBJECT_STORAGE_KEYS, "
        "settings.SCRATCH_PATH.relative_to(settings.STORAGE_LOCAL_PATH)",
        STORAGE_URL="s3://reels/prod?endpoint=http://10.0.0.5:9000",
        STORAGE_PUBLIC_ENDPOINT="https://videos.example.com",
        AWS_REGION="eu-north-1",
        AWS_ACCESS_KEY_ID="AKIATEST",
        AWS_SECRET_ACCESS_KEY="very_secret",
    )
    assert "s3://reels/prod https://videos.example.com" in done.said, done.said
    assert "AKIATEST" in done.said
    assert ".scratch" in done.said
    assert "very_secret" not in done.said


def test_what_objects_say_and_where_links_lead(tmp_path: Path) -> None:
    done = load(
        tmp_path,
        "settings.OBJECT_STORAGE_FOR_CLIENTS.cdn, settings.OBJECT_STORAGE_FOR_CLIENTS.plain_links, "
        "settings.OBJECT_STORAGE.cdn, settings.OBJECT_STORAGE_OPTIONS",
        **BUCKET,
        STORAGE_CDN_URL="https://CDN.example.com/v/",
        STORAGE_CDN_LINKS="plain",
        STORAGE_ENCRYPTION="aws:kms",
        STORAGE_KMS_KEY="alias/reels",
        STORAGE_CLASS="INTELLIGENT_TIERING",
        LINK_LIFETIME_SECONDS="900",
    )
    assert done.said.strip() == (
        "https://cdn.example.com/v True  ObjectOptions(encryption='aws:kms', kms_key_id='alias/reels', "
        "storage_class='INTELLIGENT_TIERING', kept_s=900, in_shared_caches=True)"
    )


def test_without_a_bucket_files_are_local_and_stray_keys_mean_nothing(tmp_path: Path) -> None:
    done = load(
        tmp_path, "settings.OBJECT_STORAGE, settings.OBJECT_STORAGE_KEYS", AWS_ACCESS_KEY_ID="of something else"
    )
    assert done.said.strip() == "None None", done.said


def test_the_generated_secret_is_private_and_stays(tmp_path: Path) -> None:
    first = load(tmp_path, "settings.SECRET_KEY").said
    assert first == load(tmp_path, "settings.SECRET_KEY").said
    assert len(first.strip()) >= 32
    assert (tmp_path / "home" / "secret_key").stat().st_mode & 0o077 == 0


def test_the_suite_lets_nothing_of_the_developers_environment_in(tmp_path: Path) -> None:
    file = tmp_path / "local.env"
    file.write_text("RUNWAY_API_KEY=key_real\nRUNWAY_BASE_URL=https://canary.example\n")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import tests.environment, os, django; from django.conf import settings;"
            "print(settings.SIMULATE, settings.PROVIDER_BASE_URLS, settings.EMBEDDED_DATABASE, "
            "[k.value for k in settings.PROVIDER_KEYS['runway']])",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "REELWORKS_ENV_FILE": str(file),
            "DATABASE_URL": "postgres://canary.example/db",
            "RUNWAY_API_KEY": "key_real",
            "RUNWAY_BASE_URL": "https://canary.example",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("True")
    assert "canary" not in done.stdout
    assert "real" not in done.stdout
    assert " True " in done.stdout


def test_names_that_only_look_a_little_alike_are_left_alone() -> None:
    names.refuse_misspelt(["RUNWAY_POLL_INTERVAL_SECONDS", "KLING_WEBHOOK_SECRET", "PIKA_WEBHOOK_JWKS_URL", "PATH"])
    with pytest.raises(ImproperlyConfigured):
        names.refuse_misspelt(["PIKA_API_KEYS"])


def test_a_database_that_was_away_for_long_is_asked_again_soon() -> None:
    pool = settings.DATABASES["default"]["OPTIONS"]["pool"]
    attempt, now, pauses = AttemptWithBackoff(timeout=pool["reconnect_timeout"]), 1.0, []
    while not attempt.time_to_give_up(now):
        attempt.update_delay(now)
        pauses.append(attempt.delay)
        now += attempt.delay
    # After giving up, the next request begins anew; one that waits already does so for `timeout` at most.
    assert max(pauses) <= 5
    assert pool["timeout"] <= 10


def test_a_window_of_one_provider_and_the_default_of_the_others_go_into_one_list(tmp_path: Path) -> None:
    # PostgreSQL's driver takes no list of whole and of other numbers, and reconcile passes these as one.
    show = "{type(value) for value in settings.UNKNOWN_WINDOW_SECONDS.values()}"
    assert load(tmp_path, show, PIKA_UNKNOWN_WINDOW_SECONDS="10").said.strip() == "{<class 'float'>}"
