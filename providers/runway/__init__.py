"""Runway: https://docs.dev.runwayml.com"""

from __future__ import annotations

from providers.entry import ProviderEntry
from providers.runway.adapter import Runway
from providers.runway.models import ALIASES, MODELS

ENTRY = ProviderEntry(
    adapter=Runway,
    default_base_url="https://api.dev.runwayml.com",  # api.runwayml.com answers 401 to every key
    console_url="https://dev.runwayml.com/",
    models=MODELS,
    aliases=ALIASES,
    dialect="providers.runway.dialect.dialect:RunwayDialect",
)
