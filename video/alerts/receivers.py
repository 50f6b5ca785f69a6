"""Who is told: the shape of a receiver. Read from ALERT_URLS by `config.alerts`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["webhook", "slack", "discord", "mail"]


@dataclass(frozen=True)
class Receiver:
    """One of ALERT_URLS. `target` may hold a token, and is never shown; `label` is for people."""

    kind: Kind
    target: str

    def __repr__(self) -> str:
        return f"Receiver({self.label})"

    @property
    def key(self) -> str:
        """What the rows of its messages name it by."""
        return hashlib.sha256(f"{self.kind} {self.target}".encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """Its kind and its host."""
        if self.kind == "mail":
            return f"mail to {self.target.rpartition('@')[2]}"
        return f"{self.kind} at {urlsplit(self.target).hostname}"
