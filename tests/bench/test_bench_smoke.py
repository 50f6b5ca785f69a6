"""The accounts of the benchmark, without a stopwatch."""

from __future__ import annotations

import os
import subprocess
import sys

from bench import cpu
from bench.client import Load
from bench.tables import table, verdict


def test_a_line_of_proc_is_read_though_the_name_holds_spaces_and_brackets():
    line = "42 (a (b) c) S 7 42 42 0 -1 4194560 100 200 0 0 11 5 300 20 20 0 1 0 99 0 0"
    assert cpu.parse_stat(line) == cpu.Stat(pid=42, parent=7, ticks=11 + 5 + 300 + 20)


def test_a_tree_counts_all_below_its_root_and_nothing_beside_it():
    processes = [
        cpu.Stat(1, 0, 1000),
        cpu.Stat(10, 1, 5),
        cpu.Stat(11, 10, 7),
        cpu.Stat(12, 11, 9),
        cpu.Stat(20, 1, 50),
    ]
    assert cpu.tree_seconds(processes, [10]) == (5 + 7 + 9) * cpu.TICK_S
    assert cpu.tree_seconds(processes, [10, 11]) == (5 + 7 + 9) * cpu.TICK_S  # no one counts twice
    assert cpu.tree_seconds(processes, [99]) == 0  # one that has ended


def test_a_child_that_has_ended_still_counts():
    me = {"me": os.getpid()}
    before = cpu.spent(me)
    burn = "import os\nwhile sum(os.times()[:2]) < 0.3: pass"
    subprocess.run([sys.executable, "-I", "-S", "-c", burn], check=True)
    assert cpu.difference(cpu.spent(me), before)["me"] >= 0.25


def test_idle_cost_is_taken_off_for_the_same_length_of_time():
    net = cpu.less_idle({"web": 3.0, "worker": 1.0}, 20.0, {"web": 0.5, "worker": 0.0}, 10.0)
    assert net == {"web": 2.0, "worker": 1.0}


def test_a_request_on_the_wire_has_the_length_of_its_body_in_bytes():
    wire = Load(port=1, path="/x", requests=1, token="t", body='{"prompt": "Ä"}').bytes()
    assert b"POST /x HTTP/1.1\r\n" in wire
    assert b"Content-Length: 16\r\n" in wire


def test_tables_are_markdown_and_targets_are_named():
    assert table("T", ["a", "b"], [["x", 1]]).splitlines()[-1] == "| x | 1 |"
    assert verdict(1.2, at_most=1.1) == "MISSED (at most 1.1)"
    assert verdict(0.8, at_least=0.75) == "met (at least 0.75)"
