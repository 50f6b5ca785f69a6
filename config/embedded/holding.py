"""Attach to a running server of a home, or start it; and hold it up.

Locks under <home>/run make every race harmless, and the kernel frees them with their processes:

    start   one starter at a time; the second one finds the server running and attaches
    alive   kept by the sitter and by the server itself: a newcomer waits for it before starting anew

A third one, `sitter`, is kept by the sitter alone: it tells a server that is being stopped from one that lost its
sitter.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from config.embedded import postgres as pg
from config.embedded import valkey as vk
from config.embedded.owners import User
from config.embedded.places import LOG_BYTES, EmbeddedError, Place, server_environment

SITTER = Path(__file__).with_name("sitter.py")
START_SECONDS = 60.0  # recovery after a crash may take its time

#: (signal, seconds it has to work), in turn
Stop = tuple[tuple[int, float], ...]

#: Every open connection to a sitter, so that a fork (which inherits them) can let go of them.
_connections: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


class Held(contextlib.AbstractContextManager["Held"]):
    """Servers that stay up at least until `release()` or the end of this process, however it ends."""

    def __init__(self, database_url: str, broker_url: str) -> None:
        self.database_url = database_url
        self.broker_url = broker_url
        #: Whether this call started a server; False: it found all of them running.
        self.started = False
        self._held: dict[str, socket.socket] = {}

    def lost(self) -> list[str]:
        """Names of the servers that have ended since, against our will."""
        return [name for name, connection in self._held.items() if _is_closed(connection)]

    def release(self) -> None:
        """Let go. A server without another holder stops now; a second call does nothing."""
        while self._held:
            _, connection = self._held.popitem()
            _connections.discard(connection)
            connection.close()

    def __exit__(self, *_: object) -> None:
        self.release()


#: Sitters that this process started. They outlive it on purpose; one that ends earlier is reaped at the next start.
_sitters: "list[subprocess.Popen[bytes]]" = []

#: Holds are kept here too, so that `hold(home)` alone is enough: no caller has to keep its result.
_holds: list[Held] = []


def urls(home: Path) -> tuple[str, str]:
    """(database_url, broker_url) for this home, whether or not the servers run. Touches nothing."""
    return pg.url(pg.place(home)), vk.url(vk.place(home))


def hold(home: Path, *, postgres: bool = True, valkey: bool = True, fast: bool = False) -> Held:
    """See that the servers of this home run, and hold them up until `release()` or the end of this process.

    `fast` is for tests: no fsync. It counts only where this call starts the server. Raises EmbeddedError.
    """
    held = Held(*urls(home))
    vk_place, pg_place = vk.place(home), pg.place(home)
    try:
        if valkey:
            _hold(held, vk_place, vk.STOP, partial(vk.prepare, vk_place), vk.is_ready)
        if postgres:
            _hold(held, pg_place, pg.STOP, partial(pg.prepare, pg_place, fast=fast), pg.is_ready)
    except BaseException:
        held.release()
        raise
    _holds.append(held)
    return held


def remove(home: Path) -> None:
    """Delete the data of both servers: for tests and for a clean start. Raises EmbeddedError if one still runs."""
    import shutil

    for where in (pg.place(home), vk.place(home)):
        where.prepare_home()
        with _locked(where.start_lock, where), _alive_lock(where, signal.SIGTERM):
            if where.data.is_symlink():
                where.data.unlink()
            for path in (where.data, where.elsewhere):
                shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                where.elsewhere.parent.rmdir()


def _hold(
    held: Held,
    where: Place,
    stop: Stop,
    prepare: Callable[[], tuple[list[str], User | None]],
    is_ready: Callable[[Place], bool],
) -> None:
    where.prepare_home()
    with _locked(where.start_lock, where):
        connection = _attach(where)
        if connection is None:
            with _alive_lock(where, stop[0][0]) as lock_fd:
                argv, user = prepare()
                where.prepare_run(user)
                connection = _start_sitter(where, argv, stop, user, lock_fd)
            held.started = True
        try:
            _wait_until_ready(where, connection, is_ready)
        except BaseException:
            connection.close()
            raise
    _connections.add(connection)
    held._held[where.name] = connection


def _attach(where: Place) -> socket.socket | None:
    """A connection to the running sitter; None if there is none, or it is stopping."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(5)
        connection.connect(str(where.sitter_socket))
        if _read_pid(connection):
            connection.setblocking(False)
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _start_sitter(where: Place, argv: list[str], stop: Stop, user: User | None, lock_fd: int) -> socket.socket:
    plan: dict[str, object] = {
        "argv": argv,
        "stop": stop,
        "listen": str(where.sitter_socket),
        "folder": str(where.run),
        "user": user,
        "log": str(where.log),
        "log_bytes": LOG_BYTES,
    }
    _sitters[:] = [each for each in _sitters if each.poll() is None]
    ours, theirs = socket.socketpair()
    with theirs, where.open_log() as log, _locked(where.sitter_lock, where) as own_lock_fd:
        plan["own_fds"] = [own_lock_fd]
        sitter = subprocess.Popen(
            sitter_command(plan),
            stdin=theirs.fileno(),
            stdout=log,
            stderr=log,
            cwd="/",
            env=server_environment(),
            umask=0o077,
            pass_fds=[lock_fd, own_lock_fd],  # the first one goes on to the server
            start_new_session=True,  # a terminal's Ctrl-C is not for it
        )
    ours.settimeout(5)
    server_pid = _read_pid(ours)
    ours.setblocking(False)
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{sitter.pid} {server_pid or 0}\n".encode(), 0)
    _sitters.append(sitter)
    return ours


