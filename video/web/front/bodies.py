"""The body of a request, received whole before a thread is taken for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from granian._granian import RSGIHTTPProtocol as HTTPProtocol

#: Of an address of the API: one byte more than its views take, so that they refuse it in their own words.
LONGEST_OF_API = 64 * 1024 + 1
#: Of any other: a form of the admin.
LONGEST = 2 * 1024 * 1024
#: A sender has this long for all of it. Slow is what sends a prompt of 64 kB in it at 3 kB a second.
WITHIN_S = 20.0
#: Held by all requests of the process that are still being received.
MOST_BYTES = 128 * 1024 * 1024


class BadBody(Exception):
    """No body is to be had: `status`, a `code` of the API, and a sentence for the sender."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.code, self.sentence = status, code, sentence


class Receiver:
    """Receives bodies, as many at once as there are senders, within one bound of memory. For one event loop."""

    def __init__(self, *, within_s: float = WITHIN_S, most_bytes: int = MOST_BYTES) -> None:
        self._within_s, self._most, self._held = within_s, most_bytes, 0

    async def receive(self, headers: Iterable[tuple[str, str]], protocol: HTTPProtocol, *, longest: int) -> bytes:
        """The body; empty when the head announces none, and for one that the head says is longer than `longest`.

        The application refuses the latter by its head. Raises BadBody for one that comes too slowly, or never ends.
        """
        announced = _announced(headers)
        if announced == 0 or (announced is not None and announced > longest):
            return b""
        taken = [0]
        try:
            return await asyncio.wait_for(self._read(protocol, longest, taken), self._within_s)
        except TimeoutError:
            sentence = f"The body did not arrive within {self._within_s:g} s. Nothing was done; please send it again."
            raise BadBody(408, "request_timeout", sentence) from None
        finally:
            self._held -= taken[0]

    async def _read(self, protocol: HTTPProtocol, longest: int, taken: list[int]) -> bytes:
        chunks = []
        async for chunk in protocol:
            taken[0] += len(chunk)
            self._held += len(chunk)
            if taken[0] > longest:
                raise BadBody(413, "body_too_large", f"The body has more than {longest - longest % 1024} bytes.")
            if self._held > self._most:
                sentence = "Too many bodies are being received at once. Please try again in a moment."
                raise BadBody(503, "overloaded", sentence)
            chunks.append(chunk)
        return b"".join(chunks)


def _announced(headers: Iterable[tuple[str, str]]) -> int | None:
    """The length by the head, 0 for no body; None for one that is sent in chunks."""
    length = 0
    for name, value in headers:
        if name == "transfer-encoding":
            return None
        if name == "content-length":
            length = int(value)  # the server has refused what is no number, and two that differ
    return length
