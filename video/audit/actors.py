"""Who acts: a person in the admin, at a terminal, or behind an API key."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass, replace
from typing import NewType

from video.models import AuditRecord

#: Who acts on what is their own, or the system in consequence of an act that is on record already: nothing is recorded.
Unaudited = NewType("Unaudited", str)


@dataclass(frozen=True)
class Actor:
    """An operator who acts, from where and why. `source` is an address, a host, or the name of an API key; `reason` is
    in their own words.
    """

    name: str
    via: AuditRecord.Via
    source: str = ""
    user_id: int | None = None
    reason: str = ""

    def because(self, reason: str) -> Actor:
        """The same, for this reason."""
        return replace(self, reason=reason)

    @property
    def words(self) -> str:
        """For a task's history: "operator ann" or "operator root at web-1"."""
        return f"operator {self.name}" + (f" at {self.source}" if self.via == AuditRecord.Via.COMMAND else "")


def words_of(by: Actor | Unaudited) -> str:
    """Who it is, for a task's history."""
    return by.words if isinstance(by, Actor) else by


def of_command(reason: str = "") -> Actor:
    """Who runs this process: the OS user, or who became root by sudo, at this host."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = f"uid {os.getuid()}"
    return Actor(name, AuditRecord.Via.COMMAND, socket.gethostname(), reason=reason)
