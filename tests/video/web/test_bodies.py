"""Bodies that are received side by side in one event loop, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from video.web.front.bodies import LONGEST_OF_API, BadBody, Receiver

PIECE = b"a" * 100_000


class Protocol:
    """What granian hands over of a connection: pieces, each after the others had their turn."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._pieces):
            await asyncio.sleep(0)
            yield PIECE


def received(path: str, *pieces: int, most: int) -> list[bytes | BaseException]:
    receiver = Receiver(most_bytes=most, large={"/large": 10_000_000}, most_large_bytes=most)

    async def all_of_them() -> list[bytes | BaseException]:
        length = [("content-length", str(len(PIECE) * count)) for count in pieces]
        calls = [
            receiver.receive([head], Protocol(count), path=path)  # type: ignore[arg-type]
            for head, count in zip(length, pieces, strict=True)
        ]
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(all_of_them())


def test_of_two_bodies_that_do_not_fit_together_one_is_refused_and_one_arrives() -> None:
    """The first that is refused gives its room back before the next piece of the other is counted."""
    for path, most in (("/large", 1_000_000 - LONGEST_OF_API), ("/", 190_000)):
        pieces = 7 if path == "/large" else 1
        found = received(path, pieces, pieces, most=most)
        assert sorted(type(one).__name__ for one in found) == ["BadBody", "bytes"], path
        assert {one.status for one in found if isinstance(one, BadBody)} == {503}
