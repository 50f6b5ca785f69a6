"""How often the finished video of an attempt could not be fetched, in a row: the pauses between fetches grow by it."""

from __future__ import annotations

from video.infra import database
from video.models import Generation


def count_failed(generation_id: str) -> int:
    """One more fetch failed. Returns how many in a row now; a second run counts it twice, which only waits longer."""
    number: int = database.value(
        "UPDATE video_generation SET fetch_errors = fetch_errors + 1 WHERE id = %s RETURNING fetch_errors",
        [generation_id],
    )
    return number


def restart_count(generation_id: str) -> None:
    """The video came, or a part of it: what fails from now on is counted anew."""
    Generation.objects.filter(pk=generation_id, fetch_errors__gt=0).update(fetch_errors=0)
