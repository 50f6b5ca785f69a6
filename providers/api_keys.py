"""API keys: reading the comma-separated lists, naming a key without showing it, grouping keys into accounts.

A key's value leaves this module only through `ApiKey.value`, which adapters put into a header. Everything else (rows,
log lines, admin pages, metrics) names a key by its fingerprint. Limits belong to a provider's account, and each key is
its own account unless `KEY_ACCOUNTS` groups some:

    RUNWAY_API_KEY=key_aaa,key_bbb,key_ccc
    KEY_ACCOUNTS=runway:studio=1f2e3d4c5b6a|a6b5c4d3e2f1,kling:main=0123456789ab

Groups name fingerprints, not positions: a list that is edited or sorted must not hand one account's count to another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

#: Hex digits of a fingerprint: 48 bits, enough to tell an operator's keys apart and far too few to find one.
FINGERPRINT_LENGTH = 12

_DOMAIN = b"reelworks-api-key:"  # so that a fingerprint equals no plain sha256 that was published elsewhere
_ACCOUNT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GROUP = re.compile(r"(?P<provider>[a-z]+):(?P<account>[^=:]+)=(?P<prints>.+)")
_NAME = re.compile(rf"(?P<provider>[a-z]+)/(?P<fingerprint>[0-9a-f]{{{FINGERPRINT_LENGTH}}})/(?P<shape>[x:]+)")
# What a bearer token may have (RFC 6750, section 2.1, "b64token"), and the colon of fal's and Kling's pairs.
_KEY = re.compile(r"[A-Za-z0-9._~+/:=-]+", re.ASCII)
_MOST_CHARACTERS = 2048
_SCHEME = re.compile(r"(authorization:?\s*)?(bearer|key|token|basic)\s+", re.ASCII | re.IGNORECASE)


class BadKeys(ValueError):
    """A key list or grouping that must stop the start. The message names the variable and no key."""


def fingerprint(value: str) -> str:
    """The public name of a key: the first 12 hex digits of a domain-separated sha256."""
    return hashlib.sha256(_DOMAIN + value.encode()).hexdigest()[:FINGERPRINT_LENGTH]


class ValueWithheld(RuntimeError):
    """This process knows the key by its fingerprint only."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key. Shows its fingerprint wherever it may be printed, and refuses to be pickled (so to enter a message)."""

    _value: str = field(repr=False, compare=False)
    fingerprint: str = field(init=False)
    #: Tells what kind of key it is in place of the key: `x`, or `x:x` for one of two halves.
    shape: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self._value))
        object.__setattr__(self, "shape", re.sub("[^:]+", "x", self._value))

    @classmethod
    def named(cls, fingerprint: str, shape: str) -> ApiKey:
        """A key without its value: for a process that calls no provider."""
        key = cls("")
        object.__setattr__(key, "fingerprint", fingerprint)
        object.__setattr__(key, "shape", shape)
        return key

    @property
    def value(self) -> str:
        """The key itself. Raises ValueWithheld where only its fingerprint is known."""
        if not self._value:
            raise ValueWithheld(f"the value of the key {self.fingerprint} is not known to this process")
        return self._value

    def __copy__(self) -> ApiKey:
        return self

    def __deepcopy__(self, memo: object) -> ApiKey:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an ApiKey is not pickled: send its fingerprint")


def parse_keys(text: str, *, variable: str) -> tuple[ApiKey, ...]:
    """The keys of one comma-separated variable, in order; none for an empty text.

    `variable` is the variable's name, for messages. Raises BadKeys.
    """
    found: list[ApiKey] = []
    for position, part in enumerate(text.split(","), start=1):
        value = part.strip()
        if not value:
            continue
        _check(value, f"{variable}: key {position} of the list")
        key = ApiKey(value)
        if key in found:
            raise BadKeys(f"{variable}: the key with fingerprint {key.fingerprint} is in the list twice")
        found.append(key)
    return tuple(found)


