#!/usr/bin/env python
"""Django's command line, with the embedded servers held up while a command runs."""

from __future__ import annotations

import sys

from config.start import read_settings

# Commands that touch neither database nor broker: they start nothing.
_NEED_NO_SERVERS = {"help", "version", "simulator", "makemessages", "compilemessages", "collectstatic", "up"}


def main() -> None:
    read_settings()
    from django.core.management import execute_from_command_line

    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    asks_for_help = "--help" in sys.argv or "-h" in sys.argv
    if command not in _NEED_NO_SERVERS and not command.startswith("-") and not asks_for_help:
        _hold_servers()
    execute_from_command_line(sys.argv)


def _hold_servers() -> None:
    """Start or join the embedded servers and look at the database, or end with the sentence that says what is wrong."""
    from config.embedded import EmbeddedError
    from config.servers import hold_embedded, require_fit_database

    try:
        hold_embedded()
    except EmbeddedError as err:
        raise SystemExit(str(err)) from None
    require_fit_database()


if __name__ == "__main__":
    main()
