"""The process: listen, say so in one line, stop at a signal at once and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
from collections.abc import Callable

from providers.simulator.options import CannotListen, SimulatorOptions
from providers.simulator.server.connection import Connection
from providers.simulator.server.router import Router
from providers.simulator.server.tls import throw_away_tls
from providers.simulator.world.simulator import Simulator


def serve(options: SimulatorOptions) -> None:
    """Serve until SIGTERM, SIGINT or, if asked for, the end of stdin. Raises CannotListen."""
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
        listener = Listener(lambda: Connection(router.handle, connections), options, tls)
        try:
            host, port = await listener.open()
        except OSError as err:
            why = os.strerror(err.errno) if err.errno else str(err)
            raise CannotListen(
                f"The simulator can't listen at port {options.port} of {options.host} ({why}): another program may "
                "have it. Choose another one with --port, or a free one with --port 0."
            ) from err
        simulator.refuse_all = listener.refuse
        if options.exit_with_stdin:
            await _watch_stdin(loop, stop)
        shown = f"[{host}]" if ":" in host else host
        print(f"Provider simulator listening on http{'s' if tls else ''}://{shown}:{port}", flush=True)
        if ca_path is not None:
            print(f"Clients must trust {ca_path}", flush=True)
        await stop.wait()
        listener.close()
        for connection in list(connections):
            connection.abort()


class Listener:
    """Takes connections, but for a while in which nothing listens at its port."""

    def __init__(self, make: Callable[[], Connection], options: SimulatorOptions, tls: ssl.SSLContext | None) -> None:
        self._make, self._host, self._port, self._tls = make, options.host, options.port, tls
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[tuple[str, int]] | None = None

    async def open(self) -> tuple[str, int]:
        """Listen, at the same port again; the host and port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._make, self._host, self._port, ssl=self._tls, backlog=2048)
        host, self._port = self._server.sockets[0].getsockname()[:2]
        return host, self._port

    def refuse(self, seconds: float) -> None:
        """Whoever connects is refused for so long; while that lasts, nothing is added to it."""
        if self._server is None:
            return
        self.close()
        asyncio.get_running_loop().call_later(seconds, self._reopen)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _reopen(self) -> None:
        self._opening = asyncio.get_running_loop().create_task(self.open())


async def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    class Watch(asyncio.Protocol):
        def eof_received(self) -> None:
            stop.set()

        def connection_lost(self, exc: Exception | None) -> None:
            stop.set()

    await loop.connect_read_pipe(Watch, sys.stdin)
