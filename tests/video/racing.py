"""Several calls at the same moment, each in a thread and on a connection of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import connection

from video.actions.task_rows import ActionRefused


def together(turn: int, *calls: Callable[[], Any]) -> list[Any]:
    """Their results, or the Refused that they ended with; each in a thread of its own, off at once.

    From turn to turn another one gets a little start, so that each comes first sometimes, on any machine.
    """
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(place: int, call: Callable[[], Any]) -> None:
        try:
            connection.ensure_connection()
            barrier.wait(30)
            time.sleep(0 if turn % 3 == 2 or turn % len(calls) == place else 0.003)
            results[place] = call()
        except ActionRefused as err:
            results[place] = err
        except BaseException as err:
            results[place] = err
            raise
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(place, call)) for place, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, ActionRefused):
            raise result
    return results
