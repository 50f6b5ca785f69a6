"""Finished videos behind links that expire, and every way in which a download can go wrong.

As file hosts do, it gives strong ETags and takes `Range` with `If-Range` for what is left of a file.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

from providers.dialect.dialect import Refusal
from providers.dialect.faults import MOST_REFUSED_S, REFUSED_S
from providers.dialect.jobs import Job, Phase
from providers.dialect.messages import Answer, Cut, Later, Reply, Request
from providers.simulator.world.render import RenderFailed
from providers.simulator.world.simulator import FILES_PREFIX, ODD_WORDS, Simulator

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
            job.downloaded_at = job.downloaded_at or self.sim.now()
        if nth <= job.faults.link_expired:
            return _denied(403, "AccessDenied")
        refused = job.faults.file_status
        if refused is not None and refused.applies(nth) and self._is_still_wrong(job):
            refusal = Refusal.by_script(refused.value, job.faults.retry_after)
            return refusal.gateway_page if refusal.code == "html" else _denied(refusal.status, "ByScript", refusal)
        return self._deliver(job, request, nth)

    def _is_still_wrong(self, job: Job) -> bool:
        since, lasts_s = job.downloaded_at, job.faults.file_for
        return lasts_s is None or since is None or self.sim.now() < since + lasts_s

    async def _deliver(self, job: Job, request: Request, nth: int) -> Answer:
        fault = job.faults.file
        kind = fault.value if fault is not None and fault.applies(nth) and self._is_still_wrong(job) else None
        if kind is not None and (ready := self._without_file(kind, job, request)) is not None:
            return ready
        try:
            # Shielded: a client that leaves must not cancel the render for the next one.
            path = await asyncio.shield(asyncio.wrap_future(self.sim.renderer.clip(job.clip)))
        except RenderFailed:
            return _denied(500, "RenderFailed")
        size = path.stat().st_size
        etag = f'"{job.id}"'
        start = _first_byte(request, etag)
        if start >= size:
            return Reply(416, headers=(("content-range", f"bytes */{size}"), ("etag", etag)))
        if kind == "drip":
            return _video(_drip(path, start), size - start, etag, start=start, size=size)
        if kind == "gzip":
            return Reply(200, gzip.compress(path.read_bytes(), 1), "video/mp4", (("content-encoding", "gzip"),))
        end = {"truncated": size // 2, "short": size // 2, "cut": min(size, start + size // 10)}.get(kind or "", size)
        file = _read(path, start, end, corrupt=kind == "corrupt")
        return _video(file, (end if kind == "short" else size) - start, etag, start=start, size=size)

    def _without_file(self, kind: str, job: Job, request: Request) -> Answer | None:
        """The faults that need no clip."""
        match kind:
            case "empty":
                return Reply(200, b"", "video/mp4")
            case "html":
                return Reply(200, b"<!doctype html><title>Sorry</title><p>Please try again later.", "text/html")
            case "json":
                return Reply(200, b'{"error":"try again"}')
            case "reset":
                return Cut(reset=True)
            case "refused":
                self.sim.refuse_all(min(job.faults.file_for or REFUSED_S, MOST_REFUSED_S))
                return Cut(reset=True)
            case "redirect_nowhere":
                return Reply(302)
            case "hls":
                return Reply(200, _HLS, "application/vnd.apple.mpegurl")
            case "oversized":
                return _video(_zeros(OVERSIZED_BYTES), OVERSIZED_BYTES)
            case "endless":
                return _video(_zeros(OVERSIZED_BYTES), None)
            case "redirect":
                return Reply(302, headers=(("location", self.sim.link(job, request.origin)),))
            case "redirect_odd":  # in UTF-8, byte by byte
                odd = (self.sim.link(job, request.origin) + ODD_WORDS).encode().decode("latin-1")
                return Reply(302, headers=(("location", odd),))
            case "redirect_private":
                return Reply(302, headers=(("location", "http://169.254.169.254/latest/meta-data/"),))
        return None


def _first_byte(request: Request, etag: str) -> int:
    """Where an answer begins: at 0, or where the client goes on with this very file."""
    match = re.fullmatch(r"bytes=([0-9]{1,15})-", request.headers.get("range", ""))
    return int(match[1]) if match and request.headers.get("if-range", etag) == etag else 0


def _video(stream: AsyncIterator[bytes], length: int | None, etag: str = "", *, start: int = 0, size: int = 0) -> Reply:
    """`start`: the first byte of what is left, `size`: of the whole file."""
    headers: tuple[tuple[str, str], ...] = (("etag", etag), ("accept-ranges", "bytes")) if etag else ()
    if start:
        headers = (*headers, ("content-range", f"bytes {start}-{size - 1}/{size}"))
    return Reply(206 if start else 200, content_type="video/mp4", headers=headers, stream=stream, length=length)


def _denied(status: int, code: str, refusal: Refusal | None = None) -> Reply:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return Reply(status, body.encode(), "application/xml", refusal.headers if refusal is not None else ())


async def _read(path: Path, start: int, end: int, *, corrupt: bool = False) -> AsyncIterator[bytes]:
    """The bytes from `start` to before `end`. Read in the loop: the file is fresh in the page cache."""
    with path.open("rb") as file:
        file.seek(start)
        size = end - start
        while size > 0 and (piece := file.read(min(PIECE_BYTES, size))):
            size -= len(piece)
            # Every byte changes, the index too: nothing that demuxes or decodes it may succeed.
            yield bytes(255 - byte for byte in piece) if corrupt else piece


async def _drip(path: Path, start: int) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while piece := file.read(DRIP_BYTES_PER_S // 10):
            yield piece
            await asyncio.sleep(0.1)


async def _zeros(size: int) -> AsyncIterator[bytes]:
    piece = bytes(PIECE_BYTES)
    for _ in range(size // PIECE_BYTES):
        yield piece
        await asyncio.sleep(0)  # a fast reader must not starve everybody else
