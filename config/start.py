"""How a process begins: its settings are read, or it ends with one sentence about the one that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from config import env, key_names, logs

ROOT = Path(__file__).resolve().parent.parent


def read_settings(*, calls_providers: bool = True, **defaults: str) -> None:
    """Read the settings, or end the process: the sentence goes to stderr, without a traceback, and the exit code is 1.

    `defaults` are settings of this kind of process, for what neither the environment nor the file says. A process that
    calls no provider keeps no value of a key, whatever it was started with.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    logs.say_uncaught()
    try:
        env.load(ROOT)
        for name, value in defaults.items():
            os.environ.setdefault(name, value)
        if not calls_providers:
            _withhold_keys()
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


def _withhold_keys() -> None:
    kept = key_names.without_values(os.environ)
    for name in set(os.environ) - set(kept):
        del os.environ[name]
    os.environ.update(kept, REELWORKS_ENV_FILE="")  # all of it has been read, and must not be read again
