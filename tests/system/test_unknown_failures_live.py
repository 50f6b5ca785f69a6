"""A failure in words that no adapter knows: one vendor is asked, until an operator has said what they mean."""

from __future__ import annotations

import pytest

from tests.factories import OLGA, make_task, reload
from tests.system.system import Simulator, System, until
from video.attempts import failure_texts
from video.credits import ledger
from video.models import FailureText, Generation, VideoTask


@pytest.fixture
def working(system: System, simulator: Simulator) -> System:
    """One worker and the sweeper, with circuits that stay out of the way."""
    system.env.update(CIRCUIT_FAULTS="100000")
    system.worker(threads=8)
    system.sweeper()
    return system


def ended(prompt: str, model: str) -> VideoTask:
    """A task of this model that may go to others, once it has ended."""
    task = make_task(prompt=prompt, model_requested=model, fallback=True)
    found: VideoTask = until(f"{task.pk} ends", lambda: (now := reload(task)).finished_at and now)
    return found


def way(task: VideoTask) -> list[tuple[str, str]]:
    """(provider, state) of its attempts, in order."""
    return list(Generation.objects.filter(task=task).order_by("attempt").values_list("provider", "state"))


@pytest.mark.parametrize(("vendor", "model"), [("runway", "gen4.5"), ("pika", "pika"), ("kling", "kling")])
def test_no_second_vendor_is_asked_before_an_operator_has_decided(
    working: System, simulator: Simulator, vendor: str, model: str
) -> None:
    def tried(number: int) -> tuple[VideoTask, int]:
        """A task whose job at this vendor fails so, and how many jobs it cost at all vendors together."""
        prompt = f"lighthouse {vendor} {number} [[sim only={vendor} fail=SOME_NEW_CODE]]"
        task = ended(prompt, model)
        return task, simulator.submits(f"lighthouse {vendor} {number} ")["created"]

    first, jobs = tried(1)
    assert (first.status, first.error_code, jobs) == ("failed", "generation_failed", 1)
    assert way(first) == [(vendor, "failed")]
    assert ledger.balance(first.user_id) == 1000
    row = FailureText.objects.get(provider=vendor)
    assert (row.count, row.meaning, row.last_task) == (1, "", first.pk)
    assert "new" in row.sample.lower()
    assert "new" in row.signature
    assert "lighthouse" not in row.sample

    failure_texts.decide(row.pk, "another_model", by=OLGA)
    second, jobs = tried(2)
    assert second.status == "success"
    assert len(way(second)) == jobs >= 2  # Kling has several models to try
    assert way(second)[0] == (vendor, "failed")
    assert way(second)[-1][0] != vendor
    assert ledger.balance(second.user_id) == 990

    row = failure_texts.decide(row.pk, "moderation", by=OLGA)
    third, jobs = tried(3)
    assert (third.status, third.error_code, jobs) == ("failed", "moderation", 1)
    assert FailureText.objects.get(provider=vendor).count == row.count + 1
