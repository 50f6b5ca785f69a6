"""The sender against real sockets on loopback: what is proven about a submit is only true if the kernel agrees."""

import errno
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import traceback

import pytest
import requests
import responses
from urllib3.exceptions import NewConnectionError, ReadTimeoutError

from providers.contract import HttpRequest
from providers.errors import ForeignOrigin, NotSent, ProviderDown, SubmissionUnknown
from providers.http import Sender, redact, same_origin
from tests.providers.raw_server import KEY, OK, Server, answer, drip, free_port, get


def post(url, path="/v1/text_to_video"):
    return HttpRequest(
        "POST", url + path, {"Authorization": f"Bearer {KEY}"}, params={"hook": "sig-secret"}, json={"promptText": "ü"}
    )


# --- a submit that works ---


def test_submit_returns_the_whole_reply_with_lower_case_headers(serve):
    server = serve(answer(OK))
    reply = Sender(server.url).submit(post(server.url), deadline_s=30)
    assert (reply.status, reply.json()) == (200, {"id": "j1"})
    assert reply.headers["content-type"] == "application/json"


def test_submit_sends_what_the_adapter_built_and_asks_for_a_connection_of_its_own(serve):
    server = serve(answer(OK), keep_alive=True)
    sender = Sender(server.url)
    for _ in range(2):
        sender.submit(post(server.url), deadline_s=30)
    head, body = server.requests[0].split(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/text_to_video?hook=sig-secret HTTP/1.1")
    assert f"Authorization: Bearer {KEY}".encode() in head
    assert b"Connection: close" in head
    assert b"Accept-Encoding: identity" in head
    assert b"Content-Type: application/json" in head
    assert json.loads(body) == {"promptText": "ü"}
    assert server.connections == 2


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_error_replies_come_back_as_replies(serve, status):
    server = serve(answer(b"HTTP/1.1 %d X\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}" % status))
    reply = Sender(server.url).submit(post(server.url), deadline_s=30)
    assert (reply.status, reply.headers["retry-after"]) == (status, "7")
    assert len(server.requests) == 1


def test_redirect_is_a_reply_and_the_key_goes_nowhere_else(serve):
    other = serve(answer(OK))
    server = serve(answer(b"HTTP/1.1 307 X\r\nLocation: %s/v1\r\nContent-Length: 0\r\n\r\n" % other.url.encode()))
    sender = Sender(server.url)
    assert sender.submit(post(server.url), deadline_s=30).status == 307
    assert sender.read(get(server.url), deadline_s=30).status == 307
    time.sleep(0.05)
    assert other.connections == 0


def test_proxy_and_netrc_of_the_environment_are_ignored(serve, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    server = serve(answer(OK))
    request = HttpRequest("POST", server.url + "/x", json={})
    assert Sender(server.url).submit(request, deadline_s=30).status == 200
    assert b"authorization" not in server.requests[0].lower()


def test_cookies_are_not_kept(serve):
    server = serve(answer(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n")), keep_alive=True)
    sender = Sender(server.url)
    sender.read(get(server.url), deadline_s=30)
    sender.read(get(server.url), deadline_s=30)
    assert b"cookie" not in server.requests[1].lower()


# --- proof that nothing was sent ---


def test_refused_connection_is_proof_that_nothing_was_sent():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(NotSent, match="refused"):
        Sender(url).submit(post(url), deadline_s=30)


def test_unresolvable_name_is_proof_that_nothing_was_sent(monkeypatch):
    def fail(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(NotSent):
        Sender("http://no-such-host.invalid").submit(post("http://no-such-host.invalid"), deadline_s=30)


def test_connect_timeout_is_proof_that_nothing_was_sent(monkeypatch):
    def fail(*args, **kwargs):
        raise TimeoutError(errno.ETIMEDOUT, "timed out")

    monkeypatch.setattr("urllib3.util.connection.create_connection", fail)
    with pytest.raises(NotSent):
        Sender("http://127.0.0.1:9").submit(post("http://127.0.0.1:9"), deadline_s=30)


def test_server_that_speaks_no_tls_is_proof_that_nothing_was_sent(serve):
    server = serve(answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), read_first=False)
    url = server.url.replace("http:", "https:")
    with pytest.raises(NotSent):
        Sender(url).submit(post(url), deadline_s=30)
    assert KEY.encode() not in b"".join(server.requests)


def test_tls_handshake_that_drips_ends_with_the_deadline(serve):
    record = b"\x16\x03\x03\x40\x00" + b"\x02" * 1000  # the start of a long handshake message that never ends
    server = serve(drip(record), read_first=False)
    url = server.url.replace("http:", "https:")
    started = time.monotonic()
    with pytest.raises(NotSent):
        Sender(url).submit(post(url), deadline_s=0.3)
    assert time.monotonic() - started < 20


def test_untrusted_certificate_is_proof_that_nothing_was_sent(serve, monkeypatch):
    def fail(*args, **kwargs):
        raise ssl.SSLCertVerificationError(1, "certificate verify failed")

    server = serve(answer(OK), read_first=False)
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", fail)
    url = server.url.replace("http:", "https:")
    with pytest.raises(NotSent):
        Sender(url).submit(post(url), deadline_s=30)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -addext"
    subprocess.run(
        ["openssl", *made.split(), "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]],
        check=True,
        capture_output=True,
    )
    return files


def over_tls(certificate, behave):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def wrapped(connection, _):
        with context.wrap_socket(connection, server_side=True) as secure:
            behave(secure, Server._read_request(secure))

    return wrapped


def test_submit_over_tls(serve, certificate):
    seen = []
    server = serve(over_tls(certificate, lambda c, r: (seen.append(r), c.sendall(OK))), read_first=False)
    url = server.url.replace("http:", "https:")
    reply = Sender(url, ca_bundle=certificate[0]).submit(
        post(url), deadline_s=30, before_send=lambda: seen.append("hook")
    )
    assert reply.json() == {"id": "j1"}
    assert seen[0] == "hook"
    assert seen[1].startswith(b"POST /v1/text_to_video")


def test_certificate_that_nobody_signed_is_proof_that_nothing_was_sent(serve, certificate):
    seen = []
    server = serve(over_tls(certificate, lambda c, r: seen.append(r)), read_first=False)
    url = server.url.replace("http:", "https:")
    with pytest.raises(NotSent, match="SSL"):
        Sender(url).submit(post(url), deadline_s=30)
    assert not seen


def test_drip_over_tls_ends_with_the_deadline(serve, certificate):
    slow = drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000)
    server = serve(over_tls(certificate, slow), read_first=False)
    url = server.url.replace("http:", "https:")
    sender = Sender(url, ca_bundle=certificate[0])
    for call, expected in ((sender.submit, SubmissionUnknown), (sender.read, ProviderDown)):
        started = time.monotonic()
        with pytest.raises(expected):
            call(post(url), deadline_s=0.3)
        assert time.monotonic() - started < 20


def test_header_that_http_cannot_carry_is_refused_before_the_socket_without_showing_it(serve):
    server = serve(answer(OK))
    for value in ("Bearer a\nb-secret", "Bearer \u20ac-secret"):
        request = HttpRequest("POST", server.url + "/v1", {"Authorization": value}, json={})
        with pytest.raises(NotSent) as caught:
            Sender(server.url).submit(request, deadline_s=30)
        assert "secret" not in "".join(traceback.format_exception(caught.value))
        with pytest.raises(ProviderDown):
            Sender(server.url).read(request, deadline_s=30)
    assert server.connections == 0


def test_hook_runs_before_any_byte_and_its_exception_comes_out_as_it_is(serve):
    seen = []
    server = serve(answer(OK))

    class TooLate(OSError):
        pass

    def stop():
        time.sleep(0.05)
        seen.append(b"".join(server.requests))
        raise TooLate("5 s have passed")

    with pytest.raises(TooLate):
        Sender(server.url).submit(post(server.url), deadline_s=30, before_send=stop)
    time.sleep(0.05)
    assert seen == [b""]
    assert not server.requests


def test_hook_that_takes_too_long_sends_nothing(serve):
    server = serve(answer(OK))
    with pytest.raises(NotSent):
        Sender(server.url).submit(post(server.url), deadline_s=0.1, before_send=lambda: time.sleep(0.2))
    time.sleep(0.05)
    assert not any(server.requests)


def test_hook_runs_once_and_lets_the_submit_go_on(serve):
    calls = []
    server = serve(answer(OK))
    Sender(server.url).submit(post(server.url), deadline_s=30, before_send=lambda: calls.append(1))
    assert calls == [1]
    assert len(server.requests) == 1


def test_time_that_is_over_before_the_request_is_written_is_not_sent(serve):
    server = serve(answer(OK))
    sender = Sender(server.url)
    with pytest.raises(NotSent):
        sender.submit(post(server.url), deadline_s=0)
    time.sleep(0.05)
    assert not any(server.requests)


# --- everything else is unknown, and never sent twice ---


def test_connection_closed_after_the_request_is_unknown(serve):
    server = serve(lambda connection, _: None)
    with pytest.raises(SubmissionUnknown):
        Sender(server.url).submit(post(server.url), deadline_s=30)
    time.sleep(0.05)
    assert len(server.requests) == 1
    assert server.connections == 1


def test_connection_accepted_and_reset_is_unknown(serve):
    def reset(connection, _):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    server = serve(reset)
    with pytest.raises(SubmissionUnknown):
        Sender(server.url).submit(post(server.url), deadline_s=30)
    assert server.connections == 1


def test_connection_accepted_and_closed_at_once_is_unknown(serve):
    server = serve(lambda connection, _: None, read_first=False)
    with pytest.raises(SubmissionUnknown):
        Sender(server.url).submit(post(server.url), deadline_s=30)
    assert server.connections == 1


def test_silent_server_is_unknown_at_the_deadline(serve):
    server = serve(lambda connection, _: time.sleep(40))
    started = time.monotonic()
    with pytest.raises(SubmissionUnknown):
        Sender(server.url).submit(post(server.url), deadline_s=0.2)
    assert time.monotonic() - started < 20
    assert len(server.requests) == 1
    assert server.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + b" " * 4000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 4000,  # ends with the connection: a cut must not pass for its end
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000,
    ],
    ids=["headers", "length", "until-close", "chunked"],
)
def test_reply_that_drips_beyond_the_deadline_is_unknown(serve, reply):
    server = serve(drip(reply))
    started = time.monotonic()
    with pytest.raises(SubmissionUnknown):
        Sender(server.url).submit(post(server.url), deadline_s=0.3)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "reply",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1200000\r\n\r\n" + b" " * 1_200_000,
    ],
    ids=["no-http", "short", "bad-chunk", "bad-gzip", "too-long"],
)
def test_reply_that_cannot_be_read_whole_is_unknown(serve, reply):
    server = serve(answer(reply))
    with pytest.raises(SubmissionUnknown):
        Sender(server.url).submit(post(server.url), deadline_s=30)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (requests.ConnectTimeout("slow"), NotSent),
        (requests.ConnectionError(NewConnectionError(None, "refused")), NotSent),  # type: ignore[arg-type]
        (requests.ReadTimeout("slow"), SubmissionUnknown),
        (requests.ConnectionError(ReadTimeoutError(None, "", "slow")), SubmissionUnknown),  # type: ignore[arg-type]  # psf/requests#5517
        (requests.ConnectionError(ConnectionResetError()), SubmissionUnknown),
        (requests.exceptions.SSLError("in the middle of a reply?"), SubmissionUnknown),
        (requests.exceptions.ChunkedEncodingError(), SubmissionUnknown),
    ],
)
def test_without_our_own_connection_only_types_raised_before_connecting_are_believed(raised, expected):
    with responses.RequestsMock() as mock:
        mock.post("http://api.example/v1/text_to_video", body=raised)
        with pytest.raises(expected):
            Sender("http://api.example").submit(post("http://api.example"), deadline_s=30)
        assert len(mock.calls) == 1