def parse_key_accounts(text: str, *, variable: str = "KEY_ACCOUNTS") -> dict[tuple[str, str], str]:
    """`provider:account=fingerprint|fingerprint,…` as (provider, fingerprint) → account. Raises BadKeys."""
    accounts: dict[tuple[str, str], str] = {}
    for position, part in enumerate(text.split(","), start=1):
        entry = part.strip()
        if not entry:
            continue
        match = _GROUP.fullmatch(entry)
        # The entry itself is not quoted: somebody may have put keys where fingerprints belong.
        if match is None or not _ACCOUNT_NAME.fullmatch(match["account"].strip()):
            raise BadKeys(
                f"{variable}: each entry must look like runway:studio=<fingerprint>|<fingerprint>, entry {position} too"
            )
        account = match["account"].strip()
        for fp in (one.strip().lower() for one in match["prints"].split("|")):
            if not re.fullmatch(rf"[0-9a-f]{{{FINGERPRINT_LENGTH}}}", fp):
                raise BadKeys(
                    f"{variable}: entry {position} must list fingerprints of {FINGERPRINT_LENGTH} hex digits, not keys"
                )
            if (match["provider"], fp) in accounts:
                raise BadKeys(f"{variable}: fingerprint {fp} is listed twice")
            accounts[match["provider"], fp] = account
    return accounts


def names_of(keys: Mapping[str, Iterable[ApiKey]]) -> str:
    """`runway/1f2e3d4c5b6a/x,…`: the keys of each provider without their values, as `parse_names` takes it."""
    return ",".join(f"{provider}/{key.fingerprint}/{key.shape}" for provider in keys for key in keys[provider])


def parse_names(text: str, *, variable: str) -> dict[str, tuple[ApiKey, ...]]:
    """What `names_of` wrote, by provider. Raises BadKeys."""
    found: dict[str, tuple[ApiKey, ...]] = {}
    for position, part in enumerate(filter(None, text.split(",")), start=1):
        match = _NAME.fullmatch(part)
        if match is None:
            raise BadKeys(f"{variable}: entry {position} must look like runway/<fingerprint>/x")
        key = ApiKey.named(match["fingerprint"], match["shape"])
        found[match["provider"]] = (*found.get(match["provider"], ()), key)
    return found


def account_of(provider: str, key: ApiKey, accounts: Mapping[tuple[str, str], str]) -> str:
    """The account that a key's limits belong to: its group's name, else its own fingerprint."""
    return accounts.get((provider, key.fingerprint), key.fingerprint)


def unmatched(
    accounts: Mapping[tuple[str, str], str], keys: Mapping[str, Iterable[ApiKey]]
) -> tuple[tuple[str, str], ...]:
    """The (provider, fingerprint) pairs that are grouped but belong to no configured key: a slip, or a leftover.

    `keys` is the parsed list of each provider. The settings stop the start on any: it is a typing error.
    """
    known = {(provider, key.fingerprint) for provider, several in keys.items() for key in several}
    return tuple(sorted(pair for pair in accounts if pair not in known))


def _check(value: str, where: str) -> None:
    # A pasted quote or line break goes into the header as it is and gives a 401 that nobody understands.
    if _SCHEME.match(value):
        raise BadKeys(f"{where} must be the key alone, without the word of the header before it, such as Bearer")
    if any(character.isspace() for character in value):
        raise BadKeys(f"{where} has white space inside")
    if any(character in "\"'`“”‘’" for character in value):
        raise BadKeys(f"{where} has a quotation mark in it")
    if "://" in value:
        raise BadKeys(f"{where} is an address and no key")
    if len(value) > _MOST_CHARACTERS:
        raise BadKeys(f"{where} is longer than {_MOST_CHARACTERS:,} characters, and no key is")
    if not _KEY.fullmatch(value):
        raise BadKeys(
            f"{where} has a character that no key has: keys are of ASCII letters, digits and . _ ~ + / : = - and "
            "separated by commas"
        )
