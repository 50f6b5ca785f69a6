"""The web server's entry point, an RSGI application; served by granian (see the Procfile)."""

import gc
import threading

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from config.servers import require_fit_database
from config.start import read_settings
from video.web.front import bodies, heads
from video.web.front.server import Front

# A client waits for each answer: a request is refused after this long without a connection, a worker may wait longer.
read_settings(calls_providers=False, DATABASE_WAIT_SECONDS="2")

application = Front(
    heads.bounded(get_wsgi_application()),
    threads=settings.WEB_THREADS,
    receiver=bodies.Receiver(large=settings.MAX_BODY_BYTES_OF),
)
require_fit_database()


def _write_figures() -> None:
    """What this process measures is written beside what the others do, for whichever is asked for /metrics."""
    from video.monitoring import process_figures  # models can be imported by now

    args = (threading.Event(),)
    threading.Thread(target=process_figures.write_from_web, args=args, name="figures", daemon=True).start()


_write_figures()

# What is loaded by now stays; the collector need not walk it again and again. Views leave few circles behind.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 20)
