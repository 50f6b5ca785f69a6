"""Runs one program and ends it when it has no user left. Standard library only; started with `python -I -S`.

A user is a process with the other end of our standard input (the starter) or a connection to our unix socket, if the
plan names one. The kernel closes both with their process, so this works after kill -9 too, on Linux and macOS alike.
With the last user gone we stop the program and exit with its code. When the program ends by itself, we end with it.

The plan is JSON in argv[1]; all but the first two may be missing:

    argv        the program
    stop        [[signal, seconds], …]: sent in turn, each with its time to work; SIGKILL follows
    listen      path of the unix socket
    folder      private folder to remove at the end (it holds the sockets)
    user        [uid, gid] to run the program as
    own_fds     open files (locks) that are for us only; all others that we were given the program keeps, too
    env_fd      pipe that holds the program's environment as JSON; missing: it gets ours. Secrets come this way, since
                others can read the arguments of a process, and ours would stay in our memory
    log         file for the program's output, of mode 0600, instead of our own standard output
    log_bytes   the size at which that file becomes <log>.1, instead of the one before it
    whole_tree  at the end also kill everything the program started, even in sessions of its own

Users are sent one line, the program's process id: a process that has read it is a user, and not just in the queue of a
dying socket.
"""

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import threading
import time
from typing import Any

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PS = "ps -A -o pid=,ppid=,stat=,comm="


def main() -> int:
    plan: dict[str, Any] = json.loads(sys.argv[1])
    for fd in plan.get("own_fds", ()):
        os.set_inheritable(fd, False)
    # A polite end from outside (a machine going down) gets the clean stop, too.
    wanted_to_stop: list[int] = []
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_r, False)
    os.set_blocking(wake_w, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: wanted_to_stop.append(got))
    signal.signal(signal.SIGCHLD, lambda _got, _frame: None)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)

    if plan.get("whole_tree"):
        _adopt_orphans()
    listener = _listen(plan["listen"]) if plan.get("listen") else None
    log = Log(plan["log"], plan["log_bytes"]) if plan.get("log") else None
    program = Program(plan, log)
    if log:
        log.start()
    users = Users(listener, wake_r, program.pid)
    try:
        while program.code is None and users.any() and not wanted_to_stop:
            users.wait()
            program.check()
        if log and program.code is not None:
            log.finish()  # before its users hear of the end, and look for the reason there
        users.close()
        program.stop()
        if log:
            log.finish()
    finally:
        if plan.get("folder"):
            shutil.rmtree(plan["folder"], ignore_errors=True)
    return program.code if program.code is not None else 1


class Program:
    def __init__(self, plan: dict[str, Any], log: "Log | None") -> None:
        self.plan = plan
        self.log = log
        self.env = _environment(plan.get("env_fd"))
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._become()
        self.env.clear()

    def _become(self) -> None:
        """In the child: its own session, so that what it starts can be ended as one group; then exec."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            if self.log:
                os.dup2(self.log.write_fd, 1)
                os.dup2(self.log.write_fd, 2)
            if self.plan.get("user"):
                uid, gid = self.plan["user"]
                os.setgroups([])
                os.setgid(gid)
                os.setuid(uid)
            os.execve(self.plan["argv"][0], self.plan["argv"], self.env)
        except BaseException as error:  # nothing may run on in this copy of the sitter
            with contextlib.suppress(OSError):
                os.write(2, f"cannot run {self.plan['argv'][0]}: {error}\n".encode())
        os._exit(127)

    def check(self) -> None:
        """Collect whatever has ended: the program, and orphans of its that we have adopted."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.code = _exit_code(status)

    def stop(self) -> None:
        for number, seconds in self.plan["stop"]:
            if self.code is None:
                _kill(self.pid, number)
                self._wait(seconds)
        # The rest of its group, and when asked everything below us, whatever session it is in.
        for _ in range(50):
            if self.code is None:
                _kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            left = _descendants(os.getpid()) if self.plan.get("whole_tree") else []
            for pid in left:
                _kill(pid, signal.SIGKILL)
            self._wait(0.1)
            if self.code is not None and not left:
                return

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self.check()
        while self.code is None and time.monotonic() < deadline:
            time.sleep(0.01)
            self.check()


