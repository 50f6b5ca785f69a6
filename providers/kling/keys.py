"""Reading KLING_API_KEY, where a key is plain or a pair."""

from __future__ import annotations

import re

from providers.api_keys import ApiKey, BadKeys, entries, parse_keys, split_name

#: Two keys with one separator between them; not a header's word and a key, which `parse_keys` tells better.
_TWO_HALVES = re.compile(
    r"(?!(?:bearer|key|token|basic)\s)(?P<one>[\w.-]+)(?P<separator>\s*[|;:/\\]\s*|\s+)(?P<other>[\w.-]+)",
    re.ASCII | re.IGNORECASE,
)


def parse_kling_keys(text: str, *, variable: str = "KLING_API_KEY") -> tuple[ApiKey, ...]:
    """`parse_keys` for Kling, where a key is plain or `accessKey:secretKey`. Raises BadKeys."""
    for place, entry in entries(text):
        if _is_pair_with_another_separator(split_name(entry, pairs=True)[1]):
            raise BadKeys(
                f"{variable}: key {place} of the list looks like an access key and a secret key; "
                "write them as accessKey:secretKey, with a colon and no blank"
            )
    keys = parse_keys(text, variable=variable, pairs=True)
    for key in keys:
        parts = key.value.split(":")
        if len(parts) > 2 or not all(parts):
            raise BadKeys(
                f"{variable}: key {key.place} of the list must be plain or accessKey:secretKey, either with a name "
                "and = before it"
            )
    return keys


def _is_pair_with_another_separator(text: str) -> bool:
    """`ak|sk`, `ak;sk`, `ak sk`, `ak : sk`. A plain key may have a slash, so `ak/sk` counts with equal halves only."""
    match = _TWO_HALVES.fullmatch(text)
    if match is None or match["separator"] == ":":
        return False
    return match["separator"] != "/" or len(match["one"]) == len(match["other"])