# --- another origin ---


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1",
        "http://api.example/v1",  # the same host without TLS
        "https://api.example:444/v1",
        "https://api.example.evil.example/v1",
        "https://api.example@evil.example/v1",
        "https://evil.example\\@api.example/v1",
        "https://api.example\t.evil.example/v1",
        "//api.example/v1",
        "/v1",
        "file:///etc/passwd",
        "https://[::1/v1",
        "https://api.example:bad/v1",
    ],
)
def test_key_goes_to_no_other_origin(url):
    sender = Sender("https://api.example/base")
    request = HttpRequest("GET", url, {"Authorization": f"Bearer {KEY}"})
    with responses.RequestsMock():  # any call would fail the test
        with pytest.raises(ForeignOrigin) as caught:
            sender.read(request, deadline_s=1)
        with pytest.raises(ForeignOrigin):
            sender.submit(request, deadline_s=1)
    assert isinstance(caught.value, NotSent)
    assert isinstance(caught.value, ProviderDown)


@pytest.mark.parametrize("url", ["https://api.example/x", "https://API.example:443/x?y=a@b", "https://api.example"])
def test_same_origin_in_another_spelling_is_accepted(url):
    assert same_origin(url, "https://api.example/base")


def test_base_url_that_is_none_stops_the_start():
    with pytest.raises(ValueError, match="absolute"):
        Sender("api.example")


