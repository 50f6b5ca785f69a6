"""A provider with OpenAI's videos API that answers at once, for LiteLLM: `python -m bench.peers.upstream PORT`."""

from __future__ import annotations

import sys

from aiohttp import web

VIDEO = {
    "id": "video_bench",
    "object": "video",
    "model": "sora-2",
    "created_at": 1_764_000_000,
    "seconds": "8",
    "size": "1280x720",
}


async def create(request: web.Request) -> web.Response:
    """POST /v1/videos."""
    await request.read()
    return web.json_response({**VIDEO, "status": "queued", "progress": 0})


async def status(_request: web.Request) -> web.Response:
    """GET /v1/videos/{id}."""
    return web.json_response({**VIDEO, "status": "in_progress", "progress": 40})


async def healthz(_request: web.Request) -> web.Response:
    """It answers."""
    return web.Response(text="ok")


if __name__ == "__main__":
    app = web.Application()
    app.add_routes(
        [web.post("/v1/videos", create), web.get("/v1/videos/{id}", status), web.get("/healthz", healthz)],
    )
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None)
