"""Reads a JSON body that means one thing only: an object, in UTF-8, no name twice, no NaN, not too long."""

from __future__ import annotations

import json
import math
import re
import secrets
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from django.conf import settings
from django.http import HttpRequest
from rest_framework.parsers import BaseParser

from video.api.errors import ApiError

#: A data URI as JSON writes it, its escapes included: PHP's `\\/`, and .NET's `\\u002B` for a plus.
_DATA_URI = re.compile(rb'"[ ]*+data:(?:[A-Za-z0-9+/=;,:._% -]++|\\[/nrt]|\\u00[0-9A-Fa-f]{2})*+"', re.IGNORECASE)
_GZIP_MAGIC = b"\x1f\x8b"


class _Ambiguous(ValueError):
    """JSON that two readers may read differently."""


class StrictJSONParser(BaseParser):
    """For `application/json`. Raises ApiError: 413 body_too_large, 411 length_required, 400 invalid_json."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return load(read(stream))


class OrderParser(StrictJSONParser):
    """The same for an order, in which `imageUrl` may hold a picture as data URI beside the bytes of the limit.

    What is JSON is bounded as ever: the picture is cut out as it stands, before anything is read.
    """

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        raw = read(stream, longest_order())
        if len(raw) <= settings.MAX_BODY_BYTES:
            return load(raw)
        picture = _DATA_URI.search(raw)
        mark = secrets.token_hex(16)  # nobody who sends a body can know it
        rest = (
            raw if picture is None else b"".join((raw[: picture.start()], f'"{mark}"'.encode(), raw[picture.end() :]))
        )
        if picture is None or len(rest) > settings.MAX_BODY_BYTES:
            raise too_large()
        order = load(rest)
        place = self.place_of_picture(order)
        if place is None or place[0].get(place[1]) != mark:
            raise too_large()
        place[0][place[1]] = json.loads(picture[0])
        return order

    def place_of_picture(self, order: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
        """The object and the name in it that may hold a picture; None if there is no such object."""
        return order, "imageUrl"


class BatchParser(StrictJSONParser):
    """The same for many orders."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return load(read(stream, longest_batch()))


def longest() -> int:
    """Bytes of a JSON body."""
    return int(settings.MAX_BODY_BYTES)


def longest_order() -> int:
    """Bytes of an order with a picture in it."""
    return int(settings.MAX_BODY_BYTES_OF["/api/video/create"])


def longest_batch() -> int:
    """Bytes of many orders."""
    return int(settings.MAX_BODY_BYTES_OF["/api/video/batch"])


def read(stream: IO[Any] | HttpRequest, most: int | None = None) -> bytes:
    """The whole body. Raises ApiError if it is over the limit."""
    most = longest() if most is None else most
    raw: bytes = stream.read(most + 1)
    if len(raw) > most:
        raise too_large(most)
    return raw


def unpacked(raw: bytes, encoding: str) -> bytes:
    """The body without its Content-Encoding: gzip, deflate, or none. Raises ApiError if it is over the limit then.

    What can't be unpacked comes back as it is: a proxy may have unpacked it and left the header.
    """
    kind = encoding.strip().lower()
    if kind not in ("gzip", "x-gzip", "deflate") and not raw.startswith(_GZIP_MAGIC):
        return raw
    # 47: gzip or zlib, by its head. -15: deflate without zlib's head, which some send under that name.
    for window_bits in (47, -15):
        unpacker = zlib.decompressobj(window_bits)
        try:
            body = unpacker.decompress(raw, settings.MAX_BODY_BYTES + 1)
        except zlib.error:
            continue
        if len(body) > settings.MAX_BODY_BYTES:
            raise too_large()
        if unpacker.eof and not unpacker.unused_data:
            return body
    return raw


def too_large(most: int | None = None) -> ApiError:
    """The answer to a body over the limit."""
    return ApiError(413, "body_too_large", f"The body may have at most {most or settings.MAX_BODY_BYTES} bytes.")


def refuse_by_header(meta: Mapping[str, Any], most: int, *, unpacks: bool = False) -> None:
    """Refuse by the headers, before a byte is read: a body that is too long, compressed unless the view `unpacks`
    it, or without a Content-Length.

    The front receives bodies whole and gives each its length; Django's own server would read one without it as empty.
    """
    if meta.get("HTTP_TRANSFER_ENCODING") and not meta.get("CONTENT_LENGTH"):
        raise ApiError(411, "length_required", "Send the body whole, with a Content-Length.")
    try:
        length = int(meta.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    if length > most:
        raise too_large(most)
    if length and not unpacks and meta.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() not in ("", "identity"):
        raise ApiError(415, "unsupported_encoding", "Send the body as it is, without a Content-Encoding.")


def load(raw: bytes) -> dict[str, Any]:
    """The object in `raw`; a byte-order mark before it is passed over. Raises ApiError."""
    encoding = json.detect_encoding(raw)
    if not encoding.startswith("utf-8"):
        raise _bad(f"The body is in {encoding.upper()}; send the JSON in UTF-8.")
    try:
        value = json.loads(
            raw.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite
        )
    except _Ambiguous as err:
        raise _bad(str(err)) from None
    except RecursionError:
        raise _bad("The body is nested too deeply.") from None
    except json.JSONDecodeError as err:
        raise _bad(f"The body is no JSON: {err.msg} in line {err.lineno}, column {err.colno}.") from None
    except UnicodeDecodeError as err:
        raise _bad(f"The body is not in UTF-8 (see its byte {err.start + 1}); send the JSON in UTF-8.") from None
    except ValueError:
        raise _bad("The body has a number with too many digits.") from None
    if not isinstance(value, dict):
        raise ApiError(
            400,
            "invalid_request",
            "The body must be a JSON object.",
            [{"field": "body", "message": 'must be an object such as {"prompt": "…"}'}],
        )
    return value


def _bad(message: str) -> ApiError:
    return ApiError(400, "invalid_json", message)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = next(name for name, number in times.items() if number > 1)
        raise _Ambiguous(f"The body names {twice[:60]!r} twice.")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Ambiguous(f"{name} is no JSON number.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Ambiguous("A number in the body is too large.")
    return number
