"""One job through real processes, as those who watch see it: one trace, lines that are objects, one page of metrics."""

from __future__ import annotations

import gzip
import json

import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.factories import access_token, make_user
from tests.http_receiver import HttpReceiver, listening
from tests.system.system import Simulator, System, until
from tests.web_server import free_port
from video.infra import tracing
from video.models import Stage, VideoTask

PROMPT = "a canary that nobody may see"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def spans(receiver: HttpReceiver) -> list[Span]:
    found: list[Span] = []
    for request in receiver.got:
        assert request.target == "/v1/traces"
        assert request.headers["content-type"] == "application/x-protobuf"
        body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            assert names["service.name"] == "reels"
            found += [span for scope in resource.scope_spans for span in scope.spans]
    return found


def test_a_job_is_one_trace_and_its_processes_one_page(system: System, simulator: Simulator) -> None:
    with listening() as collector:
        system.env |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "OTEL_SERVICE_NAME": "reels",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "LOG_FORMAT": "json",
        }
        port = free_port()
        system.web(port)
        system.worker("video", queues="videoQueue")
        system.worker("media", queues="mediaQueue")
        system.sweeper()
        base = f"http://127.0.0.1:{port}"
        made = requests.post(
            f"{base}/api/video/create",
            json={"prompt": PROMPT, "duration": 5, "aspectRatio": "16:9"},
            headers={
                "Authorization": f"Bearer {access_token(make_user())}",
                "traceparent": CALLER,
                "X-Request-Id": "my-own-id",
            },
            timeout=30,
        )
        assert made.status_code == 201, made.text
        task = VideoTask.objects.get()
        trace, whole = tracing.ids_of(task.pk)
        until("all of the task is told", lambda: {"video", "save"} <= {one.name for one in spans(collector)})
        until("the figures of all are there", lambda: not _missing(requests.get(f"{base}/metrics", timeout=30).text))
        found = spans(collector)
        _check_trace([one for one in found if one.trace_id == trace.to_bytes(16)], whole)
        (request,) = (one for one in found if one.name == "POST api-create")
        assert request.trace_id.hex() == CALLER.split("-")[1], "it belongs to the client's"
        assert PROMPT not in str(found)
        _check_lines(system, task)


def _check_trace(its: list[Span], whole: int) -> None:
    names = [one.name for one in its]
    (root,) = (one for one in its if one.name == "video")
    assert root.span_id == whole.to_bytes(8)
    assert root.parent_span_id == b""
    assert {"create", *(str(one) for one in Stage if one is not Stage.DONE), "ffmpeg"} <= set(names)
    assert any(name.endswith(" submit") for name in names)
    by_id = {one.span_id: one for one in its}
    assert all(one.parent_span_id in by_id for one in its if one is not root), "nothing hangs in the air"
    (create,) = (one for one in its if one.name == "create")
    assert [link.trace_id.hex() for link in create.links] == [CALLER.split("-")[1]]
    (ffmpeg, *_) = (one for one in its if one.name == "ffmpeg")
    assert by_id[ffmpeg.parent_span_id].name == "transcode"
    assert root.start_time_unix_nano <= min(one.end_time_unix_nano for one in its)


def _check_lines(system: System, task: VideoTask) -> None:
    told = [json.loads(line) for line in system.logs().splitlines() if line.startswith("{")]
    stages = [one["stage"] for one in told if one["logger"] == "reelworks.stages"]
    assert sorted(stages) == sorted(str(one) for one in Stage if one is not Stage.DONE)
    assert {one["task"] for one in told if one["logger"] == "reelworks.stages"} == {task.pk}
    (created,) = (one for one in told if one.get("route") == "api-create")
    assert (created["request"], created["status"], created["user"]) == ("my-own-id", 201, task.user_id)
    assert not [one for one in told if one["logger"] in {"celery.app.trace", "celery.worker.strategy"}]
    plain = [line for line in system.logs().splitlines() if not line.startswith("{")]
    assert not [line for line in plain if "celery@" in line or "[tasks]" in line], "no banner"


def _missing(text: str) -> list[str]:
    """What is not in the page yet; each process writes its figures every few seconds."""
    assert PROMPT not in text
    wanted = (
        *(("videoQueue", f'reelworks_stage_seconds_count{{outcome="{one}"') for one in ("advanced", "succeeded")),
        ("videoQueue", "reelworks_provider_request_seconds_count"),
        ("mediaQueue", "reelworks_ffmpeg_seconds_count"),
        ("sweeper", "reelworks_sweep_seconds_count"),
        ("web", "reelworks_http_request_seconds_count"),
    )
    lines = text.splitlines()
    return [
        sample
        for role, sample in wanted
        if not any(line.startswith(sample) and f'role="{role}"' in line for line in lines)
    ]
