"""A picture on its whole way: sent to our API, and seen by the provider's."""

from __future__ import annotations

import base64
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.factories import access_token, make_task, make_user, reload
from tests.picture_host import PictureHost, picture_host
from tests.pictures import picture, turned
from tests.system.system import Simulator, System, until
from video.credits import ledger
from video.models import VideoTask
from video.web import uploads

MODELS = {"runway": "gen4_turbo", "kling": "kling-2.5-turbo", "pika": "pika-2.2"}


@pytest.fixture(scope="module")
def host() -> Iterator[PictureHost]:
    with picture_host() as host:
        yield host


def ended(task: VideoTask) -> VideoTask:
    return until(f"{task.pk} ends", lambda: (found := reload(task)).finished_at and found)


def seen(simulator: Simulator, prompt: str) -> dict[str, Any]:
    """What the provider found in the submit of this prompt."""
    (job,) = requests.get(f"{simulator.url}/_sim/jobs", params={"prompt": prompt}, timeout=30).json()["jobs"]
    return dict(job["startImage"])


def test_each_provider_gets_a_phones_picture_upright(system: System, simulator: Simulator, host: PictureHost) -> None:
    """Fetched from a host that only we reach, sent as upload, and as data URI; one of each for each provider."""
    system.env["PRIVATE_HOSTS_ALLOWED"] = host.name
    system.worker()
    system.sweeper()
    user = make_user()
    photo = turned(width=1280, height=720)
    url = host.serves("/phone.jpg", photo)
    sent = uploads.keep(user.pk, photo).address
    tasks = {
        (provider, where): make_task(
            user, prompt=f"{provider} {name} {uuid.uuid4()}", image_url=where, model_requested=model
        )
        for provider, model in MODELS.items()
        for name, where in (("link", url), ("upload", sent))
    }
    for (provider, _), task in tasks.items():
        done = ended(task)
        assert (done.status, done.error_message) == ("success", ""), provider
        got = seen(simulator, task.prompt)
        assert (got["width"], got["height"], got["orientation"], got["exif"]) == (720, 1280, 1, 0), provider
        assert got["type"] == "image/jpeg"
    assert host.asked.count("/phone.jpg") == len(MODELS)
    assert "base64" not in system.logs()


def test_a_picture_that_is_none_costs_nothing(system: System, simulator: Simulator, host: PictureHost) -> None:
    system.env["PRIVATE_HOSTS_ALLOWED"] = host.name
    system.worker()
    system.sweeper()
    url = host.serves("/page", b"<html>maintenance</html>")
    task = ended(make_task(prompt=f"no picture {uuid.uuid4()}", image_url=url))
    assert (task.status, task.error_code) == ("failed", "image_unreadable")
    assert simulator.submits(task.prompt)["received"] == 0
    assert ledger.balance(task.user_id) == 1000


def test_a_worker_killed_when_it_has_the_picture_costs_only_time(
    system: System, simulator: Simulator, host: PictureHost
) -> None:
    system.env["PRIVATE_HOSTS_ALLOWED"] = host.name
    doomed = system.worker("doomed", failpoint="generate.after_image=kill")
    system.sweeper()
    host.asked.clear()
    task = make_task(prompt=f"killed {uuid.uuid4()}", image_url=host.serves("/once.png", picture()))
    until("the worker dies", lambda: not doomed.alive)
    system.worker("next")
    assert ended(task).status == "success"
    assert host.asked == ["/once.png"]
    assert simulator.submits(task.prompt)["received"] == 1


def test_the_real_front_takes_large_pictures_and_small_bodies_only_elsewhere(
    system: System, simulator: Simulator
) -> None:
    system.env["UPLOAD_MAX_BYTES"] = "3000000"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    system.web(port)
    base = f"http://127.0.0.1:{port}/api/video"
    login = {"Authorization": f"Bearer {access_token(make_user())}"}
    large = picture(1000, 700, "PNG", compress_level=0)
    assert 2_000_000 < len(large) < 3_000_000
    told = requests.post(f"{base}/upload", files={"file": large}, headers=login, timeout=60)
    assert told.status_code == 201, told.text
    for size, code in ((3_000_001, "image_too_large"), (4_000_000, "body_too_large")):
        reply = requests.post(
            f"{base}/upload", files={"file": b"\xff\xd8\xff" + bytes(size)}, headers=login, timeout=60
        )
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, code)
    pieces = requests.post(f"{base}/upload", data=iter([b"--x"]), headers=login, timeout=60)
    assert (pieces.status_code, pieces.json()["error"]["code"]) == (411, "length_required")
    order = {"prompt": "A cat", "imageUrl": "data:image/png;base64," + base64.b64encode(large).decode()}
    made = requests.post(f"{base}/create", json=order, headers=login, timeout=60)
    assert made.status_code == 201, made.text
    assert VideoTask.objects.get(pk=made.json()["data"]["taskId"]).image_url == told.json()["data"]["url"]
    assert requests.post(f"{base}/cancel", json=order, headers=login, timeout=60).status_code == 413
