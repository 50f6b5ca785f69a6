"""What the rest of the system must know of a provider: one `ProviderEntry`, in the `__init__.py` of its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from providers.api_keys import ApiKey, parse_keys
from providers.contract import Provider
from providers.models import Model
from providers.webhooks import Callbacks

if TYPE_CHECKING:
    from providers.dialect.dialect import Dialect


@dataclass(frozen=True)
class ProviderEntry:
    """One provider. Settings, workers, web, simulator and tests iterate over these rows."""

    adapter: type[Provider]
    default_base_url: str
    models: tuple[Model, ...]
    dialect: str  # "package.module:Class"; a reference, so that only the simulator imports it
    aliases: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # lower case → (id for text, id for image)
    parse_keys: Callable[..., tuple[ApiKey, ...]] = parse_keys  # (text, *, variable); raises BadKeys
    callbacks: Callbacks | None = None  # exactly where the adapter says `can_call_back`
    #: Its own codes for "too many jobs at once", which waiting does not help: fewer slots do.
    too_many_at_once: frozenset[str] = frozenset()
    #: Seconds between two account calls to one account. Less only where the provider's documents allow it.
    account_call_pause_s: float = 1.05
    #: The page of its own console where people see their jobs and keys; empty where none is known.
    console_url: str = ""

    @property
    def name(self) -> str:
        return self.adapter.name

    @property
    def prefix(self) -> str:
        """What the names of the provider's own settings begin with: "RUNWAY_"."""
        return f"{self.name.upper()}_"

    @property
    def keys_setting(self) -> str:
        return f"{self.prefix}API_KEY"

    @property
    def base_url_setting(self) -> str:
        return f"{self.prefix}BASE_URL"

    def load_dialect(self) -> type[Dialect]:
        """The class of its dialect, imported now."""
        module, _, name = self.dialect.partition(":")
        found: type[Dialect] = getattr(import_module(module), name)
        return found
