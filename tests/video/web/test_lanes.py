"""Which thread answers a request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from video.web.front import lanes
from video.web.front.lanes import FIRST, Lane


async def asked(lane: Lane, work: Callable[[], None]) -> str:
    """The name of the thread that did the work."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()

    def answer(in_time: bool) -> None:
        assert in_time
        work()
        loop.call_soon_threadsafe(done.set_result, threading.current_thread().name)

    assert lane.take(answer)
    return await asyncio.wait_for(done, 20)


def nothing() -> None:
    """What takes no time."""


async def names(lane: Lane, times: int) -> set[str]:
    return {await asked(lane, nothing) for _ in range(times)}


def test_few_threads_answer_while_none_of_them_waits_and_others_help_while_they_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "LATE_S", 0.5)  # a busy machine is late by itself
    lane = Lane("web", threads=FIRST + 2, waiting=100)
    first = {f"web-{n}" for n in range(FIRST)}
    begun, goes_on = threading.Barrier(FIRST + 1), threading.Event()

    def wait() -> None:
        begun.wait(20)
        goes_on.wait(20)

    async def story() -> None:
        lane.start()
        assert await names(lane, 50) <= first
        held = [asyncio.ensure_future(asked(lane, wait)) for _ in range(FIRST)]
        await asyncio.to_thread(begun.wait, 20)
        helped = await names(lane, 3)
        assert helped
        assert not helped & first
        goes_on.set()
        assert set(await asyncio.gather(*held)) == first
        assert await names(lane, 50) <= first

    asyncio.run(story())
    lane.stop(20)
    assert not any(thread.is_alive() for thread in (*lane._first, *lane._helpers))


def test_a_lane_that_ends_finishes_what_it_has_taken() -> None:
    lane = Lane("web", threads=FIRST + 1, waiting=100)
    done: list[bool] = []

    async def story() -> None:
        lane.start()
        for _ in range(50):
            assert lane.take(done.append)

    asyncio.run(story())
    lane.stop(20)
    assert done == [True] * 50
