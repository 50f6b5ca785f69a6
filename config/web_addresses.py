"""Addresses and hosts as settings have them, checked and written in one way. No network, and no value in a message."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
MOST_CHARACTERS = 2_000

_CHARACTERS = re.compile(r"[A-Za-z0-9._~:/\[\]@!$&'()*+,;=%-]+", re.ASCII)  # of a URL, less ? and #
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)  # _ is in no name of the DNS, but in Docker's


class BadAddress(ValueError):
    """The text is no such address or host. The message goes on from the setting's name."""


@dataclass(frozen=True)
class Address:
    """An http or https address."""

    scheme: str
    host: str  # in small letters, IPv6 without brackets
    port: int | None  # None: the scheme's own
    path: str  # without a slash at its end

    @property
    def origin(self) -> str:
        """The address as browsers write it in `Origin`."""
        host = bracketed(self.host)
        return f"{self.scheme}://{host}" if self.port is None else f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        return self.origin + self.path


def plain(text: str) -> str:
    """An http or https address without user, query, fragment and slash at its end. Raises BadAddress."""
    return str(_parse(text, "must be a plain http(s) address such as https://video.example.com"))


def provider_base(text: str) -> str:
    """A provider's base URL. A key goes there, so it is https, or on this machine. Raises BadAddress.

    One `/v1` at its end is taken off, since providers' own pages show it and adapters add it to each path.
    """
    address = _parse(text, "must be a plain https address such as https://api.example.com")
    if address.scheme != "https" and not is_loopback(address.host):
        raise BadAddress("must begin with https://, since keys are sent there; http:// is for this machine only")
    return address.origin + address.path.removesuffix("/v1").rstrip("/")


def origin(text: str) -> str:
    """An origin as browsers send it. Raises BadAddress."""
    wrong = "must be an origin such as https://app.example.com, without a path"
    address = _parse(text, wrong)
    if address.path:
        raise BadAddress(wrong)
    return address.origin


def origin_of(url: str) -> str:
    """The origin of an address that `plain` has read."""
    return _parse(url, "must be an address").origin


def served_name(text: str) -> str:
    """A name for ALLOWED_HOSTS: a host, `.example.com` with all below it, or `*`. Raises BadAddress."""
    in_brackets = text.startswith("[") and text.endswith("]")
    host = text[1:-1] if in_brackets else text.removeprefix(".")
    if text == "*" or (is_host(host) and in_brackets == (":" in host)):
        return text.lower()
    raise BadAddress("must be a name such as video.example.com, .example.com or [::1], without http:// and port")


def private_host(text: str) -> str:
    """`host` or `host:port`. Raises BadAddress."""
    if is_host(text):
        return text.lower()
    wrong = "must be a host or host:port, such as images.internal or 10.0.0.5:8080"
    if text.startswith("[") and text.endswith("]") and is_host(text[1:-1]):
        return text[1:-1].lower()  # as urlsplit gives it
    if "/" in text:
        raise BadAddress(wrong)
    address = _parse(f"http://{text}", wrong)
    return f"{bracketed(address.host)}:{address.port or DEFAULT_PORTS['http']}"


def network(text: str) -> str:
    """An IP address, or a network such as 10.0.0.0/8. Raises BadAddress."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise BadAddress("must be an IP address or a network, such as 127.0.0.1 or 10.0.0.0/8") from None


def interface(text: str) -> str:
    """The name or address of an interface to listen on. Raises BadAddress."""
    if not is_host(text):
        raise BadAddress("must be an address or name of this machine, such as 127.0.0.1, 0.0.0.0 or ::1")
    return text


def bracketed(host: str) -> str:
    """The host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def is_host(text: str) -> bool:
    """Whether this is an IP address (IPv6 without brackets) or a name in ASCII; old forms such as 127.1 are neither."""
    if "%" in text:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        labels = text.split(".")
        names = len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
        return names and not re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", labels[-1], re.ASCII)
    return True


def is_loopback(host: str) -> bool:
    """Whether the host is this machine: localhost, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback


def _parse(text: str, wrong: str) -> Address:
    """Raises BadAddress with the sentence `wrong`."""
    if len(text) > MOST_CHARACTERS or not _CHARACTERS.fullmatch(text):
        raise BadAddress(wrong)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise BadAddress(wrong) from None
    bare_port = parts.netloc.endswith(":") or port == 0
    if parts.scheme not in DEFAULT_PORTS or "@" in parts.netloc or bare_port or not is_host(host):
        raise BadAddress(wrong)
    own = port is None or port == DEFAULT_PORTS[parts.scheme]
    return Address(parts.scheme, host, None if own else port, parts.path.rstrip("/"))
