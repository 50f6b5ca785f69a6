"""The bench's walk through one job, stage by stage, as the product is today."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_one_job_is_walked_from_create_to_save_and_every_stage_asks_the_database() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.statements"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counted = dict(re.findall(r"^\| (\w+) +\| +(\d+) \|", done.stdout, re.MULTILINE))
    assert list(counted) == ["create", "admit", "generate", "poll", "download", "transcode", "thumbnail", "save"]
    assert all(int(number) > 0 for number in counted.values())
