"""Runs a part of the bench as a user would: in a process of its own, on servers of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(module: str, *flags: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """`python -m module flags`, with what it wrote; whatever its exit code is."""
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
