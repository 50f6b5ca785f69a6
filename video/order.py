"""What a client asks for, checked; before it is a task."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Order:
    """What a client asks for, checked."""

    prompt: str
    duration_s: int
    aspect_ratio: str
    image_url: str = ""
    model_requested: str = ""
    policy: str = "balanced"
    fallback: bool = True
    negative_prompt: str = ""
    seed: int | None = None
    quality: str = "medium"
    resolution: str = "source"
    fps: int = 30

    def fingerprint(self) -> str:
        """Equal for equal orders; what an Idempotency-Key is bound to."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
