"""manage.py sweeper"""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from video.processes import sweeper
from video.routing import slots


class Command(BaseCommand):
    help = "Dispatches what is due, gives out free slots and runs the periodic jobs. Any number of copies may run."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        slots.sync()
        sweeper.run(stop)
