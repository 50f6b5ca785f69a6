"""What was odd about the videos that were delivered lately: warnings, counted by their code."""

from __future__ import annotations

from media_pipeline import warnings
from video.infra import database

WINDOW_H = 24


def warnings_by_code() -> dict[str, int]:
    """Tasks that ended in the last day with each warning that any of them has, in the order of the list of codes.

    One statement, by the index `task_with_warnings`: it reads only tasks with a warning.
    """
    rows = database.fetch(
        f"""
        SELECT one ->> 'code', count(*) FROM video_videotask t, jsonb_array_elements(t.warnings) one
        WHERE NOT (t.warnings = '[]'::jsonb) AND t.status = 'success'
            AND t.finished_at > statement_timestamp() - interval '{WINDOW_H} hours'
        GROUP BY 1
        """  # noqa: S608 - a constant
    )
    found = dict(rows)
    return {code: found[code] for code in warnings.KINDS if code in found}
