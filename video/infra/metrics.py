"""What this process counts and measures of itself, in the words of Prometheus.

Counters and histograms only: they never fall but when a process begins anew, so `rate()` of them is right. What the
tables know (queues, slots, circuits) is read at the scrape, in `video.monitoring.exposition`. Labels have few values,
all of them ours: never an id, a path, a user, a key or a text of others. docs/monitoring.md has a row for each metric.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import Metric

disable_created_metrics()

#: All of them. Other packages register theirs elsewhere, so nothing of them gets in.
REGISTRY = CollectorRegistry()
_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
_LONG = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0)


_labels: dict[str, tuple[str, ...]] = {}


def _histogram(name: str, text: str, labels: list[str], buckets: tuple[float, ...]) -> Histogram:
    _labels[name] = tuple(labels)
    return Histogram(f"reelworks_{name}", text, labels, buckets=buckets, registry=REGISTRY)


def _counter(name: str, text: str, labels: list[str]) -> Counter:
    _labels[name] = tuple(labels)
    return Counter(f"reelworks_{name}", text, labels, registry=REGISTRY)


HTTP_REQUESTS = _histogram(
    "http_request_seconds",
    "Time that requests took in the web process, until the answer or the first byte of a stream.",
    ["method", "route", "status"],
    _QUICK,
)
STAGES = _histogram(
    "stage_seconds", "Time that a worker worked on one stage of a task, from its claim.", ["stage", "outcome"], _LONG
)
CLAIMS = _counter("claims_total", "Stages of tasks that workers took to work on.", ["stage"])
PROVIDER_REQUESTS = _histogram(
    "provider_request_seconds",
    "Time that calls of a provider took; polls of one batch count as one.",
    ["provider", "call", "outcome"],
    _LONG,
)
FFMPEG = _histogram("ffmpeg_seconds", "Time that ffmpeg ran for one file.", ["outcome"], _LONG)
TASKS_ENDED = _counter(
    "tasks_ended_total", "Tasks that ended, by status; a retried one ends again.", ["status", "error_code"]
)
ATTEMPTS_ENDED = _counter(
    "attempts_ended_total",
    "Attempts that workers ended: delivered (its video is fetched) or failed.",
    ["provider", "model", "outcome"],
)
WEBHOOK_TRIES = _counter("webhook_tries_total", "Tries to send a webhook to a user's receiver.", ["outcome"])
PERIODIC_JOBS = _histogram("periodic_job_seconds", "Time that a periodic job took.", ["job", "outcome"], _LONG)
SWEEPS = _histogram(
    "sweep_seconds", "Time of one turn of the sweeper: enqueue what is due, admit, grant cores.", ["outcome"], _QUICK
)
ProcessCollector(namespace="reelworks", registry=REGISTRY)

#: A value of a label that is not one of a short list in the code is at least short, plain, and one of so many.
_WORD = re.compile(r"[a-z0-9_.-]{1,60}", re.ASCII)
_MOST_WORDS = 200
_words: set[str] = set()
OTHER = "other"


def word(text: str) -> str:
    """A text as the value of a label: an error code, a model. What is no plain word, or one too many, is `other`."""
    if text in _words:
        return text
    if _WORD.fullmatch(text) is None or len(_words) >= _MOST_WORDS:
        return OTHER
    _words.add(text)
    return text


class Timed:
    """What a block that is measured tells of itself."""

    outcome = "ok"


@contextmanager
def timed(histogram: Histogram, *labels: str) -> Iterator[Timed]:
    """Measure a block; its outcome is the last label: `ok`, what the block says, or the kind of what it raises."""
    said, begun = Timed(), time.perf_counter()
    try:
        yield said
    except BaseException as err:
        said.outcome = kind(err)
        raise
    finally:
        histogram.labels(*labels, said.outcome).observe(time.perf_counter() - begun)


def kind(error: BaseException) -> str:
    """The kind of an error as a label: the name of its class, `key_refused` for KeyRefused."""
    return word(re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower())


def task_ended(status: str, error_code: str = "") -> None:
    """Count the end of a task."""
    TASKS_ENDED.labels(status, word(error_code) if error_code else "").inc()


# --- from one process to another -----------------------------------------------------------------------------------


def packed() -> bytes:
    """All samples of this process, small enough for a row: some kilobytes."""
    found = [
        [metric.name, [[one.name, one.labels, one.value] for one in metric.samples]] for metric in REGISTRY.collect()
    ]
    return zlib.compress(json.dumps(found, separators=(",", ":")).encode(), level=6)


def unpacked(data: bytes) -> list[tuple[str, list[tuple[str, dict[str, str], float]]]]:
    """(metric, samples) of what another process packed. Raises ValueError, or zlib's error, for anything else."""
    return [
        (str(name), [(str(sample), dict(labels), float(value)) for sample, labels, value in samples])
        for name, samples in json.loads(zlib.decompress(data))
    ]


def families() -> dict[str, Metric]:
    """The metrics of processes by name, without samples. One of another release that is not here is not shown."""
    return {one.name: Metric(one.name, one.documentation, one.type) for one in REGISTRY.collect()}


def declared() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Name → (type, what it means, labels of ours) of each metric, as docs/monitoring.md has them."""
    labels = {f"reelworks_{name}": found for name, found in _labels.items()}
    return {
        one.name + ("_total" if one.type == "counter" else ""): (
            one.type,
            one.documentation,
            labels.get(one.name, labels.get(f"{one.name}_total", ())),
        )
        for one in families().values()
    }
