"""STORAGE_URL as a value: the bucket, its endpoint, and the keys for it. No network, no AWS library."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

from media_pipeline.storage.object_keys import check_key

FORM = "s3://bucket/prefix?endpoint=https://…&region=…&addressing=path"
#: The region of a server of one's own, unless STORAGE_URL names another.
NO_REGION = "us-east-1"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,40}", re.ASCII)
#: A name or an address, and a port; it goes into a header of pages (Content-Security-Policy) as it is.
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_OPTIONS = frozenset({"endpoint", "region", "addressing"})

Addressing = Literal["path", "virtual"]


class BadAddress(ValueError):
    """The text is no such address. The message goes on from the setting's name, and repeats no value of it."""


@dataclass(frozen=True)
class S3Keys:
    """What requests are signed with. Its secrets are in no `repr`."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class S3Address:
    """A bucket at an endpoint, and the folder in it that is ours.

    `endpoint` is an origin (`https://s3.eu-central-1.amazonaws.com`); with `virtual` addressing the bucket becomes a
    part of its host name, with `path` the first part of the path.
    """

    bucket: str
    prefix: str  # without slashes at its ends; empty: the whole bucket
    endpoint: str
    region: str
    addressing: Addressing
    #: Where links lead instead, and whether they are plain ones: see `through`. Empty: to the endpoint.
    cdn: str = ""
    plain_links: bool = False

    def __str__(self) -> str:
        return "s3://" + "/".join(filter(None, (self.bucket, self.prefix)))

    def object_name(self, key: str) -> str:
        """The name in the bucket of what has this key."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def path_of(self, key: str) -> str:
        """The name in the bucket, as it stands in an address."""
        return quote(self.object_name(key), safe="/-._~")

    def seen_from(self, endpoint: str) -> S3Address:
        """The same bucket under another origin; empty: as it is."""
        return replace(self, endpoint=endpoint) if endpoint else self

    def through(self, cdn: str, *, plain: bool) -> S3Address:
        """The same bucket, whose links lead to a CDN at this base URL.

        The CDN hands path and query of a signed link on to the endpoint as they are. With `plain` it reads the bucket
        with rights of its own, and its links have no signature and no end.
        """
        return replace(self, cdn=cdn, plain_links=plain)

    @property
    def client_origin(self) -> str:
        """The origin that links into the bucket have."""
        if self.cdn:
            parts = urlsplit(self.cdn)
            return f"{parts.scheme}://{parts.netloc}"
        return f"{urlsplit(self.endpoint).scheme}://{self.host_and_path('')[0]}"

    def host_and_path(self, key: str) -> tuple[str, str]:
        """The Host header and the encoded path of a request for a key."""
        host = urlsplit(self.endpoint).netloc
        path = "/" + self.path_of(key)
        if self.addressing == "virtual":
            return f"{self.bucket}.{host}", path
        return host, f"/{self.bucket}{path}"


def parse(url: str, *, region: str = "") -> S3Address:
    """STORAGE_URL as an address; `region` is used where it names none. Raises BadAddress."""
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        if parts.scheme != "s3" or parts.fragment or parts.port:
            raise ValueError
    except ValueError:
        raise BadAddress(f"must have the form {FORM}.") from None
    if parts.username is not None or parts.password is not None:
        raise BadAddress("must hold no keys: they go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    if not _BUCKET.fullmatch(parts.netloc) or ".." in parts.netloc:
        raise BadAddress(f"must name a bucket, in small letters: {FORM}.")
    for name, values in options.items():
        if name not in _OPTIONS:
            raise BadAddress(f"has an option that is not known; there are {', '.join(sorted(_OPTIONS))}.")
        if len(values) != 1 or not values[0]:
            raise BadAddress(f"must give {name} one value.")
    given = {name: values[0] for name, values in options.items()}
    endpoint = endpoint_of(given["endpoint"]) if "endpoint" in given else ""
    found = given.get("region") or region or (NO_REGION if endpoint else "")
    if not found:
        raise BadAddress("needs a region, as region=eu-central-1 in it or as AWS_REGION, or an endpoint.")
    if not _REGION.fullmatch(found):
        raise BadAddress("must have a region such as eu-central-1 (in it, or as AWS_REGION or AWS_DEFAULT_REGION).")
    return S3Address(
        bucket=parts.netloc,
        prefix=_prefix(parts.path),
        endpoint=endpoint or f"https://s3.{found}.amazonaws.com",
        region=found,
        addressing=_addressing(given.get("addressing", ""), parts.netloc, own_endpoint=bool(endpoint)),
    )


def endpoint_of(text: str) -> str:
    """The text as an origin. Raises BadAddress."""
    origin, path = _origin_and_path(text)
    if not origin or path:
        raise BadAddress("must give an endpoint such as https://s3.example.com or http://10.0.0.5:9000.")
    return origin


def cdn_of(text: str) -> str:
    """The text as the base URL of a CDN, without a slash at its end. Raises BadAddress."""
    origin, path = _origin_and_path(text)
    try:
        if not origin:
            raise ValueError
        return f"{origin}/{check_key(path)}" if path else origin
    except ValueError:
        raise BadAddress("must be an address such as https://cdn.example.com or https://cdn.example.com/v.") from None


def _origin_and_path(text: str) -> tuple[str, str]:
    """The parts of an address; two empty texts where it is none, or has more than these."""
    try:
        parts = urlsplit(text)
        plain = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and _HOST.fullmatch(parts.netloc) is not None
            and parts.port != 0
        )
    except ValueError:
        plain = False
    if not plain or parts.query or parts.fragment:
        return "", ""
    return f"{parts.scheme}://{parts.netloc.lower()}", parts.path.strip("/")


def _prefix(path: str) -> str:
    prefix = path.strip("/")
    if not prefix:
        return ""
    try:
        return check_key(prefix)
    except ValueError:
        raise BadAddress("must have a prefix of letters, digits, '.', '-', '_' and single slashes.") from None


def _addressing(said: str, bucket: str, *, own_endpoint: bool) -> Addressing:
    """AWS wants the bucket in the host name; a server of one's own usually has no names for that, and a bucket with a
    dot fits under no certificate.
    """
    match said:
        case "":
            return "path" if own_endpoint or "." in bucket else "virtual"
        case "path" | "virtual":
            return said
        case _:
            raise BadAddress("must have addressing=path or addressing=virtual.")
