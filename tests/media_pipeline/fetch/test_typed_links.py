"""Links as people type them: what is sent, and what is told of those that can't be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_pipeline.errors import ForbiddenAddress
from media_pipeline.fetch.addresses import check_public_url
from media_pipeline.fetch.links import as_sent

SENT = {
    # what was written: what is sent
    "https://example.com/katze.jpg": "https://example.com/katze.jpg",
    "HTTPS://Example.COM:443/A.jpg?x=%20y&sig=a%2Fb+c~#top": "HTTPS://Example.COM:443/A.jpg?x=%20y&sig=a%2Fb+c~#top",
    "https://bücher.example/katze.jpg": "https://xn--bcher-kva.example/katze.jpg",
    "https://BÜCHER.example/katze.jpg": "https://xn--bcher-kva.example/katze.jpg",
    "https://bücher.example:443/katze.jpg": "https://xn--bcher-kva.example:443/katze.jpg",
    "https://bücher.example.": "https://xn--bcher-kva.example.",
    "https://bu\u0308cher.example/": "https://xn--bcher-kva.example/",  # the same letter, in two characters
    "https://xn--bcher-kva.example/ü": "https://xn--bcher-kva.example/%C3%BC",
    "https://faß.example/": "https://xn--fa-hia.example/",  # as browsers do it today; once it was fass.example
    "https://例え.テスト/猫.jpg": "https://xn--r8jz45g.xn--zckzah/%E7%8C%AB.jpg",
    "https://пример.example/кот.png": "https://xn--e1afmkfd.example/%D0%BA%D0%BE%D1%82.png",
    "https://مثال.example/": "https://xn--mgbh0fb.example/",
    "https://example。com/a.jpg": "https://example.com/a.jpg",  # an ideographic full stop
    "https://ｅｘａｍｐｌｅ.com/a.jpg": "https://example.com/a.jpg",
    "https://exam\u200bple.com/a.jpg": "https://example.com/a.jpg",
    "https://example.com/Füße.png": "https://example.com/F%C3%BC%C3%9Fe.png",
    "https://example.com/F%C3%BC%C3%9Fe.png": "https://example.com/F%C3%BC%C3%9Fe.png",
    "https://example.com/mein bild.png": "https://example.com/mein%20bild.png",
    "https://example.com/a.png?title=schöne katze": "https://example.com/a.png?title=sch%C3%B6ne%20katze",
    "https://example.com?q=ü": "https://example.com?q=%C3%BC",
    "https://example.com/a.png#größe": "https://example.com/a.png#gr%C3%B6%C3%9Fe",
    "https://example.com/🐈.jpg": "https://example.com/%F0%9F%90%88.jpg",
    'https://example.com/a{1}|^`"<b>.png': "https://example.com/a%7B1%7D%7C%5E%60%22%3Cb%3E.png",
    "https://example.com/100%.jpg": "https://example.com/100%.jpg",
    "  https://example.com/a.jpg \r\n": "https://example.com/a.jpg",
    "https://example.com/a\u00a0b.jpg": "https://example.com/a%C2%A0b.jpg",
}

REFUSED = {
    # what was written: what the sentence must say
    "data:image/png;base64,AAAA": "must begin with https://",
    "blob:https://example.com/1234": "one browser",
    "file:///home/me/katze.jpg": "one machine",
    "": "begin with https://",
    "bücher.example/katze.jpg": "begin with https://",
    "//bücher.example/katze.jpg": "begin with https://",
    "https:/example.com/a.jpg": "begin with https://",
    "ftp://example.com/a.jpg": "begin with https://",
    "example.com:443/a.jpg": "begin with https://",
    "\ufeffhttps://example.com/a.jpg": "begin with https://",
    "https:\\\\example.com\\a.jpg": "backslash",
    "https://exam\tple.com/a.jpg": "tab",
    "https://example.com/a\nb.jpg": "line break",
    "https://example.com/a\x85b.jpg": "control character",
    "https://jürgen@example.com/a.jpg": "user name",
    "https://b%C3%BCcher.example/a.jpg": "percent-encoded",
    "https://i❤.example/a.jpg": "xn--",  # a symbol; IDNA 2008 knows letters and digits only
    "https://bücher_.example/a.jpg": "xn--",
    "https://-bücher.example/a.jpg": "xn--",
    "https://bücher..example/a.jpg": "xn--",
    "https://ü ü.example/a.jpg": "xn--",
    "https://example.com／ü@127.0.0.1/": "user name",
    "https://example.com／ü.example/": "xn--",
    "https://example.com：443/": "xn--",
    "https://bücher.example:４４３/": "port",
    "https://[::1]ü/": "port",
    f"https://{'ü' * 300}.example/": "too long",
    "https://example.com/" + "ü" * 2000: "percent-encoded",
    "https://example.com/" + "a" * 9000: "8192",
    "https://example.com/\udc80.jpg": "surrogate",
}

#: Written in letters outside ASCII, and an address of this machine or of its network all the same.
NOT_PUBLIC = (
    "https://１２７．０．０．１/a.jpg",
    "https://127。0。0。1/a.jpg",
    "https://１６９.254.169.254/latest/meta-data",
    "https://ｌｏｃａｌｈｏｓｔ/a.jpg",
    "https://bücher.local/a.jpg",
    "https://bücher.ｉｎｔｅｒｎａｌ/a.jpg",
    "https://bücher/a.jpg",
    "https://０x7f.1/a.jpg",
    "https://2130706433/ü",
    "https://②①③⓪⑦⓪⑥④③③/",
    "https://[::ffff:127.0.0.1]/ü",
    "https://bücher.example:8443/a.jpg",
    "https://bücher.example:99999/a.jpg",
    "http://bücher.example/a.jpg",
)


@pytest.mark.parametrize(("written", "sent"), SENT.items())
def test_a_link_is_sent_as_browsers_send_it(written: str, sent: str) -> None:
    assert as_sent(written) == sent
    assert check_public_url(sent) == sent
    assert as_sent(sent) == sent


@pytest.mark.parametrize(("written", "says"), REFUSED.items(), ids=[one[:40] for one in REFUSED])
def test_a_link_that_two_readers_may_read_twice_is_refused_with_what_would_be_right(written: str, says: str) -> None:
    with pytest.raises(ForbiddenAddress, match=says):
        as_sent(written)


@pytest.mark.parametrize("written", NOT_PUBLIC)
def test_no_spelling_gets_past_the_rules_for_addresses(written: str) -> None:
    with pytest.raises(ForbiddenAddress):
        check_public_url(as_sent(written))


@given(st.text().map(lambda end: f"https://{end}") | st.text())
def test_whatever_is_written_ends_as_one_reading_or_a_sentence(written: str) -> None:
    try:
        sent = as_sent(written)
    except ForbiddenAddress:
        return
    assert sent.isascii()
    assert as_sent(sent) == sent
