"""Reads the settings again and again in one process, each time in another environment, and tells how each ended.

Run as a program: the first argument is a file with a JSON list of environments, the second one gets the answers.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from config.names import KNOWN

SETTINGS = Path(__file__).resolve().parents[2] / "config" / "settings.py"
CODE = compile(SETTINGS.read_bytes(), SETTINGS, "exec")


def start(environment: dict[str, str]) -> dict[str, Any]:
    """`refused` is the sentence, or `broken` a traceback, or `values` how settings print; `said` is all the rest."""
    os.environ.clear()
    os.environ.update(environment)
    said = io.StringIO()
    logging.root.handlers = [logging.StreamHandler(said)]
    logging.root.setLevel(1)
    found: dict[str, Any] = {"__name__": "config.settings", "__file__": str(SETTINGS)}
    ended: dict[str, Any]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("always")
        try:
            exec(CODE, found)
            ended = {
                "values": {name: repr(found[name]) for name in (*sorted(KNOWN), "PROVIDER_BASE_URLS") if name in found}
            }
        except ImproperlyConfigured as err:
            ended = {"refused": str(err)}
        except BaseException:
            ended = {"broken": traceback.format_exc()}
    return {**ended, "said": said.getvalue()}


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps([start(environment) for environment in wanted]))
