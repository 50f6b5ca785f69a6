"""The sweeper's part in what is kept and for how long: videos whose time is over, deleted tasks, kept originals, and
users who are to be erased.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from media_pipeline.errors import MediaError
from video.actions import erase_user
from video.engine import stored_files

log = logging.getLogger(__name__)

BATCH = 500  # tasks of a statement
LONGEST_S = 5.0  # of a turn: other periodic jobs wait for it


def sweep() -> int:
    """Delete what is to go, in batches and for LONGEST_S seconds at most. Returns for how many tasks.

    What an earlier turn, or a process that died, left undone comes first. Safe to repeat.
    """
    ends_at = time.monotonic() + LONGEST_S
    total, goes_on = 0, True
    while goes_on:
        waiting = stored_files.unfinished(BATCH)
        done, goes_on = _each(((one, (one,)) for one in waiting), stored_files.delete_given_up, ends_at)
        total += done
        marked = stored_files.mark_expired(BATCH) if goes_on and len(waiting) < BATCH else 0
        if not (done or marked):
            break
    if goes_on:
        originals = stored_files.old_originals(BATCH)
        total += _each(((one[0], one) for one in originals), stored_files.delete_original, ends_at)[0]
    return total


def sweep_erasures() -> int:
    """Go on with the users who are to be erased, for LONGEST_S seconds at most. Returns how many are erased."""
    ends_at = time.monotonic() + LONGEST_S
    return sum(
        erase_user.work(user_id, for_s=ends_at - time.monotonic())
        for user_id in erase_user.asked()
        if time.monotonic() < ends_at
    )


def _each(
    tasks: Iterable[tuple[str, tuple[str, ...]]], delete: Callable[..., bool], ends_at: float
) -> tuple[int, bool]:
    """(how many were done, whether to go on): until the time is over or the storage can't be asked.

    A file that can't be deleted keeps no other from it.
    """
    done = 0
    for task_id, arguments in tasks:
        if time.monotonic() >= ends_at:
            return done, False
        try:
            delete(*arguments)
        except MediaError as err:
            log.warning("sweeper: the files of %s, which are to go, stay for now: %s", task_id, err)
            return done, False  # what is wrong with the storage is wrong for the others too
        except OSError as err:
            log.error("sweeper: a file of %s can't be deleted (%s); see who owns it", task_id, err)  # noqa: TRY400
        else:
            done += 1
    return done, True
