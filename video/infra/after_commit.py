"""What follows a commit, and can't undo it: a message to a worker, another row.

Django's own `on_commit` lets an error out: the caller gets a 500 for what was done and paid, and callbacks after that
one are lost. Its robust mode logs the error's text, which may hold an address, and fails for a `partial` (it asks for
`__qualname__`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from django.db import transaction

from video.infra.causes import kind_of

log = logging.getLogger(__name__)


def after_commit(work: Callable[[], object]) -> None:
    """Do `work` once the transaction is committed; at once when there is none. What it raises is logged by its kind.

    Only for what the sweeper, or the lapse of a time, makes good when it did not happen.
    """
    transaction.on_commit(partial(_do, work))


def _do(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as err:  # whatever it is, what was committed stands
        told = work.func if isinstance(work, partial) else work
        name = getattr(told, "__qualname__", type(told).__name__)
        log.warning("%s failed after a commit (%s); what was committed stands", name, kind_of(err))
