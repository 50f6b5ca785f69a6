"""The product's own Celery app with one more task, which does nothing: what Celery and Valkey alone cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from config.celery import app

if TYPE_CHECKING:
    from bench.system import Processes

LINKS = 6


@app.task(name="bench.noop")
def noop(task_id: str) -> None:
    """Nothing."""


def cost(processes: Processes, *, jobs: int) -> dict[str, float]:
    """CPU seconds of worker and Valkey for six tasks: drained from a full queue, and in a chain."""
    from celery import chain

    from bench.pipeline import measure
    from bench.system import until

    # The worker listens elsewhere until the queue is full, so that publishing (by us) is not in the figure.
    processes.start(
        "noop",
        "python -m celery -A bench.noop worker --pool threads -c 16 -Q mediaQueue -n noop@%h "
        "--without-gossip --without-mingle --loglevel info",
    )
    processes.wait_log("noop", " ready.")
    roots = {**processes.roots("noop"), **processes.home.servers}
    task_id = "task_" + "0" * 26

    def empty() -> bool:
        with app.connection_for_read() as connection:
            client = connection.default_channel.client
            return not any(client.llen(name) for name in ("videoQueue", "mediaQueue")) and not client.hlen("unacked")

    def drain() -> None:
        app.control.add_consumer("videoQueue", reply=True, timeout=2)
        until("the no-op tasks are drained", empty, every_s=0.1)

    app.connection_for_read().default_channel.client.delete("videoQueue", "mediaQueue", "unacked", "unacked_index")
    noop.apply_async((task_id,), queue="mediaQueue")  # warm
    until("the first no-op task ran", empty, every_s=0.1)
    idle = measure(roots, lambda: time.sleep(3))
    found = {}
    for name in ("drained", "chained"):
        app.control.cancel_consumer("videoQueue", reply=True, timeout=2)
        for _ in range(jobs * LINKS if name == "drained" else jobs):
            links = [noop.signature((task_id,), immutable=True, queue="videoQueue") for _ in range(LINKS)]
            (links[0] if name == "drained" else chain(*links)).apply_async()
        busy = measure(roots, drain)
        found[f"{name}_per_s"] = jobs * LINKS / busy.seconds
        found[name] = (busy.total - idle.total * busy.seconds / idle.seconds) / jobs
    processes.stop("noop")
    return found
