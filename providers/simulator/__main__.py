"""`python -m providers.simulator`."""

from __future__ import annotations

import sys

from providers.simulator.options import CannotListen, parse_options
from providers.simulator.server.process import serve

if __name__ == "__main__":
    try:
        serve(parse_options())
    except CannotListen as err:
        sys.exit(str(err))