# --- reads ---


def test_reads_of_one_thread_share_a_connection(serve):
    server = serve(answer(OK), keep_alive=True)
    sender = Sender(server.url)
    for _ in range(3):
        assert sender.read(get(server.url), deadline_s=30).status == 200
    assert server.connections == 1


def test_read_on_an_idle_connection_that_was_closed_is_sent_again(serve):
    def once(connection, received):
        if b"second" not in received or len(server.requests) > 2:
            connection.sendall(OK)
        else:  # closes only when the request is there, as a server does that was about to close anyway
            connection.close()

    server = serve(once, keep_alive=True)
    sender = Sender(server.url)
    sender.read(get(server.url), deadline_s=30)
    assert sender.read(get(server.url, "/second"), deadline_s=30).status == 200
    assert server.connections == 2


def test_cancel_on_a_closed_connection_is_not_repeated(serve):
    def once(connection, received):
        if received.startswith(b"DELETE"):
            connection.close()
        else:
            connection.sendall(OK)

    server = serve(once, keep_alive=True)
    sender = Sender(server.url)
    sender.read(get(server.url), deadline_s=30)
    with pytest.raises(ProviderDown):
        sender.read(HttpRequest("DELETE", server.url + "/v1/tasks/1"), deadline_s=30)
    assert sum(request.startswith(b"DELETE") for request in server.requests) == 1


