"""Reads settings from the environment and `.env.local`, and stops the start with a plain sentence when one is wrong.

A wrong value found at three in the morning, in the middle of a job, is worse than a service that doesn't start. Each
message names the setting and says what would be right. It never quotes the value, which may be a key that was pasted
into the wrong line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import environ
from django.core.exceptions import ImproperlyConfigured

from config import env_file, names, web_addresses

#: A list of forty keys has a tenth of that.
MOST_CHARACTERS = 32_768

_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)


Word = TypeVar("Word", bound=str)


class Environment(environ.Env):
    """The environment. What a variable says is taken as it stands: a value that begins with `$` names no other one.

    Blanks round a value do not count, and a value of nothing but blanks is the same as none.
    """

    def get_value(
        self, var: str, cast: Any = None, default: Any = environ.Env.NOTSET, parse_default: bool = False
    ) -> Any:
        """The value of `var`, else `default`. Raises ImproperlyConfigured."""
        value = _characters_of(var, os.environ.get(var, "").strip())
        if value:
            return value if cast is None or cast is str else self.parse_value(value, cast)
        if default is environ.Env.NOTSET:
            raise ImproperlyConfigured(f"{var} must be set.")
        return default


def load(root: Path) -> Environment:
    """The environment with `.env.local` (or REELWORKS_ENV_FILE) laid under it; what is exported wins."""
    path = file_read(root)
    if path is not None:
        for name, value in env_file.read(path).items():
            os.environ.setdefault(name, value)
    names.refuse_misspelt(os.environ)
    return Environment()


def file_read(root: Path) -> Path | None:
    """The file to read, if there is one. A link that leads nowhere counts as there, so that it is told."""
    named = _characters_of("REELWORKS_ENV_FILE", os.environ.get("REELWORKS_ENV_FILE", ".env.local").strip())
    if not named:
        return None
    path = _path("REELWORKS_ENV_FILE", named, root)
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        if "REELWORKS_ENV_FILE" in os.environ:
            raise ImproperlyConfigured(f"REELWORKS_ENV_FILE names {path}, which is not there.") from None
        return None
    except OSError as err:
        raise ImproperlyConfigured(f"{path} can't be read ({err.strerror}).") from None
    return path


def text(env: Environment, name: str, default: str = "") -> str:
    """Any text."""
    return str(env.str(name, default=default))


def secret(env: Environment, name: str, *, least: int = 1) -> str:
    """A text of at least `least` characters, exactly as it stands; "" when it is not set.

    Blanks at its ends are refused and not cut off: another program that signs with the same secret might not cut.
    """
    value = os.environ.get(name, "")
    if value and not value.strip():
        raise ImproperlyConfigured(f"{name} is nothing but blanks.")
    if value != value.strip():
        raise ImproperlyConfigured(f"{name} must not begin or end with a blank or a line break.")
    if value and len(_characters_of(name, value)) < least:
        raise ImproperlyConfigured(f"{name} must have at least {least} characters.")
    return value


def secrets(env: Environment, name: str, *, least: int) -> list[str]:
    """Secrets of at least `least` characters each, separated by commas."""
    found = words(env, name)
    if any(len(one) < least for one in found):
        raise ImproperlyConfigured(f"{name}: each entry of the list must have at least {least} characters.")
    return found


def token(env: Environment, name: str) -> str:
    """A part of a key that goes into a header: visible ASCII without blanks; "" when it is not set."""
    value = text(env, name)
    if not value.isascii() or " " in value:
        raise ImproperlyConfigured(f"{name} must be ASCII characters without blanks.")
    return value


def number(env: Environment, name: str, default: float, *, least: float, most: float) -> float:
    """A number from `least` to `most`, in digits, with a point and an exponent if need be."""
    raw = text(env, name)
    if not raw:
        return float(default)  # as a configured one would be: the database takes no list of both kinds
    value = float(raw) if _NUMBER.fullmatch(raw) else None
    if value is None or not least <= value <= most:
        raise ImproperlyConfigured(f"{name} must be a number from {_shown(least)} to {_shown(most)}.")
    return value


def whole(env: Environment, name: str, default: int, *, least: int, most: int) -> int:
    """A whole number from `least` to `most`, in digits alone, as the Procfile's programs read it too."""
    raw = text(env, name)
    if not raw:
        return default
    value = int(raw) if _WHOLE.fullmatch(raw) else None
    if value is None or not least <= value <= most:
        raise ImproperlyConfigured(f"{name} must be a whole number from {_shown(least)} to {_shown(most)}.")
    return value


