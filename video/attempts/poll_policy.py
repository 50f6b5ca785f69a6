"""When to poll a job next. Pure: numbers in, seconds out; what is measured comes from `poll_statistics.py`.

A job's life, by the time since it was accepted:

- *early*: long before such jobs usually end. A few polls, for early failures and progress.
- *window*: from just before the earliest usual end to the latest one. Polls as close as the provider allows, but only
  so many in the whole window.
- *late*: later than nearly all. Polls that grow apart with the time over.

Before enough is known of a model, the interval grows with the job's age. While call-backs come, polls are rare: they
only replace a call-back that is lost.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

HOUR_S = 3600.0
FEWEST = 8  # render times before they are believed
#: The longest interval, whatever is known of the model.
LONGEST_UNSEEN_S = 120.0
#: The same while a call-back is expected.
LONGEST_UNCALLED_S = 300.0

_GROWTH = 0.1  # of a job's age, while nothing is known of its model
_FIRST_OF_PRIOR = 0.25  # of what the catalogue thinks usual: the first poll, while nothing is known
_EARLY_FIRST = 0.1  # of the earliest usual end: the first poll
_EARLY_GROWTH = 2.0  # of a job's age: each next one three times as late
_STEP = 0.02  # of a job's age, in the window
_POLLS_IN_WINDOW = 12  # at most
_LATE_GROWTH = 0.25  # of the time since the latest usual end
_JITTER = 0.15
_MOST_PROGRESS = 0.95  # of a render that has not ended


@dataclass(frozen=True)
class TypicalDurations:
    """How long jobs of a model lately took, in seconds: when the first, half, and nearly all had ended."""

    low_s: float
    middle_s: float
    high_s: float


@dataclass(frozen=True)
class PollPolicy:
    """What is known of the jobs of one model and account; intervals in seconds."""

    least_s: float  # no two polls of one job are closer: the provider's own rule, or the operator's
    usual: TypicalDurations | None = None  # None: too few have ended lately
    prior_s: float | None = None  # the catalogue's guess of a usual render; None while simulating
    share_s: float = 0.0  # what the account's budget of requests allows each of its open jobs
    call_expected: bool = False  # the provider was asked to call back, and lately the provider does


def usual(render_times_s: Sequence[float]) -> TypicalDurations | None:
    """What render times say; None when they are too few. Of 50, the two lowest and highest are not believed."""
    times = sorted(seconds for seconds in render_times_s if seconds >= 0)
    if len(times) < FEWEST:
        return None
    odd = len(times) // 20
    return TypicalDurations(times[odd], times[len(times) // 2], times[-1 - odd])


def next_look_s(policy: PollPolicy, age_s: float, *, seed: str = "") -> float:
    """Seconds until the next poll of a job that was accepted `age_s` seconds ago and has not ended.

    Never under the least interval. `seed` names the poll: jobs that were made together are not polled together, and
    the same poll of the same job always gets the same answer.
    """
    age_s = max(age_s, 0.0)
    wait_s = _uncalled(policy, age_s) if policy.call_expected else _undisturbed(policy, age_s)
    longest_s = LONGEST_UNCALLED_S if policy.call_expected else LONGEST_UNSEEN_S
    # The account's budget of requests comes last, so that it always holds.
    wait_s = max(min(wait_s, longest_s), policy.share_s)
    return max(policy.least_s, wait_s * (1 + _JITTER * (2 * fraction_of(seed) - 1)))


def _undisturbed(policy: PollPolicy, age_s: float) -> float:
    known = policy.usual
    if known is None:
        if age_s < policy.least_s and policy.prior_s is not None:
            return max(policy.least_s, _FIRST_OF_PRIOR * policy.prior_s)
        return max(policy.least_s, _GROWTH * age_s)
    # The window opens before the earliest end that was seen, so that a model that becomes faster is followed.
    step_s = max(policy.least_s, _STEP * known.low_s)
    opens_s = known.low_s - 2 * step_s
    if age_s < opens_s:
        left_s = opens_s - age_s
        wait_s = min(max(policy.least_s, _EARLY_FIRST * known.low_s, _EARLY_GROWTH * age_s), LONGEST_UNSEEN_S)
        return left_s if left_s < 1.3 * wait_s else wait_s
    step_s = max(policy.least_s, _STEP * age_s, (known.high_s - opens_s) / _POLLS_IN_WINDOW)
    return max(step_s, _LATE_GROWTH * (age_s - known.high_s))


def _uncalled(policy: PollPolicy, age_s: float) -> float:
    """Rare: in early life as always, then just after the usual end (the call should have come), then slowly."""
    known = policy.usual
    typical_s = known.high_s if known is not None else policy.prior_s or LONGEST_UNSEEN_S
    overdue_s = 1.2 * typical_s + 2 * policy.least_s
    if age_s < overdue_s:
        return min(max(policy.least_s, _EARLY_FIRST * typical_s, _EARLY_GROWTH * age_s), overdue_s - age_s)
    return max(10 * policy.least_s, age_s / 2)


def share_s(open_jobs: int, *, jobs_per_request: int, requests_per_s: float) -> float:
    """The interval at which an account's budget just suffices for all its open jobs; seconds."""
    return open_jobs / jobs_per_request / requests_per_s


def progress(render_s: float, age_s: float) -> float:
    """How far a render probably is, 0 to 1, by its age and the time that such jobs take; never quite done."""
    return min(_MOST_PROGRESS, age_s / max(render_s, 0.001))


def progress_since(share: float, age_then_s: float, age_s: float) -> float:
    """How far a render is that was `share` done at a poll, by the time since; never less than then."""
    if age_then_s <= 0:
        return share
    return max(share, min(_MOST_PROGRESS, share * age_s / age_then_s))


def fraction_of(seed: str) -> float:
    """0 to 1, evenly spread, the same for the same seed."""
    return zlib.crc32(seed.encode()) / math.pow(2, 32)
