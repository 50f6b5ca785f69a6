"""The web process as the Procfile starts it, alone: no worker, and a storage of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import requests
from django.conf import settings

from tests.config.starting import ROOT, bare, servers


def free_port() -> int:
    """A port of this machine that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class WebServer:
    """A running one; its links are signed with this process's key."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port, self.storage, self.log = port, folder / "storage", folder / "web.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def store(self, key: str, content: bytes) -> Path:
        """Put a file into the storage, readable for the group as published ones are."""
        path = self.storage / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o640)
        return path


@contextlib.contextmanager
def web_server(folder: Path, *, open_files: int | None = None, **variables: str) -> Iterator[WebServer]:
    """A server with these settings; gone when the block ends. `open_files` limits what it may have open at once."""
    server = WebServer(folder, free_port())
    server.storage.mkdir()
    line = next(one for one in (ROOT / "Procfile").read_text().splitlines() if one.startswith("web:"))
    options = line.split("python ")[1].replace('"${HOST:-127.0.0.1}"', "127.0.0.1")
    options = options.replace('"${PORT:-8000}"', str(server.port))
    own = {"STORAGE_LOCAL_PATH": str(server.storage), "SECRET_KEY": settings.SECRET_KEY, "REELWORKS_SIMULATE": "1"}
    env = bare(folder, **servers() | own | variables)
    limits = None
    if open_files is not None:
        limits = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (open_files, open_files))
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *options.split()],
            cwd=ROOT,
            env=env,
            stdout=log,
            stderr=log,
            preexec_fn=limits,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{server.url}/healthz", timeout=5).ok:
                    break
            assert process.poll() is None, server.log.read_text()
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.03)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # granian's workers outlive it otherwise
        process.wait()
