"""manage.py api_key: makes, lists, rolls and revokes API keys of users."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from providers.untrusted import printable
from video.actions import for_users
from video.audit.actors import of_command
from video.infra.camel import camel
from video.infra.durations import count
from video.management.base import BAD_USAGE, ReportCommand, add_reason, database_needed, seconds, table, user_named
from video.models import Scope
from video.web.logins import api_keys
from video.web.logins.api_keys import KeyOrder, NoSuchKey, TooManyKeys

NOT_FOUND = 1
MOST = 1_000_000_000
FIELDS = "id name scopes addresses daily_credits requests_per_minute made_at expires_at"


class Command(ReportCommand):
    help = (
        "API keys: `create USER --name shop --scopes read,create` prints a new one, which is shown this once; `list "
        "[USER]`; `roll ID`, with the old text good for --overlap; `revoke ID`. Exit code: 0 done, 1 there is no such "
        "key, 2 wrong usage or the database can't be asked."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_subparsers(dest="what", required=True, parser_class=type(parser))
        create = what.add_parser("create", help="make a key and print it")
        create.add_argument("user", metavar="USER", help="user name")
        create.add_argument("--name", required=True, type=_name, help="what people know it by")
        create.add_argument("--scopes", type=_scopes, required=True, help=f"of {','.join(Scope.values)}")
        create.add_argument("--address", action="append", type=_network, default=[], help="where it may come from")
        create.add_argument("--daily-credits", type=_number, help="credits that it may spend a day (UTC)")
        create.add_argument("--requests-per-minute", type=_number, help="instead of REQUESTS_PER_MINUTE_PER_KEY")
        create.add_argument("--expires-in", type=seconds, metavar="TIME", help="such as 90d; without it, never")
        listed = what.add_parser("list", help="keys that are good")
        listed.add_argument("user", metavar="USER", nargs="?", help="user name; without it, of all")
        roll = what.add_parser("roll", help="a new text of a key")
        roll.add_argument("key", metavar="ID", help="key_…")
        roll.add_argument("--overlap", type=_overlap, default=86400.0, metavar="TIME", help="how long the old is good")
        revoke = what.add_parser("revoke", help="end a key at once")
        revoke.add_argument("key", metavar="ID", help="key_…")
        for one in (create, listed, roll, revoke):
            self.add_json(one)
        for one in (create, roll, revoke):
            add_reason(one)

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        with database_needed():
            getattr(self, f"_{what}")(options)

    def _create(self, options: dict[str, Any]) -> None:
        user = user_named(options["user"])
        lasts = options["expires_in"]
        order = KeyOrder(
            options["name"],
            options["scopes"],
            options["address"],
            options["daily_credits"],
            options["requests_per_minute"],
            None if lasts is None else timedelta(seconds=lasts),
        )
        try:
            key_id, text = for_users.make_key(user, order, by=of_command(options["reason"]))
        except (TooManyKeys, NoSuchKey) as err:
            raise CommandError(str(err), returncode=BAD_USAGE) from None
        self._tell_text(options, key_id, text)

    def _list(self, options: dict[str, Any]) -> None:
        user = None if options["user"] is None else user_named(options["user"])
        keys = list(api_keys.with_secrets(api_keys.alive(None if user is None else user.pk)).select_related("user"))
        if options["json"]:
            self.write_json([{**camel(key, FIELDS), "user": key.user.get_username()} for key in keys])
            return
        rows = table("id", "user", "name", "scopes", "begins", "credits a day", "expires", "last used")
        for key in keys:
            secrets = list(key.secrets.all())
            used = max((one.last_used_at for one in secrets if one.last_used_at), default=None)
            rows.add_row(
                key.pk,
                printable(key.user.get_username()),
                printable(key.name),
                " ".join(key.scopes),
                " ".join(one.hint for one in secrets),
                "" if key.daily_credits is None else str(key.daily_credits),
                "never" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}",
                "never" if used is None else f"{used:%Y-%m-%d %H:%M}",
            )
        self.console().print(rows if keys else f"{count(0, 'API key')}.")

    def _roll(self, options: dict[str, Any]) -> None:
        try:
            overlap, by = timedelta(seconds=options["overlap"]), of_command(options["reason"])
            text = for_users.roll_key(options["key"], overlap=overlap, by=by)
        except NoSuchKey as err:
            raise CommandError(str(err), returncode=NOT_FOUND) from None
        self._tell_text(options, options["key"], text)

    def _revoke(self, options: dict[str, Any]) -> None:
        if not for_users.revoke_key(options["key"], by=of_command(options["reason"])):
            raise CommandError("There is no such key, or it has ended.", returncode=NOT_FOUND)
        if options["json"]:
            self.write_json({"id": options["key"], "revoked": True})
        else:
            self.stdout.write(f"{options['key']} is revoked.")

    def _tell_text(self, options: dict[str, Any], key_id: str, text: str) -> None:
        if options["json"]:
            self.write_json({"id": key_id, "key": text})
        else:
            self.stdout.write(f"{key_id}, shown this once:\n{text}")


def _name(text: str) -> str:
    if not text.strip() or len(text) > api_keys.LONGEST_NAME:
        raise argparse.ArgumentTypeError(f"it must have 1 to {api_keys.LONGEST_NAME} characters")
    return text


def _scopes(text: str) -> list[str]:
    found = [one.strip() for one in text.split(",") if one.strip()]
    if not found or not set(found) <= set(Scope.values):
        raise argparse.ArgumentTypeError(f"it must be one or more of {', '.join(Scope.values)}, with commas")
    return found


def _network(text: str) -> str:
    try:
        return api_keys.network(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from None


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) > MOST:
        raise argparse.ArgumentTypeError(f"it must be a whole number from 0 to {MOST}")
    return int(text)


def _overlap(text: str) -> float:
    found = seconds(text)
    if found > api_keys.LONGEST_OVERLAP_S:
        raise argparse.ArgumentTypeError("it may be 30d at most")
    return found
