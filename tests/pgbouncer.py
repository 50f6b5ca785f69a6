"""A PgBouncer of a test's own before the suite's PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.embedded import owners, postgres
from tests.environment import HOME

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


def need_pgbouncer() -> None:
    """Skip the test where it is not installed; fail it where it has to be."""
    if PROGRAM is None:
        if os.environ.get("TESTS_REQUIRE_PGBOUNCER"):
            pytest.fail("TESTS_REQUIRE_PGBOUNCER is set, and no pgbouncer is on the PATH")
        pytest.skip("needs PgBouncer (Debian and Ubuntu: apt install pgbouncer)")


@contextlib.contextmanager
def pgbouncer(name: str, *, user: str, mode: str, ignore_options: bool) -> Iterator[str]:
    """DATABASE_URL through a PgBouncer in `mode`, which logs in as `user`; gone when the block ends."""
    assert PROGRAM is not None
    folder = Path(tempfile.mkdtemp(prefix="reelworks-pgbouncer-"))
    where = postgres.place(HOME)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ini, log = folder / "ini", folder / "log"
    ini.write_text(
        f"""[databases]
{name} = host={where.run} port={postgres.PORT} dbname={name} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 20
max_client_conn = 200
logfile = {log}
{"ignore_startup_parameters = options" if ignore_options else ""}
"""
    )
    # PgBouncer refuses to run as root, and only the server's own user can open its socket.
    owner = owners.user_of(where)
    as_user: dict[str, int] = {} if owner is None else {"user": owner[0], "group": owner[1]}
    folder.chmod(0o755)
    log.touch()
    if owner is not None:
        os.chown(log, *owner)
    process = subprocess.Popen([PROGRAM, "-q", str(ini)], **as_user)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield f"postgres://{user}@127.0.0.1:{port}/{name}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)
