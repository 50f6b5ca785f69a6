"""A client's own pairs of a task, and the facts of its video: told wherever a task is told."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import IntegrityError, connection, transaction
from django.test import Client

from tests.factories import make_task, make_user
from tests.video.conftest import client_of
from video.actions import cancel, delete
from video.audit.actors import Unaudited
from video.models import VideoTask

pytestmark = pytest.mark.django_db
CREATE, JSON = "/api/video/create", "application/json"
PAIRS = {"project": "spring", "customer.id": "é 42"}


def create(client: Client, metadata: Any, **more: Any) -> Any:
    return client.post(CREATE, {"prompt": "A cat", "metadata": metadata}, content_type=JSON, **more)


def made(client: Client, metadata: Any = PAIRS) -> str:
    reply = create(client, metadata)
    assert reply.status_code == 201, reply.content
    return str(reply.json()["data"]["taskId"])


def data(client: Client, path: str, **query: Any) -> Any:
    return client.get(path, query).json()["data"]


def put(task_id: str, **columns: Any) -> None:
    with connection.cursor() as cursor:
        sets = ", ".join(f"{name} = %({name})s" for name in columns)
        cursor.execute(f"UPDATE video_videotask SET {sets} WHERE id = %(id)s", {**columns, "id": task_id})


def succeed(task_id: str, **facts: Any) -> None:
    put(
        task_id,
        status="success",
        stage="done",
        progress=100,
        admit_at=None,
        video_id="vid_1",
        **{"finished_at": "2026-11-28T10:00:00Z", "output_key": "1/videos/vid_1.mp4", **facts},
    )


def test_pairs_are_told_wherever_a_task_is(api: Client) -> None:
    reply = create(api, PAIRS)
    task_id = reply.json()["data"]["taskId"]
    assert reply.json()["data"]["metadata"] == PAIRS
    assert data(api, "/api/video/status", taskId=task_id)["metadata"] == PAIRS
    assert data(api, "/api/video/tasks")["tasks"][0]["metadata"] == PAIRS
    assert data(api, f"/api/queues/tasks/{task_id}")["metadata"] == PAIRS
    body = {"taskId": task_id}
    assert api.post("/api/video/cancel", body, content_type=JSON).json()["data"]["metadata"] == PAIRS
    assert api.post("/api/video/retry", body, content_type=JSON).json()["data"]["metadata"] == PAIRS


@pytest.mark.parametrize("nothing", [None, {}])
def test_without_pairs_nothing_is_told(api: Client, nothing: Any) -> None:
    assert "metadata" not in data(api, "/api/video/status", taskId=made(api, nothing))


@pytest.mark.parametrize(
    ("metadata", "hint"),
    [
        ([], "object"),
        ("a", "object"),
        ({f"n{number}": "v" for number in range(17)}, "more than 16"),
        ({"": "v"}, "names of 1 to 64"),
        ({"n" * 65: "v"}, "names of 1 to 64"),
        ({"a b": "v"}, "names of 1 to 64"),
        ({"é": "v"}, "names of 1 to 64"),
        ({"a": "v" * 513}, "a has more than 512"),
        ({"a": ""}, "a must not be blank"),
        ({"a": "\u200b"}, "a must have a character"),
        ({"a": "x\0"}, "a "),
        ({"a": "x\ud800"}, "a "),
        ({"a": 1}, "a must be a string"),
        ({"a": None}, "a must be a string"),
        ({"a": ["v"]}, "a must be a string"),
    ],
)
def test_odd_pairs_are_refused(api: Client, metadata: Any, hint: str) -> None:
    reply = create(api, metadata)
    assert reply.status_code == 400
    (wrong,) = reply.json()["error"]["details"]
    assert wrong["field"] == "metadata"
    assert hint in wrong["message"]
    assert not VideoTask.objects.exists()


def test_as_many_and_as_long_as_may_are_kept(api: Client) -> None:
    most = {f"n{number}".ljust(64, "x"): "v" * 512 for number in range(16)}
    assert VideoTask.objects.get(pk=made(api, most)).metadata == most


def test_the_database_takes_nothing_else(user: AbstractBaseUser) -> None:
    task = make_task(user)
    for odd in ("[]", '"a"', "{" + ",".join(f'"{number}": "v"' for number in range(17)) + "}"):
        with pytest.raises(IntegrityError, match="task_metadata"), transaction.atomic():
            put(task.pk, metadata=odd)


def test_a_key_stands_for_its_pairs_too(api: Client) -> None:
    key = {"HTTP_IDEMPOTENCY_KEY": "k"}
    statuses = [create(api, pairs, **key).status_code for pairs in (PAIRS, PAIRS, {"project": "autumn"}, None)]
    assert statuses == [201, 200, 409, 409]


def test_a_quote_takes_them(api: Client) -> None:
    body = {"prompt": "A cat", "metadata": PAIRS}
    assert api.post("/api/video/quote", body, content_type=JSON).status_code == 200


def test_they_go_with_their_task(api: Client) -> None:
    task_id = made(api)
    cancel.cancel(task_id, by=Unaudited("them"))
    delete.delete(task_id)
    assert VideoTask.objects.get(pk=task_id).metadata == {}


def test_an_operator_sees_them(api: Client) -> None:
    task_id = made(api, {"project": "<spring>"})
    page = Client()
    page.force_login(make_user(is_staff=True, is_superuser=True))
    shown = page.get(f"/admin/video/videotask/{task_id}/change/").content.decode()
    assert "project: &lt;spring&gt;" in shown


def test_a_finished_video_has_its_facts_also_when_it_is_gone(user: AbstractBaseUser) -> None:
    client = client_of(user)
    task_id = made(client)
    succeed(task_id, video_duration_s=5.0417, video_width_px=1280, video_height_px=720, video_bytes=123_456)
    facts = {"seconds": 5.042, "width": 1280, "height": 720, "bytes": 123_456}
    assert data(client, "/api/video/status", taskId=task_id)["video"] == {**facts, "fps": None, "sound": None}
    put(task_id, video_fps=23.976, video_has_sound=False)
    whole = {**facts, "fps": 23.976, "sound": False}
    assert data(client, "/api/video/status", taskId=task_id)["video"] == whole
    put(task_id, gone_at="2026-11-28T11:00:00Z", gone_why="expired")
    assert data(client, "/api/video/status", taskId=task_id)["video"] == whole
    assert data(client, "/api/video/tasks")["tasks"][0]["video"] == whole
