"""Runs the processes of the Procfile side by side: one readable log, restarts with back-off, nothing left behind.

Each process has a sitter (`config/embedded/sitter.py`) that ends it and all it has started as soon as our end of a
socket closes: when we stop it, when we crash, after kill -9.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from config.embedded.holding import sitter_command
from config.embedded.places import LOG_BYTES, server_environment

#: A process may finish what it is at for so long after SIGTERM; then it and its children are killed. Longer than
#: DRAIN_SECONDS, within which each ends by itself.
STOP_SECONDS = 7.0
#: So long after that `stop` no longer trusts the sitters and kills by itself; in all it takes less than 10 s.
GIVE_UP_SECONDS = 2.0

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
#: A process that has lived so long is healthy again: its next end counts as the first.
HEALTHY_SECONDS = 60.0
#: One that has lived so long and then ended with code 0 was stopped by a deploy or an operator: that is no failure.
STEADY_SECONDS = 5.0

COLOURS = (36, 32, 33, 35, 34, 31)


def read_procfile(path: Path) -> dict[str, str]:
    """name → shell command. Raises ValueError for a line that is neither that, nor empty, nor a comment."""
    commands = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, command = line.partition(":")
        if not colon or not name.strip().isidentifier() or not command.strip():
            raise ValueError(f"{path}, line {number}: expected `name: command`, found {line!r}.")
        commands[name.strip()] = command.strip()
    return commands


class Child:
    """One program with its sitter. Only the program gets `env`: the sitter reads it from a pipe and hands it on."""

    def __init__(
        self,
        argv: list[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: int | None = None,
        log: Path | None = None,
        stop: tuple[tuple[int, float], ...] = ((signal.SIGTERM, STOP_SECONDS),),
    ) -> None:
        """What the program writes goes to `log`, a file of bounded size; else to `output`; else to our own output."""
        env_fd, env_end = os.pipe()
        plan: dict[str, object] = {
            "argv": argv,
            "stop": [[int(number), seconds] for number, seconds in stop],
            "whole_tree": True,
            "env_fd": env_fd,
            **({"log": str(log), "log_bytes": LOG_BYTES} if log else {}),
        }
        self.pid = 0
        self._lifeline, theirs = socket.socketpair()
        with theirs:
            self._sitter = subprocess.Popen(
                sitter_command(plan),
                stdin=theirs.fileno(),
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                cwd=cwd,
                env=server_environment(),
                pass_fds=[env_fd],
                start_new_session=True,  # Ctrl-C is for us; the sitter then stops in good order
            )
        os.close(env_fd)
        with contextlib.suppress(BrokenPipeError), os.fdopen(env_end, "wb") as pipe:  # an end is seen by `poll`
            pipe.write(json.dumps(dict(env)).encode())
        self._lifeline.settimeout(10)
        with contextlib.suppress(OSError, ValueError):
            self.pid = int(self._lifeline.recv(32))
        self.started_at = time.monotonic()

    def poll(self) -> int | None:
        """Exit code, 128 + signal if it was killed; None while it runs."""
        code = self._sitter.poll()
        if code is None:
            return None
        if code < 0:  # the sitter itself was killed: do its work
            self._kill_program()
        return code if code >= 0 else 128 - code

    def wait(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._sitter.wait(seconds)
        return self.poll() is not None

    def end(self) -> None:
        """Begin to stop it; returns at once."""
        self._lifeline.close()

    def kill(self) -> None:
        self._sitter.kill()
        self._kill_program()

    def _kill_program(self) -> None:
        if self.pid > 1:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)


@dataclass
class Service:
    """One line of the Procfile: its present process, and when it may be started again."""

    name: str
    command: str
    child: Child | None = None
    deaths: int = 0
    start_at: float = 0.0
    pipe: int | None = None
    rest: bytes = field(default=b"", repr=False)


class Supervisor:
    """Use as a context manager: leaving it stops everything."""

    def __init__(
        self,
        commands: Mapping[str, str],
        *,
        env: Callable[[str], Mapping[str, str]],
        cwd: Path,
        log_dir: Path | None = None,
        tick: Callable[[], None] = lambda: None,
        stop_s: float = STOP_SECONDS,
        as_json: bool = False,
    ) -> None:
        """`as_json`: each line printed is one object, with the process's name as `service`.

        `env` tells the environment of a process by its name in the Procfile.

        With `log_dir` each process writes to a file of its own there, and the terminal stays quiet.
        `tick` is called again and again meanwhile, about every quarter second from `run`.
        """
        self.env = env
        self.cwd = cwd
        self.log_dir = log_dir
        self.tick = tick
        self.stop_s = stop_s
        self.as_json = as_json
        self.signals: list[int] = []
        self._services = [Service(name, command) for name, command in commands.items()]
        self._width = max([len(name) for name in commands] + [len("reelworks")])
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._selector = selectors.DefaultSelector()
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Supervisor":
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_r, False)
        os.set_blocking(wake_w, False)
        self._wake_r = wake_r
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        self._selector.register(wake_r, selectors.EVENT_READ)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signals.append(number)

    def start(self, *names: str) -> None:
        """Start these services, or all that do not run yet."""
        for service in self._services:
            if service.child is None and (not names or service.name in names):
                self._start(service)

    def pid(self, name: str) -> int | None:
        """Process id of this service's present process; None while it is down."""
        for service in self._services:
            child = service.child
            if service.name == name and child is not None and child.poll() is None:
                return child.pid
        return None

    def run_until(self, done: Callable[[], bool], *, every_s: float = 0.05) -> bool:
        """Keep everything running. True when `done` returns it, False when a signal asks us to stop."""
        while not self.signals:
            if done():
                return True
            self._turn(every_s)
            self._revive()
            self.tick()
        return False

    def run(self) -> None:
        """Keep everything running until a signal asks us to stop."""
        self.run_until(lambda: False, every_s=0.25)

    def stop(self) -> None:
        """End every process and all it has started: politely, all at once, and within `stop_s` and a little."""
        running = {service.name: service.child for service in self._services if service.child}
        for child in running.values():
            child.end()
        deadline = time.monotonic() + self.stop_s + GIVE_UP_SECONDS
        while left := {name: child for name, child in running.items() if child.poll() is None}:
            if time.monotonic() > deadline:
                for name, child in left.items():
                    self.say(f"{name} did not stop, killing it")
                    child.kill()
                break
            self._turn(0.02)
        self._turn(0)
        for service in self._services:
            service.child = None

    def say(self, text: str) -> None:
        """A line of our own in the log."""
        if self.log_dir is None:
            self._print("reelworks", text)
        else:
            with _open_log(self.log_dir / "up.log") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())

    def _start(self, service: Service) -> None:
        argv = ["/bin/sh", "-c", f"exec {service.command}"]
        stop = ((signal.SIGTERM, self.stop_s),)
        env = self.env(service.name)
        if self.log_dir is not None:
            log = self.log_dir / f"{service.name}.log"
            with _open_log(log) as output:
                service.child = Child(argv, env=env, cwd=self.cwd, output=output.fileno(), log=log, stop=stop)
            return
        self._hang_up(service)
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        service.child = Child(argv, env=env, cwd=self.cwd, output=write_end, stop=stop)
        os.close(write_end)
        service.pipe = read_end
        self._selector.register(read_end, selectors.EVENT_READ, service)

    def _revive(self) -> None:
        now = time.monotonic()
        for service in self._services:
            if service.child is not None:
                code = service.child.poll()
                if code is None:
                    continue
                lived = now - service.child.started_at
                service.child.end()
                service.child = None
                healthy = lived > (HEALTHY_SECONDS if code else STEADY_SECONDS)
                service.deaths = 1 if healthy else service.deaths + 1
                wait = BACKOFF_SECONDS[min(service.deaths, len(BACKOFF_SECONDS)) - 1]
                service.start_at = now + wait
                self.say(
                    f"{service.name} ended ({_describe(code)}) after {lived:.1f} s; starting it again in {wait:g} s"
                )
            elif service.start_at and now >= service.start_at:
                service.start_at = 0.0
                self._start(service)

    def _turn(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fd == self._wake_r:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_r, 4096)
            else:
                self._read(key.data)

    def _read(self, service: Service) -> None:
        assert service.pipe is not None
        try:
            part = os.read(service.pipe, 65536)
        except BlockingIOError:
            return
        if not part:
            self._hang_up(service)
            return
        *lines, service.rest = (service.rest + part).split(b"\n")
        for line in lines:
            self._print(service.name, line.decode(errors="replace"))

    def _hang_up(self, service: Service) -> None:
        if service.pipe is None:
            return
        self._selector.unregister(service.pipe)
        os.close(service.pipe)
        service.pipe = None
        if service.rest:
            self._print(service.name, service.rest.decode(errors="replace"))
            service.rest = b""

    def _print(self, name: str, line: str) -> None:
        if self.as_json:
            with contextlib.suppress(OSError):
                print(_as_object(name, line.rstrip("\r")), flush=True)
            return
        prefix = f"{name:<{self._width}} |"
        if self._colour:
            names = [service.name for service in self._services]
            colour = COLOURS[names.index(name) % len(COLOURS)] if name in names else 1
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        with contextlib.suppress(OSError):  # a closed terminal is no reason to leave processes behind
            print(prefix, line.rstrip("\r"), flush=True)


def _as_object(name: str, line: str) -> str:
    """A line of a process that writes objects, with the process's name; any other line as a message."""
    service = json.dumps({"service": name})
    if line.startswith("{") and line.endswith("}"):
        return f"{service[:-1]}, {line[1:]}"
    return json.dumps({"service": name, "message": line})


def _open_log(path: Path) -> BinaryIO:
    """To be written on; a full one makes room first. Private to us."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _describe(code: int) -> str:
    if code > 128:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(code - 128).name}"
    return f"exit code {code}"
