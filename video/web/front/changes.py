"""Tells those who wait for it that a task has changed: event streams, and requests for a status that may wait.

One thread a process reads the timeline of all tasks, a few times a second and only while anybody listens: the cost does
not grow with the listeners, no writer of a task does anything for it, and it works behind any pooler. The database is
the truth: what a pass misses, because its transaction was open for longer than WINDOW_S, the next look at all that is
listened to brings.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import Error, connection

from video.infra import database
from video.infra.causes import kind_of

log = logging.getLogger(__name__)

EVERY_S = 0.2
#: A transaction that is open for so long at most is seen at once: numbers of events are given before it commits.
WINDOW_S = 3.0
#: All that is listened to is looked at so often, for what no event tells: progress, and the place of a waiting task.
LOOK_S = 5.0
AFTER_ERROR_S = 2.0
MOST_EVENTS = 5000  # a pass
MOST_TASKS = 1000  # a statement
#: Of a process, and of one user.
MOST_LISTENERS = 5000
MOST_OF_USER = 2500

Status = dict[str, Any]
#: The status of these tasks as their owner sees it, by id; one statement. The text is the origin of its links.
Render = Callable[[Sequence[str], str], dict[str, Status]]


class TooMany(Exception):
    """As many as may are listening already."""


def message(status: Status, event_id: int) -> bytes:
    """A status as a server-sent event."""
    return f"id: {event_id}\nevent: status\ndata: {json.dumps(status)}\n\n".encode()


@dataclass(eq=False)
class Listener:
    """One who waits, in an event loop."""

    user_id: int
    task_id: str | None  # None: all of the user's
    since: int  # the number of the last event that it knows
    told: dict[str, Status] = field(default_factory=dict)  # the last status of each task that has not ended
    render: Render | None = None  # None: it only wants to know that something has changed
    base: str = ""
    messages: deque[bytes] = field(default_factory=deque)
    is_over: bool = False  # its only task has ended
    is_new: bool = True  # no pass has seen it yet
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self, _: object = None) -> None:
        """Let the one who waits look. For the event loop."""
        self.woken.set()


class Changes:
    """The thread, and those who listen. `add` and `remove` are for the event loop."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._of_user: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._any = threading.Event()
        self._ends = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._seen: deque[tuple[float, int]] = deque()  # (when, event), of the last WINDOW_S
        self._floor = 0  # all events up to this one have been told
        self._looked_at = 0.0
        self._thread = threading.Thread(target=self._run, name="changes", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread, in the process that serves."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end."""
        self._ends.set()
        self._any.set()

    def add(self, listener: Listener) -> None:
        """From now on it is told. Raises TooMany."""
        with self._lock:
            if len(self._listeners) >= MOST_LISTENERS or self._of_user[listener.user_id] >= MOST_OF_USER:
                raise TooMany
            self._listeners.add(listener)
            self._of_user[listener.user_id] += 1
            self._any.set()

    def remove(self, listener: Listener) -> None:
        """It is told no more."""
        with self._lock:
            self._listeners.remove(listener)
            self._of_user -= Counter([listener.user_id])  # those who are at 0 leave it
            if not self._listeners and not self._ends.is_set():
                self._any.clear()

    def _run(self) -> None:
        while self._any.wait() and not self._ends.is_set():
            try:
                self._pass()
            except Error as err:
                log.warning("event streams stand still: the database can't be used (%s)", kind_of(err))
                connection.close()
                self._ends.wait(AFTER_ERROR_S)
            if not self._any.is_set():
                connection.close()
            self._ends.wait(EVERY_S)

    def _pass(self) -> None:
        now = time.monotonic()
        with self._lock:
            listeners = list(self._listeners)
        if not listeners:
            return  # the last one went just now
        # What happened since a new one read the tasks is read once more, for it.
        since = [listener.since for listener in listeners if listener.is_new]
        if len(since) == len(listeners):
            self._floor, self._seen = max(since), deque()  # nobody was told of anything
        rows = database.fetch(
            """
            SELECT e.id, e.task_id, t.user_id FROM video_taskevent e JOIN video_videotask t ON t.id = e.task_id
            WHERE e.id > %s ORDER BY e.id LIMIT %s
            """,
            [min([self._floor, *since]), MOST_EVENTS],
        )
        told = {event for _, event in self._seen}
        changed: dict[Listener, set[str]] = defaultdict(set)
        of_user, of_task = _by(listeners)
        for event, task_id, user_id in rows:
            for listener in (*of_user.get(user_id, ()), *of_task.get(task_id, ())):
                if event > listener.since if listener.is_new else event > self._floor and event not in told:
                    changed[listener].add(task_id)
        for listener in listeners:
            listener.is_new = False
        self._seen.extend((now, event) for event, *_ in rows if event > self._floor and event not in told)
        newest = max(self._floor, rows[-1][0] if rows else 0)
        while self._seen and now - self._seen[0][0] > WINDOW_S:
            self._floor = max(self._floor, self._seen.popleft()[1])
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            for listener in listeners:
                changed[listener].update(listener.told)
        self._tell(changed, newest)

    def _tell(self, changed: dict[Listener, set[str]], newest: int) -> None:
        found: dict[str, dict[str, tuple[Status, bytes]]] = {}
        for base in {listener.base for listener in changed if listener.render}:
            mine = [listener for listener in changed if listener.render and listener.base == base]
            wanted = sorted(set().union(*(changed[listener] for listener in mine)))
            render = mine[0].render
            assert render is not None
            found[base] = {}
            for start in range(0, len(wanted), MOST_TASKS):
                statuses = render(wanted[start : start + MOST_TASKS], base)
                found[base] |= {one: (status, message(status, newest)) for one, status in statuses.items()}
        woken = [one for one in changed if changed[one] and _fill(one, changed[one], found.get(one.base, {}))]
        if woken and self._loop is not None:
            self._loop.call_soon_threadsafe(_wake, woken)


def _fill(listener: Listener, tasks: set[str], found: Mapping[str, tuple[Status, bytes]]) -> bool:
    """Whether there is anything to tell it; its messages."""
    if listener.render is None:
        return True
    for task_id in tasks & found.keys():
        status, text = found[task_id]
        if listener.told.get(task_id) == status:
            continue
        listener.messages.append(text)
        if status["status"] in ENDED:
            listener.told.pop(task_id, None)
            listener.is_over = listener.task_id is not None
        else:
            listener.told[task_id] = status
    return bool(listener.messages)


#: Of the statuses that clients see.
ENDED = frozenset({"success", "failed"})


def _wake(listeners: Iterable[Listener]) -> None:
    for listener in listeners:
        listener.wake()


def _by(listeners: Iterable[Listener]) -> tuple[dict[int, list[Listener]], dict[str, list[Listener]]]:
    of_user: dict[int, list[Listener]] = defaultdict(list)
    of_task: dict[str, list[Listener]] = defaultdict(list)
    for listener in listeners:
        if listener.task_id is None:
            of_user[listener.user_id].append(listener)
        else:
            of_task[listener.task_id].append(listener)
    return of_user, of_task
