"""Which `manage.py up` runs for a home: one at a time, and others can find it.

`up.lock` is held for its whole life, so a stale file means nothing: the kernel drops the lock with the process.
`up.json` holds its address. A process that only runs a command against it holds `up.guests` shared meanwhile, and a
system that was started for one command only waits for its guests before it stops.
"""

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from config.embedded import home as home_folder


@dataclass(frozen=True)
class System:
    pid: int
    url: str
    simulate: bool
    simulator_url: str
    ready: bool


def running_simulator(home: Path) -> str:
    """Where the simulator of this home's running `manage.py up` listens; "" when none runs or nothing is simulated."""
    folder = home / "run"
    try:
        fd = os.open(folder / "up.lock", os.O_RDONLY)
    except OSError:
        return ""
    try:
        if _try(fd, fcntl.LOCK_SH):
            return ""  # no process holds it, so the note beside it is an old one
        note = json.loads((folder / "up.json").read_text())
        return str(note["simulator_url"]) if note["simulate"] else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    finally:
        os.close(fd)


class Running:
    def __init__(self, home: Path) -> None:
        folder = home / "run"
        home_folder.make(home)
        folder.mkdir(mode=home_folder.FOLDER_MODE, exist_ok=True)
        self._lock = folder / "up.lock"
        self._guests = folder / "up.guests"
        self._note = folder / "up.json"
        self._fd = -1
        self._guest_fd = -1

    def claim(self) -> bool:
        """Become the one system of this home. False: another process is."""
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        if not _try(fd, fcntl.LOCK_EX):
            os.close(fd)
            return False
        self._fd = fd
        self._note.unlink(missing_ok=True)
        return True

    def tell(self, system: System) -> None:
        draft = self._note.with_suffix(".new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, home_folder.FILE_MODE), "w") as file:
            file.write(json.dumps(asdict(system)))
        draft.replace(self._note)

    def find(self, seconds: float) -> System | None:
        """The system that runs, once it is ready; None when it ends meanwhile or does not get ready in that time."""
        deadline = time.monotonic() + seconds
        found: System | None = None
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, TypeError):
                found = System(**json.loads(self._note.read_text()))
                if found.ready:
                    break
            time.sleep(0.05)
        return found

    def visit(self) -> None:
        """Ask the system to stay while we use it, until this process ends."""
        self._guest_fd = os.open(self._guests, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._guest_fd, fcntl.LOCK_SH)

    def guests_gone(self) -> bool:
        if self._guest_fd < 0:
            self._guest_fd = os.open(self._guests, os.O_RDWR | os.O_CREAT, 0o600)
        return _try(self._guest_fd, fcntl.LOCK_EX)

    def release(self) -> None:
        self._note.unlink(missing_ok=True)
        for fd in (self._guest_fd, self._fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._guest_fd = -1


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
