"""Runs one ffmpeg process: bounded in time, output and memory, stoppable at once, and never left behind.

How the child dies with its worker, also after kill -9 (measured on 2 cores with /bin/true, 0.6 ms bare):

- Linux: `setpriv --pdeathsig KILL -- prlimit … -- ffmpeg` (util-linux): 2.3 ms wall, 2.1 ms CPU. The kernel does
  it, and the three exec each other, so ffmpeg is our direct child. The signal is tied to the *thread* that forked;
  that thread waits until the child is reaped.
- Elsewhere (macOS, BusyBox): a `/bin/sh` watcher holds the read end of a pipe and kills ffmpeg at its end of file:
  1.1 ms. Weaker only in that the watcher itself could be killed first; limits come from `ulimit`.

No `preexec_fn`: it is unsafe in a process with threads, and workers run threads. What else the child gives up is in
`isolation`; that starts it from a thread of its own.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from media_pipeline.encode.isolation import Isolation, isolated_child, of_this_kernel
from media_pipeline.errors import Cancelled, DiskFull, MediaTimeout, TranscodeFailed

log = logging.getLogger(__name__)

#: All that a child gets: it reads files of strangers, and so must hold no key, password or address.
CHILD_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8"}
#: How much of stderr is kept, bytes, from its begin and its end. A hostile file can make ffmpeg write a line a frame.
STDERR_HEAD_BYTES = 1024
STDERR_TAIL_BYTES = 3072
#: ffmpeg gets this long to end by itself after TERM. What it has written is thrown away in any case.
TERM_GRACE_S = 1.0
#: Of one child. x264 at 4K with 2 threads maps about 1.5 GiB; the rest is room for decoders and thread arenas.
ADDRESS_SPACE_BYTES = 4 << 30
FILE_SIZE_BYTES = 4 << 30
#: Longest time between two checks of the cancel signal, the deadline and the child. Waiting is in the kernel (select).
CHECK_INTERVAL_S = 0.15

# stdin is the pipe whose end of file means that the worker is gone. The watcher must not hold our stdout or stderr
# open, and ffmpeg must not hold the pipe. Nothing from the command line is ever parsed by the shell: it arrives as
# "$@".
_SH_WATCHER = """
exec 3<&0 </dev/null
ulimit -c 0; ulimit -f "$1"; shift
"$@" 3<&- & child=$!
( read -r _ <&3; kill -KILL "$child" ) >/dev/null 2>&1 & watcher=$!
exec 3<&-
wait "$child"; code=$?
kill "$watcher" 2>/dev/null
exit "$code"
"""


@functools.cache
def has_kernel_deathsig() -> bool:
    """Whether this machine has a setpriv that knows --pdeathsig (BusyBox has not) and a prlimit."""
    setpriv, prlimit = shutil.which("setpriv"), shutil.which("prlimit")
    if not (sys.platform.startswith("linux") and setpriv and prlimit):
        return False
    trial = subprocess.run(
        [setpriv, "--pdeathsig", "KILL", "--", prlimit, "--core=0", "--", sys.executable, "-I", "-S", "-c", ""],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=CHILD_ENVIRONMENT,
        timeout=10,
        check=False,
    )
    return trial.returncode == 0


@functools.cache
def isolation_of(binary: str) -> Isolation:
    """All that this kernel has, less Landlock if that ffmpeg can't be started under it (it may have libraries of its
    own in an odd place); tried once a process.
    """
    found = of_this_kernel()
    if not found.landlock:
        return found
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        with isolated_child([binary, "-version"], found, run=_programs(binary), options=options) as trial:
            try:
                if trial.wait(timeout=10) == 0:
                    return found
            finally:
                trial.kill()
                trial.wait()
    except (OSError, subprocess.TimeoutExpired):
        log.warning("%s does not start under Landlock", binary, exc_info=True)
    return replace(found, landlock=0, missing=f"{Path(binary).name} does not start under Landlock")


def _programs(binary: str) -> list[str]:
    """It, and the folder of its libraries beside its own, if it was unpacked somewhere."""
    lib = Path(binary).resolve().parent.parent / "lib"
    return [binary, *([str(lib)] if lib.is_dir() else [])]


class FFmpeg:
    """One ffmpeg binary and the limits it runs under. Holds no state of a run: share it between threads.

    `binary` is resolved to an absolute path (ValueError if there is none). `kernel_deathsig` is for tests; by
    default the better way that this machine has is taken. `isolation` is what each child gives up, by default
    all that can be had here.
    """

    def __init__(
        self,
        binary: str | Path,
        *,
        file_size_bytes: int = FILE_SIZE_BYTES,
        stall_s: float = 60.0,
        kernel_deathsig: bool | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        found = shutil.which(str(binary))
        if found is None:
            raise ValueError("no executable ffmpeg at the configured place")
        self.binary = str(Path(found).absolute())
        self.file_size_bytes = file_size_bytes
        self.stall_s = stall_s
        self.isolation = isolation_of(self.binary) if isolation is None else isolation
        self._kernel_deathsig = has_kernel_deathsig() if kernel_deathsig is None else kernel_deathsig

    def launch_argv(self, argv: Sequence[str]) -> list[str]:
        """`argv` behind the launcher that sets limits and ties the child to us."""
        if self._kernel_deathsig:
            setpriv, prlimit = shutil.which("setpriv") or "setpriv", shutil.which("prlimit") or "prlimit"
            limits = ("--core=0", f"--fsize={self.file_size_bytes}", f"--as={ADDRESS_SPACE_BYTES}")
            return [setpriv, "--pdeathsig", "KILL", "--", prlimit, *limits, "--", *argv]
        # `ulimit -f` counts in 512-byte blocks. No address limit here: macOS refuses to set one.
        return ["/bin/sh", "-c", _SH_WATCHER, "sh", str(-(-self.file_size_bytes // 512)), *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float,
        read: Sequence[Path] = (),
        write: Sequence[Path] = (),
        duration_s: float | None = None,
        on_progress: Callable[[float], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> str:
        """Run `argv` (whose first word is `self.binary`) to its end; returns what it said, shortened and without paths.

        It may open the files `read` and `write`, and under Landlock no other; what is missing of the latter is made.

        With `-progress pipe:1` in `argv` and `duration_s` given, `on_progress` gets fractions from 0 to 1, and a
        run whose output does not change for `stall_s` is killed. Whatever happens, also an exception from
        `on_progress`, the child is dead and reaped when this returns.

        Raises Cancelled (within about 0.2 s, plus TERM_GRACE_S for a stubborn child), MediaTimeout, DiskFull,
        TranscodeFailed.
        """
        if not argv or argv[0] != self.binary:
            raise ValueError("argv must start with the configured ffmpeg")
        cancelled = cancelled or threading.Event()
        if cancelled.is_set():
            raise Cancelled("cancelled before ffmpeg started")
        deadline = time.monotonic() + deadline_s
        said = _Said()
        stall_s = self.stall_s if "-progress" in argv else math.inf
        with self._started(argv, read, write) as child:
            try:
                _follow(child, said, deadline, stall_s, duration_s, on_progress, cancelled)
                code = child.wait(timeout=max(TERM_GRACE_S, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise MediaTimeout("ffmpeg closed its output but did not end") from None
            finally:
                _stop(child)
        text = redact(said.text, argv)
        if code != 0:
            raise _failure(code, text, by_shell=not self._kernel_deathsig)
        return text

    def _started(
        self, argv: Sequence[str], read: Sequence[Path], write: Sequence[Path]
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        for path in write:
            path.touch()
        launched = self.launch_argv(argv)
        options = {
            "stdin": subprocess.DEVNULL if self._kernel_deathsig else subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": CHILD_ENVIRONMENT,
            "start_new_session": True,
        }
        programs = _programs(self.binary)
        return isolated_child(launched, self.isolation, run=programs, read=read, write=write, options=options)


def _follow(
    child: subprocess.Popen[bytes],
    said: _Said,
    deadline: float,
    stall_s: float,
    duration_s: float | None,
    on_progress: Callable[[float], None] | None,
    cancelled: threading.Event,
) -> None:
    """Read both pipes until they close or there is a reason to stop."""
    assert child.stdout is not None
    assert child.stderr is not None
    progress = _Progress(duration_s)
    moved_at = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe in (child.stdout, child.stderr):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(timeout=CHECK_INTERVAL_S)
            for item, _ in ready:
                data = os.read(item.fd, 65536)
                if not data:
                    selector.unregister(item.fileobj)
                elif item.fileobj is child.stderr:
                    said.feed(data)
                elif progress.feed(data):
                    moved_at = time.monotonic()
                    if on_progress is not None and progress.fraction is not None:
                        on_progress(progress.fraction)
            now = time.monotonic()
            if cancelled.is_set():
                raise Cancelled("cancelled while ffmpeg was running")
            if now > deadline:
                raise MediaTimeout("ffmpeg passed its deadline")
            if now - moved_at > stall_s:
                raise MediaTimeout(f"ffmpeg made no progress for {stall_s:g} s")
            # A launcher that is gone while something still holds its pipes: don't wait for that.
            if not ready and child.poll() is not None:
                return


class _Said:
    """What came by stderr: the begin, where the cause stands, and the end."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self._lost = False

    def feed(self, data: bytes) -> None:
        room = STDERR_HEAD_BYTES - len(self._head)
        self._head += data[:room]
        rest = self._tail + data[room:]
        self._lost = self._lost or len(rest) > STDERR_TAIL_BYTES
        self._tail = rest[-STDERR_TAIL_BYTES:]

    @property
    def text(self) -> str:
        gap = b"\n...\n" if self._lost else b""
        return (self._head + gap + self._tail).decode("utf-8", "replace")


