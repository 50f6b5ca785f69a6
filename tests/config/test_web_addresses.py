"""Hosts and origins in settings: what they are written as, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from config import web_addresses

TAKEN: list[tuple[Callable[[str], str], str, str]] = [
    (web_addresses.served_name, "Video.Example.com", "video.example.com"),
    (web_addresses.served_name, ".example.com", ".example.com"),
    (web_addresses.served_name, "*", "*"),
    (web_addresses.served_name, "10.0.0.5", "10.0.0.5"),
    (web_addresses.served_name, "[::1]", "[::1]"),
    (web_addresses.private_host, "Images.internal", "images.internal"),
    (web_addresses.private_host, "10.0.0.5:8080", "10.0.0.5:8080"),
    (web_addresses.private_host, "images.internal:80", "images.internal:80"),
    (web_addresses.private_host, "[::1]", "::1"),
    (web_addresses.private_host, "::1", "::1"),
    (web_addresses.private_host, "[::1]:9000", "[::1]:9000"),
    (web_addresses.interface, "0.0.0.0", "0.0.0.0"),
    (web_addresses.interface, "::", "::"),
    (web_addresses.interface, "localhost", "localhost"),
    (web_addresses.origin, "https://app.example.com/", "https://app.example.com"),
    (web_addresses.origin, "HTTPS://App.Example.com:443", "https://app.example.com"),
    (web_addresses.origin, "http://localhost:3000", "http://localhost:3000"),
    (web_addresses.plain, "http://video.example.com/reels/", "http://video.example.com/reels"),
    (web_addresses.origin_of, "https://video.example.com:8443/reels", "https://video.example.com:8443"),
]
REFUSED: list[tuple[Callable[[str], str], str]] = [
    *(
        (web_addresses.served_name, text)
        for text in ("::1", "[a.com]", "a.com:80", "http://a.com", "*.a.com", ".", "-a")
    ),
    *((web_addresses.private_host, text) for text in ("a:", "a:x", "a:70000", "a/x", "u@a", "*", "http://a", "a b")),
    *((web_addresses.interface, text) for text in ("[::]", "*", "http://0.0.0.0", "0.0.0.0:80", "a_b c")),
    *(
        (web_addresses.origin, text)
        for text in ("https://a.com/x", "null", "*", "a.com", "https://a.com?", "ftp://a.com")
    ),
]


@pytest.mark.parametrize(("read", "text", "written"), TAKEN)
def test_it_is_written_in_one_way(read: Callable[[str], str], text: str, written: str) -> None:
    assert read(text) == written


@pytest.mark.parametrize(("read", "text"), REFUSED)
def test_anything_else_is_refused(read: Callable[[str], str], text: str) -> None:
    with pytest.raises(web_addresses.BadAddress, match=r"^must be "):
        read(text)
