"""Finished videos behind links that expire, and every way in which a download can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from providers.dialect.dialect import Refusal
from providers.dialect.jobs import Job, Phase
from providers.dialect.messages import Answer, Later, Reply, Request
from providers.simulator.world.render import RenderFailed
from providers.simulator.world.simulator import FILES_PREFIX, Simulator

PIECE_BYTES = 256 * 1024
OVERSIZED_BYTES = 6 * 1024**3
DRIP_BYTES_PER_S = 2048

_HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXTINF:5,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"


class Files:
    """Serves `/out/<job id>.mp4?_jwt=…`."""

    def __init__(self, simulator: Simulator) -> None:
        self.sim = simulator

    def handle(self, request: Request) -> Later:
        name = request.path.removeprefix(FILES_PREFIX)
        if request.method not in ("GET", "HEAD"):
            return _denied(405, "MethodNotAllowed")
        if not self.sim.links.is_good(name, request.params.get("_jwt", ""), self.sim.now()):
            return _denied(403, "AccessDenied")
        job = self.sim.store.jobs.get(name.removesuffix(".mp4"))
        if job is None or job.deleted or job.phase(self.sim.now()) is not Phase.SUCCEEDED:
            return _denied(404, "NoSuchKey")
        nth = job.downloads + 1
        if request.method == "GET":
            job.downloads = nth
        if nth <= job.faults.link_expired:
            return _denied(403, "AccessDenied")
        refused = job.faults.file_status
        if refused is not None and refused.applies(nth):
            refusal = Refusal.by_script(refused.value)
            return refusal.gateway_page if refusal.code == "html" else _denied(refusal.status, "ByScript")
        return self._deliver(job, request, nth)

    async def _deliver(self, job: Job, request: Request, nth: int) -> Answer:
        fault = job.faults.file
        kind = fault.value if fault is not None and fault.applies(nth) else None
        if kind is not None and (ready := self._without_file(kind, job, request)) is not None:
            return ready
        try:
            # Shielded: a client that leaves must not cancel the render for the next one.
            path = await asyncio.shield(asyncio.wrap_future(self.sim.renderer.clip(job.clip)))
        except RenderFailed:
            return _denied(500, "RenderFailed")
        size = path.stat().st_size
        if kind == "drip":
            return _video(_drip(path), size)
        sent = size // 2 if kind in ("truncated", "short") else size
        return _video(_read(path, sent, corrupt=kind == "corrupt"), sent if kind == "short" else size)

    def _without_file(self, kind: str, job: Job, request: Request) -> Reply | None:
        """The faults that need no clip."""
        match kind:
            case "empty":
                return Reply(200, b"", "video/mp4")
            case "html":
                return Reply(200, b"<!doctype html><title>Sorry</title><p>Please try again later.", "text/html")
            case "hls":
                return Reply(200, _HLS, "application/vnd.apple.mpegurl")
            case "oversized":
                return _video(_zeros(OVERSIZED_BYTES), OVERSIZED_BYTES)
            case "endless":
                return _video(_zeros(OVERSIZED_BYTES), None)
            case "redirect":
                return Reply(302, headers=(("location", self.sim.link(job, request.origin)),))
            case "redirect_private":
                return Reply(302, headers=(("location", "http://169.254.169.254/latest/meta-data/"),))
        return None


def _video(stream: AsyncIterator[bytes], length: int | None) -> Reply:
    return Reply(200, content_type="video/mp4", stream=stream, length=length)


def _denied(status: int, code: str) -> Reply:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return Reply(status, body.encode(), "application/xml")


async def _read(path: Path, size: int, *, corrupt: bool = False) -> AsyncIterator[bytes]:
    """The first `size` bytes. Read in the loop: the file is fresh in the page cache."""
    with path.open("rb") as file:
        while size > 0 and (piece := file.read(min(PIECE_BYTES, size))):
            size -= len(piece)
            # Every byte changes, the index too: nothing that demuxes or decodes it may succeed.
            yield bytes(255 - byte for byte in piece) if corrupt else piece


async def _drip(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(DRIP_BYTES_PER_S // 10):
            yield piece
            await asyncio.sleep(0.1)


async def _zeros(size: int) -> AsyncIterator[bytes]:
    piece = bytes(PIECE_BYTES)
    for _ in range(size // PIECE_BYTES):
        yield piece
        await asyncio.sleep(0)  # a fast reader must not starve everybody else
