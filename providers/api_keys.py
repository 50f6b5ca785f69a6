"""API keys: reading the comma-separated lists, naming a key without showing it, grouping keys into accounts.

A key's value leaves this module only through `ApiKey.value`, which adapters put into a header. Rows know a key by its
fingerprint; people read its label: the name that the list gives it, else its place and last four characters. Limits
belong to a provider's account, and each key is its own account unless `KEY_ACCOUNTS` groups some:

    RUNWAY_API_KEY=studio:key_aaa,key_bbb,key_ccc
    KEY_ACCOUNTS=runway:main=studio|a6b5c4d3e2f1,kling:main=0123456789ab

Groups name names or fingerprints, not positions: a list that is edited or sorted must not hand one account's count to
another.

A name stands before its key with `=`, at every provider: no key has `=` but at its end (RFC 6750, "b64token"). A colon
does as well where it can be no part of the key: at providers whose keys have none, and before both halves of a pair.
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
_WITHOUT_VALUE = re.compile(
    rf"(?P<provider>[a-z]+)/(?P<fingerprint>[0-9a-f]{{{FINGERPRINT_LENGTH}}})/(?P<shape>[x:]+)"
    r"(/name=(?P<name>[a-z0-9_-]+)|/end=(?P<ending>[A-Za-z0-9._~+/=-]{4}))?"
)
#: Of a key of so many characters (of a pair: of its second half) the last four are shown. With fewer, four would be
#: too large a part: what is left of 24 random hex digits without four is 80 bits.
FEWEST_TO_SHOW_FOUR = 24
LONGEST_NAME = 32
_NAME = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{LONGEST_NAME - 1}}}", re.ASCII)
_NAMED = re.compile(r"(?P<name>[^=:]*)=(?P<key>[^=:].*)", re.DOTALL)
# Runway's and others' prefixes, a fingerprint (which KEY_ACCOUNTS takes in the same place), a long row of both.
_LIKE_A_KEY = re.compile(rf"key_.*|sk[_-].*|[0-9a-f]{{{FINGERPRINT_LENGTH}}}|(?=.*[0-9])(?=.*[a-z])[a-z0-9]{{16,}}")
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
    name: str = field(default="", compare=False)
    variable: str = field(default="", compare=False)  # where it is listed
    place: int = field(default=0, compare=False)  # there, from 1 on
    fingerprint: str = field(init=False)
    #: Tells what kind of key it is in place of the key: `x`, or `x:x` for one of two halves.
    shape: str = field(init=False, repr=False, compare=False)
    ending: str = field(init=False, repr=False, compare=False)  # its last four characters; empty for a short key

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self._value))
        object.__setattr__(self, "shape", re.sub("[^:]+", "x", self._value))
        secret = self._value.rpartition(":")[2]
        object.__setattr__(self, "ending", secret[-4:] if len(secret) >= FEWEST_TO_SHOW_FOUR else "")

    @classmethod
    def without_value(
        cls, fingerprint: str, shape: str, *, name: str = "", variable: str = "", place: int = 0, ending: str = ""
    ) -> ApiKey:
        """A key whose value this process has not: for one that calls no provider."""
        key = cls("", name=name, variable=variable, place=place)
        for what, value in (("fingerprint", fingerprint), ("shape", shape), ("ending", ending)):
            object.__setattr__(key, what, value)
        return key

    @property
    def label(self) -> str:
        """What people call it: its name, else `3rd of RUNWAY_API_KEY, ends in …0003`. Never more of it than that."""
        if self.name:
            return self.name
        if not self.place:
            return self.fingerprint
        ends = f", ends in …{self.ending}" if self.ending else ""
        return f"{_ordinal(self.place)} of {self.variable}{ends}"

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


def parse_keys(text: str, *, variable: str, pairs: bool = False) -> tuple[ApiKey, ...]:
    """The keys of one comma-separated variable, in order; none for an empty text.

    `variable` is the variable's name, for messages. `pairs`: a key may be of two halves with a colon between them.
    Raises BadKeys.
    """
    found: list[ApiKey] = []
    for place, entry in entries(text):
        where = f"{variable}: key {place} of the list"
        _check(entry, where)
        name, value = split_name(entry, pairs=pairs)
        if name is not None:
            _check_name(name, value, where)
        key = ApiKey(value, name=name or "", variable=variable, place=place)
        for other in found:
            if other == key:
                raise BadKeys(f"{where} is the same as key {other.place} (its fingerprint is {key.fingerprint})")
            if key.name and other.name == key.name:
                raise BadKeys(f"{where} has the same name as key {other.place}; each name is given once")
        found.append(key)
    return tuple(found)


def entries(text: str) -> list[tuple[int, str]]:
    """(place from 1 on, entry) of a comma-separated list. Empty entries are none, and take no place."""
    return list(enumerate(filter(None, (part.strip() for part in text.split(","))), start=1))


def split_name(entry: str, *, pairs: bool) -> tuple[str | None, str]:
    """(name, key) of one entry; None without a name. `pairs` as `parse_keys` has it. The name is not checked."""
    named = _NAMED.fullmatch(entry)
    if named:
        return named["name"], named["key"]
    name, colon, key = entry.partition(":")
    halves = key.split(":")
    if colon and all(halves) and len(halves) == (2 if pairs else 1):
        return name, key
    return None, entry


def parse_key_accounts(
    text: str, *, keys: Mapping[str, Iterable[ApiKey]] | None = None, variable: str = "KEY_ACCOUNTS"
) -> dict[tuple[str, str], str]:
    """`provider:account=name|fingerprint,…` as (provider, fingerprint) → account. Raises BadKeys.

    `keys`: the configured ones of each provider, for their names.
    """
    accounts: dict[tuple[str, str], str] = {}
    for position, part in enumerate(text.split(","), start=1):
        entry = part.strip()
        if not entry:
            continue
        match = _GROUP.fullmatch(entry)
        # The entry itself is not quoted: somebody may have put keys where names and fingerprints belong.
        if match is None or not _ACCOUNT_NAME.fullmatch(match["account"].strip()):
            raise BadKeys(
                f"{variable}: each entry must look like runway:main=<name or fingerprint>|<name or fingerprint>, "
                f"entry {position} too"
            )
        account, names = match["account"].strip(), {key.name: key for key in (keys or {}).get(match["provider"], ())}
        for one in (one.strip().lower() for one in match["prints"].split("|")):
            fp = names[one].fingerprint if one and one in names else one
            if not re.fullmatch(rf"[0-9a-f]{{{FINGERPRINT_LENGTH}}}", fp):
                raise BadKeys(
                    f"{variable}: entry {position} must list names that {match['provider'].upper()}_API_KEY gives, or "
                    f"fingerprints of {FINGERPRINT_LENGTH} hex digits, not keys"
                )
            if (match["provider"], fp) in accounts:
                raise BadKeys(f"{variable}: entry {position} lists a key that is listed before ({fp})")
            accounts[match["provider"], fp] = account
    return accounts


def names_of(keys: Mapping[str, Iterable[ApiKey]]) -> str:
    """`runway/1f2e3d4c5b6a/x/name=studio,…`: the keys of each provider without their values, for `parse_names`."""
    return ",".join(
        f"{provider}/{key.fingerprint}/{key.shape}"
        + (f"/name={key.name}" if key.name else f"/end={key.ending}" if key.ending else "")
        for provider in keys
        for key in keys[provider]
    )


def parse_names(text: str, *, variable: str) -> dict[str, tuple[ApiKey, ...]]:
    """What `names_of` wrote, by provider. Raises BadKeys."""
    found: dict[str, tuple[ApiKey, ...]] = {}
    for position, part in enumerate(filter(None, text.split(",")), start=1):
        match = _WITHOUT_VALUE.fullmatch(part)
        if match is None:
            raise BadKeys(f"{variable}: entry {position} must look like runway/<fingerprint>/x")
        before = found.get(match["provider"], ())
        key = ApiKey.without_value(
            match["fingerprint"],
            match["shape"],
            name=match["name"] or "",
            variable=f"{match['provider'].upper()}_API_KEY",
            place=len(before) + 1,
            ending=match["ending"] or "",
        )
        found[match["provider"]] = (*before, key)
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


def _check_name(name: str, value: str, where: str) -> None:
    """A name is shown to everybody who may look at keys, so nothing of a key may stand there."""
    if not _NAME.fullmatch(name):
        raise BadKeys(
            f"{where} has something before it that is no name: a name has 1 to {LONGEST_NAME} of a-z, 0-9, - and _, "
            "and begins with a letter or digit"
        )
    if _LIKE_A_KEY.fullmatch(name) or (len(name) > 4 and name in value.lower()):
        raise BadKeys(
            f"{where} has a name that looks like a key or a part of it, and names are shown; separate keys by commas, "
            "and choose another name"
        )


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
