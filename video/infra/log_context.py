"""What the lines of a log are about: the task, the attempt and the request that this thread works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

REQUEST: ContextVar[str] = ContextVar("request", default="")
TASK: ContextVar[str] = ContextVar("task", default="")
GENERATION: ContextVar[str] = ContextVar("generation", default="")


@contextmanager
def about(*, task: str = "", generation: str = "") -> Iterator[None]:
    """Lines that are written in this block are about them."""
    tokens = (TASK.set(task), GENERATION.set(generation))
    try:
        yield
    finally:
        TASK.reset(tokens[0])
        GENERATION.reset(tokens[1])


def present() -> dict[str, str]:
    """What is known of this line, by the names in a log."""
    known = {"task": TASK.get(), "generation": GENERATION.get(), "request": REQUEST.get()}
    return {name: value for name, value in known.items() if value}