@pytest.mark.parametrize(
    "behave",
    [
        lambda connection, _: None,
        lambda connection, _: time.sleep(40),
        answer(b"nonsense\r\n\r\n"),
        drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000),
        drip(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 1000),
    ],
    ids=["closed", "silent", "no-http", "dripping-headers", "dripping-body"],
)
def test_read_that_fails_in_transport_is_provider_down_in_time(serve, behave):
    server = serve(behave)
    started = time.monotonic()
    with pytest.raises(ProviderDown):
        Sender(server.url).read(get(server.url), deadline_s=0.3)
    assert time.monotonic() - started < 20


def test_drip_on_a_kept_alive_connection_ends_with_the_deadline_too(serve):
    slow = drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000)
    server = serve(lambda c, r: slow(c, r) if b"/slow" in r else c.sendall(OK), keep_alive=True)
    sender = Sender(server.url)
    sender.read(get(server.url), deadline_s=30)
    started = time.monotonic()
    with pytest.raises(ProviderDown):
        sender.read(get(server.url, "/slow"), deadline_s=0.3)
    assert time.monotonic() - started < 20
    assert server.connections == 1
    assert sender.read(get(server.url), deadline_s=30).status == 200


def test_refused_connection_on_a_read_is_provider_down():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ProviderDown):
        Sender(url).read(get(url), deadline_s=30)


def test_many_threads_can_read_at_once(serve):
    server = serve(answer(OK), keep_alive=True)
    sender, statuses = Sender(server.url), []

    def work():
        statuses.extend(sender.read(get(server.url), deadline_s=30).status for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 80
    assert server.connections <= 8


def test_calls_leave_no_descriptor_open(serve):
    server = serve(answer(OK))
    sender = Sender(server.url)
    sender.submit(post(server.url), deadline_s=30)

    def open_descriptors():
        time.sleep(0.05)  # the server's side closes a moment later
        return len(os.listdir("/dev/fd"))

    before = open_descriptors()
    for _ in range(10):
        sender.submit(post(server.url), deadline_s=30)
    assert open_descriptors() <= before + 1


# --- messages ---


@pytest.mark.parametrize("method", ["submit", "read"])
@pytest.mark.parametrize("refused", [True, False])
def test_errors_show_neither_key_nor_query(serve, method, refused):
    url = f"http://127.0.0.1:{free_port()}" if refused else serve(lambda connection, _: None).url
    with pytest.raises((NotSent, SubmissionUnknown, ProviderDown)) as caught:
        getattr(Sender(url), method)(post(url), deadline_s=1)
    printed = "".join(traceback.format_exception(caught.value))
    assert KEY not in printed
    assert "sig-secret" not in printed
    assert url in printed


def test_request_and_reply_show_no_secrets_in_their_repr():
    assert KEY not in repr(post("http://x"))
    assert "sig-secret" not in repr(post("http://x"))


def test_redact_names_keys_by_fingerprint():
    text = redact(f"a {KEY} b access-1:secret/9 c secret%2F9\nd", [KEY, "access-1:secret/9"])
    assert KEY not in text
    assert "secret/9" not in text
    assert "secret%2F9" not in text
    assert "access-1" not in text
    assert text.count("[key:") == 3
    assert text.endswith("\nd")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abcdef0123456789",
        "Authorization: Key 1b2c3d4e-aaaa:0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl",
        "https://cdn.example/x.mp4?_jwt=signature-secret",
        KEY,
    ],
)
def test_redact_hides_what_looks_like_a_credential_even_when_unknown(text):
    assert "[hidden]" in redact(text, [])


def test_redact_leaves_ordinary_words_alone():
    text = "The key configuration was refused; monkey business at https://api.example/v1/tasks/1"
    assert redact(text, ["abc"]) == text
