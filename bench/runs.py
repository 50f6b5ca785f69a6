"""What all measurements share: progress on stderr, the exit code of a run, raw figures in bench/results/."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.system import BenchError

RESULTS = Path(__file__).with_name("results")
STARTED = time.monotonic()


def say(text: str) -> None:
    """Progress, beside the tables."""
    print(f"bench: {time.monotonic() - STARTED:4.0f} s: {text}", file=sys.stderr, flush=True)


def exit_code(work: Callable[[], int]) -> int:
    """That of `work`; 1 when it could not go on, 130 after Ctrl-C."""
    try:
        return work()
    except BenchError as err:
        say(str(err))
        return 1
    except KeyboardInterrupt:
        say("stopped; nothing is left behind")
        return 130


def keep(found: dict[str, Any], name: str = "") -> str:
    """Write the raw figures to bench/results/ under this and the time; where they are."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime(f"{name}%Y-%m-%dT%H%M%SZ.json", time.gmtime())
    path.write_text(json.dumps(found, indent=1, default=str))
    return f"raw figures in bench/results/{path.name}"


def machine() -> str:
    """For the last line: figures of a busy machine mean less."""
    return f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f} at the end"
