#!/usr/bin/env python
"""Django's command line, with the embedded servers held up while a command runs."""

from __future__ import annotations

import os
import sys

# Commands that touch neither database nor broker: they start nothing.
_NEED_NO_SERVERS = {"help", "version", "simulator", "makemessages", "compilemessages", "collectstatic", "up"}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    asks_for_help = "--help" in sys.argv or "-h" in sys.argv
    if command not in _NEED_NO_SERVERS and not command.startswith("-") and not asks_for_help:
        from config.servers import hold_embedded, require_fit_database

        hold_embedded()
        require_fit_database()
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
