"""Real PostgreSQL and Valkey for a machine where neither is configured.

    held = hold(home)           # both servers are up, for as long as this process lives
    held.database_url           # what DATABASE_URL would have said
    held.broker_url             # what CELERY_BROKER_URL would have said

How it stays tidy: each server is the foreground child of a small sitter process (`sitter.py`). Every user of the
server keeps one connection to the sitter open; the kernel closes it however the user ends, kill -9 included. After
the last one the sitter stops the server cleanly and ends. Nothing is left behind to be cleaned up.

Where things are, by default with home = `.reelworks`:

    <home>/pg, <home>/valkey         the data
    <home>/log/                      postgres.log, valkey.log
    <home>/run/                      lock files; stale ones are harmless, the kernel drops a lock with its process
    /tmp/rw-<uid>-<hash>-pg, …-vk    unix sockets, private to the user (a socket's path may have 104 bytes only)

PostgreSQL refuses to run as root. Started by root, each server runs as the owner of its data, at first a number that no
other process has as its user (`owners.py`). When that user cannot reach <home> (say, below /root), the data is in
/var/lib/reelworks/<hash> and <home>/pg or <home>/valkey is a symbolic link to it. Binaries that it cannot reach are
copied to /var/lib/reelworks. No folder of yours is opened for it.
"""

from config.embedded.holding import Held, hold, remove, urls
from config.embedded.places import EmbeddedError
from config.embedded.postgres import version as postgres_version

__all__ = ["EmbeddedError", "Held", "hold", "postgres_version", "remove", "urls"]
