"""What the attempts of a task that its owner deletes give up: all that may repeat the prompt or lead to the video."""

from __future__ import annotations

from video.infra import database
from video.models import Generation


def forget_texts(task_id: str) -> None:
    """Forget what the provider said and where its files are. Call it in the transaction that deletes the task.

    A job that is still open keeps what it is polled with; a trigger (migration 0018) forgets that, and what the
    provider says then, when it ends. The job's id, its cost, model and times stay: they belong to the books.
    """
    database.execute(
        f"""
        UPDATE video_generation SET error_message = '', last_answer = '',
            provider_status = CASE WHEN state {Generation.LIVE_SQL} THEN provider_status ELSE '' END,
            job_urls = CASE WHEN state {Generation.LIVE_SQL} THEN job_urls ELSE '{{}}' END
        WHERE task_id = %s
        """,  # noqa: S608 - a constant
        [task_id],
    )
