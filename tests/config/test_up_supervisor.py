"""The supervisor: readable log, restarts, and nothing left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from config.embedded.places import LOG_BYTES
from config.running import Running, System
from config.supervisor import Supervisor, read_procfile

ROOT = Path(__file__).resolve().parents[2]


def until(done: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def lives(mark: str) -> bool:
    """Whether a process with this word in its command line runs (a zombie has none)."""
    listed = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    return any(mark in line for line in listed.splitlines() if "sitter.py" not in line)


def supervisor(tmp_path: Path, **commands: str) -> Supervisor:
    return Supervisor(commands, env=lambda _name: os.environ, cwd=tmp_path)


def test_procfile_is_read_and_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "Procfile"
    path.write_text("# comment\n\nweb: serve --port $PORT: yes\nworker:work\n")
    assert read_procfile(path) == {"web": "serve --port $PORT: yes", "worker": "work"}
    path.write_text("web serve\n")
    with pytest.raises(ValueError, match=r"line 1: expected `name: command`"):
        read_procfile(path)


def test_our_procfile_has_what_the_documentation_lists() -> None:
    assert set(read_procfile(ROOT / "Procfile")) == {
        *("release", "web", "worker", "media", "webhooks", "sweeper", "simulator"),
    }


def test_log_lines_carry_the_aligned_name_and_no_colour_without_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with supervisor(tmp_path, a="echo one; sleep 60", longer_name="printf 'two\\nhalf'; sleep 60") as running:
        running.start()
        seen = ""

        def both() -> bool:
            nonlocal seen
            seen += capfd.readouterr().out
            return "one" in seen and "two" in seen

        assert running.run_until(both)
    seen += capfd.readouterr().out
    assert "a           | one\n" in seen
    assert "longer_name | two\n" in seen
    assert "longer_name | half\n" in seen
    assert "\x1b" not in seen


def test_dead_process_is_started_again_and_said_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with supervisor(
        tmp_path, web="sh -c 'echo x >> starts; test $(wc -l < starts) -gt 1 && sleep 60; exit 3'"
    ) as running:
        running.start()
        starts = tmp_path / "starts"
        assert running.run_until(lambda: starts.exists() and starts.read_text() == "x\nx\n")
    assert "web ended (exit code 3)" in capfd.readouterr().out


def test_who_ends_in_good_order_is_started_again_without_a_longer_and_longer_wait(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("config.supervisor.STEADY_SECONDS", 0.05)
    with supervisor(
        tmp_path, told="sh -c 'echo x >> told; sleep 0.1'", broken="sh -c 'echo x >> broken; sleep 0.1; exit 3'"
    ) as running:
        running.start()
        assert running.run_until(lambda: all(_starts(tmp_path / name) >= 3 for name in ("told", "broken")))
    said = capfd.readouterr().out
    assert said.count("told ended (exit code 0)") >= 2
    assert "s; starting it again in 1 s" in said  # the broken one's second death
    assert all("in 0.5 s" in line for line in said.splitlines() if "told ended" in line)


def _starts(path: Path) -> int:
    return len(path.read_text().split()) if path.exists() else 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_the_process_itself_gets_its_environment(tmp_path: Path) -> None:
    def canary(name: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "ONE": f"canary-of-{name}", "LONG": "x" * 100_000}

    with Supervisor({"a": "sleep 60", "b": "sleep 60"}, env=canary, cwd=tmp_path) as running:
        running.start()
        for name, other in ("ab", "ba"):
            pid = running.pid(name)
            assert running.run_until(lambda pid=pid: Path(f"/proc/{pid}/cmdline").read_text().startswith("sleep"))
            assert f"canary-of-{name}" in (seen := Path(f"/proc/{pid}/environ").read_text())
            assert f"canary-of-{other}" not in seen
            sitter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
            for part in ("environ", "cmdline"):
                assert "canary" not in Path(f"/proc/{sitter}/{part}").read_text()


def test_logs_in_files_are_private_and_hold_what_was_said(tmp_path: Path) -> None:
    (tmp_path / "up.log").write_text("x" * (LOG_BYTES + 1))
    environ = os.environ
    with Supervisor(
        {"a": "sh -c 'echo one; echo two >&2; sleep 60'"}, env=lambda _name: environ, cwd=tmp_path, log_dir=tmp_path
    ) as running:
        running.start()
        running.say("three")
        assert running.run_until(lambda: "two" in (tmp_path / "a.log").read_text())
    assert (tmp_path / "a.log").read_text() == "one\ntwo\n"
    assert (tmp_path / "up.log").read_text().endswith(" three\n")
    assert (tmp_path / "up.log.1").stat().st_size > LOG_BYTES
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a.log", tmp_path / "up.log")} == {0o600}


def test_stop_is_polite_first(tmp_path: Path) -> None:
    command = "sh -c 'trap \"echo bye > bye; exit 0\" TERM; echo > up; while :; do sleep 0.05; done'"
    with supervisor(tmp_path, web=command) as running:
        running.start()
        assert running.run_until(lambda: (tmp_path / "up").exists())
    assert (tmp_path / "bye").exists()


def test_stop_reaches_grandchildren_in_sessions_of_their_own(tmp_path: Path) -> None:
    script = "import subprocess, time; subprocess.Popen(['sleep', '98761'], start_new_session=True); time.sleep(98762)"
    with supervisor(tmp_path, web=f'{sys.executable} -c "{script}"') as running:
        running.start()
        assert running.run_until(lambda: lives("sleep 98761"))
    assert not lives("sleep 98761")
    assert not lives("98762")


def test_signal_ends_the_run(tmp_path: Path) -> None:
    with supervisor(tmp_path, web="sleep 98763") as running:
        running.start()
        assert running.run_until(lambda: lives("sleep 98763"))
        os.kill(os.getpid(), signal.SIGTERM)
        assert running.run_until(lambda: False) is False
    assert not lives("sleep 98763")


@pytest.mark.parametrize("victim", ["supervisor", "sitter"])
def test_nothing_survives_kill_9(tmp_path: Path, victim: str) -> None:
    script = f"""
        import os, sys
        from pathlib import Path
        from config.supervisor import Supervisor
        with Supervisor({{"web": "sleep 98764"}}, env=lambda _name: os.environ, cwd=Path(sys.argv[1])) as running:
            running.start()
            print(running._services[0].child._sitter.pid, flush=True)
            running.run_until(lambda: {victim == "sitter"} and running._services[0].child is None)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout
    sitter = int(process.stdout.readline())
    until(lambda: lives("sleep 98764"), "the process runs")
    if victim == "sitter":
        os.kill(sitter, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not lives("sleep 98764"), "the process has gone")


def test_one_system_a_home_and_the_second_finds_it(tmp_path: Path) -> None:
    first, second = Running(tmp_path), Running(tmp_path)
    assert first.claim()
    assert not second.claim()
    system = System(pid=1, url="http://127.0.0.1:8000", simulate=True, simulator_url="", ready=True)
    first.tell(system)
    assert second.find(1) == system
    second.visit()
    assert not first.guests_gone()
    second.release()
    assert first.guests_gone()
    first.release()
    assert second.claim()
    assert second.find(0.1) is None
    second.release()
