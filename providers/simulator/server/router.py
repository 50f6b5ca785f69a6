"""Which part of the simulator answers a request: a dialect by its path, the files, or the control."""

from __future__ import annotations

from providers.dialect.dialect import Dialect, Refusal
from providers.dialect.messages import Cut, Later, Reply, Request
from providers.registry import PROVIDERS
from providers.simulator.server.control import Control
from providers.simulator.server.files import Files
from providers.simulator.world.simulator import FILES_PREFIX, Simulator, after


class Router:
    """Answers every request to one simulator; an outage that was asked for comes first."""

    def __init__(self, simulator: Simulator) -> None:
        self.sim = simulator
        self._files = Files(simulator)
        self._control = Control(simulator)
        dialects = [entry.load_dialect()(simulator) for entry in PROVIDERS]
        self._routes = sorted(((p, d) for d in dialects for p in d.prefixes), key=lambda r: -len(r[0]))

    def handle(self, request: Request) -> Later:
        path = request.path
        if path.startswith("/_sim"):
            return self._control.handle(request)
        if path.startswith(FILES_PREFIX):
            return self._outage("download", None) or self._files.handle(request)
        for prefix, dialect in self._routes:
            if path.startswith(prefix):
                if self.sim.outage is not None:
                    broken = self._outage("submit" if request.method == "POST" else "poll", dialect)
                    if broken is not None:
                        return broken
                return dialect.handle(request)
        if path == "/":
            return Reply(200, b"Reelworks provider simulator. GET /_sim lists what it can be told.\n", "text/plain")
        return Reply(404, b'{"error":"Not found"}')

    def _outage(self, kind: str, dialect: Dialect | None) -> Later | None:
        outage = self.sim.outage
        if outage is None or kind not in outage.where:
            return None
        if outage.dialect is not None and (dialect is None or dialect.name != outage.dialect):
            return None
        if outage.answer in ("reset", "close"):
            return Cut(reset=outage.answer == "reset")
        if outage.answer == "hang":
            return after(3600.0, lambda: Cut())
        refusal = Refusal.by_script(outage.answer)
        return dialect.refuse(refusal) if dialect else refusal.gateway_page
