"""Whose address counts, behind proxies or not."""

from __future__ import annotations

import pytest
from django.test import RequestFactory
from pytest_django import Settings

from video.web.client_address import client_address, network_of

PROXIES = ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"]
CASES = [
    # REMOTE_ADDR, X-Forwarded-For, the client
    ("203.0.113.7", "198.51.100.1", "203.0.113.7"),  # no proxy of ours: it may say what it likes
    ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
    ("127.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),  # the client wrote the first one
    ("127.0.0.1", "6.6.6.6, 198.51.100.1, 10.1.2.3", "198.51.100.1"),  # two proxies
    ("127.0.0.1", "10.0.0.9", "10.0.0.9"),  # from inside
    ("127.0.0.1", "", "127.0.0.1"),
    ("127.0.0.1", "6.6.6.6, nonsense", "127.0.0.1"),
    ("127.0.0.1", "6.6.6.6, unknown, 10.0.0.9", "10.0.0.9"),
    ("127.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
    ("fd00::1", "[2001:db8::7]:4711", "2001:db8::7"),
    ("::ffff:127.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
    ("", "198.51.100.1", ""),
    ("unix:", "198.51.100.1", ""),
]


@pytest.mark.parametrize(("remote", "forwarded", "client"), CASES)
def test_only_what_a_trusted_proxy_wrote_is_believed(
    settings: Settings, remote: str, forwarded: str, client: str
) -> None:
    settings.TRUSTED_PROXIES = PROXIES
    request = RequestFactory().get("/", REMOTE_ADDR=remote, HTTP_X_FORWARDED_FOR=forwarded)
    assert client_address(request) == client


def test_without_trusted_proxies_the_header_is_not_read() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="127.0.0.1", HTTP_X_FORWARDED_FOR="198.51.100.1")
    assert client_address(request) == "127.0.0.1"


def test_the_addresses_of_one_customer_are_one_network() -> None:
    assert network_of("2001:db8:1:2::7") == network_of("2001:db8:1:2:ffff::1") != network_of("2001:db8:1:3::7")
    assert network_of("203.0.113.7") != network_of("203.0.113.8")
