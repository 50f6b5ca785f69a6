"""`--tls`: a certificate that strict clients accept, the same server behind it, and nothing left afterwards."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.providers.simulator.client import RunwayClient, start


@dataclass(frozen=True)
class Tls:
    process: subprocess.Popen[str]
    base: str
    authority: Path

    @property
    def port(self) -> int:
        return urlsplit(self.base).port or 0

    def client(self) -> RunwayClient:
        client = RunwayClient(self.base)
        client.http.verify = str(self.authority)
        return client

    def handshake(self, *, host: str = "127.0.0.1", name: str | None = None, strict: bool = False) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.authority))
        if strict:
            context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        raw = socket.create_connection((host, self.port), timeout=30)
        try:
            return context.wrap_socket(raw, server_hostname=name or host)
        except BaseException:
            raw.close()
            raise


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Tls]:
    process, base = start("--tls", *arguments)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Clients must trust ")
        yield Tls(process, base, Path(line.removeprefix("Clients must trust ").rstrip("\n")))
    finally:
        process.kill()  # for a test that failed; otherwise it has ended
        process.wait(60)


@pytest.fixture(scope="module")
def tls() -> Iterator[Tls]:
    with running("--canned", "--render-seconds", "0.05") as one:
        yield one
        one.process.terminate()
        assert one.process.wait(60) == 0


def test_serves_https_to_clients_that_trust_its_authority(tls: Tls) -> None:
    assert tls.base == f"https://127.0.0.1:{tls.port}"
    link = tls.client().link("a lighthouse")
    assert link.startswith(f"{tls.base}/")
    video = tls.client().download(link)
    assert video.content[4:8] == b"ftyp"
    assert len(video.content) == int(video.headers["Content-Length"])


def test_strangers_do_not_trust_it(tls: Tls) -> None:
    with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        RunwayClient(tls.base).call("GET", "/v1/organization")


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize("strict", [False, True])
def test_certificate_covers_this_machine(tls: Tls, name: str, strict: bool) -> None:
    with tls.handshake(name=name, strict=strict) as sock:
        assert sock.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize("name", ["queue.fal.run", "127.0.0.2"])
def test_certificate_covers_nothing_else(tls: Tls, name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        tls.handshake(name=name)


def test_links_name_the_host_that_the_client_used(tls: Tls) -> None:
    base = f"https://localhost:{tls.port}"
    client = RunwayClient(base)
    client.http.verify = str(tls.authority)
    assert client.link("a lighthouse, seen from localhost").startswith(f"{base}/")


def test_plain_http_gets_no_answer_and_harms_nobody(tls: Tls) -> None:
    with pytest.raises(requests.ConnectionError):
        RunwayClient(f"http://127.0.0.1:{tls.port}").call("GET", "/v1/organization")
    assert tls.client().call("GET", "/v1/organization").status_code == 200


@pytest.mark.parametrize("directive", ["reset", "lost_reply", "lost_reply_reset"])
def test_connections_break_on_command_here_too(tls: Tls, directive: str) -> None:
    client, prompt = tls.client(), f"cut [[sim {directive}]]"
    with pytest.raises(requests.ConnectionError):
        client.create(prompt)
    assert client.submits(prompt)["created"] == (directive != "reset")


@pytest.mark.parametrize("end", ["terminate", "stdin"])
def test_its_files_go_with_it_whoever_is_connected(end: str) -> None:
    with running() as one:
        folder = one.authority.parent
        assert [path.name for path in folder.iterdir()] == [one.authority.name]  # the keys are in memory only
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert "PRIVATE" not in one.authority.read_text()
        silent = socket.create_connection(("127.0.0.1", one.port))
        idle = one.handshake()
        if end == "terminate":
            one.process.terminate()
        else:
            assert one.process.stdin is not None
            one.process.stdin.close()
        assert one.process.wait(60) == 0
        assert not folder.exists()
        silent.close()
        idle.close()


def test_without_it_there_is_no_second_line() -> None:
    process, base = start()
    assert base.startswith("http://")
    out, _ = process.communicate(timeout=30)  # closes its stdin, which ends it
    assert out == ""
