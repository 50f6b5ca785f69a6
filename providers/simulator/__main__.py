"""`python -m providers.simulator`."""

from __future__ import annotations

from providers.simulator.options import parse_options
from providers.simulator.server.process import serve

if __name__ == "__main__":
    serve(parse_options())
