from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from media_pipeline.encode import ffmpeg as ffmpeg_module
from media_pipeline.encode.ffmpeg import FFmpeg, first_words, has_kernel_deathsig, redact
from media_pipeline.errors import Cancelled, MediaTimeout, TranscodeFailed
from tests.media_pipeline.conftest import FFMPEG

ENDLESS = (
    "-nostdin",
    "-y",
    "-v",
    "error",
    "-progress",
    "pipe:1",
    "-stats_period",
    "0.1",
    "-re",
    "-f",
    "lavfi",
    "-i",
    "testsrc",
    "-c:v",
    "mpeg4",
)

KINDS = [pytest.param(True, marks=pytest.mark.skipif(not has_kernel_deathsig(), reason="no setpriv here")), False]


def wait_gone(pid: int, timeout_s: float = 10) -> None:
    """Until no process has this id, or only a zombie that its adoptive parent has yet to reap."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if found.stdout.strip().startswith("Z"):
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def running_with(word: str) -> list[int]:
    """Ids of live processes that have `word` in their command line."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(None, 2) for line in listed.splitlines() if word in line)
    return [int(pid) for pid, state, _ in rows if not state.startswith("Z")]


@pytest.mark.parametrize("kernel", KINDS)
def test_runs_and_reports_progress(tmp_path: Path, kernel: bool) -> None:
    seen: list[float] = []
    runner = FFmpeg(FFMPEG, kernel_deathsig=kernel)
    out = tmp_path / "out.mp4"
    argv = [runner.binary, *("-y", "-v", "error", "-progress", "pipe:1", "-stats_period", "0.05")]
    argv += ["-f", "lavfi", "-i", "testsrc2=s=640x360:d=2", f"file:{out}"]
    runner.run(argv, write=[out], deadline_s=30, duration_s=2, on_progress=seen.append)
    assert out.stat().st_size > 0
    assert seen[-1] == 1.0
    assert seen == sorted(seen)


def run_until_cancelled(
    runner: FFmpeg, folder: Path, *, on_progress: Callable[[float], None], cancelled: threading.Event
) -> None:
    """An ffmpeg that would never end, until it is cancelled."""
    with pytest.raises(Cancelled):
        runner.run(
            [runner.binary, *ENDLESS, f"file:{folder}/out.mp4"],
            write=[folder / "out.mp4"],
            deadline_s=30,
            duration_s=100,
            on_progress=on_progress,
            cancelled=cancelled,
        )


