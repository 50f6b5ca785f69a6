"""manage.py simulator"""

from __future__ import annotations

import dataclasses
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from providers import simulator
from providers.simulator import SimulatorOptions

DEFAULTS = SimulatorOptions()


class Command(BaseCommand):
    help = "Serves the provider simulator, which speaks the providers' protocols and makes real MP4 files."
    requires_system_checks: list[str] = []  # it uses neither our database nor our storage

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default=DEFAULTS.host)
        parser.add_argument(
            "--port", type=int, default=DEFAULTS.port, help=f"0 takes a free one (default {DEFAULTS.port})"
        )
        parser.add_argument(
            "--render-seconds",
            type=float,
            default=DEFAULTS.render_seconds,
            help="from submit to success, unless the prompt says else",
        )
        parser.add_argument(
            "--fps", type=int, default=DEFAULTS.fps, help="of the files; 30 makes files that need no transcode"
        )
        parser.add_argument("--keys", default="", help="comma-separated; without it every non-empty key is good")
        parser.add_argument("--canned", action="store_true", help="one clip for all prompts: for load tests")
        parser.add_argument(
            "--render-workers", type=int, default=DEFAULTS.render_workers, help="ffmpeg processes at once"
        )
        parser.add_argument(
            "--data-dir", default=None, help="cache of rendered clips (default: REELWORKS_HOME/simulator)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        known = {field.name for field in dataclasses.fields(SimulatorOptions)}
        chosen = {name: value for name, value in options.items() if name in known}
        chosen["keys"] = tuple(key.strip() for key in options["keys"].split(",") if key.strip())
        chosen["data_dir"] = options["data_dir"] or str(settings.REELWORKS_HOME / "simulator")
        chosen["ffmpeg"] = settings.FFMPEG_BINARY or None
        try:
            wanted = SimulatorOptions(**chosen)
        except ValueError as err:
            raise CommandError(str(err), returncode=2) from err
        simulator.serve(wanted)
