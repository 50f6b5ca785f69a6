"""Web servers of a test's own before the product's, with the configurations that docs/serving.md and deploy/ have."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.web_server import WebServer, free_port

NGINX, LIGHTTPD, CADDY = (
    shutil.which(name) or shutil.which(name, path="/usr/sbin") for name in ("nginx", "lighttpd", "caddy")
)
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "serving.md"


def need_nginx() -> None:
    """Skip the test where it is not installed; fail it where it has to be."""
    if NGINX is None:
        if os.environ.get("TESTS_REQUIRE_NGINX"):
            pytest.fail("TESTS_REQUIRE_NGINX is set, and no nginx is on the PATH")
        pytest.skip("needs nginx (Debian and Ubuntu: apt install nginx-light)")


def need_lighttpd() -> None:
    """Skip the test where it is not installed."""
    if LIGHTTPD is None:
        pytest.skip("needs lighttpd (Debian and Ubuntu: apt install lighttpd)")


def need_caddy() -> None:
    """Skip the test where it is not installed; fail it where it has to be."""
    if CADDY is None:
        if os.environ.get("TESTS_REQUIRE_CADDY"):
            pytest.fail("TESTS_REQUIRE_CADDY is set, and no caddy is on the PATH")
        pytest.skip("needs caddy (Debian and Ubuntu: apt install caddy)")


def configuration(kind: str, replaced: dict[str, str]) -> str:
    """The page's own text, with what is each operator's replaced; each of these must be in it."""
    blocks = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 1
    text = str(blocks[0])
    for old, new in replaced.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def nginx(folder: Path, port: int, server: WebServer, certificates: Certificates, *, files: Path) -> Iterator[None]:
    """nginx on `port` before the server, by TLS; gone when the block ends. `files` is where it looks for them."""
    text = configuration(
        "nginx",
        {
            "listen 443 ssl http2": f"listen 127.0.0.1:{port} ssl http2",
            "listen 80;": f"listen 127.0.0.1:{free_port()};",
            "server_name video.example.com;": "server_name 127.0.0.1;",
            "/etc/ssl/video.example.com.pem": str(certificates.certificate),
            "/etc/ssl/private/video.example.com.key": str(certificates.key),
            "http://127.0.0.1:8000": server.url,
            "/srv/reelworks/storage/": f"{files}/",
        },
    )
    log, config = folder / "nginx.log", folder / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    # pytest's folders are for their owner alone, so the workers of an nginx that root has started stay root.
    owner = "user root;\n" if os.geteuid() == 0 else ""
    config.write_text(
        f"{owner}daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {log} info;\n"
        f"events {{}}\nhttp {{\naccess_log {folder}/access.log;\n{paths}{text}}}\n"
    )
    with _running([str(NGINX), "-e", str(log), "-p", str(folder), "-c", str(config)], port, log):
        yield


@contextlib.contextmanager
def lighttpd(folder: Path, port: int, server: WebServer) -> Iterator[None]:
    """lighttpd on `port` before the server, by plain http; gone when the block ends."""
    text = configuration(
        "lighttpd", {'"port" => 8000': f'"port" => {server.port}', "/srv/reelworks/storage": str(server.storage)}
    )
    log, config = folder / "lighttpd.log", folder / "lighttpd.conf"
    config.write_text(
        f'server.document-root = "{folder}/nothing"\nserver.bind = "127.0.0.1"\nserver.port = {port}\n'
        f'server.errorlog = "{log}"\n{text}'
    )
    with _running([str(LIGHTTPD), "-D", "-f", str(config)], port, log):
        yield


@contextlib.contextmanager
def caddy(folder: Path, port: int, server: WebServer) -> Iterator[None]:
    """The proxy of compose.yaml, by plain http on `port`; gone when the block ends."""
    own = {
        "SITE": f"http://127.0.0.1:{port}",
        "UPSTREAM": f"127.0.0.1:{server.port}",
        "STORAGE": str(server.storage),
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    config = folder / "Caddyfile"
    config.write_text("{\n\tadmin off\n}\n" + (ROOT / "deploy" / "Caddyfile").read_text())
    argv = [str(CADDY), "run", "--config", str(config), "--adapter", "caddyfile"]
    with _running(argv, port, folder / "caddy.log", env={**os.environ, **own}):
        yield


@contextlib.contextmanager
def _running(argv: list[str], port: int, log: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    log.touch()
    process = subprocess.Popen(argv, env=env)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()
