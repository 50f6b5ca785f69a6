"""Kling: https://kling.ai/document-api"""

from __future__ import annotations

from providers.entry import ProviderEntry
from providers.kling.adapter import Kling
from providers.kling.callbacks import CALLBACKS
from providers.kling.keys import parse_kling_keys
from providers.kling.models import ALIASES, MODELS

ENTRY = ProviderEntry(
    adapter=Kling,
    default_base_url="https://api-singapore.klingai.com",  # outside China; api.klingai.com is the retired name
    console_url="https://app.klingai.com/global/dev",
    models=MODELS,
    aliases=ALIASES,
    dialect="providers.kling.dialect.dialect:KlingDialect",
    parse_keys=parse_kling_keys,
    callbacks=CALLBACKS,
    too_many_at_once=frozenset({"1303"}),
    account_call_pause_s=1.05,  # it allows one such call a second
)
