"""How a process begins: its settings are read, or it ends with one sentence about the one that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from config import env

ROOT = Path(__file__).resolve().parent.parent


def read_settings(**defaults: str) -> None:
    """Read the settings, or end the process: the sentence goes to stderr, without a traceback, and the exit code is 1.

    `defaults` are settings of this kind of process, for what neither the environment nor the file says.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        env.load(ROOT)
        for name, value in defaults.items():
            os.environ.setdefault(name, value)
        _ = settings.DEBUG  # the first one that is asked for makes Django read them all
    except ImproperlyConfigured as err:
        raise SystemExit(str(err)) from None
    except ModuleNotFoundError as err:
        module = os.environ["DJANGO_SETTINGS_MODULE"]
        if not f"{module}.".startswith(f"{err.name}."):
            raise  # it is there, and a package that it needs is not
        raise SystemExit(
            "DJANGO_SETTINGS_MODULE names settings that are not here, perhaps another project's; unset it."
        ) from None
