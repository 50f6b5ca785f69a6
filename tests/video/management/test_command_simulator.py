"""manage.py simulator"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from providers import simulator
from providers.simulator import SimulatorOptions


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[SimulatorOptions]:
    asked: list[SimulatorOptions] = []
    monkeypatch.setattr(simulator, "serve", asked.append)
    return asked


def test_hands_its_options_on_and_keeps_clips_at_home(
    served: list[SimulatorOptions], settings: Any, tmp_path: Path
) -> None:
    settings.REELWORKS_HOME = tmp_path
    call_command("simulator", "--port", "0", "--render-seconds", "0.5", "--canned", "--keys", "a, b")
    [options] = served
    assert (options.port, options.render_seconds, options.canned, options.keys) == (0, 0.5, True, ("a", "b"))
    assert options.data_dir == str(tmp_path / "simulator")


def test_defaults_are_the_simulators_own(served: list[SimulatorOptions]) -> None:
    call_command("simulator")
    [options] = served
    default = SimulatorOptions()
    assert (options.host, options.port, options.render_seconds) == (default.host, default.port, default.render_seconds)


def test_a_wrong_option_is_an_error_in_words(served: list[SimulatorOptions]) -> None:
    with pytest.raises(CommandError, match="fps"):
        call_command("simulator", "--fps", "0")
    assert served == []


def test_a_taken_port_is_one_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        words = f"The simulator can't listen at port {port} of 127.0.0.1 (Address already in use)"
        with pytest.raises(CommandError, match="Choose another one with --port") as caught:
            call_command("simulator", "--port", port)
        assert str(caught.value).startswith(words)
        alone = [sys.executable, "-m", "providers.simulator", "--port", port]
        done = subprocess.run(alone, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(words)
