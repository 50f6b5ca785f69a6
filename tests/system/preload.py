"""Imported once by the fork server: everything that a child needs, and no thread or connection."""

from __future__ import annotations

import django

django.setup()

from video.scheduling import admission  # noqa: E402, F401
