"""How many may listen for changes at once."""

from __future__ import annotations

import pytest

from video.web.front import changes
from video.web.front.changes import Changes, Listener, TooMany


def test_one_user_cannot_take_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MOST_OF_USER", 2)
    monkeypatch.setattr(changes, "MOST_LISTENERS", 3)
    listening = Changes()
    first, second = Listener(1, None, 0), Listener(1, "task_1", 0)
    for listener in (first, second):
        listening.add(listener)
    with pytest.raises(TooMany):
        listening.add(Listener(1, None, 0))
    listening.remove(first)
    listening.add(first)  # a place is free again
    listening.add(Listener(2, None, 0))
    with pytest.raises(TooMany):
        listening.add(Listener(3, None, 0))  # of the process
