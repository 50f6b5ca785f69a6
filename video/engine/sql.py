"""Fragments of SQL that several statements share. No other file spells them out; a test holds that.

They are constants without values of their own, so a statement that includes one stays free of anything from outside.
`Generation.LIVE_SQL` is the fragment for live attempts: it is beside the model, since `video.routing` needs it too.
"""

from __future__ import annotations

from typing import Final

from django.contrib.auth import get_user_model
from django.db import connection

from video.models import Pause

#: Of a row of video_videotask, or of a job of an operator: nobody holds it, or the lease has ended.
UNHELD: Final = "(lease_until IS NULL OR lease_until < statement_timestamp())"

#: The table of users.
USERS: Final = connection.ops.quote_name(get_user_model()._meta.db_table)

#: Of a row of video_videotask: its user is switched off, so no slot is given to it.
USER_IS_OFF: Final = f"EXISTS (SELECT FROM {USERS} u WHERE u.id = video_videotask.user_id AND NOT u.is_active)"

#: Of the user whose id is put in for {user}: operators have paused their tasks.
USER_IS_PAUSED: Final = f"""EXISTS (
    SELECT FROM video_pause p WHERE p.user_id = {{user}} AND {Pause.LIVE_SQL})"""

#: Operators have paused everything.
ALL_IS_PAUSED: Final = f"""EXISTS (
    SELECT FROM video_pause p WHERE p.kind = 'everything' AND {Pause.LIVE_SQL})"""

#: Of an attempt `g` of a task `t`: no submit of it may begin, since something that it needs is paused.
SUBMIT_IS_PAUSED: Final = f"""EXISTS (SELECT FROM video_pause p WHERE {Pause.LIVE_SQL} AND CASE p.kind
    WHEN 'everything' THEN true
    WHEN 'user' THEN p.user_id = t.user_id
    WHEN 'provider' THEN p.subject = g.provider
    WHEN 'model' THEN p.subject = g.model
    ELSE p.subject = g.provider || ' ' || (SELECT a.account FROM video_provideraccount a WHERE a.id = g.account_id)
    END)"""  # noqa: S608 - a constant

#: Of a row of video_workersign: a worker that takes new messages of the queue %(queue)s, seen in the last %(alive)s s.
LISTENING: Final = """kind = 'worker' AND NOT draining AND gone_at IS NULL
    AND seen_at > statement_timestamp() - %(alive)s * interval '1 second'
    AND %(queue)s = ANY (string_to_array(queues, ','))"""

#: Begins the event of a move; a SELECT of these columns follows. `detail` is for operators; `owner_detail` is all that
#: the task's owner may read of it, and '' is nothing.
RECORD_EVENT: Final = """INSERT INTO video_taskevent
    (task_id, run, generation_id, stage, outcome, fence, worker, detail, owner_detail, error_code, started_at)"""
