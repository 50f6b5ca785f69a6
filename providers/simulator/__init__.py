"""A real HTTP server that speaks the providers' own protocols, makes real MP4 files, and misbehaves on command.

Adapters never know: only the base URL differs. Start it with `python -m providers.simulator` or `serve(options)`.

One process, one event loop, no timer per job: a job's state is a function of the clock (`providers/dialect/jobs.py`),
so ten thousand live jobs cost memory only. Which protocols it speaks is for `providers/registry.py` to say.
"""

from __future__ import annotations

from providers.simulator.options import CannotListen, SimulatorOptions

__all__ = ["CannotListen", "SimulatorOptions", "serve"]


def serve(options: SimulatorOptions) -> None:
    """Serve until SIGTERM or SIGINT; blocks. Raises CannotListen.

    Imported late, so that asking for the options stays cheap.
    """
    from providers.simulator.server.process import serve as run

    run(options)