def sitter_command(plan: dict[str, object]) -> list[str]:
    """-I -S: nothing of the environment or of site-packages, for a small and quick process."""
    return [sys.executable, "-I", "-S", str(SITTER), json.dumps(plan)]


def _wait_until_ready(where: Place, connection: socket.socket, is_ready: Callable[[Place], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready(where):
        if _is_closed(connection):
            raise EmbeddedError(
                f"The embedded {where.name} ended while it started.",
                log=where.log,
                advice="the last lines of the log say why; a full disk is the most frequent reason. "
                "Your own server works too: set DATABASE_URL and CELERY_BROKER_URL.",
            )
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"The embedded {where.name} was not ready after {START_SECONDS:.0f} s.",
                log=where.log,
                advice="start again if the log shows that it is recovering after a crash; else find out what is slow.",
            )
        time.sleep(0.01)


def _read_pid(connection: socket.socket) -> int | None:
    """The sitter's greeting; None at the end of file."""
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(32)
        if not part:
            return None
        line += part
    return int(line)


def _is_closed(connection: socket.socket) -> bool:
    try:
        return not connection.recv(64)
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextlib.contextmanager
def _locked(path: Path, where: Place, seconds: float = START_SECONDS + 30) -> Iterator[int]:
    fd = _open_lock(path, where)
    try:
        if not _lock(fd, seconds):
            raise EmbeddedError(
                f"Another process has been starting the embedded {where.name} of {where.home} for {seconds:.0f} s.",
                log=where.log,
                advice="see what that process (another `make up`?) is waiting for, end it, and start again.",
            )
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _alive_lock(where: Place, stop_signal: int) -> Iterator[int]:
    """Wait until the previous server and sitter are gone, and hold their lock for the next ones.

    A sitter that is stopping takes as long as its server's clean stop. A server without its sitter (only that was
    killed) gets `stop_signal`. Raises EmbeddedError.
    """
    fd = _open_lock(where.alive_lock, where)
    try:
        if not _lock(fd, 0.05):
            sitter_pid, server_pid = _noted(fd)
            if server_pid > 1 and not _is_locked(where.sitter_lock):
                with contextlib.suppress(OSError):
                    os.kill(server_pid, stop_signal)
            if not _lock(fd, 40):
                raise EmbeddedError(
                    f"The embedded {where.name} of {where.home} still runs but cannot be reached or stopped "
                    f"(process {sitter_pid} or {server_pid}).",
                    log=where.log,
                    advice="stop whatever else uses this home (perhaps another user's `make up`), or end that process.",
                )
        yield fd
    finally:
        os.close(fd)


def _open_lock(path: Path, where: Place) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(
            f"Reelworks cannot open {path}: {error.strerror}.",
            advice=f"run it as the user who first used {where.home}, or choose another home with REELWORKS_HOME.",
        ) from error


def _lock(fd: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def _noted(fd: int) -> tuple[int, int]:
    try:
        sitter, server = os.pread(fd, 64, 0).split()
        return int(sitter), int(server)
    except ValueError:
        return 0, 0


def _is_locked(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDWR)
        try:
            return not _lock(fd, 0)
        finally:
            os.close(fd)
    return False


def _let_go_in_fork() -> None:
    for connection in list(_connections):
        connection.close()


os.register_at_fork(after_in_child=_let_go_in_fork)