class Log:
    """Takes the program's output from a pipe into a file of bounded size. A thread does it: the program must never wait
    for its log longer than the disk takes."""

    def __init__(self, path: str, most_bytes: int) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self.fd, self.size = self._open()
        self.read_fd, self.write_fd = os.pipe()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Once the program has its end of the pipe: ours would keep the file open for ever."""
        os.close(self.write_fd)
        self.thread.start()

    def finish(self) -> None:
        """Wait for what is in the pipe. Not for long: something that the program left behind may hold the other end."""
        self.thread.join(1.0)

    def _run(self) -> None:
        while part := os.read(self.read_fd, 65536):
            with contextlib.suppress(OSError):  # a full disk: the line is lost, and the program goes on
                if self.size and self.size + len(part) > self.most_bytes:
                    self._turn_over()
                self.size += os.write(self.fd, part)

    def _turn_over(self) -> None:
        os.replace(self.path, f"{self.path}.1")  # noqa: PTH105
        full = self.fd
        self.fd, self.size = self._open()
        os.close(full)

    def _open(self) -> tuple[int, int]:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(fd, 0o600)
        return fd, os.fstat(fd).st_size


class Users:
    def __init__(self, listener: socket.socket | None, wake_fd: int, program_pid: int) -> None:
        self.listener = listener
        self.wake_fd = wake_fd
        self.greeting = f"{program_pid}\n".encode()
        self.open: set[socket.socket] = set()
        self.selector = selectors.DefaultSelector()
        self.selector.register(wake_fd, selectors.EVENT_READ)
        if listener is not None:
            self.selector.register(listener, selectors.EVENT_READ)
        self._add(socket.socket(fileno=os.dup(0)))

    def any(self) -> bool:
        if not self.open and self.listener is not None:
            self._accept()  # another may have come in the very moment the last one left
        return bool(self.open)

    def wait(self) -> None:
        for key, _ in self.selector.select():
            if key.fileobj == self.wake_fd:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake_fd, 4096)
            elif key.fileobj is self.listener:
                self._accept()
            elif isinstance(key.fileobj, socket.socket):
                self._heed(key.fileobj)

    def close(self) -> None:
        """From here on there are no new users; a process in the queue sees the end of file and starts anew."""
        if self.listener is not None:
            self.listener.close()
        for user in self.open:
            user.close()

    def _accept(self) -> None:
        assert self.listener is not None
        with contextlib.suppress(OSError):
            self._add(self.listener.accept()[0])

    def _add(self, user: socket.socket) -> None:
        user.setblocking(False)
        with contextlib.suppress(OSError):
            user.send(self.greeting)
        self.open.add(user)
        self.selector.register(user, selectors.EVENT_READ)

    def _heed(self, user: socket.socket) -> None:
        try:
            if user.recv(4096):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # reset by the other side: gone, like an end of file
        self.selector.unregister(user)
        self.open.discard(user)
        user.close()


def _environment(fd: int | None) -> dict[str, str]:
    if fd is None:
        return dict(os.environ)
    with os.fdopen(fd, "rb") as pipe:
        return dict(json.loads(pipe.read()))


def _listen(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 (pathlib is not worth its memory here)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    listener.setblocking(False)
    return listener


def _adopt_orphans() -> None:
    """On Linux, grandchildren whose parent dies become our children, so that none can get away."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    pending = [root]
    while pending:
        new = children.get(pending.pop(), [])
        found += new
        pending += new
    return found


def _processes() -> list[tuple[int, int]]:
    """Every (process id, parent's id) but zombies and our own `ps`."""
    if sys.platform != "linux":
        rows = [line.split() for line in os.popen(PS).read().splitlines()]  # noqa: S605
        return [(int(r[0]), int(r[1])) for r in rows if r[2][0] != "Z" and not r[3].endswith(("ps", "sh"))]
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                # "pid (any name) state ppid …": the name may hold spaces and brackets
                fields = file.read().rpartition(b")")[2].split()
                if fields[0] != b"Z":
                    found.append((int(name), int(fields[1])))
    return found


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _exit_code(status: int) -> int:
    """As a shell says it: 128 + signal for what was killed."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
