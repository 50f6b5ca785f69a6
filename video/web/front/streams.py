"""Answers that come later, without a thread: an event stream, and a status that may wait for a change.

A view gives one of these as its response, and the front does the waiting. Any other server, such as Django's own for
development, sends what an event stream begins with and ends it, and lets no status wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from django.http import HttpRequest, HttpResponse
from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIProtocolClosed as ProtocolClosed

from video.web.front.changes import Listener

#: Set by a server that can wait; absent when it has waited, so that a view answers.
CAN_WAIT = "reelworks.can_wait"
HEARTBEAT_S = 25.0
#: Then the client comes again, and its login is looked at again.
LONGEST_S = 300.0
#: Sent in one stream; then, too, the client comes again. What it does not take stays in memory.
MOST_BYTES = 512 * 1024
CONTENT_TYPE = "text/event-stream"


class EventStream(HttpResponse):
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): `first`, and all later."""

    def __init__(self, listener: Listener, first: Sequence[bytes]) -> None:
        # X-Accel-Buffering: nginx would keep events back.
        headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        super().__init__(b"retry: 2000\n\n" + b"".join(first), content_type=CONTENT_TYPE, headers=headers)
        self.listener = listener


class Later(HttpResponse):
    """The request is to be answered once the listener's task has changed, or after `seconds`."""

    comes_later = True

    def __init__(self, listener: Listener, seconds: float) -> None:
        super().__init__(status=204)
        self.listener, self.seconds = listener, seconds


def can_wait(request: HttpRequest) -> bool:
    """Whether the server waits for this request, and has not yet."""
    return bool(request.META.get(CAN_WAIT))


async def send(
    stream: EventStream, headers: list[tuple[str, str]], protocol: HTTPProtocol, stopping: asyncio.Future[None]
) -> None:
    """Send events until the client goes, the only task has ended, or this process is to stop."""
    listener, loop = stream.listener, asyncio.get_running_loop()
    ends, sent = loop.time() + LONGEST_S, 0
    endless = [(name, value) for name, value in headers if name.lower() != "content-length"]
    transport = protocol.response_stream(200, endless)
    gone = asyncio.ensure_future(protocol.client_disconnect())
    gone.add_done_callback(listener.wake)
    try:
        await transport.send_bytes(stream.content)
        while not (gone.done() or stopping.done() or listener.is_over) and sent < MOST_BYTES and loop.time() < ends:
            if not await changed(listener, HEARTBEAT_S, stopping):
                await transport.send_bytes(b":\n\n")
            while listener.messages:
                message = listener.messages.popleft()
                sent += len(message)
                await transport.send_bytes(message)
    except ProtocolClosed:
        return  # the client has gone
    finally:
        gone.cancel()


async def changed(listener: Listener, seconds: float, stopping: asyncio.Future[None]) -> bool:
    """Wait until the listener is woken, for so long at most, or until this process is to stop; whether it was."""
    stopping.add_done_callback(listener.wake)
    try:
        async with asyncio.timeout(seconds):
            await listener.woken.wait()
    except TimeoutError:
        return False
    finally:
        stopping.remove_done_callback(listener.wake)
        listener.woken.clear()
    return True
