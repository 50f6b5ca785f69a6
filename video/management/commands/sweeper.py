"""manage.py sweeper"""

from __future__ import annotations

import signal
import threading
from typing import Any

from video.attempts import configured_keys
from video.management.base import PlainCommand
from video.processes import sweeper


class Command(PlainCommand):
    help = "Dispatches what is due, gives out free slots and runs the periodic jobs. Any number of copies may run."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        configured_keys.sync()
        sweeper.run(stop)
