"""Every provider that there is: to add one, put its folder beside the others and its name into `NAMES`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from providers.entry import ProviderEntry
from providers.webhooks import BadNotice, read_objects

NAMES = (
    "runway",
    "pika",
    "kling",
)

PROVIDERS: tuple[ProviderEntry, ...] = tuple(import_module(f"providers.{name}").ENTRY for name in NAMES)

BY_NAME: Mapping[str, ProviderEntry] = MappingProxyType({entry.name: entry for entry in PROVIDERS})


def sender_of(headers: Mapping[str, str], body: bytes) -> str | None:
    """The provider that a call-back looks like, by its signature's header, else by its shape; None: like no provider's.

    A guess about which provider's proof to ask for, and no proof. `headers` finds names in lower case.
    """
    calling = [(entry.name, entry.callbacks) for entry in PROVIDERS if entry.callbacks is not None]
    for name, callbacks in calling:
        if headers.get(callbacks.signature_header):
            return name
    try:
        for told in read_objects(body):
            for name, callbacks in calling:
                if callbacks.looks_like(told.keys()):
                    return name
    except BadNotice:
        return None
    return None
