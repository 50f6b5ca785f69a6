"""How a caller tells a running step to stop: a `threading.Event`, or any function that answers True."""

from __future__ import annotations

import threading
from collections.abc import Callable

CancelSignal = threading.Event | Callable[[], bool]

#: Longest time between two checks of the signal, seconds. Waiting is in the kernel (select, or an event), not a spin.
CHECK_INTERVAL_S = 0.15


def as_check(signal: CancelSignal | None) -> Callable[[], bool]:
    """The signal as a function; no signal means never."""
    if signal is None:
        return lambda: False
    if isinstance(signal, threading.Event):
        return signal.is_set
    return signal
