"""What the headers of an answer say of its body, codings that a server put on it unasked, and bodies that are no media.

All of it comes from outside: whatever it is, it ends as a value or as one of our own errors.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from media_pipeline.errors import DownloadFailed, DownloadTooLarge, NotMedia

#: Of decoded bytes at once: a small body that unpacks into a large one takes time and disk, never memory.
PIECE_BYTES = 256 * 1024
MOST_CODINGS = 5
MOST_DIGITS = 19  # of a length in bytes; Python refuses to convert more than 4,300

#: Bytes that no text has. Source: https://mimesniff.spec.whatwg.org, "binary data byte", read 2026-11.
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
#: So many are looked at, as that standard does it.
HEAD_BYTES = 1445
_TEXTS = (
    (re.compile(rb"#EXTM3U"), "a playlist"),
    (re.compile(rb"<(!doctype html|html|head|body|script)", re.IGNORECASE), "a web page"),
    (re.compile(rb"<"), "XML or HTML"),
    (re.compile(rb"[{\[]"), "JSON"),
)
_ARCHIVES = {
    b"\x1f\x8b": "gzip data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"PK\x03\x04": "a zip archive",
    b"%PDF-": "a PDF",
}

_ZLIB = {"gzip": 31, "x-gzip": 31, "deflate": 15}
#: Codings that we can't undo. Anything else in Content-Encoding is no coding ("utf-8", "binary", "aws-chunked").
_UNKNOWN = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})


class Headers(Protocol):
    """The headers of urllib3's answers."""

    def getlist(self, key: str, /) -> Sequence[str]: ...


def content_length(headers: Headers) -> int | None:
    """Bytes of the body as they come over the wire; None where the server says nothing.

    Raises DownloadFailed for what is no length, or several; DownloadTooLarge for one that no file has.
    """
    told = {word.strip(" \t") for line in headers.getlist("Content-Length") for word in line.split(",")}
    if not told:
        return None
    word = told.pop()
    if told or not (word.isascii() and word.isdigit()):
        raise DownloadFailed("the answer's Content-Length is no number of bytes")
    digits = word.lstrip("0") or "0"
    if len(digits) > MOST_DIGITS:
        raise DownloadTooLarge(f"the answer's Content-Length is a number of {len(digits)} digits")
    return int(digits)


def refuse_text(head: bytes) -> None:
    """Raise NotMedia when the first bytes of a file (up to HEAD_BYTES) are a text, an archive, or none at all."""
    if not head:
        raise NotMedia("the answer has no body")
    for magic, name in _ARCHIVES.items():
        if head.startswith(magic):
            raise NotMedia(f"the answer is {name}, no media")
    if head.startswith((b"\xfe\xff", b"\xff\xfe\x3c\x00", b"\xff\xfe\x7b\x00")):
        raise NotMedia("the answer is text (UTF-16), no media")
    if _BINARY.search(head):
        return
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    kind = next((name for pattern, name in _TEXTS if pattern.match(text)), "text")
    raise NotMedia(f"the answer is {kind}, no media")


class Coding:
    """Undoes one coding, or lets a body pass that only claims to have it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inflate: zlib._Decompress | None = None
        self._begun = False
        self._held = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes, in pieces of PIECE_BYTES at most. Raises DownloadFailed."""
        data, self._held = self._held + data, b""
        if not self._begun:
            if len(data) < 2:
                self._held = data
                return
            self._begin(data)
        while data:
            if self._inflate is None:
                yield data
                return
            if self._inflate.eof:  # gzip: another member may follow; what is none is padding
                if self._name != "deflate" and data == b"\x1f":
                    self._held = data
                if self._name == "deflate" or not data.startswith(b"\x1f\x8b"):
                    return
                self._inflate = zlib.decompressobj(_ZLIB[self._name])
            try:
                piece = self._inflate.decompress(data, PIECE_BYTES)
            except zlib.error:
                raise DownloadFailed(f"the answer's Content-Encoding is {self._name}, and its body is not") from None
            if piece:
                yield piece
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def end(self) -> Iterator[bytes]:
        """What was held back. Raises DownloadFailed when the coded body ends too early."""
        if self._held and not self._begun:
            yield self._held
        if self._inflate is None:
            return
        while piece := self._inflate.decompress(b"", PIECE_BYTES):  # zlib may keep the end of the last piece
            yield piece
        if not self._inflate.eof:
            raise DownloadFailed(f"the body ends within its {self._name} coding")

    def _begin(self, data: bytes) -> None:
        self._begun = True
        if self._name == "deflate":
            # RFC 9110 means zlib's format; some servers send the bare one.
            is_zlib = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._inflate = zlib.decompressobj(15 if is_zlib else -15)
        elif data.startswith(b"\x1f\x8b"):
            self._inflate = zlib.decompressobj(_ZLIB[self._name])


class Decoder:
    """Undoes what Content-Encoding names, in the order in which it was put on."""

    def __init__(self, headers: Headers) -> None:
        """Raises DownloadFailed for a coding that we can't undo, or too many."""
        words = [word.strip(" \t").lower() for line in headers.getlist("Content-Encoding") for word in line.split(",")]
        names = [word for word in words if word in _ZLIB]
        if len(names) > MOST_CODINGS:
            raise DownloadFailed(f"the server put {len(names)} codings on the file although it was asked for none")
        if unknown := _UNKNOWN.intersection(words):
            raise DownloadFailed(f"the server compressed the file ({min(unknown)}) although it was asked not to")
        self._codings = [Coding(name) for name in reversed(names)]
        #: Whether the bytes of the file are those on the wire, as far as the header tells.
        self.is_plain = not set(words) - {"", "identity"}

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The file's bytes in a piece of the body. Raises DownloadFailed."""
        return _through(self._codings, data)

    def end(self) -> Iterator[bytes]:
        """The last bytes, after the body's end. Raises DownloadFailed when a coding ends too early."""
        for number, coding in enumerate(self._codings):
            for piece in coding.end():
                yield from _through(self._codings[number + 1 :], piece)


def _through(codings: Sequence[Coding], data: bytes) -> Iterator[bytes]:
    if not codings:
        yield data
        return
    for piece in codings[0].feed(data):
        yield from _through(codings[1:], piece)
