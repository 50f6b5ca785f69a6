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


class SenderGone(Exception):
    """The connection ended before the body did."""


class Receiver:
    """Receives bodies, as many at once as there are senders, within one bound of memory. For one event loop."""

    def __init__(self, *, within_s: float = WITHIN_S, most_bytes: int = MOST_BYTES) -> None:
        self._within_s, self._most, self._held = within_s, most_bytes, 0

    async def receive(self, headers: Iterable[tuple[str, str]], protocol: HTTPProtocol, *, is_api: bool) -> bytes:
        """The body; empty when the head announces none, and for one that the head says is too long.

        The application refuses the latter by its head. Raises BadBody for one that comes too slowly, in a form that we
        do not read, or never ends, and SenderGone.
        """
        longest = LONGEST_OF_API if is_api else LONGEST
        announced = _announced(headers, is_api=is_api)
        if announced == 0 or (announced is not None and announced > longest):
            return b""
        taken = [0]
        try:
            body = await asyncio.wait_for(self._read(protocol, longest, taken), self._within_s)
        except TimeoutError:
            sentence = f"The body did not arrive within {self._within_s:g} s. Nothing was done; please send it again."
            raise BadBody(408, "request_timeout", sentence) from None
        finally:
            self._held -= taken[0]
        if announced is not None and len(body) != announced:
            raise SenderGone
        return body

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


def _announced(headers: Iterable[tuple[str, str]], *, is_api: bool) -> int | None:
    """The length by the head, 0 for no body; None for one that is sent in chunks. Raises BadBody.

    granian does not tell a body in chunks that is over from one whose sender has gone or made a mistake. Where JSON is
    sent, compressed or not, what is cut off can't be read. A form could: so it needs a length.
    """
    length = 0
    for name, value in headers:
        if name == "transfer-encoding":
            if value.strip().lower() != "chunked":
                raise BadBody(501, "not_implemented", "Send the body without a Transfer-Encoding, or just chunked.")
            if not is_api:
                raise BadBody(411, "length_required", "Send the body whole, with a Content-Length.")
            return None
        if name == "content-length":
            length = int(value)  # the server has refused what is no number, and two that differ
    return length
