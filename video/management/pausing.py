"""What `manage.py pause` and `resume` share: the words that name something, and how a pause is shown."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from video.actions import pause as pausing
from video.actions.pause import Target, WrongTarget
from video.management.base import BAD_USAGE
from video.models import Pause
from video.routing import pauses

NAMES = ("everything", "provider", "model", "account", "user")


def add_target(parser: CommandParser) -> None:
    """The arguments that name what is paused."""
    parser.add_argument("--everything", action="store_true", help="all new submits")
    parser.add_argument("--provider", default="", metavar="NAME", help="a provider, or that of --account")
    parser.add_argument("--model", default="", metavar="ID", help="a model")
    parser.add_argument("--account", default="", metavar="NAME", help="an account, for all its models")
    parser.add_argument("--user", default="", metavar="NAME", help="a user")
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, at most 200 characters")


def is_named(options: dict[str, Any]) -> bool:
    """Whether anything is named."""
    return any(options[name] for name in NAMES)


def target(options: dict[str, Any]) -> Target:
    """What the arguments name. Raises CommandError where that is not one thing, or there is none of that name."""
    try:
        return pausing.target(**{name: options[name] for name in NAMES})
    except WrongTarget as err:
        field = "" if err.field == "body" else f"--{err.field}: "
        raise CommandError(f"{field}{err.message}.", returncode=BAD_USAGE) from None


def words(one: Pause) -> str:
    """A line of a list."""
    return f"{one.pk}: {pauses.of_row(one).told}."
