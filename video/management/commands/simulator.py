"""manage.py simulator"""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from providers import simulator
from providers.simulator import SimulatorOptions
from providers.simulator.options import add_arguments
from video.management.base import PlainCommand

FLAGS = ("host", "port", "render_seconds", "fps", "keys", "canned", "render_workers", "data_dir")


class Command(PlainCommand):
    help = "Serves the provider simulator, which speaks the providers' protocols and makes real MP4 files."
    requires_system_checks: list[str] = []  # it uses neither our database nor our storage

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser, FLAGS)

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = {name: options[name] for name in FLAGS}
        chosen["data_dir"] = options["data_dir"] or str(settings.REELWORKS_HOME / "simulator")
        os.umask(0o077)  # its files are in our home
        try:
            wanted = SimulatorOptions(**chosen, ffmpeg=settings.FFMPEG_BINARY or None)
        except ValueError as err:
            raise CommandError(str(err), returncode=2) from err
        try:
            simulator.serve(wanted)
        except simulator.CannotListen as err:
            raise CommandError(str(err)) from None
