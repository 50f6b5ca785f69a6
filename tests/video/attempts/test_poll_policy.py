"""When a job is looked at next, over its whole life, by numbers alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from video.attempts.poll_policy import (
    FEWEST,
    LONGEST_UNCALLED_S,
    LONGEST_UNSEEN_S,
    PollPolicy,
    TypicalDurations,
    next_look_s,
    progress,
    progress_since,
    share_s,
    usual,
)

STEADY = PollPolicy(least_s=5, usual=TypicalDurations(290, 300, 310))


def looks(pace: PollPolicy, ends_at_s: float, seed: str = "a job") -> list[float]:
    """Ages at which a job that ends at that age is looked at; the last one finds the end."""
    found: list[float] = []
    age = 0.0
    while age < ends_at_s:
        age += next_look_s(pace, age, seed=f"{seed} {len(found)}")
        found.append(age)
    return found


PACES = {
    "nothing known, simulated": PollPolicy(least_s=0.2),
    "nothing known, real": PollPolicy(least_s=5, prior_s=120),
    "steady": STEADY,
    "wide": PollPolicy(least_s=5, usual=TypicalDurations(20, 600, 2400)),
    "quick": PollPolicy(least_s=1, usual=TypicalDurations(0.1, 1.0, 2.0)),
    "slow": PollPolicy(least_s=5, usual=TypicalDurations(2300, 2400, 2500)),
    "called": replace(STEADY, call_expected=True),
    "crowded": replace(STEADY, share_s=40),
}


@pytest.mark.parametrize("pace", PACES.values(), ids=PACES.keys())
@pytest.mark.parametrize("ends_at_s", [1, 60, 300, 5000])
def test_no_two_looks_are_closer_than_the_least_interval_and_none_is_later_than_the_bound(
    pace: PollPolicy, ends_at_s: float
) -> None:
    longest = max(LONGEST_UNCALLED_S if pace.call_expected else LONGEST_UNSEEN_S, pace.share_s) * 1.15
    for number in range(20):
        ages = [0.0, *looks(pace, ends_at_s, f"job {number}")]
        gaps = [after - before for before, after in itertools.pairwise(ages)]
        assert min(gaps) > pace.least_s - 1e-9
        assert max(gaps) <= longest


def test_a_steady_model_is_found_done_within_seconds_at_few_looks() -> None:
    lates, counts = [], []
    for number in range(400):
        ends_at_s = 285 + 30 * number / 400
        ages = looks(STEADY, ends_at_s, f"job {number}")
        lates.append(ages[-1] - ends_at_s)
        counts.append(len(ages))
    assert sorted(lates)[380] < 8
    assert sum(counts) / len(counts) < 9
    assert max(counts) < 15


def test_a_model_that_varies_widely_costs_no_more_looks_than_one_that_does_not_by_much() -> None:
    counts = [len(looks(PACES["wide"], 20 + 2380 * number / 100, f"job {number}")) for number in range(100)]
    assert max(counts) < 24


def test_a_model_that_became_faster_is_followed() -> None:
    """Each round of jobs is measured by the looks that found them done, and the window moves with what was learnt."""
    pace = STEADY
    for round_ in range(40):
        seen = [looks(pace, 200, f"{round_} {number}")[-1] for number in range(50)]
        pace = replace(pace, usual=usual(seen))
    assert pace.usual is not None
    assert pace.usual.middle_s < 215


def test_a_model_that_became_slower_is_followed_at_once() -> None:
    seen = [looks(STEADY, 900, str(number))[-1] for number in range(50)]
    assert len(looks(STEADY, 900)) < 40
    learnt = usual(seen)
    assert learnt is not None
    assert 900 <= learnt.low_s <= learnt.high_s < 1050


def test_an_early_failure_is_seen_early() -> None:
    assert looks(STEADY, 1)[0] < 40
    assert looks(PACES["called"], 1)[0] < 45


def test_without_history_a_quick_simulated_render_waits_for_nothing() -> None:
    assert looks(PollPolicy(least_s=0.2), 2)[-1] < 2.5
    assert looks(PollPolicy(least_s=1), 2)[-1] <= 3.5


def test_without_history_a_real_job_is_first_looked_at_a_good_part_of_the_usual_time_later() -> None:
    ages = looks(PACES["nothing known, real"], 120)
    assert 20 < ages[0] < 40
    assert len(ages) < 20


def test_a_call_that_is_expected_makes_looks_rare_and_one_that_is_lost_is_made_good() -> None:
    called, alone = looks(PACES["called"], 280), looks(STEADY, 340)
    assert len(called) <= 4 < len(alone)
    lost = looks(PACES["called"], 300)
    assert lost[-1] < 1.2 * 310 + 60


def test_more_open_jobs_than_the_budget_allows_stretch_the_interval() -> None:
    share = share_s(6000, jobs_per_request=1, requests_per_s=100)
    assert share == 60
    gaps = [next_look_s(replace(STEADY, share_s=share), 300, seed=str(number)) for number in range(500)]
    assert sum(gaps) / len(gaps) == pytest.approx(60, rel=0.03)
    assert share_s(6000, jobs_per_request=20, requests_per_s=100) == 3


def test_jobs_that_were_made_together_are_not_looked_at_together_and_the_same_look_is_always_the_same() -> None:
    gaps = [next_look_s(STEADY, 100, seed=f"job {number}") for number in range(200)]
    assert max(gaps) - min(gaps) > 0.25 * 100
    assert gaps == [next_look_s(STEADY, 100, seed=f"job {number}") for number in range(200)]


def test_few_render_times_are_not_believed_and_odd_ones_do_not_count() -> None:
    assert usual([300.0] * (FEWEST - 1)) is None
    assert usual([300.0] * FEWEST) == TypicalDurations(300, 300, 300)
    assert usual([1.0, 2.0, *[300.0] * 46, 9000.0, 9000.0]) == TypicalDurations(300, 300, 300)
    assert usual([-1.0] * 50) is None  # an answer that came before the submit's own


def test_progress_grows_with_age_and_never_says_done() -> None:
    shown = [progress(100, age) for age in range(0, 300, 10)]
    assert shown == sorted(shown)
    assert shown[5] == 0.5
    assert shown[-1] == 0.95


def test_between_two_looks_progress_goes_on_with_the_time_and_never_falls() -> None:
    shown = [progress_since(0.3, 60, age) for age in (60, 90, 120, 600)]
    assert shown == [0.3, pytest.approx(0.45), 0.6, 0.95]
    assert progress_since(0.99, 60, 600) == 0.99  # as the provider told
    assert progress_since(0.0, 60, 600) == 0.0
    assert progress_since(0.3, 0, 600) == 0.3
