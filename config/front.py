"""The web server's entry point, an RSGI application; served by granian (see the Procfile)."""

import gc

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

# What is loaded by now stays; the collector need not walk it again and again. Views leave few circles behind.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 20)
