"""The project: settings, URLs, the Celery app, the embedded servers. Knows everything below it."""

from config.celery import app as celery_app

__all__ = ["celery_app"]
