"""WSGI entry point, served by granian."""

import os

from django.core.wsgi import get_wsgi_application

from config.servers import require_fit_database

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# A client waits for each answer: a request is refused after this long without a connection, a worker may wait longer.
os.environ.setdefault("DATABASE_WAIT_SECONDS", "2")

application = get_wsgi_application()
require_fit_database()
