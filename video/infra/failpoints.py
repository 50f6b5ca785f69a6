"""Named points at every boundary of the pipeline, at which tests make a process die, raise or freeze.

Armed by the settings, from REELWORKS_FAILPOINT="name=kill", "name=raise" or "name=freeze" (several separated by
commas), or by `arm()` in a forked child. A frozen process stops with all its threads, that of the leases too, until it
gets SIGCONT.
"""

from __future__ import annotations

import os
import signal
import threading

_IN_MEDIA_STAGE = ("claimed", "after_work", "after_put", "advanced")
POINTS = (
    "admit.before_commit",  # the attempt's row is written, and gone if the process dies here
    "admit.committed",  # … and stays; no message has been sent yet
    "generate.claimed",  # a worker holds the task, nothing else has happened
    "generate.after_image",  # the start image is kept under the task's name
    "generate.before_mark_sent",
    "generate.after_mark_sent",  # committed as unknown, the socket not yet open
    "generate.before_send",  # in the sender, just before the first byte
    "generate.after_send",  # the whole reply is here, nothing of it is written
    "generate.after_record",  # the job id is committed, the task is still in generate
    "generate.advanced",
    "poll.claimed",
    "poll.after_read",
    "poll.after_record",  # the job's end is committed, the task is still in poll
    "poll.advanced",
    # After the work the file is whole in scratch, after the put also in storage.
    *(f"{stage}.{point}" for stage in ("download", "transcode", "thumbnail") for point in _IN_MEDIA_STAGE),
    "thumbnail.after_extra",  # a file beside the video is in storage, and no row names it
    "save.claimed",
    "save.after_extra",  # … has its final name, and no row names that
    "save.after_video",  # the video has its final name, the thumbnail has not
    "save.after_thumbnail",
    "save.finished",  # success is committed, the work files are still there
    "render.after_copy",  # the original is copied for a task that is not there yet
    "render.committed",  # the render's row is written, and nobody was told
    "removal.after_file",  # one of the files that a row has given up is deleted, the row still names it
    "removal.after_files",  # all of them are deleted, the row still names them
    "webhook.claimed",  # a try has its number, nothing is sent
    "webhook.after_send",  # the receiver's answer is here, nothing of it is written
    "webhook.recorded",
    "job.item_done",  # an item of an operator's job is done, in a transaction that is not committed yet
    "job.item_committed",
)


class FailpointError(RuntimeError):
    """Raised by a point armed with `raise`."""


_armed: dict[str, str] = {}


def arm(name: str, action: str) -> None:
    """Arm one point in this process. Raises ValueError for a name that no code reaches or an unknown action."""
    if name not in POINTS:
        raise ValueError(f"no fail point is called {name!r}")
    if action not in {"kill", "raise", "freeze"}:
        raise ValueError(f"a fail point can kill, raise or freeze, not {action!r}")
    _armed[name] = action


def failpoint(name: str) -> None:
    """Do what the point is armed with; usually nothing."""
    if not _armed:
        return
    action = _armed.get(name)
    if action is None:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "raise":
        raise FailpointError(name)
    if action == "freeze":
        # To this thread: sent to the process, another thread takes it, and this one runs on until that has been awake.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
