"""A link as the world writes it, in the form in which browsers send it: ASCII only, read in one way only.

People type and paste links, providers answer with them, and file hosts write them into `Location`.

The host is mapped by UTS 46 and encoded by IDNA 2008 (`bücher.example` → `xn--bcher-kva.example`); path, query and
fragment are percent-encoded UTF-8. A percent sign and every character that a link may hold stay as they are, so a link
that was right before is not changed, and a signature over it still holds. Source: https://url.spec.whatwg.org, read
2026-11. Browsers also repair what is refused here, because other readers repair it in another way: backslashes, line
breaks, a missing slash.

yarl and urllib3's `parse_url` were considered: both also rewrite escapes that were right before (`%7E`, `%2f`), over
which a signature may have been made.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urljoin

import idna

from media_pipeline.errors import ForbiddenAddress
from media_pipeline.fetch.addresses import MAX_SENT_LENGTH, MAX_URL_LENGTH

MAX_HOST_LENGTH = 253
_SHAPE = re.compile(r"(https?://)([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_SCHEME = re.compile(r"([a-z][a-z0-9+-]*):", re.IGNORECASE)
_BLANKS = "".join(map(chr, range(0x21)))  # what browsers cut off at both ends
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_KEPT = "!#$%&'()*+,/:;=?@[]"  # beside letters, digits and -._~

_INSTEAD = "send the picture to POST /api/video/upload and use the address that it answers with"
_NOT_TAKEN = {
    "blob": f"a blob: link works in one browser only; {_INSTEAD}",
    "file": f"a file: link works on one machine only; {_INSTEAD}",
}


def as_sent(link: str, *, longest: int = MAX_URL_LENGTH) -> str:
    """The link in ASCII. Blanks round it are cut off. Whether its host may be asked is for `check_public_url` to judge.

    `longest`: characters of what is sent; what was written has MAX_URL_LENGTH at most. Raises ForbiddenAddress, with a
    sentence that says what would be right and never quotes the link.
    """
    text = link.strip(_BLANKS)
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() in _NOT_TAKEN:
        raise ForbiddenAddress(_NOT_TAKEN[scheme[1].lower()])
    _refuse_ambiguous(text)
    parts = _SHAPE.fullmatch(text)
    if parts is None:
        raise ForbiddenAddress("it must begin with https://, such as https://example.com/cat.jpg")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ForbiddenAddress("it has half of a character in it (a lone surrogate)") from None
    return _joined(parts, longest)


def redirect_target(url: str, location: str) -> str:
    """Where a `Location` leads that came in an answer to `url`, in ASCII; `check_public_url` judges it.

    `location` is the header as http.client hands it out, byte by byte (Latin-1). It is read as UTF-8; in a path, bytes
    that are none are sent as they came, as browsers do (web-platform-tests,
    fetch/api/redirect/redirect-location-escape). Raises ForbiddenAddress.
    """
    text = location.encode("latin-1", "replace").strip(b" ").decode("utf-8", "surrogateescape")
    _refuse_ambiguous(text)
    if text.startswith("//") and not text.startswith("///"):
        text = url.partition(":")[0] + ":" + text
    parts = _SHAPE.fullmatch(text)
    if parts is not None:
        return _joined(parts, MAX_SENT_LENGTH)
    if _SCHEME.match(text) or text.startswith("//"):
        raise ForbiddenAddress("a redirect that leads neither to a path nor to an http link")
    return urljoin(url, _encoded(text))


def _refuse_ambiguous(text: str) -> None:
    if len(text) > MAX_URL_LENGTH:
        raise ForbiddenAddress(f"it has more than {MAX_URL_LENGTH} characters")
    if _CONTROL.search(text):
        raise ForbiddenAddress("it has a line break, a tab or another control character in it; leave that out")
    if "\\" in text:
        raise ForbiddenAddress("it has a backslash in it; write / between the parts, or %5C where one is meant")


def _joined(parts: re.Match[str], longest: int) -> str:
    sent = parts[1] + _authority(parts[2]) + _encoded(parts[3])
    if len(sent) > longest:
        raise ForbiddenAddress(
            f"it has more than {longest} characters once its letters outside ASCII are percent-encoded"
        )
    return sent


def _encoded(rest: str) -> str:
    """Path, query and fragment, percent-encoded; a byte that is no UTF-8 (see `redirect_target`) as itself."""
    return quote(rest, safe=_KEPT, errors="surrogateescape")


def _authority(written: str) -> str:
    """The host in IDNA, with its port; one that is ASCII already is left for `check_public_url` to judge."""
    if any("\udc80" <= letter <= "\udcff" for letter in written):
        written = written.encode("utf-8", "surrogateescape").decode("latin-1")
    if "@" in written:
        raise ForbiddenAddress("it must not carry a user name or password; leave out what stands before the @")
    if "%" in written:
        raise ForbiddenAddress("its host name must not be percent-encoded; write the name itself")
    if written.isascii():
        return written
    host, colon, port = written.partition(":")
    if not port.isascii():
        raise ForbiddenAddress("its port must be a number, such as :443")
    if len(host) > MAX_HOST_LENGTH:
        raise ForbiddenAddress("its host name is too long")
    try:
        return idna.encode(host, uts46=True, std3_rules=True).decode("ascii") + colon + port
    except (idna.IDNAError, UnicodeError):
        raise ForbiddenAddress(
            "its host name has letters that no domain name may have; write the name in its ASCII form (xn--…)"
        ) from None
