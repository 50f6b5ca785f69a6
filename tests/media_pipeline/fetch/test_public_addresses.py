"""Which addresses and links the server may dial for somebody else (SSRF), each form in a table."""

from __future__ import annotations

import ipaddress

import pytest

from media_pipeline.errors import ForbiddenAddress
from media_pipeline.fetch.addresses import check_public_url, is_public, origin


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("8.8.8.8", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:8.8.8.8", True),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("100.127.255.255", False),
        ("127.0.0.1", False),
        ("127.255.0.1", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("172.31.255.255", False),
        ("192.0.0.8", False),
        ("192.0.2.1", False),
        ("192.88.99.1", False),
        ("192.168.1.1", False),
        ("198.18.0.1", False),
        ("198.51.100.1", False),
        ("203.0.113.1", False),
        ("224.0.0.1", False),
        ("239.255.255.250", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::7f00:1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", False),
        ("64:ff9b:1::1", False),
        ("100::1", False),
        ("2001::1", False),
        ("2001:db8::1", False),
        ("2002:7f00:1::", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("fc00::1", False),
        ("fd12:3456::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
        # Mapped: judged by the address within.
        ("::ffff:0.0.0.0", False),
        ("::ffff:100.64.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("::ffff:224.0.0.1", False),
        ("::ffff:8.8.8.8%eth0", False),
        # Translated (SIIT, RFC 2765): the same letters and one more group of zeros.
        ("::ffff:0:7f00:1", False),
        ("::ffff:0:a9fe:a9fe", False),
        ("::ffff:0:808:808", False),
        # IPv4-compatible.
        ("::10.0.0.1", False),
        ("::8.8.8.8", False),
        # NAT64, well-known and local.
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::169.254.169.254", False),
        ("64:ff9b:1:7f00:1::", False),
        ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", False),
        ("64:ff9b:2::1", False),
        # 6to4.
        ("2002:a00:1::1", False),
        ("2002:a9fe:a9fe::", False),
        ("2002:808:808::1", False),
        # Teredo: the client's IPv4 address is in the last bits, inverted.
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", False),
        ("2001:0:808:808::1", False),
        # ISATAP under any prefix.
        ("2a00:1450:4001:80b:0:5efe:7f00:1", False),
        ("2a00:1450:4001:80b:200:5efe:10.0.0.1", False),
        ("2a00:1450:4001:80b:0:5eff:7f00:1", True),
        # ORCHID, benchmarks, discard, segment routing, the 6bone, and what nobody was ever given.
        ("2001:10::1", False),
        ("2001:20::1", False),
        ("2001:2::1", False),
        ("100:0:0:1::1", False),
        ("3ffe::1", False),
        ("4000::1", False),
        ("200::1", False),
        ("::1:0:0:1", False),
        ("fe00::1", False),
        ("ff0e::1", False),
        ("2001:4860:4860::8888", True),
        ("2a00:1450:4001:80b::200e", True),
        ("2620:fe::fe", True),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example.com/a.png",
        "https://cdn.example.com:443/a.png?x=%20y#top",
        "HTTPS://CDN.Example.COM./a",
        "https://xn--bcher-kva.example/a",
        "https://8.8.8.8/a",
        "https://[2606:2800:220:1:248:1893:25c8:1946]/a",
        "https://cdn.example.com/" + "a" * 8000,
    ],
)
def test_public_urls(url: str) -> None:
    assert check_public_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cdn.example.com/a",
        "//cdn.example.com/a",
        "http://cdn.example.com/a",
        "ftp://cdn.example.com/a",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "https://",
        "https:///a",
        "https://cdn.example.com:8443/a",
        "https://cdn.example.com:99999/a",
        "https://user@cdn.example.com/a",
        "https://user:pass@cdn.example.com/a",
        "https://good.example.com\\@127.0.0.1/a",
        "https://good.example.com%2f@127.0.0.1/a",
        "https://cdn.example.com/a b",
        "https://cdn.exa\tmple.com/a",
        "https://cdn.example.com/\r\nX: y",
        " https://cdn.example.com/a",
        "https://localhost/a",
        "https://localhost./a",
        "https://intranet/a",
        "https://db.internal/a",
        "https://printer.local/a",
        "https://127.0.0.1/a",
        "https://127.1/a",
        "https://2130706433/a",
        "https://0x7f000001/a",
        "https://0x7f.0.0.1/a",
        "https://0177.0.0.1/a",
        "https://10.0.0.1./a",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/a",
        "https://[::ffff:127.0.0.1]/a",
        "https://[::ffff:0:127.0.0.1]/a",
        "https://[64:ff9b::10.0.0.1]/a",
        "https://[2002:7f00:1::]/a",
        "https://[fe80::1%25eth0]/a",
        "https://-bad.example.com/a",
        "https://a..example.com/a",
        "https://bücher.example/a",
        "https://１２７.0.0.1/a",
        "https://cdn.example.com/" + "a" * 8192,
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ForbiddenAddress):
        check_public_url(url)


def test_origin_has_one_spelling() -> None:
    assert (
        origin("HTTPS://Api.Example.COM/v1") == origin("https://api.example.com.:443") == "https://api.example.com:443"
    )
    assert origin("http://[::1]/x") == "http://[::1]:80"
    trusted = frozenset({"http://127.0.0.1:8010/base"})
    assert check_public_url("http://127.0.0.1:8010/file", trusted_origins=trusted)
    for other in ("https://127.0.0.1:8010/file", "http://127.0.0.1:8011/file", "http://localhost:8010/file"):
        with pytest.raises(ForbiddenAddress):
            check_public_url(other, trusted_origins=trusted)
