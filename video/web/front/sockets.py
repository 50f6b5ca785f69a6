"""What the kernel does with clients that do not take what they asked for.

granian has no options for it and hands no socket out, so they are found among this process's own. Linux only, as are
TCP_USER_TIMEOUT and TCP_NOTSENT_LOWAT (tcp(7)).
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

#: As many as the Procfile lets granian accept. One that reads a video has its file open, too.
CONNECTIONS = 8192
FILES = 2 * CONNECTIONS + 256
#: A connection ends when its client has not taken a byte, or has not answered the kernel, for so long.
SILENT_S = 60
#: The kernel keeps no more of an answer than the client has room for, and so much. Without a bound it keeps up to 4 MB
#: (tcp_wmem), and some hundred clients who stopped reading use up what the kernel has for all connections (tcp_mem).
UNSENT_BYTES = 128 * 1024
_OPTIONS = (  # by name, since other systems lack some
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", SILENT_S * 1000),
    (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", UNSENT_BYTES),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", SILENT_S // 2),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", SILENT_S // 6),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
)


def bound() -> None:
    """Bound the connections of all clients of this process: those that are there, and those that come.

    What is accepted inherits from the listening socket. That one first, so that none comes in between.
    """
    if sys.platform != "linux":
        return
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # granian has raised it as far as it may
    if files < FILES:
        log.warning(
            "this process may open %d files, so about %d people who read videos slowly keep all others out; "
            "raise the limit to %d (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker)",
            files,
            files // 2,
            FILES,
        )
    found = set()
    for each in _tcp_sockets():
        if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            _set(each)
            found.add(each.getsockname()[1])
    for each in _tcp_sockets():
        if each.getsockname()[1] in found:
            _set(each)


def _set(one: socket.socket) -> None:
    for level, name, value in _OPTIONS:
        with contextlib.suppress(ConnectionError):  # its client has gone
            one.setsockopt(level, getattr(socket, name), value)


def _tcp_sockets() -> Iterator[socket.socket]:
    """This process's own, each as a copy that is closed at the next one."""
    for link in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(link.name))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM:
                    yield one
        except OSError:
            continue  # no socket, or gone meanwhile
