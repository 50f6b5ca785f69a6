"""The project as an app of Django: once all models are there, those who watch are told of errors and traces."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings


class ConfigApp(AppConfig):
    name = "config"

    def ready(self) -> None:
        """Nothing is imported for what is not set: each takes memory and time of every process."""
        if settings.SENTRY_DSN:
            from config import error_reports

            error_reports.begin(settings.SENTRY_DSN, settings.SENTRY_ENVIRONMENT)
        if settings.WRITES_TRACES:
            from video.infra import tracing

            tracing.begin("reelworks")
