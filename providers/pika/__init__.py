"""Pika, whose models fal serves: https://fal.ai/models/fal-ai/pika"""

from __future__ import annotations

from functools import partial

from providers.api_keys import parse_keys
from providers.entry import ProviderEntry
from providers.pika.adapter import Pika
from providers.pika.callbacks import CALLBACKS
from providers.pika.models import ALIASES, MODELS

ENTRY = ProviderEntry(
    adapter=Pika,
    default_base_url="https://queue.fal.run",
    console_url="https://fal.ai/dashboard",
    models=MODELS,
    aliases=ALIASES,
    dialect="providers.pika.dialect.dialect:PikaDialect",
    parse_keys=partial(parse_keys, pairs=True),  # fal's keys are id:secret
    callbacks=CALLBACKS,
    too_many_at_once=frozenset({"concurrent_requests_limit"}),
)
