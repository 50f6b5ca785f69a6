"""Who acts: a person in the admin, at a terminal, or behind an API key."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass

from video.models import AuditRecord


@dataclass(frozen=True)
class Actor:
    """Who acts, and from where. `source` is an address, a host, or the name of an API key."""

    name: str
    via: AuditRecord.Via
    source: str = ""
    user_id: int | None = None

    @property
    def words(self) -> str:
        """For a task's history: "operator ann" or "operator root at web-1"."""
        return f"operator {self.name}" + (f" at {self.source}" if self.via == AuditRecord.Via.COMMAND else "")


def of_command() -> Actor:
    """Who runs this process: the OS user, or who became root by sudo, at this host."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = f"uid {os.getuid()}"
    return Actor(name, AuditRecord.Via.COMMAND, socket.gethostname())
