"""The bell of admission: a crowd of creates must not take all of a worker's threads."""

from __future__ import annotations

import threading

import pytest

from video.engine import dispatch
from video.processes import tasks
from video.scheduling import admission

WAIT_S = 60


def test_one_thread_admits_and_the_others_go_back_to_work_but_nobody_who_came_meanwhile_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def admit() -> list[object]:
        passes.append(len(passes))
        if len(passes) == 1:
            begun.set()
            assert go_on.wait(WAIT_S)
        return []

    monkeypatch.setattr(admission, "admit", admit)
    monkeypatch.setattr(dispatch, "resume_all", lambda due, *, urgent: len(list(due)))
    first = threading.Thread(target=tasks.admit)
    first.start()
    assert begun.wait(WAIT_S)
    for _ in range(10):
        tasks.admit()  # returns at once though the first still holds the lock
    assert len(passes) == 1
    go_on.set()
    first.join(WAIT_S)
    assert len(passes) == 2
    tasks.admit()
    assert len(passes) == 3


def test_an_admission_that_fails_does_not_keep_the_next_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(admission, "admit", fail)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            tasks.admit()
