"""Settings of what is told to those who watch: log lines, metrics, errors, traces."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from config import env as read
from config import logs, web_addresses
from config.env import Environment

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SAMPLERS = (
    *("always_on", "always_off", "traceidratio"),
    *("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
)
_ENVIRONMENT = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
LEAST_TOKEN = 16


def lines(env: Environment) -> tuple[str, str, dict[str, Any]]:
    """LOG_FORMAT, ACCESS_LOG (a line for all requests, for those answered with 400 or more, for none), LOGGING."""
    form = read.choice(env, "LOG_FORMAT", "text", among=("text", "json"))
    level = read.choice(env, "LOG_LEVEL", "INFO", among=_LEVELS)
    return form, read.choice(env, "ACCESS_LOG", "all", among=("all", "errors", "off")), logs.configured(level, form)


def token(env: Environment) -> str:
    """METRICS_TOKEN, what a scraper of /metrics has to send; "": see `video.monitoring.metrics_page`."""
    found = read.token(env, "METRICS_TOKEN")
    if found and len(found) < LEAST_TOKEN:
        raise ImproperlyConfigured(f"METRICS_TOKEN must have at least {LEAST_TOKEN} characters.")
    return found


def errors(env: Environment) -> tuple[str, str]:
    """SENTRY_DSN and SENTRY_ENVIRONMENT."""
    dsn = read.token(env, "SENTRY_DSN")
    if dsn and not _is_dsn(dsn):
        raise ImproperlyConfigured(
            "SENTRY_DSN must be the DSN of a project, as its settings show it: https://<key>@<host>/<number>."
        )
    environment = read.text(env, "SENTRY_ENVIRONMENT", "production")
    if _ENVIRONMENT.fullmatch(environment) is None:
        raise ImproperlyConfigured("SENTRY_ENVIRONMENT must be up to 64 letters, digits, dots, underscores and dashes.")
    return dsn, environment


def _is_dsn(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("https", "http")
            and bool(parts.hostname and parts.username)
            and (parts.port or 1) > 0
            and re.fullmatch(r"[0-9]+", parts.path.rpartition("/")[2]) is not None
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        return False


def traces(env: Environment) -> bool:
    """Whether traces are written: OpenTelemetry's own variables name a collector, and do not switch it off.

    The SDK reads them by itself. Here they are checked, since it takes what is wrong for the default, with a warning.
    """
    collectors = [
        read.address(env, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", read=web_addresses.plain),
        read.address(env, "OTEL_EXPORTER_OTLP_ENDPOINT", "", read=web_addresses.plain),
    ]
    read.choice(env, "OTEL_TRACES_SAMPLER", "parentbased_always_on", among=_SAMPLERS)
    read.number(env, "OTEL_TRACES_SAMPLER_ARG", 1, least=0, most=1)
    read.text(env, "OTEL_SERVICE_NAME", "reelworks")
    is_off = read.flag(env, "OTEL_SDK_DISABLED")
    return any(collectors) and not is_off
