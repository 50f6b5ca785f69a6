"""Questions to the broker: can it be reached, and how many messages does a queue hold?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from celery import current_app
from kombu.exceptions import ChannelError

from video.infra.causes import kind_of

WAIT_S = 2.0


class BrokerUnavailable(Exception):
    """It can't be reached, does not answer, or refuses. The text is the kind of error, and tells no address."""


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turns what kombu and redis-py raise into BrokerUnavailable: their errors have no common base, and a refused
    database number or a failed handshake comes as itself."""
    try:
        yield
    except Exception as err:
        raise BrokerUnavailable(kind_of(err)) from err


def depth(queue: str) -> int:
    """Messages in a queue that no worker has taken. Raises BrokerUnavailable."""
    bounds = {"socket_timeout": WAIT_S, "socket_connect_timeout": WAIT_S}
    with (
        _unavailable(),
        current_app.connection_for_read(connect_timeout=WAIT_S, transport_options=bounds) as connection,
    ):
        connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=WAIT_S)
        with connection.channel() as channel:
            try:
                return int(channel.queue_declare(queue=queue, passive=True).message_count)
            except ChannelError:  # a queue that is empty does not exist
                return 0


def require() -> None:
    """Raises BrokerUnavailable unless the broker answers."""
    depth(current_app.conf.task_default_queue)


@cache
def sub_queue_of(task: str, *, urgent: bool = False) -> str:
    """The sub-queue that holds the messages of a Celery task: a queue has one for each priority."""
    route = current_app.amqp.router.route({}, task)
    priority = 0 if urgent else route.get("priority", 0)
    separator = current_app.conf.broker_transport_options["sep"]
    return f"{route['queue'].name}{separator}{priority}" if priority else str(route["queue"].name)


def lengths(sub_queues: Sequence[str]) -> list[int]:
    """Messages in each of these sub-queues that no worker has taken: over a pooled connection, in one round trip.
    Raises BrokerUnavailable.
    """
    with _unavailable(), current_app.pool.acquire(block=True) as connection:
        pipeline = connection.default_channel.client.pipeline(transaction=False)
        for name in sub_queues:
            pipeline.llen(name)
        return [int(length) for length in pipeline.execute()]
