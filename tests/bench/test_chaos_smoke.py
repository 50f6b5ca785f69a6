"""The chaos harness: one short run with every kind of fault, and that its plan is the seed's alone."""

from __future__ import annotations

import random

import pytest

from bench.chaos import plan
from bench.chaos.mutants import MUTANTS, Mutant
from providers.dialect.faults import split_prompt
from tests.bench.runs import ROOT, run


def planned(seed: int) -> tuple[list[plan.Job], list[plan.Fault]]:
    rng = random.Random(seed)
    return plan.make_jobs(300, rng, users=5), plan.make_faults(300, 20, rng, lease_s=20)


def test_the_same_seed_makes_the_same_run() -> None:
    assert planned(1) == planned(1)
    assert planned(1) != planned(2)


def test_every_kind_of_fault_comes_and_none_comes_after_the_jobs() -> None:
    for seed in range(20):
        _, faults = planned(seed)
        assert {fault.kind for fault in faults} == set(plan.KINDS)
        assert all(0 < fault.after_jobs < 300 for fault in faults)
        assert faults == sorted(faults, key=lambda fault: fault.after_jobs)


def test_the_simulator_understands_every_script() -> None:
    for script in plan.SCRIPTS:
        text, groups = split_prompt(f"{plan.mark(7)} A cat [[sim {script.directives}]]")
        assert text == f"{plan.mark(7)} A cat"
        assert len(groups) == 1


@pytest.mark.scale
def test_thirty_jobs_under_every_kind_of_fault_break_no_promise() -> None:
    # How long recovery takes is for a quiet machine to say.
    flags = "--jobs 30 --seed 2 --lease 4 --render-seconds 1 --recovery-limit 0"
    done = run("bench.chaos", *flags.split(), timeout_s=600)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-12000:]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_guard_that_is_taken_out_to_test_the_harness_is_where_it_is_looked_for(mutant: Mutant) -> None:
    for edit in mutant.edits + mutant.slower:
        assert edit.found(ROOT) == 1, f"{edit.path} has this text {edit.found(ROOT)} times: {edit.old!r}"
