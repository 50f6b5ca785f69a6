"""Kling's keys: plain for the newer standard, `accessKey:secretKey` for the older one."""

from __future__ import annotations

from providers.api_keys import ApiKey, BadKeys, parse_keys


def parse_kling_keys(text: str, *, variable: str = "KLING_API_KEY") -> tuple[ApiKey, ...]:
    """`parse_keys` for Kling, where a key is plain or `accessKey:secretKey`. Raises BadKeys."""
    keys = parse_keys(text, variable=variable)
    for key in keys:
        parts = key.value.split(":")
        if len(parts) > 2 or not all(parts):
            raise BadKeys(
                f"{variable}: the key with fingerprint {key.fingerprint} must be plain or accessKey:secretKey"
            )
    return keys
