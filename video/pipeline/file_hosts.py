"""File hosts that answer nothing: while one is silent, one fetch at a time finds out whether that is over.

A silent host holds a worker's thread for half a minute, and patience comes back to it. Without this a hundred videos
that wait for it would hold all threads of a worker, and with them the submits, polls and fetches of everybody else.
Each process learns it by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from media_pipeline import errors

FEWEST = 3  # silent fetches in a row, so that one bad file keeps no others waiting
SILENT_S = 5.0  # without a byte, before a fetch failed: the host is silent, rather than down
LEFT_ALONE_S = 15.0
ASKED_S = 60.0  # for which the others wait for what one fetch finds: longer than it takes to meet silence
MOST_HOSTS = 1000  # remembered at once


class Silence:
    """Notes when bytes come."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def end(self) -> None:
        """A byte came."""
        self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._last


@dataclass
class _Host:
    in_a_row: int = 0  # fetches that met silence
    until: float = 0.0  # it is left alone until then (time.monotonic)


class FileHosts:
    """Which hosts are silent, as far as this process knows. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._silent: dict[str, _Host] = {}

    @contextmanager
    def fetching(self, url: str, *, anyway: bool = False) -> Iterator[Silence]:
        """A fetch from this address. `anyway`: also from a silent host.

        Raises DownloadFailed while the host is left alone, with the time to wait.
        """
        host = _host(url)
        self._refuse_silent(host, anyway=anyway)
        silence = Silence()
        try:
            yield silence
        except (errors.DownloadFailed, errors.DownloadTimeout):
            self._note(host, is_silent=silence.seconds >= SILENT_S)
            raise
        except BaseException:
            self._note(host, is_silent=False)
            raise
        self._note(host, is_silent=False)

    def _refuse_silent(self, host: str, *, anyway: bool) -> None:
        """Let one fetch through when the time is over; the others wait for what it finds."""
        with self._lock:
            found = self._silent.get(host)
            if found is None or found.in_a_row < FEWEST:
                return
            left_s = found.until - time.monotonic()
            if left_s <= 0 or anyway:
                found.until = time.monotonic() + ASKED_S
                return
        raise errors.DownloadFailed(f"{host} is silent, so it is left alone for a while", retry_after_s=left_s)

    def _note(self, host: str, *, is_silent: bool) -> None:
        with self._lock:
            if not is_silent:
                self._silent.pop(host, None)
                return
            if len(self._silent) >= MOST_HOSTS:
                self._silent.clear()
            found = self._silent.setdefault(host, _Host())
            found.in_a_row += 1
            found.until = time.monotonic() + LEFT_ALONE_S


def _host(url: str) -> str:
    """With its port."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


file_hosts = FileHosts()
