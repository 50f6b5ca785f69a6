"""manage.py why: why a task in line has no slot yet, in full."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from video.attempts import slow
from video.engine.position import State, position_of
from video.infra.camel import camel, plain
from video.infra.durations import span
from video.management.base import BAD_USAGE, ReportCommand, database_needed, table
from video.models import VideoTask
from video.monitoring import waits
from video.monitoring.waits import Wait

_ACCOUNT = "provider account model state code=reasonCode live=slotsInUse limit=slots until"


class Command(ReportCommand):
    help = (
        "Says why a task waits for a slot: its place in the line, the wait that is expected, and of each account that "
        "could run one of its models how it stands, how much of it is in use, and until when."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("task", metavar="TASK", help="the task's id, task_…")
        self.add_json(parser)

    def handle(self, *args: Any, task: str, **options: Any) -> None:
        with database_needed():
            found = VideoTask.objects.select_related("user").filter(pk=task).first()
            if found is None:
                raise CommandError(f"There is no task {task}.", returncode=BAD_USAGE)
            wait, position = waits.why(found), position_of(found, timezone.now())
            render = slow.of_task(found.pk)
        if options["json"]:
            self.write_json(_as_json(found, position.state, wait, is_slow=render is not None))
        elif wait is not None:
            self._print(found, wait)
        elif render is not None:
            self.stdout.write(render.words)
        else:
            more = "" if position.state is State.OVER or not position.reason else f" ({position.reason})"
            state = position.state.value.replace("_", " ")
            self.stdout.write(f"{task} is in {found.stage} and waits for no slot: {state}{more}.")

    def _print(self, task: VideoTask, wait: Wait) -> None:
        expected = "no slot can be foreseen now" if wait.expected_wait_s is None else span(wait.expected_wait_s)
        self.stdout.write(f"{task.pk} waits for {wait.words}.")
        self.stdout.write(f"Place in the line: {wait.position}. Expected wait: {expected}.")
        rows = table("model", "account", "state", "slots in use", "until")
        for one in wait.accounts:
            until = "" if one.until is None else f"{one.until:%Y-%m-%d %H:%M:%S} UTC"
            rows.add_row(one.model, f"{one.provider} {one.account}", one.state, f"{one.live} of {one.limit}", until)
        self.console().print(rows)


def _as_json(task: VideoTask, state: State, wait: Wait | None, *, is_slow: bool) -> dict[str, Any]:
    found = {"taskId": task.pk, "stage": plain(str(task.stage)), "state": state.value, "isSlow": is_slow}
    if wait is None:
        return found
    return {
        **found,
        "waitsFor": wait.words,
        **camel(wait, "code=waitsForCode position expected_wait_s"),
        "accounts": [camel(one, _ACCOUNT) for one in wait.accounts],
    }