@pytest.mark.parametrize("kernel", KINDS)
def test_cancel_stops_it_quickly(tmp_path: Path, kernel: bool) -> None:
    runner = FFmpeg(FFMPEG, kernel_deathsig=kernel)
    cancelled = threading.Event()
    fired_at: list[float] = []

    def cancel_when_moving(_: float) -> None:
        if not fired_at:
            fired_at.append(time.monotonic())
            cancelled.set()

    run_until_cancelled(runner, tmp_path, on_progress=cancel_when_moving, cancelled=cancelled)
    assert time.monotonic() - fired_at[0] < 1.5
    assert not _still_running(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kernel", KINDS)
def test_it_has_nothing_of_our_environment(tmp_path: Path, kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWAY_API_KEY", "canary")
    runner = FFmpeg(FFMPEG, kernel_deathsig=kernel)
    cancelled = threading.Event()
    seen: dict[int, str] = {}

    def look(_: float) -> None:
        seen.update({pid: Path(f"/proc/{pid}/environ").read_text() for pid in running_with(str(tmp_path))})
        cancelled.set()

    run_until_cancelled(runner, tmp_path, on_progress=look, cancelled=cancelled)
    assert seen
    for environment in seen.values():
        assert f"PATH={os.defpath}" in environment
        assert "canary" not in environment


def test_cancelled_before_it_starts(ffmpeg: FFmpeg) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        ffmpeg.run([ffmpeg.binary, "-version"], deadline_s=5, cancelled=cancelled)


@pytest.mark.parametrize("kernel", KINDS)
def test_deadline(tmp_path: Path, kernel: bool) -> None:
    runner = FFmpeg(FFMPEG, kernel_deathsig=kernel)
    out = tmp_path / "out.mp4"
    with pytest.raises(MediaTimeout, match="deadline"):
        runner.run([runner.binary, *ENDLESS, f"file:{out}"], write=[out], deadline_s=0.4)
    assert not _still_running(tmp_path)


def test_standing_still_is_noticed(tmp_path: Path) -> None:
    # A named pipe that nobody writes to: ffmpeg opens its input and waits for ever.
    fifo = tmp_path / "never"
    os.mkfifo(fifo)
    keep_open = os.open(fifo, os.O_RDWR)
    try:
        runner = FFmpeg(FFMPEG, stall_s=0.5)
        argv = [
            runner.binary,
            "-y",
            "-v",
            "error",
            "-progress",
            "pipe:1",
            "-i",
            f"file:{fifo}",
            f"file:{tmp_path}/out.mp4",
        ]
        with pytest.raises(MediaTimeout, match="no progress"):
            runner.run(argv, read=[fifo], write=[tmp_path / "out.mp4"], deadline_s=30)
    finally:
        os.close(keep_open)
    assert not _still_running(tmp_path)


def test_deaf_child_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg_module, "TERM_GRACE_S", 0.2)
    script = tmp_path / "deaf"
    script.write_text(f"#!{sys.executable}\nimport signal\nsignal.signal(15, signal.SIG_IGN)\nsignal.pause()\n")
    script.chmod(0o755)
    runner = FFmpeg(script)
    with pytest.raises(MediaTimeout):
        runner.run([runner.binary], deadline_s=0.5)
    assert not _still_running(tmp_path)


def test_exception_from_the_callback_ends_the_child(tmp_path: Path, ffmpeg: FFmpeg) -> None:
    def lease_lost(_: float) -> None:
        raise LookupError("lease")

    argv = [ffmpeg.binary, *ENDLESS, f"file:{tmp_path}/out.mp4"]
    with pytest.raises(LookupError):
        ffmpeg.run(argv, write=[tmp_path / "out.mp4"], deadline_s=30, duration_s=9, on_progress=lease_lost)
    assert not _still_running(tmp_path)


@pytest.mark.parametrize("kernel", KINDS)
def test_failure_tells_why_without_paths(tmp_path: Path, kernel: bool) -> None:
    runner = FFmpeg(FFMPEG, kernel_deathsig=kernel)
    with pytest.raises(TranscodeFailed, match="No such file") as caught:
        runner.run(
            [runner.binary, "-v", "error", "-i", f"file:{tmp_path}/absent.mp4", "-f", "null", "-"], deadline_s=10
        )
    assert str(tmp_path) not in caught.value.message + caught.value.stderr_tail
    assert "<file>" in caught.value.stderr_tail


@pytest.mark.parametrize("kernel", KINDS)
def test_output_size_is_limited(tmp_path: Path, kernel: bool) -> None:
    runner = FFmpeg(FFMPEG, file_size_bytes=100 * 1024, kernel_deathsig=kernel)
    out = tmp_path / "out.nut"
    argv = [runner.binary, "-y", "-v", "error", "-f", "lavfi", "-i", "testsrc2=d=2", "-c:v", "rawvideo", f"file:{out}"]
    with pytest.raises(TranscodeFailed, match="size limit"):
        runner.run(argv, write=[out], deadline_s=20)
    assert out.stat().st_size <= 100 * 1024


def test_huge_stderr_is_kept_short(tmp_path: Path) -> None:
    script = tmp_path / "loud"
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.stderr.write('x' * 5_000_000 + ' the end')\nsys.exit(3)\n")
    script.chmod(0o755)
    runner = FFmpeg(script)
    with pytest.raises(TranscodeFailed, match="code 3") as caught:
        runner.run([runner.binary], deadline_s=10)
    assert len(caught.value.stderr_tail) <= 4096 + 5
    assert caught.value.stderr_tail.endswith("the end")


@pytest.mark.parametrize("kernel", KINDS)
def test_kill_9_of_the_worker_takes_ffmpeg_along(tmp_path: Path, kernel: bool) -> None:
    script = (
        "import sys; from pathlib import Path; from media_pipeline.encode.ffmpeg import FFmpeg;"
        "r = FFmpeg(sys.argv[1], kernel_deathsig=sys.argv[2] == 'True');"
        "r.run([r.binary, *sys.argv[3:]], write=[Path(sys.argv[-1].removeprefix('file:'))], deadline_s=60,"
        "duration_s=9, on_progress=lambda f: print('on', flush=True))"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", script, FFMPEG, str(kernel), *ENDLESS, f"file:{tmp_path}/out.mp4"],
        stdout=subprocess.PIPE,
        cwd=Path(ffmpeg_module.__file__).parents[2],
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"on\n"
    children = [pid for pid in running_with(f"{tmp_path}/out.mp4") if pid != worker.pid]
    assert children
    worker.send_signal(signal.SIGKILL)
    worker.communicate(timeout=60)
    for pid in children:
        wait_gone(pid)


@pytest.mark.parametrize("kernel", KINDS)
@pytest.mark.parametrize("code", [1, 69, 127, 187, 218, 234, 255])
def test_an_exit_code_is_no_signal(tmp_path: Path, kernel: bool, code: int) -> None:
    script = tmp_path / "ends"
    script.write_text(f"#!/bin/sh\necho gone >&2\nexit {code}\n")
    script.chmod(0o755)
    runner = FFmpeg(script, kernel_deathsig=kernel)
    with pytest.raises(TranscodeFailed, match=f"^ffmpeg ended with code {code}: gone$"):
        runner.run([runner.binary], deadline_s=10)


@pytest.mark.parametrize("kernel", KINDS)
@pytest.mark.parametrize("name", ["SEGV", "KILL", "ABRT"])
def test_a_crash_is_told_by_the_name_of_its_signal(tmp_path: Path, kernel: bool, name: str) -> None:
    script = tmp_path / "crashes"
    script.write_text(f"#!/bin/sh\nkill -{name} $$\n")
    script.chmod(0o755)
    runner = FFmpeg(script, kernel_deathsig=kernel)
    with pytest.raises(TranscodeFailed, match=rf"^ffmpeg ended with signal \d+ \(SIG{name}\): "):
        runner.run([runner.binary], deadline_s=10)


SAYINGS = {
    "Impossible to convert between the formats\n  Color spaces:\n[vf#0:0] Error reinitializing filters!\n"
    "[out#0/mp4] Nothing was written into output file, because at least one of its streams received no packets.": (
        "Impossible to convert between the formats"
    ),
    "\n\n[out#0/mp4] Nothing was written into output file\n[h264] Invalid NAL unit size (0 > 3841).\n": (
        "[h264] Invalid NAL unit size (0 > 3841)."
    ),
    "Conversion failed!\n": "Conversion failed!",
    "  \n": "no message",
    "": "no message",
}


@pytest.mark.parametrize(("said", "told"), SAYINGS.items())
def test_the_first_line_that_says_something_is_told(said: str, told: str) -> None:
    assert first_words(said) == told


def test_the_cause_is_told_however_much_follows_it(tmp_path: Path) -> None:
    script = tmp_path / "talks"
    script.write_text("#!/bin/sh\necho 'the cause' >&2\nyes 'Conversion failed!' | head -9999 >&2\nexit 1\n")
    script.chmod(0o755)
    runner = FFmpeg(script)
    with pytest.raises(TranscodeFailed, match=r"code 1: the cause$"):
        runner.run([runner.binary], deadline_s=10)


def test_argv_must_be_ours(ffmpeg: FFmpeg) -> None:
    with pytest.raises(ValueError, match="configured ffmpeg"):
        ffmpeg.run(["/bin/true"], deadline_s=1)
    with pytest.raises(ValueError, match="no executable"):
        FFmpeg("/nowhere/ffmpeg")


def test_redact() -> None:
    argv = ["/opt/bin/ffmpeg", "-i", "file:/data/work/task 1/in.mp4"]
    text = "[mov @ 0x55d0c0] file:/data/work/task 1/in.mp4: bad; also /tmp/other/x.mp4: gone\n"
    assert redact(text, argv) == "[mov] file:<file>: bad; also <file>: gone"


def _still_running(tmp_path: Path, check: Callable[[str], list[int]] = running_with) -> list[int]:
    for pid in check(str(tmp_path)):
        wait_gone(pid, 2)
    return check(str(tmp_path))
