"""A load client in a process of its own: keep-alive connections, each asks again when it was answered.

`python -m bench.client '{"port": …, "requests": …}'` prints one line of JSON. Loopback only.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Load:
    """What is asked, and how."""

    port: int
    path: str
    requests: int
    token: str
    connections: int = 8
    body: str = ""  # one is a POST of JSON
    expect: int = 200

    def bytes(self) -> bytes:
        head = [
            f"{'POST' if self.body else 'GET'} {self.path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Authorization: Bearer {self.token}",
            "Accept: application/json",
        ]
        if self.body:
            head += ["Content-Type: application/json", f"Content-Length: {len(self.body.encode())}"]
        return ("\r\n".join(head) + "\r\n\r\n" + self.body).encode()


async def _one_connection(load: Load, left: list[int], took: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
    wire = load.bytes()
    try:
        while left[0] > 0:
            left[0] -= 1
            started = time.perf_counter()
            writer.write(wire)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await _body(reader, head.lower())
            status = int(head.split(b" ", 2)[1])
            if status != load.expect:
                raise SystemExit(f"{load.path} answered {status}: {body[:300]!r}")
            took.append(time.perf_counter() - started)
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if b"\r\ntransfer-encoding: chunked\r\n" in head:
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return body
    at = head.index(b"\r\ncontent-length:") + 17
    return await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))


async def _run(load: Load) -> dict[str, float]:
    left, took = [load.requests], list[float]()
    started = time.perf_counter()
    await asyncio.gather(*(_one_connection(load, left, took) for _ in range(load.connections)))
    seconds = time.perf_counter() - started
    took.sort()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "per_s": len(took) / seconds,
        "seconds": seconds,
        "p50_s": took[len(took) // 2],
        "p95_s": took[int(len(took) * 0.95)],
        "client_cpu_s": usage.ru_utime + usage.ru_stime,
    }


def spec(load: Load) -> str:
    """The command line's argument for this load."""
    return json.dumps(asdict(load))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_run(Load(**json.loads(sys.argv[1]))))))
