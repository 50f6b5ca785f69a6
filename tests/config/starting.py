"""Starting a program of ours with an environment of its own, and how it ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from config import embedded
from tests.environment import HOME
from tests.system.zygote import zygote

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """How a process ended, and all that it said."""

    returncode: int
    said: str

    def is_one_sentence(self, *words: str) -> None:
        """Assert that it failed and said one line with these words: no traceback, and nothing twice."""
        assert self.returncode not in {0, None}, self.said
        assert "Traceback" not in self.said
        assert len(self.said.strip().splitlines()) == 1, self.said
        for word in words:
            assert word in self.said, self.said


def bare(tmp_path: Path, **variables: str) -> dict[str, str]:
    """What a fresh shell has, a home of one's own, no file, and these variables."""
    clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**clean, "REELWORKS_HOME": str(tmp_path / "home"), "REELWORKS_ENV_FILE": "", **variables}


def servers() -> dict[str, str]:
    """The suite's own database and broker, so that a command starts none."""
    database_url, broker_url = embedded.urls(HOME)
    return {"DATABASE_URL": database_url, "CELERY_BROKER_URL": broker_url}


def run(tmp_path: Path, *argv: str, **variables: str) -> Ended:
    """Run `python {argv}` in the project's folder, beside the suite's servers, until it ends."""
    log = tmp_path / "said.log"
    log.write_text("")
    pid = zygote().start(list(argv), bare(tmp_path, **servers() | variables), log)
    return Ended(zygote().reap(pid), log.read_text())
