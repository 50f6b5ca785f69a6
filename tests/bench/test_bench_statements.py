"""The bench's walk through one job, stage by stage, as the product is today."""

from __future__ import annotations

import re

from tests.bench.runs import run


def test_one_job_is_walked_from_create_to_save_in_fewer_than_30_statements() -> None:
    done = run("bench.statements", timeout_s=300)
    assert done.returncode == 0, done.stderr[-3000:]
    counted = dict(re.findall(r"^\| (\w+) +\| +(\d+) \|", done.stdout, re.MULTILINE))
    assert list(counted) == ["create", "admit", "generate", "poll", "download", "transcode", "thumbnail", "save"]
    assert all(int(number) > 0 for number in counted.values())
    assert sum(map(int, counted.values())) < 30
