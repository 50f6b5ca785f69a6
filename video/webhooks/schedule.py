"""When a delivery is tried: the pauses between its tries, and those of a receiver that fails again and again."""

from __future__ import annotations

import random

#: Pauses in seconds after a failed try; the first try is at once. They add up to 21.6 hours, and with the jitter to
#: less than the 24 after which a delivery is given up.
PAUSES_S = (5, 60, 300, 1800, 2 * 3600, 4 * 3600, 6 * 3600, 9 * 3600)
MOST_TRIES = len(PAUSES_S) + 1
GIVE_UP_S = 24 * 3600
JITTER = 0.1  # part of a pause by which it is longer or shorter
LONGEST_ASKED_S = 3600.0  # that a receiver's Retry-After counts for

#: Failures in a row after which a receiver gets nothing for a while; the pauses double, from the first to the longest.
CIRCUIT_FAULTS = 5
FIRST_CIRCUIT_S, LONGEST_CIRCUIT_S = 30, 900

#: Tries under way at once: of one receiver, and of one user, so that slow receivers keep no other user's waiting.
MOST_OF_TARGET, MOST_OF_USER = 4, 8


def next_pause_s(step: int, *, asked_s: float | None = None) -> float | None:
    """Seconds until the try after the `step`th failed one (from 1); None: it was the last.

    `asked_s`: what the receiver asked for.
    """
    if step >= MOST_TRIES:
        return None
    pause = PAUSES_S[step - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    return max(pause, min(asked_s or 0.0, LONGEST_ASKED_S))
