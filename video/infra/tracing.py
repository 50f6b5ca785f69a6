"""Traces by OpenTelemetry, where its standard variables name a collector; else nothing of it is imported.

All spans of a task have one trace, whose id is made from the task's: a job may wait for days in the database and pass
through many processes, and nothing has to be stored or handed on for it. The span that holds them all, from create to
the end, is written when a worker ends the task. A request has a trace of its own, or its client's (`traceparent`); the
task's `create` links to it. Spans hold ids, names and counts, never prompts, addresses or keys.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import SpanContext

#: Set by `begin`; None: no traces.
_provider: TracerProvider | None = None
_given = threading.local()

Attributes = Mapping[str, str | int | float | bool]


def begin(service: str, *, exporter: SpanExporter | None = None) -> None:
    """Write traces from now on. All else is said by OTEL_… of the environment: the collector's address and headers,
    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER. `service`: the name without one.
    """
    global _provider
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random, but for the span of a whole task, whose ids are given."""

        def generate_trace_id(self) -> int:
            return getattr(_given, "trace", None) or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return getattr(_given, "span", None) or super().generate_span_id()

    resource = Resource({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
    _provider = TracerProvider(resource=resource, id_generator=Ids())
    _provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))


def is_on() -> bool:
    """Whether traces are written."""
    return _provider is not None


def end() -> None:
    """Send what is left, within the exporter's time-out, and write no more."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
    _provider = None


def ids_of(task_id: str) -> tuple[int, int]:
    """Trace id of a task, and id of the span that holds all its others."""
    digest = hashlib.sha256(f"reelworks {task_id}".encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


@contextmanager
def stage(name: str, task_id: str, attributes: Attributes) -> Iterator[None]:
    """A span in the task's trace, round what a worker does; spans inside of it are its children."""
    if _provider is None:
        yield
        return
    tracer = _provider.get_tracer("reelworks")
    with tracer.start_as_current_span(
        name, context=_under(task_id), attributes={"reelworks.task": task_id, **attributes}, record_exception=False
    ):
        yield


@contextmanager
def step(name: str, attributes: Attributes | None = None) -> Iterator[None]:
    """A span round a call of a provider or a run of ffmpeg, beneath the stage or request of this thread."""
    if _provider is None:
        yield
        return
    tracer = _provider.get_tracer("reelworks")
    with tracer.start_as_current_span(name, attributes=attributes, record_exception=False):
        yield


def note(attributes: Attributes) -> None:
    """Add to the present span."""
    if _provider is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(attributes)


def wrote(name: str, task_id: str, *, since_s: float, attributes: Attributes | None = None) -> None:
    """A span in the task's trace that ends now, and began at `since_s` (time.time); it links to the present span."""
    if _provider is None:
        return
    from opentelemetry.trace import Link, get_current_span

    here = get_current_span().get_span_context()
    span = _provider.get_tracer("reelworks").start_span(
        name,
        context=_under(task_id),
        start_time=int(since_s * 1e9),
        attributes={"reelworks.task": task_id, **(attributes or {})},
        links=[Link(here)] if here.is_valid else [],
    )
    span.end()


def task_ended(task_id: str, created_at: datetime, attributes: Attributes) -> None:
    """The span of the whole task, from create until now."""
    if _provider is None:
        return
    from opentelemetry.context import Context

    _given.trace, _given.span = ids_of(task_id)
    try:
        span = _provider.get_tracer("reelworks").start_span(
            "video",
            context=Context(),
            start_time=int(created_at.timestamp() * 1e9),
            attributes={"reelworks.task": task_id, **attributes},
        )
    finally:
        _given.trace = _given.span = None
    span.end(max(time.time_ns(), int(created_at.timestamp() * 1e9)))


@contextmanager
def request(traceparent: str | None, request_id: str) -> Iterator[Any]:
    """A span round a request, in its client's trace if it names one; call `answered` of it with route and status."""
    if _provider is None:
        yield None
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": traceparent} if traceparent else {}
    with _provider.get_tracer("reelworks").start_as_current_span(
        "request",
        context=TraceContextTextMapPropagator().extract(carrier, Context()),
        kind=SpanKind.SERVER,
        attributes={"reelworks.request": request_id},
        record_exception=False,
    ) as span:
        yield span


def _under(task_id: str) -> Any:
    """A context in which new spans belong to the task's own span. The sampler decides by the trace's id, so all stages
    of a task are kept or none."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(_whole(task_id)), Context())


def _whole(task_id: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    assert _provider is not None
    trace, span = ids_of(task_id)
    is_kept = _provider.sampler.should_sample(None, trace, "video").decision.is_sampled()
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(int(is_kept)))
