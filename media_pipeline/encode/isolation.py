"""What a process that reads foreign media gives up, for good, before it does: files, network, other processes.

Linux only, and without any privilege:

- **Landlock** (Linux 5.13): no file but those that are named, and what programs are made of. From 6.7 on no TCP, from
  6.12 on no signal to a process outside.
- **seccomp**: no socket of any kind (a path leads to those of PostgreSQL and Valkey, which Landlock lets pass), no
  io_uring, which could open one, no memory of another process, no kernel keyring.
- **no_new_privs**, and for root no capability but the one to pass folders of others, which Landlock bounds.

All of these belong to a *thread* and to what it starts. So a worker gives them up in a thread that only starts ffmpeg
(`isolated_child`): nothing runs between fork and exec, and no further process is started. Measured: 0.9 ms of CPU.

The kernel's numbers are from its headers `linux/landlock.h`, `linux/seccomp.h`, `linux/audit.h` and `asm/unistd.h`.
Standard library only: the decoder child imports this file, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE = 1 << 14
_READ = _READ_FILE | _READ_DIR
#: Version of Landlock's interface → how many access rights to files it knows: the lowest bits of a mask.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446

#: What programs are made of. No folder in which applications are kept: `.env.local` may lie in /opt or /usr/src.
_PROGRAMS = (
    *("/bin", "/lib", "/lib32", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib"),
    *("/sbin", "/usr/sbin", "/usr/local/bin", "/nix/store", "/gnu/store", "/etc/ld.so.cache"),
)


@dataclass(frozen=True)
class _Machine:
    """The numbers of one kind of processor. `denied` are system calls, see the top of this file."""

    audit_arch: int
    seccomp: int
    denied: tuple[int, ...]


# socket, ptrace, process_vm_readv, process_vm_writev, pidfd_getfd, io_uring_setup, add_key, request_key, keyctl
_MACHINES = {
    "x86_64": _Machine(0xC000003E, 317, (41, 101, 310, 311, 438, 425, 248, 249, 250)),
    "aarch64": _Machine(0xC00000B7, 277, (198, 117, 270, 271, 438, 425, 217, 218, 219)),
}
#: System calls from here on are those of x32, another numbering of the same calls.
_X32 = 0x40000000
_CAP_DAC_OVERRIDE = 1


@dataclass(frozen=True)
class Isolation:
    """What is given up. `landlock` is the version of its interface, 0 without; `missing` says what this machine lacks,
    or why nothing is tried.
    """

    landlock: int = 0
    seccomp: bool = False
    missing: str = ""

    @property
    def is_complete(self) -> bool:
        """Neither a foreign file nor the network can be reached."""
        return self.landlock > 0 and self.seccomp

    def __str__(self) -> str:
        has = [f"no files but their own (Landlock {self.landlock})"] if self.landlock else []
        has += ["no network (seccomp)"] if self.seccomp else []
        return "; ".join([", ".join(has) or "none", *([self.missing] if self.missing else [])])


NO_ISOLATION = Isolation(missing="switched off by MEDIA_ISOLATION")


@functools.cache
def of_this_kernel() -> Isolation:
    """All that can be had here, tried out in a thread that ends."""
    if not sys.platform.startswith("linux"):
        return Isolation(missing="only Linux has it")
    found: Future[Isolation] = Future()

    def attempt() -> None:
        landlock = max(0, _libc().syscall(_LANDLOCK_CREATE, None, 0, 1))
        missing = [] if landlock else ["the kernel has no Landlock, or has it switched off"]
        seccomp = True
        try:
            give_up(Isolation(seccomp=True))
        except (OSError, NotImplementedError):
            seccomp = False
            missing.append("seccomp filters can't be set here")
        try:
            give_up(Isolation(landlock=landlock))
        except OSError as err:
            landlock = 0
            missing.append(f"Landlock fails: {err.strerror}")
        found.set_result(Isolation(landlock, seccomp, "; ".join(missing)))

    thread = threading.Thread(target=attempt, name="isolation-trial", daemon=True)
    thread.start()
    thread.join()
    return found.result(timeout=0)


def give_up(
    what: Isolation,
    *,
    run: Iterable[str | Path] = (),
    read: Iterable[str | Path] = (),
    write: Iterable[str | Path] = (),
) -> None:
    """Take from the calling thread, and from all that it starts from now on, what `what` says.

    `run` names programs; with them come the libraries of the system. `read` and `write` are files that exist; a folder
    in `read` stands for all beneath it. Raises OSError, after which the thread may have lost a part, and
    NotImplementedError for seccomp on an unknown processor.
    """
    if what.landlock or what.seccomp:
        _check(_libc().prctl(38, 1, 0, 0, 0), "no_new_privs")
        _drop_capabilities()
    if what.landlock:
        _landlock(what.landlock, *(tuple(map(str, paths)) for paths in (run, read, write)))
    if what.seccomp:
        _seccomp()


@contextlib.contextmanager
def isolated_child(
    argv: Sequence[str],
    what: Isolation,
    *,
    run: Iterable[str | Path] = (),
    read: Iterable[str | Path] = (),
    write: Iterable[str | Path] = (),
    options: Mapping[str, Any],
) -> Iterator[subprocess.Popen[bytes]]:
    """`argv` as a child that has given `what` up. `options` are those of Popen; the other words are `give_up`'s.

    The thread that started it lives as long as the block: a signal at the parent's death follows the thread's.
    """
    started: Future[subprocess.Popen[bytes]] = Future()
    over = threading.Event()

    def start() -> None:
        try:
            give_up(what, run=run, read=read, write=write)
            started.set_result(subprocess.Popen(argv, **options))
        except BaseException as err:  # it is raised where the child is waited for
            started.set_exception(err)
        else:
            over.wait()

    thread = threading.Thread(target=start, name="isolated-child", daemon=True)
    thread.start()
    try:
        yield started.result()
    finally:
        over.set()
        thread.join()


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def _landlock(version: int, run: Sequence[str], read: Sequence[str], write: Sequence[str]) -> None:
    rights = (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1
    ruleset = _Ruleset(rights, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    # An older kernel takes no field that it doesn't know.
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _check(_libc().syscall(_LANDLOCK_CREATE, ctypes.byref(ruleset), size, 0), "Landlock")
    try:
        if run:
            for path in (*_programs(), *run):
                _allow(rules, path, _EXECUTE | _READ)
            _allow(rules, os.devnull, _READ_FILE | _WRITE_FILE)
        for path in read:
            _allow(rules, path, _READ)
        for path in write:
            _allow(rules, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights)
        _check(_libc().syscall(_LANDLOCK_RESTRICT, rules, 0), "Landlock")
    finally:
        os.close(rules)


@functools.cache
def _programs() -> frozenset[str]:
    """What of it is here, each once: /lib often leads to /usr/lib."""
    return frozenset(os.path.realpath(path) for path in _PROGRAMS if Path(path).exists())


def _allow(rules: int, path: str, rights: int) -> None:
    # Only a handle: it opens nothing, and follows links.
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not Path(path).is_dir():
            rights &= ~_READ_DIR
        rule = struct.pack("=Qi", rights, handle)
        _check(_libc().syscall(_LANDLOCK_ADD, rules, 1, rule, 0), "Landlock")
    finally:
        os.close(handle)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _seccomp() -> None:
    machine = _MACHINES.get(platform.machine())
    if machine is None or sys.maxsize < 1 << 32:
        raise NotImplementedError("no seccomp filter for this processor")
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    count = len(machine.denied)
    # Where to go on, counted from the next instruction: the last one refuses, the one before allows.
    steps = [
        (load, 0, 0, 4),
        (equal, 0, count + 3, machine.audit_arch),
        (load, 0, 0, 0),
        (at_least, count + 1, 0, _X32),
        *((equal, count - number, 0, call) for number, call in enumerate(machine.denied)),
        (give, 0, 0, 0x7FFF0000),
        (give, 0, 0, 0x00050000 | errno.EPERM),
    ]
    instructions = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = _Program(len(steps), instructions)
    # 4: without the slow guard against Spectre that older kernels add to a filter by themselves.
    _check(_libc().syscall(machine.seccomp, 1, 4, ctypes.byref(program)), "seccomp")


def _drop_capabilities() -> None:
    """Does nothing for others than root. A uid 0 gets none back by exec: no_new_privs holds for that, too."""
    header = struct.pack("=Ii", 0x20080522, 0)
    held = ctypes.create_string_buffer(24)
    _check(_libc().capget(header, held), "capabilities")
    _, permitted, *_ = struct.unpack("=6I", held.raw)
    keep = permitted & (1 << _CAP_DAC_OVERRIDE)
    _check(_libc().capset(header, struct.pack("=6I", keep, keep, 0, 0, 0, 0)), "capabilities")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
