"""The process: listen, say so in one line, stop at a signal at once and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from providers.simulator.options import SimulatorOptions
from providers.simulator.server.connection import Connection
from providers.simulator.server.router import Router
from providers.simulator.server.tls import throw_away_tls
from providers.simulator.world.simulator import Simulator


def serve(options: SimulatorOptions) -> None:
    """Serve until SIGTERM, SIGINT or, if asked for, the end of stdin."""
    with contextlib.suppress(KeyboardInterrupt):  # only where signal handlers cannot be set
        asyncio.run(_run(options))


async def _run(options: SimulatorOptions) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread
            loop.add_signal_handler(number, stop.set)
    connections: set[Connection] = set()
    simulator = Simulator(options)
    router = Router(simulator)
    with contextlib.ExitStack() as stack:
        stack.callback(simulator.close)
        tls, ca_path = stack.enter_context(throw_away_tls()) if options.tls else (None, None)
        server = await loop.create_server(
            lambda: Connection(router.handle, connections), options.host, options.port, ssl=tls, backlog=2048
        )
        if options.exit_with_stdin:
            await _watch_stdin(loop, stop)
        host, port = server.sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"Provider simulator listening on http{'s' if tls else ''}://{shown}:{port}", flush=True)
        if ca_path is not None:
            print(f"Clients must trust {ca_path}", flush=True)
        await stop.wait()
        server.close()
        for connection in list(connections):
            connection.abort()


async def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    class Watch(asyncio.Protocol):
        def eof_received(self) -> None:
            stop.set()

        def connection_lost(self, exc: Exception | None) -> None:
            stop.set()

    await loop.connect_read_pipe(Watch, sys.stdin)
