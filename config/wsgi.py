"""WSGI entry point, served by granian."""

from django.core.wsgi import get_wsgi_application

from config.servers import require_fit_database
from config.start import read_settings
from video.web import heads

# A client waits for each answer: a request is refused after this long without a connection, a worker may wait longer.
read_settings(DATABASE_WAIT_SECONDS="2")

application = heads.bounded(get_wsgi_application())
require_fit_database()