def numbers(env: Environment, name: str, default: str, *, most: float) -> tuple[float, ...]:
    """One or more growing numbers from 0 to `most`, separated by commas."""
    found = [float(word) if _NUMBER.fullmatch(word) else -1.0 for word in words(env, name, default)]
    if not found or found[0] < 0 or found != sorted(found) or found[-1] > most:
        raise ImproperlyConfigured(
            f"{name} must be growing numbers from 0 to {_shown(most)}, separated by commas, such as {default}."
        )
    return tuple(found)


def flag(env: Environment, name: str, *, default: bool = False) -> bool:
    """1/0, true/false, yes/no, on/off; anything else stops the start."""
    raw = text(env, name).lower()
    if not raw:
        return default
    if raw in {"1", "true", "yes", "on"}:
        return True
    if raw in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name} must be 1 or 0.")


def choice(env: Environment, name: str, default: Word, *, among: tuple[Word, ...]) -> Word:
    """One of a few words, in capitals or not."""
    known = {word.lower(): word for word in among}
    raw = text(env, name, default).lower()
    if raw not in known:
        raise ImproperlyConfigured(f"{name} must be {', '.join(among[:-1])} or {among[-1]}.")
    return known[raw]


def words(env: Environment, name: str, default: str = "") -> list[str]:
    """A comma-separated list, blanks dropped; the default's when there is no word in it."""
    found = [[word.strip() for word in one.split(",") if word.strip()] for one in (text(env, name), default)]
    return found[0] or found[1]


def folder(env: Environment, name: str, default: str, *, root: Path) -> Path:
    """A folder that is there or may be made; a relative path starts at `root`."""
    path = _path(name, text(env, name, default), root)
    try:
        there = next(one for one in (path, *path.parents) if one.exists())
        in_the_way = not there.is_dir()
    except OSError as err:
        raise ImproperlyConfigured(f"{name} must be a folder that can be used ({err.strerror}).") from None
    if in_the_way:
        raise ImproperlyConfigured(f"{name} must be a folder, but a file is in its place or above it.")
    return path


def address(env: Environment, name: str, default: str, *, read: Callable[[str], str]) -> str:
    """An address or host, as `read` (a function of web_addresses) takes and writes it; "" when there is none."""
    raw = text(env, name, default)
    try:
        return read(raw) if raw else ""
    except web_addresses.BadAddress as err:
        raise ImproperlyConfigured(f"{name} {err}.") from None


def each(env: Environment, name: str, default: str = "", *, read: Callable[[str], str]) -> list[str]:
    """A comma-separated list of addresses or hosts; a wrong one is told by its place."""
    found = []
    for position, word in enumerate(words(env, name, default), 1):
        try:
            found.append(read(word))
        except web_addresses.BadAddress as err:
            raise ImproperlyConfigured(f"{name}: entry {position} of the list {err}.") from None
    return found


def _characters_of(name: str, value: str) -> str:
    """The value, if it has nothing in it that no setting has."""
    if any("\ud800" <= one <= "\udfff" for one in value):
        raise ImproperlyConfigured(f"{name} must be UTF-8 text.")
    if not value.isprintable():
        raise ImproperlyConfigured(f"{name} must not have a line break or another invisible character in it.")
    if len(value) > MOST_CHARACTERS:
        raise ImproperlyConfigured(f"{name} must not be longer than {MOST_CHARACTERS:,} characters.")
    return value


def _path(name: str, value: str, root: Path) -> Path:
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise ImproperlyConfigured(f"{name} begins with ~ and a user that this machine does not know.") from None
    if len(value.encode()) > 1024 or any(len(part.encode()) > 255 for part in path.parts):
        raise ImproperlyConfigured(f"{name} must be a path of at most 1,024 bytes, 255 between two slashes.")
    return path if path.is_absolute() else root / path


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
