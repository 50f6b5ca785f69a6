"""A second S3 server for the storage tests: rclone's, over HTTP, whose objects are files on a disk.

It differs from AWS's where moto agrees with it: a conditional upload (`If-None-Match`) is answered with 200 and
overwrites, a part that is copied is left out, a range is answered with 200, and of an object's headers it keeps some in
memory and none in its files.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sysconfig
import time
import uuid
from pathlib import Path

from media_pipeline.storage.s3_address import S3Address
from tests.s3 import KEYS, REGION, client_of

START_S = 20


class RcloneServer:
    """Serves the folders of `root` as buckets at `url`, until it is stopped."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = self._start(port)
        self.client = client_of(self.url)

    def bucket(self, prefix: str = "") -> S3Address:
        """A new one, empty."""
        name = f"b-{uuid.uuid4().hex[:16]}"
        self.client.create_bucket(Bucket=name)
        return S3Address(bucket=name, prefix=prefix, endpoint=self.url, region=REGION, addressing="path")

    def objects(self, address: S3Address) -> list[str]:
        """Names of everything in the bucket."""
        root = self.root / address.bucket
        return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(START_S)

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        command = [
            str(Path(sysconfig.get_path("scripts")) / "rclone"),
            *("serve", "s3", str(self.root), "--addr", f"127.0.0.1:{port}", "--config", os.devnull),
            *("--auth-key", f"{KEYS.access_key_id},{KEYS.secret_access_key}"),
            *("--cache-dir", str(self.root.parent / f"{self.root.name}-cache")),
        ]
        log = self.root.parent / f"{self.root.name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() < begun + START_S:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                return process
            time.sleep(0.01)
        process.kill()
        raise RuntimeError(f"rclone has not started: {log.read_text()}")
