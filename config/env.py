"""Reads the environment and `.env.local`, and stops the start with a plain sentence when something in it is wrong.

A wrong value found at three in the morning, in the middle of a job, is worse than a service that doesn't start.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from providers.registry import PROVIDERS

# Every REELWORKS_* name that means something; any other stops the start, since it is a typing error.
REELWORKS_NAMES = frozenset(
    {
        "REELWORKS_HOME",  # where embedded servers, logs and the generated secret live
        "REELWORKS_SIMULATE",  # 1: every provider is the simulator, all keys are ignored
        "REELWORKS_SIMULATOR_URL",  # where the simulator listens; set by `manage.py up`
        "REELWORKS_ENV_FILE",  # the file read beside the environment; empty: none
        "REELWORKS_FAILPOINT",  # crash tests only, see video/infra/failpoints.py
        "REELWORKS_REQUIRE_BROWSER",  # tests: a missing Chromium is an error, not a skip
    }
)
KEY_NAMES = tuple(provider.keys_setting for provider in PROVIDERS)
BASE_URL_NAMES = tuple(provider.base_url_setting for provider in PROVIDERS)
_PREFIXES = tuple(provider.prefix for provider in PROVIDERS)


def load(root: Path) -> environ.Env:
    """The environment with `.env.local` (or REELWORKS_ENV_FILE) laid under it; what is exported wins."""
    name = os.environ.get("REELWORKS_ENV_FILE", ".env.local")
    if name:
        path = Path(name) if Path(name).is_absolute() else root / name
        if path.is_file():
            environ.Env.read_env(path, overwrite=False)
        elif "REELWORKS_ENV_FILE" in os.environ:
            raise ImproperlyConfigured(f"REELWORKS_ENV_FILE names {path}, which is not there.")
    refuse_misspelt(os.environ)
    return environ.Env()


def refuse_misspelt(names: Iterable[str]) -> None:
    """Raise for an unknown REELWORKS_* name, or one that nearly is a provider's key (RUNWAY_APIKEY, KLING_API_KEYS)."""
    for name in names:
        if name.startswith("REELWORKS_") and name not in REELWORKS_NAMES:
            near = difflib.get_close_matches(name, REELWORKS_NAMES, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ImproperlyConfigured(f"{name} is set, but Reelworks knows no such setting.{hint}")
        if name in KEY_NAMES or name in BASE_URL_NAMES or not name.startswith(_PREFIXES):
            continue
        near = difflib.get_close_matches(name, KEY_NAMES, n=1, cutoff=0.88)
        if near:
            raise ImproperlyConfigured(f"{name} is set, but the setting is called {near[0]}.")


def number(env: environ.Env, name: str, default: float, *, least: float, most: float) -> float:
    """A number between `least` and `most`, both allowed; the message names the variable."""
    raw = env.str(name, default="")
    if not raw:
        return float(default)  # as a configured one would be: the database takes no list of both kinds
    try:
        value = float(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a number, not {raw!r}.") from None
    if not least <= value <= most:
        raise ImproperlyConfigured(f"{name} must be between {least:g} and {most:g}, not {raw}.")
    return value


def flag(env: environ.Env, name: str, *, default: bool = False) -> bool:
    """1/0, true/false, yes/no, on/off; anything else stops the start."""
    raw = env.str(name, default="").strip().lower()
    if not raw:
        return default
    if raw in {"1", "true", "yes", "on"}:
        return True
    if raw in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name} must be 1 or 0, not {raw!r}.")


def origin(env: environ.Env, name: str, default: str) -> str:
    """A base URL, http or https, without a trailing slash."""
    raw = env.str(name, default="") or default
    if not raw:
        return ""
    parts = urlsplit(raw)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ImproperlyConfigured(f"{name} must be a plain http(s) address such as https://api.example.com.")
    return raw.rstrip("/")


def numbers(env: environ.Env, name: str, default: str) -> tuple[float, ...]:
    """One or more growing numbers, separated by commas."""
    try:
        found = tuple(float(word) for word in words(env, name, default))
    except ValueError:
        found = ()
    if not found or found[0] < 0 or list(found) != sorted(found):
        raise ImproperlyConfigured(f"{name} must be growing numbers separated by commas, such as {default}.")
    return found


def words(env: environ.Env, name: str, default: str = "") -> list[str]:
    """A comma-separated list, blanks dropped."""
    return [word.strip() for word in env.str(name, default=default).split(",") if word.strip()]
