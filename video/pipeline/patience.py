"""Patience with a finished video: it is paid for, so its fetch is repeated until the task's deadline.

Each fetch asks the provider for a fresh link, sends no submit, and uses up no try of the stage. The pauses grow with
the number of fetches that failed in a row (`DOWNLOAD_RETRY_SECONDS`). At its deadline the task wakes once more.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

from django.conf import settings

from media_pipeline import errors
from video.attempts import fetches, provider_calls
from video.engine.claims import Claim
from video.engine.outcomes import Fail, Outcome, Park, bounded_s

log = logging.getLogger(__name__)

GAVE_UP = "No playable video could be had from its provider until the task's deadline."
OWNER_DETAIL = "the video is finished; fetching it is tried again"
#: After a file that is too large: another one is unlikely, and each may take minutes to come.
LARGE_FILE_PAUSE_S = 300.0
#: What the task ends with at its deadline where that is not the cause's own code.
_ENDS_AS = {errors.LinkExpired.code: errors.DownloadFailed.code}


@dataclass(frozen=True)
class Cause:
    """Why the video could not be fetched this time.

    `code` names the wait, `ends_as` the task's failure at its deadline; `sentence` is for the user, `detail` for
    operators.
    """

    code: str
    sentence: str
    detail: str
    ends_as: str
    at_least_s: float = 0.0


def cause_of(err: errors.MediaError) -> Cause:
    """What an error of the download says."""
    asked_s = bounded_s(err.retry_after_s or 0, provider_calls.LONGEST_PAUSE_S)
    at_least_s = LARGE_FILE_PAUSE_S if isinstance(err, errors.DownloadTooLarge) else asked_s
    return Cause(err.code, err.user_message, str(err), _ENDS_AS.get(err.code, err.code), at_least_s)


def fetch_again(claim: Claim, cause: Cause) -> Outcome:
    """Wait and fetch again; past the task's deadline the task ends."""
    assert claim.attempt is not None
    if claim.is_past_deadline:
        return Fail(cause.ends_as, f"{GAVE_UP} {cause.sentence}", cause.detail)
    number = fetches.count_failed(claim.attempt.pk)
    delay_s = max(cause.at_least_s, pause_s(number, random.random()))
    level = logging.WARNING if number == 1 else logging.INFO  # once is enough of what may last an hour
    log.log(level, "%s: %s; fetch %d failed, again in %.0f s", claim.task.pk, cause.detail, number, delay_s)
    return Park(
        delay_s,
        f"fetch {number} of the finished video failed, it is tried again until the task's deadline: {cause.detail}",
        hint_delay_s=delay_s,  # a call-back makes no host any better
        code=cause.code,
        error_code=cause.code,
        owner_detail=OWNER_DETAIL,
    )


def pause_s(number: int, jitter: float) -> float:
    """Seconds after the fetch that failed as the `number`-th in a row, less up to a third by `jitter` (0 to 1)."""
    pauses: tuple[float, ...] = settings.DOWNLOAD_RETRY_SECONDS
    return pauses[min(max(number, 1), len(pauses)) - 1] * (1 - jitter / 3)
