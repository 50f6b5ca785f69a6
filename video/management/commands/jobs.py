"""manage.py jobs: the work that operators asked for in the admin, how far it is, and what came of it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from rich.text import Text

from providers.untrusted import printable
from video.actions import jobs
from video.actions.jobs import JobRefused
from video.audit.actors import of_command
from video.infra.camel import camel
from video.management.base import BAD_USAGE, ReportCommand, add_reason, database_needed, table
from video.models import OperatorJob

MOST_SHOWN = 50


class Command(ReportCommand):
    help = (
        "Lists the jobs that operators asked for, the newest first: retries and cancels of all that match, checks of "
        "the ledger and of keys, clean-ups. With an id, shows one of them with its results; --stop ends it, and what "
        "it has done stays done. The commands retry_tasks, cancel_tasks, check_ledger, cleanup_storage, reconcile and "
        "check_providers do the same work at once. Exit code: 0, or 2 for wrong usage or when the database can't be "
        "asked."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", nargs="?", type=int, metavar="ID", help="one job")
        parser.add_argument("--stop", action="store_true", help="end it")
        add_reason(parser)
        self.add_json(parser)

    def handle(self, *args: Any, id: int | None, stop: bool, reason: str, **options: Any) -> None:
        if stop and id is None:
            raise CommandError("Name the job that is to be stopped.", returncode=BAD_USAGE)
        with database_needed():
            found = self._read(id, stop=stop, reason=reason)
        if options["json"]:
            self.write_json({"jobs": [_as_json(job, with_lines=id is not None) for job in found]})
        elif id is None:
            self._list(found)
        else:
            self._show(found[0])

    def _read(self, job_id: int | None, *, stop: bool, reason: str) -> list[OperatorJob]:
        if job_id is None:
            return list(OperatorJob.objects.order_by("-pk")[:MOST_SHOWN])
        if not OperatorJob.objects.filter(pk=job_id).exists():
            raise CommandError(f"There is no job {job_id}.", returncode=BAD_USAGE)
        if stop:
            try:
                jobs.stop(job_id, by=of_command(reason))
            except JobRefused as err:
                raise CommandError(str(err), returncode=BAD_USAGE) from None
        return [OperatorJob.objects.get(pk=job_id)]

    def _list(self, found: list[OperatorJob]) -> None:
        if not found:
            self.stdout.write("No job was asked for yet.")
            return
        rows = table("job", "what", "state", "done", "refused", "asked by", "asked (UTC)", "result")
        for job in found:
            asked = f"{job.created_at:%Y-%m-%d %H:%M}"
            result = printable(job.summary)
            rows.add_row(
                str(job.pk), _what(job), job.state, _done(job), str(job.refused), job.asked_by, asked, Text(result)
            )
        self.console().print(rows)

    def _show(self, job: OperatorJob) -> None:
        console = self.console()
        console.print(f"Job {job.pk}, {job.state}: {_what(job)}. {_done(job)} done, {job.refused} refused.")
        if job.summary:
            console.print(Text(printable(job.summary)))
        for line in job.lines:
            console.print(Text(printable(line["text"]), style="" if line["ok"] else "red"))


def _what(job: OperatorJob) -> str:
    about = jobs.words(OperatorJob.Kind(job.kind), job.arguments)
    return printable(f"{job.get_kind_display()}{f': {about}' if about else ''}")


def _done(job: OperatorJob) -> str:
    return str(job.done) if job.of is None else f"{job.done} of {job.of}"


def _as_json(job: OperatorJob, *, with_lines: bool) -> dict[str, Any]:
    found = camel(job, "pk=id kind state of done refused summary asked_by via reason created_at started_at ended_at")
    found["about"] = jobs.words(OperatorJob.Kind(job.kind), job.arguments)
    return {**found, "results": job.lines} if with_lines else found
