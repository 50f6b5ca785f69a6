"""Acme, a provider that there is not: the folder that `test_fourth_provider.py` adds to a copy of the project."""

from __future__ import annotations

from providers.acme.adapter import Acme
from providers.acme.models import MODELS
from providers.entry import ProviderEntry

ENTRY = ProviderEntry(
    adapter=Acme,
    default_base_url="https://films.acme.invalid",
    models=MODELS,
    aliases={"acme": ("acme-1", "acme-1")},
    dialect="providers.acme.dialect:AcmeDialect",
)
