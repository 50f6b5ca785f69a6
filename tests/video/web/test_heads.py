"""What the head of a request may be, judged before Django reads it: at every address, and without a login."""

from __future__ import annotations

import json
from email.message import Message
from typing import Any
from wsgiref.types import WSGIEnvironment

import pytest
from django.core.wsgi import get_wsgi_application
from django.test import RequestFactory

from video.web.front import heads

# Each request looks whether this thread's connection is still good, also where no statement is run.
pytestmark = pytest.mark.django_db

ODD = {
    "semicolons after a quote": 'application/json;x="' + ";" * 60_000,
    "many parameters": "application/json" + ";x=y" * 15_000,
    "a charset nobody has": "application/json; x*=nope''y",
    "numbered parts": 'application/json; x*0=1; x*2=3; x*="',
    "a codec that has no errors to replace": "application/json; x*=idna''" + "x" * 200,
    "a codec that is none": "application/json; x*=undefined''zz",
    "a codec for bytes": "application/json; charset=hex",
    "a codec that refuses all": "application/json; charset=undefined",
    "a byte that is no ASCII": "application/json; x*=utf-8''\xff",
}


def ask(address: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, str, bytes]:
    """Status, content type and body, through what the server calls."""
    environ: WSGIEnvironment = RequestFactory().generic(method, address, body).environ
    environ |= headers
    told: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
        told.extend((int(status[:3]), dict(headers)))

    answer = heads.bounded(get_wsgi_application())(environ, start_response)
    content = b"".join(answer)
    getattr(answer, "close", lambda: None)()
    return told[0], told[1]["Content-Type"], content


@pytest.fixture
def read_by_mail(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the parser for mail was given."""
    found: list[str] = []
    read = Message.get_params

    def counted(self: Message, *args: Any, **options: Any) -> Any:
        found.append(str(self["content-type"]))
        return read(self, *args, **options)

    monkeypatch.setattr(Message, "get_params", counted)
    return found


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_content_type_is_neither_read_nor_an_error_of_the_server(odd: str, read_by_mail: list[str]) -> None:
    for address in ("/healthz", "/nothing?a=b", "/api/nothing?a=b"):
        assert ask(address, CONTENT_TYPE=ODD[odd])[0] in (200, 404)
    status, _, content = ask("/api/auth/login", "POST", b"{}", CONTENT_TYPE=ODD[odd])
    assert (status, json.loads(content)["error"]["code"]) == (400, "invalid_request")  # read as the JSON that it is
    assert not read_by_mail


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("application/json", "application/json"),
        (" Application/JSON ; charset=utf-8", "Application/JSON"),
        ("application/x-www-form-urlencoded; charset=UTF-8", "application/x-www-form-urlencoded"),
        ("multipart/form-data; boundary=----WebKit7MA4", 'multipart/form-data; boundary="----WebKit7MA4"'),
        ('multipart/form-data; charset=utf-8; boundary="a b"', "multipart/form-data"),
        ('multipart/form-data;Boundary="a:b" ; x=y', 'multipart/form-data; boundary="a:b"'),
        ("multipart/form-data; boundary=" + "x" * 71, "multipart/form-data"),
        ("application/json; boundary=x", "application/json"),
        ("", ""),
        (";", ""),
        ("json", ""),
        ("a/b/c", ""),
        ("text/plain, application/json", ""),
        ("a" * 200 + "/json", ""),
        ("multipart/form-data" + ";" * 100_000 + "boundary=x", "multipart/form-data"),
    ],
)
def test_of_a_content_type_its_kind_and_boundary_are_kept(sent: str, kept: str) -> None:
    assert heads.content_type(sent) == kept


def test_a_form_in_parts_is_still_read() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nnobody\r\n--x--\r\n'
    status, _, content = ask("/admin/login/", "POST", body, CONTENT_TYPE="multipart/form-data; boundary=x")
    assert (status, b"CSRF" in content) == (403, True)


@pytest.mark.parametrize("address", ["/healthz", "/api/video/status"])
def test_a_head_that_is_too_long_is_refused_by_name_and_not_repeated(address: str) -> None:
    long = "x" * (heads.LONGEST_HEADER + 1)
    for headers, status, named in (
        ({"HTTP_COOKIE": f"token={long}"}, 431, "Cookie"),
        ({"HTTP_COOKIE": "a=b;" * 10_000}, 431, "Cookie"),
        ({"HTTP_AUTHORIZATION": f"Bearer {long}"}, 431, "Authorization"),
        ({"HTTP_X_OF_A_STRANGER": long}, 431, "X-Of-A-Stranger"),
        ({"QUERY_STRING": long}, 414, "address"),
    ):
        found, kind, content = ask(address, **headers)
        assert (found, len(content) < 300, named in content.decode()) == (status, True, True)
        assert kind.startswith("application/json" if address.startswith("/api") else "text/plain")
    assert ask(address + long)[0] == 414


def test_heads_of_the_greatest_length_are_read() -> None:
    fits = "x" * heads.LONGEST_HEADER
    assert ask("/healthz", HTTP_COOKIE=fits, HTTP_X_A=fits, QUERY_STRING=fits)[0] == 200
