"""A decoder that was taken over reaches neither other files nor anybody: tried with real children."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from media_pipeline.encode.ffmpeg import FFmpeg, isolation_of
from media_pipeline.encode.isolation import NO_ISOLATION, Isolation, isolated_child, of_this_kernel
from media_pipeline.encode.probe import Prober
from media_pipeline.errors import NotAVideo, TranscodeFailed
from tests.media_pipeline.conftest import FFMPEG

HERE = of_this_kernel()
landlock = pytest.mark.skipif(not HERE.landlock, reason=f"no Landlock: {HERE}")
seccomp = pytest.mark.skipif(not HERE.seccomp, reason=f"no seccomp: {HERE}")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / ".env.local"
    path.write_text("RUNWAY_API_KEY=canary\n" * 20)
    return path


@pytest.fixture(params=["tcp", "udp", "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a socket that is open to everybody, as ffmpeg writes it."""
    family = socket.AF_UNIX if request.param == "unix" else socket.AF_INET
    kind = socket.SOCK_DGRAM if request.param == "udp" else socket.SOCK_STREAM
    with socket.socket(family, kind) as server:
        server.bind(str(tmp_path / "s") if request.param == "unix" else ("127.0.0.1", 0))
        if request.param != "udp":
            server.listen(8)
        at = server.getsockname()
        yield f"unix:{at}" if request.param == "unix" else f"{request.param}://127.0.0.1:{at[1]}"


def copy(runner: FFmpeg, what: str, to: str, **files: list[Path]) -> None:
    """What an attacker would have ffmpeg do: bytes from one place to another, whatever they are."""
    argv = [
        runner.binary,
        *("-y", "-v", "error", "-f", "data", "-i", what, "-map", "0", "-c", "copy", "-f", "data", to),
    ]
    runner.run(argv, deadline_s=10, **files)  # type: ignore[arg-type]


@landlock
@pytest.mark.parametrize("spelling", ["{}", "file:{}", "subfile,,start,0,end,40,,:{}", "concat:{}", "cache:file:{}"])
def test_ffmpeg_reads_no_file_but_its_own(secret: Path, tmp_path: Path, spelling: str) -> None:
    out = tmp_path / "out"
    what = spelling.format(secret)
    copy(FFmpeg(FFMPEG, isolation=NO_ISOLATION), what, str(out))
    assert b"canary" in out.read_bytes()
    out.unlink()
    with pytest.raises(TranscodeFailed) as refused:
        copy(FFmpeg(FFMPEG), what, str(out), write=[out])
    assert "Permission denied" in refused.value.stderr_tail
    assert out.stat().st_size == 0


@landlock
def test_ffmpeg_writes_no_file_but_its_own(secret: Path, tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    copy(FFmpeg(FFMPEG), str(secret), str(own), read=[secret], write=[own])
    assert own.read_bytes() == secret.read_bytes()
    for path in (other, secret):
        before = path.read_bytes() if path.exists() else None
        with pytest.raises(TranscodeFailed, match="Permission denied"):
            copy(FFmpeg(FFMPEG), str(own), str(path), read=[own])
        assert (path.read_bytes() if path.exists() else None) == before


@seccomp
def test_ffmpeg_reaches_no_socket(secret: Path, listener: str) -> None:
    copy(FFmpeg(FFMPEG, isolation=NO_ISOLATION), str(secret), listener)
    with pytest.raises(TranscodeFailed, match=r"not permitted|Input/output error"):
        copy(FFmpeg(FFMPEG, isolation=Isolation(seccomp=True)), str(secret), listener, read=[secret])


@landlock
@seccomp
def test_a_child_has_no_privilege_and_sees_no_other_process(tmp_path: Path) -> None:
    script = "head -c9 /proc/$PPID/environ; ls /proc /root /home /tmp; cat /etc/passwd; /bin/sh -c 'exit 7'"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with isolated_child(["/bin/sh", "-c", script], HERE, run=["/bin/sh"], options=options) as child:
        assert child.communicate(timeout=10) == (b"", None)
        assert child.returncode == 7
    with isolated_child(["/bin/sleep", "60"], HERE, run=["/bin/sleep"], options=options) as child:
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        child.kill()
        child.communicate(timeout=10)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    # Root keeps the one that gets it through folders of others (CAP_DAC_OVERRIDE), anybody else none.
    assert int(status["CapPrm"], 16) | 0b10 == 0b10


def test_the_thread_that_asked_keeps_everything(secret: Path) -> None:
    with isolated_child(["/bin/true"], HERE, run=["/bin/true"], options={}) as child:
        assert child.wait(timeout=10) == 0
    assert "canary" in secret.read_text()
    socket.socket().close()


def test_a_child_that_cannot_be_started_raises_here() -> None:
    with pytest.raises(FileNotFoundError), isolated_child(["/nowhere"], HERE, options={}):
        pass


HOSTILE_DECODER = """
import os, socket
from types import SimpleNamespace
class FFmpegError(Exception): pass
logging = SimpleNamespace(set_level=lambda level: None, PANIC=0)
def tried(what):
    try: what()
    except OSError as err: return type(err).__name__
    return "done"
def open(*args, **kwargs):
    found = {
        "read": tried(lambda: os.open(SECRET, os.O_RDONLY)),
        "write": tried(lambda: os.open(SECRET + ".new", os.O_WRONLY | os.O_CREAT)),
        "list": tried(lambda: os.listdir(os.path.dirname(SECRET))),
        "socket": tried(lambda: socket.socket(socket.AF_UNIX)),
        "run": tried(lambda: os.execv("/bin/true", ["true"])),
    }
    raise OSError(5, ' '.join(map('='.join, found.items())))
"""


@landlock
@seccomp
def test_a_decoder_that_was_taken_over_reaches_nothing(
    secret: Path, tmp_path: Path, clip: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real reader, with a decoder of an attacker in the place of PyAV."""
    folder = tmp_path / "modules" / "av"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(HOSTILE_DECODER.replace("SECRET", repr(str(secret))))
    monkeypatch.setattr(sys, "path", [str(folder.parent), *sys.path])
    prober = Prober(workers=1)
    try:
        with pytest.raises(NotAVideo) as caught:
            prober.probe(clip("ready.mp4"))  # type: ignore[operator]
    finally:
        prober.close()
    denied = "PermissionError"
    for word in ("read", "write", "list", "socket", "run"):
        assert f"{word}={denied}" in caught.value.message
    assert not Path(f"{secret}.new").exists()


@landlock
def test_an_ffmpeg_that_landlock_keeps_from_starting_runs_without_it_and_says_so(tmp_path: Path) -> None:
    library = tmp_path / "elsewhere"
    library.write_text("exit 0\n")
    script = tmp_path / "ffmpeg"
    script.write_text(f"#!/bin/sh\n. {library}\n")
    script.chmod(0o755)
    found = isolation_of(str(script))
    assert (found.landlock, found.seccomp, found.is_complete) == (0, HERE.seccomp, False)
    assert "does not start under Landlock" in str(found)
    FFmpeg(script).run([str(script)], deadline_s=10)


@landlock
@seccomp
def test_the_included_ffmpeg_is_isolated_wholly() -> None:
    assert FFmpeg(FFMPEG).isolation.is_complete