class _Progress:
    """Reads the key=value lines of `-progress`. Progress is a change of frames, time or size, not a further line."""

    _KEYS = (b"frame", b"out_time_us", b"total_size", b"progress")

    def __init__(self, duration_s: float | None) -> None:
        self.fraction: float | None = None
        self._duration_s = duration_s
        self._rest = b""
        self._seen: dict[bytes, bytes] = {}

    def feed(self, data: bytes) -> bool:
        """Take more output; True if the run has made progress since the last call."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-1024:]
        moved = False
        for line in lines:
            name, _, value = line.strip().partition(b"=")
            if name not in self._KEYS or self._seen.get(name) == value:
                continue
            self._seen[name] = value
            moved = True
            if name == b"progress" and value == b"end":
                self.fraction = 1.0
            elif name == b"out_time_us" and self._duration_s and value.lstrip(b"-").isdigit():
                self.fraction = min(1.0, max(0.0, int(value) / 1e6 / self._duration_s))
        return moved


def redact(text: str, argv: Sequence[str]) -> str:
    """ffmpeg's words without file paths or addresses in memory, so that they may be stored and shown."""
    for word in sorted(argv, key=len, reverse=True):
        path = word.removeprefix("file:")
        if Path(path).is_absolute():
            text = text.replace(path, "<file>")
    text = re.sub(r"(?:file:)?(?:/[^\s/'\":,]+){2,}", "<file>", text)
    text = re.sub(r" @ 0x[0-9a-f]+", "", text)
    return text.strip()


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the whole process group, politely first, and reap. Does nothing but close pipes if the child has ended."""
    if child.poll() is None:
        _signal_group(child, signal.SIGTERM)
        try:
            child.wait(timeout=TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            _signal_group(child, signal.SIGKILL)
            child.wait()
        # Behind the shell watcher ffmpeg is a grandchild and may outlive the shell by its own clean-up.
        _signal_group(child, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _failure(code: int, said: str, *, by_shell: bool) -> DiskFull | TranscodeFailed:
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return DiskFull("ffmpeg ran out of disk space")
    number = _signal_of(code, by_shell=by_shell)
    if number == signal.SIGXFSZ or "File too large" in said:
        return TranscodeFailed("ffmpeg's output passed its size limit", stderr_tail=said)
    how = f"code {code}" if number is None else f"signal {number} ({_NAMES.get(number, 'unnamed')})"
    return TranscodeFailed(f"ffmpeg ended with {how}: {first_words(said)[:300]}", stderr_tail=said)


def _signal_of(code: int, *, by_shell: bool) -> int | None:
    """The signal that ended a child with this code, None if it ended by itself.

    Popen reports -n. The shell watcher can only report 128 + n, as which ffmpeg's own codes may look, too (it ends with
    the last byte of an AVERROR, often above 128): there only a signal counts that ends a process that crashes.
    """
    if code < 0:
        return -code
    return code - 128 if by_shell and code - 128 in _CRASHES else None


_NAMES = {one.value: one.name for one in signal.Signals}
_CRASHES = (
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGSEGV),
    *(signal.SIGTERM, signal.SIGSYS, signal.SIGXCPU, signal.SIGXFSZ),
)


def first_words(said: str) -> str:
    """The first line of ffmpeg's stderr that says what went wrong; the first of all if none does."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = (line for line in lines if not _SAYS_NOTHING.search(line))
    return next(telling, lines[0] if lines else "no message")


#: What ffmpeg adds to every failure, and what follows from another line.
_SAYS_NOTHING = re.compile(
    r"Nothing was written into output file|Conversion failed|Error opening output file|Error reinitializing filters"
    r"|Error while (filtering|processing|opening)|Error (sending|submitting|processing)|Could not open encoder"
    r"|Terminating thread|Task finished with error|Exiting (normally|with exit code)|Last message repeated"
    r"|^\.\.\.$|^(\[[^\]]*\] ?)?$",
    re.IGNORECASE,
)
