"""Reads `.env.local`: one NAME=value a line, nothing filled in, nothing guessed.

What can't be read stops the start with the file and the number of the line. No text of the file is ever quoted, since
a line that is wrong may hold a key.
"""

from __future__ import annotations

import codecs
import re
import stat
import unicodedata
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from config import names

MOST_BYTES = 1_000_000

_LINE_END = re.compile("\r\n|\r|\n")  # str.splitlines knows more of them, which editors show within a line
_ASSIGNMENT = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[^=]*?)[ \t]*=(?P<value>.*)")
_COMMENT = re.compile(r"[ \t]+#.*")
_OTHER_QUOTES = "`´“”„‟‘’‚«»"
_UTF_16_AND_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


class _Wrong(Exception):
    """What is wrong with a line, to go on from the line's number. Quotes nothing of it."""


def read(path: Path) -> dict[str, str]:
    """Name → value, as the file says it. Raises ImproperlyConfigured."""
    return parse(_bytes(path), str(path))


def parse(data: bytes, file: str) -> dict[str, str]:
    """The same of a file's content; `file` is its name, for messages. Raises ImproperlyConfigured."""
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(_LINE_END.split(_text(data, file)), 1):
        try:
            pair = _read_line(line)
            if pair is None:
                continue
            name, value = pair
            first, same = found.setdefault(name, (number, value))
            if same != value:
                raise _Wrong(f"this name has another value in line {first}; keep one of the two")
        except _Wrong as err:
            raise ImproperlyConfigured(f"{file}, line {number}: {err}.") from None
    return {name: value for name, (_, value) in found.items()}


def _bytes(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImproperlyConfigured(f"{path} must be a text file, but it is a folder or something else.")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as err:
        raise ImproperlyConfigured(
            f"{path} can't be read ({err.strerror}); it must be a text file that this user may read."
        ) from None
    if len(data) > MOST_BYTES:
        raise ImproperlyConfigured(f"{path} is larger than {MOST_BYTES:,} bytes, so it is no file of settings.")
    return data


def _text(data: bytes, file: str) -> str:
    """The file's text: UTF-8, with a byte-order mark or without."""
    plain = data.removeprefix(codecs.BOM_UTF8)
    problem, at = "", 0
    if data.startswith(_UTF_16_AND_32) or b"\0" in plain:
        problem, at = "this is no UTF-8 text (UTF-16, or no text at all)", max(plain.find(b"\0"), 0)
    try:
        text = "" if problem else plain.decode()
    except UnicodeDecodeError as err:
        problem, at = "this is no UTF-8 text (Latin-1, or another old encoding)", err.start
    if problem:
        before = plain[: 0 if data.startswith(_UTF_16_AND_32) else at].decode("latin-1")
        number = len(_LINE_END.split(before))
        raise ImproperlyConfigured(f"{file}, line {number}: {problem}; save the file as UTF-8.")
    return text


def _read_line(line: str) -> tuple[str, str] | None:
    """Name and value; None for an empty line or a comment. Raises _Wrong."""
    if any(unicodedata.category(one) == "Cc" and one != "\t" for one in line):
        raise _Wrong("it has a control character in it; delete the line and type it anew")
    if not line.strip(" \t") or line.lstrip(" \t").startswith("#"):
        return None
    parts = _ASSIGNMENT.fullmatch(line)
    if parts is None:
        raise _Wrong("expected NAME=value, but the line has no equals sign")
    name = parts["name"]
    if not names.is_name(name):
        raise _Wrong(
            "expected NAME=value with a name of letters, digits and underscores, and before it nothing but `export`"
        )
    if problem := names.problem_in_file(name):
        raise _Wrong(problem)
    value = _value(parts["value"])
    if not value.isprintable():
        raise _Wrong("its value has an invisible character in it; delete the line and type it anew")
    return name, value


def _value(text: str) -> str:
    """What stands behind the equals sign, without quotes, comment and outer blanks. Raises _Wrong."""
    begun = text.lstrip(" \t")
    quote = begun[:1]
    if quote and quote in _OTHER_QUOTES:
        raise _Wrong("its value begins with a typographic quotation mark; write ' or \", or none")
    if quote not in {'"', "'"}:
        comment = _COMMENT.search(text)
        return (text[: comment.start()] if comment else text).strip(" \t")
    value, closed, rest = begun[1:].partition(quote)
    if not closed:
        raise _Wrong("its value begins with a quotation mark that is not closed in the same line")
    if rest.strip(" \t") and not _COMMENT.match(rest):
        raise _Wrong("there is text behind the closing quotation mark; only a blank and # with a comment may follow")
    return value
