"""The body of a request, received whole before a thread is taken for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from granian._granian import RSGIHTTPProtocol as HTTPProtocol

from video.web.headers import is_api as is_for_programs
from video.web.versions import unversioned

#: Of an address of the API: one byte more than its views take, so that they refuse it in their own words.
LONGEST_OF_API = 64 * 1024 + 1
#: Addresses whose body is a form, of which a part could pass for the whole.
UPLOAD = "/api/video/upload"
FORMS_OF_API = frozenset({UPLOAD, "/v1/videos"})
#: Of any other: a form of the admin.
LONGEST = 2 * 1024 * 1024
#: A sender has this long for all of it. Slow is what sends a prompt of 64 kB in it at 3 kB a second.
WITHIN_S = 20.0
#: For a body with a picture in it: 20 MiB at 170 kB a second, a slow line.
LARGE_WITHIN_S = 120.0
#: Held by all requests of the process that are still being received.
MOST_BYTES = 128 * 1024 * 1024
#: Held by what is above LONGEST_OF_API in all bodies with pictures, until they are answered. Apart from the others, so
#: that whoever fills it keeps nobody from the rest of the API.
MOST_LARGE_BYTES = 96 * 1024 * 1024


class BadBody(Exception):
    """No body is to be had: `status`, a `code` of the API, and a sentence for the sender."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.code, self.sentence = status, code, sentence


class SenderGone(Exception):
    """The connection ended before the body did."""


class Receiver:
    """Receives bodies, as many at once as there are senders, within one bound of memory. For one event loop."""

    def __init__(
        self,
        *,
        within_s: float = WITHIN_S,
        most_bytes: int = MOST_BYTES,
        large: Mapping[str, int] = MappingProxyType({}),
        most_large_bytes: int = MOST_LARGE_BYTES,
    ) -> None:
        """`large`: the longest body that the views of addresses take which may get pictures, in bytes."""
        self._within_s, self._most, self._held = within_s, most_bytes, 0
        self._large, self._most_large, self._held_large = large, most_large_bytes, 0

    async def receive(self, headers: Iterable[tuple[str, str]], protocol: HTTPProtocol, *, path: str) -> bytes:
        """The body; empty when the head announces none, and for one that the head says is too long.

        The application refuses the latter by its head. Raises BadBody for one that comes too slowly, in a form that we
        do not read, or never ends, and SenderGone. `release` it when it is answered.
        """
        path = unversioned(path)
        is_api = is_for_programs(path)
        longest = self._large[path] + 1 if path in self._large else LONGEST_OF_API if is_api else LONGEST
        announced = _announced(headers, is_form=not is_api or path in FORMS_OF_API)
        if announced == 0 or (announced is not None and announced > longest):
            return b""
        within_s = LARGE_WITHIN_S if path in self._large and announced != 0 else self._within_s
        taken = _Taken()
        try:
            body = await asyncio.wait_for(self._read(protocol, longest, taken, is_large=path in self._large), within_s)
            if announced is not None and len(body) != announced:
                raise SenderGone
        except BaseException as err:
            self._give_back(taken)
            if isinstance(err, TimeoutError):
                sentence = f"The body did not arrive within {within_s:g} s. Nothing was done; please send it again."
                raise BadBody(408, "request_timeout", sentence) from None
            raise
        self._held -= taken.small
        return body

    def release(self, body: bytes, *, path: str) -> None:
        """The request with this body is answered: others may take its room."""
        if unversioned(path) in self._large:
            self._held_large -= max(0, len(body) - LONGEST_OF_API)

    def _give_back(self, taken: _Taken) -> None:
        self._held, self._held_large = self._held - taken.small, self._held_large - taken.large
        taken.small = taken.large = 0

    async def _read(self, protocol: HTTPProtocol, longest: int, taken: _Taken, *, is_large: bool) -> bytes:
        chunks, size = [], 0
        async for chunk in protocol:
            size += len(chunk)
            large = max(0, size - LONGEST_OF_API) - taken.large if is_large else 0
            taken.small, taken.large = taken.small + len(chunk) - large, taken.large + large
            self._held, self._held_large = self._held + len(chunk) - large, self._held_large + large
            if size > longest:
                raise BadBody(413, "body_too_large", f"The body has more than {longest - longest % 1024} bytes.")
            if self._held > self._most or (large and self._held_large > self._most_large):
                # At once: the next sender may be read before whoever waits for this one runs again.
                self._give_back(taken)
                sentence = "Too many bodies are being received at once. Please try again in a moment."
                raise BadBody(503, "overloaded", sentence)
            chunks.append(chunk)
        return b"".join(chunks)


@dataclass
class _Taken:
    """Bytes of one body, by the bound that they count for."""

    small: int = 0
    large: int = 0


def _announced(headers: Iterable[tuple[str, str]], *, is_form: bool) -> int | None:
    """The length by the head, 0 for no body; None for one that is sent in chunks. Raises BadBody.

    granian does not tell a body in chunks that is over from one whose sender has gone or made a mistake. Where JSON is
    sent, compressed or not, what is cut off can't be read. A form could: so it needs a length.
    """
    length = 0
    for name, value in headers:
        if name == "transfer-encoding":
            if value.strip().lower() != "chunked":
                raise BadBody(501, "not_implemented", "Send the body without a Transfer-Encoding, or just chunked.")
            if is_form:
                raise BadBody(411, "length_required", "Send the body whole, with a Content-Length.")
            return None
        if name == "content-length":
            length = int(value)  # the server has refused what is no number, and two that differ
    return length
