"""The comparison beside LiteLLM: what its table says, and when its targets count as met."""

from __future__ import annotations

import pytest

from bench.peers.__main__ import OURS, PEER, are_met, show


def side(per_s: float) -> dict[str, float]:
    return {"per_s": per_s, "cpu_s": 0.001, "p95_s": 0.02}


@pytest.mark.parametrize(("worst_status", "worst_create", "met"), [(10, 3, True), (9.9, 3, False), (10, 2.9, False)])
def test_each_target_holds_in_every_round_or_is_missed(worst_status: float, worst_create: float, met: bool) -> None:
    found = {
        "status": [{OURS: side(600), PEER: side(50)}, {OURS: side(worst_status), PEER: side(1)}],
        "create": [{OURS: side(200), PEER: side(50)}, {OURS: side(worst_create), PEER: side(1)}],
    }
    assert are_met(found) is met
    assert f"status: 12.00 {worst_status:.2f} times LiteLLM's rate" in show(found)
    assert ("MISSED" in show(found)) is not met
