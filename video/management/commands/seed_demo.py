"""manage.py seed_demo"""

from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from video.infra.durations import count
from video.infra.errors import Refusal
from video.management.base import BAD_USAGE, ReportCommand, database_needed
from video.management.demo_data import seeding
from video.management.demo_data.seeding import MOST_TASKS, OPERATOR, Seeded
from video.web import demo_login

TASKS = 600
PAGES = ("/admin/", "/admin/queues/", "/admin/video/videotask/", "/admin/video/generation/open_cases/")


def _tasks(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_TASKS):
        raise argparse.ArgumentTypeError(f"it must be a whole number from 1 to {MOST_TASKS}")
    return int(text)


class Command(ReportCommand):
    help = (
        "Fills a simulated system with what one in use has: users, thirty days of tasks with their costs and failures, "
        "an open circuit, an open case, webhooks, and jobs that run, wait and fail now. Only with "
        "REELWORKS_SIMULATE=1. A second run adds nothing twice."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--tasks", type=_tasks, default=TASKS, metavar="N", help=f"of the past (default {TASKS})")
        parser.add_argument("--seed", type=int, default=1, metavar="N", help="the same number draws the same past")
        parser.add_argument("--fast", action="store_true", help="rows only: no job is made by the running system")
        parser.add_argument("--operator", action="store_true", help=f"make {OPERATOR}, and show a password once")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        told = (lambda line: None) if options["json"] else self._told
        try:
            with database_needed():
                found = seeding.seed(
                    tasks=options["tasks"],
                    seed=options["seed"],
                    with_jobs=not options["fast"],
                    with_operator=options["operator"],
                    told=told,
                )
        except Refusal as err:
            raise CommandError(str(err), returncode=BAD_USAGE) from None
        if options["json"]:
            self.write_json(_as_json(found))
        else:
            self._show(found, is_fast=options["fast"], asked_operator=options["operator"])

    def _told(self, line: str) -> None:
        self.stderr.write(line)

    def _show(self, found: Seeded, *, is_fast: bool, asked_operator: bool) -> None:
        past = found.history
        if past.added:
            ends = ", ".join(f"{number} {status}" for status, number in past.ends.items())
            self.stdout.write(f"Made {count(past.added, 'task')} of the last 30 days: {ends}.")
        else:
            self.stdout.write(f"The history is there already, with {count(past.tasks, 'task')}. Nothing was added.")
        if not is_fast:
            where = "the running system works on them" if found.is_running else "no worker runs, so they stay in line"
            self.stdout.write(f"Created {count(len(found.jobs), 'job')} of now: {where}.")
            if not found.is_running:
                self.stdout.write("No video can be played yet: start `make up`, then run this in an empty database.")
        for line in found.present:
            self.stdout.write(f"  {line}")
        base = settings.PUBLIC_BASE_URL or f"http://127.0.0.1:{settings.PORT}"
        self.stdout.write("\nLook at:")
        for page in PAGES:
            self.stdout.write(f"  {base}{page}")
        self.stdout.write(f"Log in as {demo_login.NAME} / {demo_login.PASSWORD}, who may look at everything.")
        if found.operator_password:
            self.stdout.write(f"Or as {OPERATOR} / {found.operator_password} (shown this once), who may do everything.")
        elif asked_operator:
            self.stdout.write(f"{OPERATOR} is there already; the password was shown when it was made.")


def _as_json(found: Seeded) -> dict[str, Any]:
    return {
        "tasks": found.history.tasks,
        "added": found.history.added,
        "videos": found.videos,
        "jobs": found.jobs,
        "present": found.present,
        "isRunning": found.is_running,
        **({"operator": OPERATOR, "password": found.operator_password} if found.operator_password else {}),
    }
