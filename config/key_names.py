"""The web process knows the providers' keys by their fingerprints: it calls no provider, and strangers call it."""

from __future__ import annotations

from collections.abc import Mapping

from django.core.exceptions import ImproperlyConfigured

from config.names import KEY_FINGERPRINTS
from providers.api_keys import ApiKey, BadKeys, names_of, parse_names
from providers.registry import PROVIDERS


def without_values(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the names of the configured keys in place of their values.

    A key that can't be read stays, for the settings to refuse; while simulating they read none.
    """
    kept, found = dict(environment), parse(environment.get(KEY_FINGERPRINTS, ""))
    for provider in PROVIDERS:
        try:
            keys = provider.parse_keys(environment.get(provider.keys_setting, ""), variable=provider.keys_setting)
        except BadKeys:
            continue
        kept.pop(provider.keys_setting, None)
        if keys:
            found[provider.name] = keys
    return {**kept, **({KEY_FINGERPRINTS: names_of(found)} if found else {})}


def parse(text: str) -> dict[str, tuple[ApiKey, ...]]:
    """The keys that `without_values` left, by provider. Raises ImproperlyConfigured."""
    try:
        found = parse_names(text.strip(), variable=KEY_FINGERPRINTS)
    except BadKeys as err:
        raise ImproperlyConfigured(f"{err}.") from None
    known = {provider.name for provider in PROVIDERS}
    if not found.keys() <= known:
        raise ImproperlyConfigured(f"{KEY_FINGERPRINTS}: each entry must begin with one of {', '.join(sorted(known))}.")
    return found
