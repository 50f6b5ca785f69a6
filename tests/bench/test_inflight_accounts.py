"""The accounts of the bench of jobs in flight, without a run."""

from __future__ import annotations

import os
from typing import Any

import pytest

from bench import cpu, inflight, watch
from bench.watch import Memory

MB = 1024**2


def samples(*sizes_mb: float) -> Memory:
    return Memory([(5.0 * number, int(size * MB)) for number, size in enumerate(sizes_mb)])


def test_memory_that_fills_at_first_or_swings_is_flat_and_one_that_climbs_is_not() -> None:
    assert watch.is_flat(samples(50, 90, *[100] * 20))
    assert watch.is_flat(samples(*[100, 104] * 20))
    assert not watch.is_flat(samples(*(100 + number for number in range(60))))
    assert samples(*(100 + number for number in range(60))).growth() == pytest.approx(59 * MB, rel=0.01)
    assert watch.is_flat(samples(*(10 + number / 10 for number in range(60))))  # 6 MB are no leak in ten minutes


def test_memory_is_that_of_the_whole_tree() -> None:
    assert watch.own_bytes(os.getpid()) > 5 * MB
    assert os.getpid() in cpu.tree(cpu.all_processes(), [os.getppid()])


def test_quantiles() -> None:
    assert [watch.quantile(range(100), share) for share in (0, 0.5, 0.95, 1)] == [0, 50, 95, 99]
    assert watch.quantile([], 0.5) == 0


def found(**changes: Any) -> dict[str, Any]:
    """A run that met every target."""
    good = {
        "looks": {"in_time": 0.999},
        "ends": {"visible": {"p95": 5.0}, "polls": 8.0},
        "status": {"p95": 0.05, "failed": []},
        "failed": {},
        "memory": {"web": {"growth": 0, "flat": True}, "simulator": {"growth": 1e9, "flat": False}},
    }
    return good | changes


def missed(flags: str, **changes: Any) -> list[str]:
    rows = inflight.targets(found(**changes), inflight.parse(flags.split()))
    return [figure for figure, _, verdict in rows if "MISSED" in verdict]


def test_each_target_that_is_missed_is_named_and_latency_is_one_of_the_steady_shape_only() -> None:
    assert missed("") == missed("--jobs 1000 --render 300") == []
    assert missed("", looks={"in_time": 0.98}) == ["looks within one interval of their time"]
    assert missed("", status={"p95": 0.2, "failed": ["HTTP 500"]}) == ["status p95", "status requests that failed"]
    assert missed("", failed={"timeout": 2}) == ["tasks that failed"]
    assert missed("", memory={"web": {"growth": 1e9, "flat": False}}) == ["memory of web"]
    slow = {"visible": {"p95": 11.0}, "polls": 13.0}
    assert missed("", ends=slow) == []
    assert missed("--jobs 1000 --render 300", ends=slow) == ["provider done → visible, p95", "polls a job"]
    assert missed("--jobs 1000 --render 300 --webhook") == ["provider done → visible, p95"]  # 5 s are too many there


def test_more_jobs_than_creates_can_bring_in_are_copied_into_flight() -> None:
    assert [inflight.parse(["--jobs", jobs]).copy for jobs in ("1000", "10000", "30000")] == [False, False, True]
    assert inflight.parse(["--jobs", "30000", "--no-copy"]).copy is False
