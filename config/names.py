"""The names of all settings that may come from outside, and how a slip in one is told."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.core.exceptions import ImproperlyConfigured

from providers.registry import PROVIDERS

#: Stands for the keys in the web process, which has no values of them: see config/key_names.py.
KEY_FINGERPRINTS = "REELWORKS_KEY_FINGERPRINTS"

# Every REELWORKS_* name that means something; any other stops the start, since it is a typing error.
REELWORKS_NAMES = frozenset(
    {
        "REELWORKS_HOME",  # where embedded servers, logs and the generated secret live
        "REELWORKS_SIMULATE",  # 1: every provider is the simulator, all keys are ignored
        "REELWORKS_SIMULATOR_URL",  # where the simulator listens; set by `manage.py up`
        "REELWORKS_ENV_FILE",  # the file read beside the environment; empty: none
        KEY_FINGERPRINTS,
        "REELWORKS_FAILPOINT",  # crash tests only, see video/infra/failpoints.py
        "REELWORKS_REQUIRE_BROWSER",  # tests: a missing Chromium is an error, not a skip
    }
)
KEY_NAMES = tuple(provider.keys_setting for provider in PROVIDERS)
BASE_URL_NAMES = tuple(provider.base_url_setting for provider in PROVIDERS)
#: What the names of providers' own settings begin with.
PREFIXES = tuple(provider.prefix for provider in PROVIDERS)

_PROVIDERS = "SUBMIT_TIMEOUT_SECONDS READ_TIMEOUT_SECONDS LOOKUP_SECONDS RETRY_UNKNOWN_SUBMITS CIRCUIT_FAULTS \
    SLOTS_PER_KEY KEY_ACCOUNTS WAIT_DEADLINE_SECONDS TASK_DEADLINE_SECONDS PRIVATE_HOSTS_ALLOWED SIMULATOR_PORT"
_WEBHOOKS = "WEBHOOK_TIMEOUT_SECONDS WEBHOOK_KEEP_DAYS WEBHOOK_PRIVATE_HOSTS ALERT_URLS ALERT_SECRET \
    ALERT_AFTER_SECONDS"
_EACH_PROVIDER = "POLL_INTERVAL_SECONDS POLL_REQUESTS_PER_SECOND UNKNOWN_WINDOW_SECONDS"
_WEB = "PORT HOST PUBLIC_BASE_URL ALLOWED_HOSTS FRONTEND_ORIGINS BEHIND_TLS_PROXY TRUSTED_PROXIES HSTS_SECONDS \
    HSTS_INCLUDE_SUBDOMAINS HSTS_PRELOAD HTTPS_REDIRECT COOKIE_NAME COOKIE_SECURE COOKIE_SAMESITE LOGIN_DAYS \
    JWT_AUDIENCE JWT_ISSUERS SECRET_KEY SECRET_KEY_FALLBACKS JWT_SIGNING_KEY JWT_ACCESS_MINUTES DEBUG LOG_LEVEL \
    NO_COLOR WEB_THREADS ADMIN_SECOND_FACTOR REQUESTS_PER_MINUTE REQUESTS_PER_MINUTE_PER_KEY SIGN_UP SIGN_UP_CREDITS \
    EMAIL_URL EMAIL_FROM PASSWORD_RESET_MINUTES"
_TELEMETRY = "LOG_FORMAT ACCESS_LOG METRICS_TOKEN SENTRY_DSN SENTRY_ENVIRONMENT OTEL_EXPORTER_OTLP_ENDPOINT \
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_SERVICE_NAME OTEL_SDK_DISABLED OTEL_TRACES_SAMPLER OTEL_TRACES_SAMPLER_ARG"
_SERVERS = "DATABASE_URL CELERY_BROKER_URL DATABASE_WAIT_SECONDS VIDEO_CONCURRENCY MEDIA_CONCURRENCY"
_PIPELINE = "CREDITS_PER_VIDEO CREDIT_USD UNIT_USD \
    STAGE_LEASE_SECONDS DRAIN_SECONDS WATCHDOG_SECONDS STORAGE_LOCAL_PATH SCRATCH_PATH \
    STORAGE_FILE_MODE STORAGE_OFFLOAD MIN_FREE_BYTES MAX_WAITING_PER_USER MAX_WAITING LINK_LIFETIME_SECONDS \
    REPEAT_WINDOW_SECONDS \
    KEEP_SOURCE_DAYS KEEP_VIDEOS_DAYS MAX_STORED_BYTES_PER_USER KEEP_FAILED_DAYS MAX_SOURCE_BYTES \
    DOWNLOAD_TIMEOUT_SECONDS DOWNLOAD_RETRY_SECONDS TRANSCODE_TIMEOUT_SECONDS FFMPEG_BINARY FFMPEG_THREADS \
    MEDIA_ISOLATION KEEP_LONG_SOUND LABEL_PRODUCER LABEL_MARK LABEL_FONT COVER EXTRAS CREDITS_PER_RENDER \
    UPLOAD_MAX_BYTES UPLOAD_QUOTA_BYTES UPLOAD_KEEP_HOURS IMAGE_TIMEOUT_SECONDS"
_OBJECT_STORAGE = "STORAGE_URL STORAGE_PUBLIC_ENDPOINT STORAGE_CDN_URL STORAGE_CDN_LINKS STORAGE_ENCRYPTION \
    STORAGE_KMS_KEY STORAGE_CLASS AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN \
    AWS_REGION AWS_DEFAULT_REGION"

#: Every setting. docs/configuration.md has a row for each, and a test holds the two equal.
KNOWN = frozenset(
    (
        *REELWORKS_NAMES,
        *KEY_NAMES,
        *BASE_URL_NAMES,
        *(provider.callbacks.setting.name for provider in PROVIDERS if provider.callbacks is not None),
        *" ".join(
            (_PROVIDERS, _WEBHOOKS, _EACH_PROVIDER, _WEB, _SERVERS, _PIPELINE, _OBJECT_STORAGE, _TELEMETRY)
        ).split(),
        *(f"{prefix}{name}" for prefix in PREFIXES for name in _EACH_PROVIDER.split()),
    )
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def is_name(text: str) -> bool:
    """Whether an environment variable of a shell can be called so."""
    return _NAME.fullmatch(text) is not None


def nearest(name: str) -> str:
    """The setting that was meant by a name that is no setting: another case, or a slip of a letter or two; else ""."""
    upper = name.upper()
    if upper in KNOWN:
        return upper
    found = [(_distance(upper, known), known) for known in sorted(KNOWN) if abs(len(known) - len(upper)) <= 2]
    distance, known = min(found, default=(99, ""))
    return known if distance <= (1 if len(known) < 10 else 2) else ""


def _distance(one: str, other: str) -> int:
    """How many letters were left out, added, mistaken or swapped with their neighbour (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            least = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                least = min(least, before[j - 2] + 1)
            row.append(least)
        before, last = last, row
    return last[-1]


def refuse_misspelt(names: Iterable[str]) -> None:
    """Raise for a name of the environment that is ours by its prefix and no setting (RUNWAY_APIKEY, REELWORKS_HOM).

    Other names are other programs' own. What begins with a provider's prefix may be too, unless a setting is near.
    """
    for name in names:
        upper = name.upper()
        if name in KNOWN or not upper.startswith(("REELWORKS_", *PREFIXES)):
            continue
        near = nearest(name)
        if upper.startswith("REELWORKS_"):
            hint = f" Did you mean {near}?" if near else ""
            raise ImproperlyConfigured(f"{name} is set, but Reelworks knows no such setting.{hint}")
        if near:
            raise ImproperlyConfigured(f"{name} is set, but the setting is called {near}.")


def problem_in_file(name: str) -> str:
    """What is wrong with a name in the file, without quoting it; "" for a setting, and for another program's name.

    The file is ours, so more is refused than in the environment: whatever is near a setting, and all with a prefix of
    ours.
    """
    if name == "REELWORKS_ENV_FILE":
        return "REELWORKS_ENV_FILE says which file is read, so it can only be set outside of it"
    if name in KNOWN:
        return ""
    if near := nearest(name):
        return f"the setting is called {near}"
    prefix = next((one for one in ("REELWORKS_", *PREFIXES) if name.upper().startswith(one)), "")
    return (
        f"Reelworks knows no setting of this name; docs/configuration.md lists those with {prefix}…" if prefix else ""
    )
