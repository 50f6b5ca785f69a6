"""Retention through the real system, and a process that dies while it deletes."""

from __future__ import annotations

import signal
import socket
from typing import Any

import pytest
import requests

from tests.factories import access_token, make_user, reload
from tests.system import forks as work
from tests.system.forks import ForkServer
from tests.system.system import System, until
from tests.video.storing import days_pass, files, saved
from video.models import UserStorage, VideoTask

POINTS = ["removal.after_file", "removal.after_files"]


@pytest.mark.parametrize("point", POINTS)
def test_a_sweeper_that_is_killed_leaves_a_row_that_says_so_and_the_next_one_ends_it(
    forks: ForkServer, point: str
) -> None:
    task = saved(expires_in_s=1)
    days_pass(task, 1)
    assert forks.start(work.sweep_stored, point, "kill").died() == -signal.SIGKILL
    found = reload(task)
    assert (found.gone_why, found.status) == ("expired", "success")
    assert found.output_key  # what is to be deleted still
    assert len(files(task)) == (1 if point == "removal.after_file" else 0)
    assert forks.call(work.sweep_stored) == 1
    assert (files(task), reload(task).output_key) == ([], "")
    assert UserStorage.objects.get(pk=task.user_id).bytes == 0


@pytest.mark.parametrize("point", POINTS)
def test_a_delete_that_is_killed_has_forgotten_the_prompt_and_a_sweeper_deletes_the_rest(
    forks: ForkServer, point: str
) -> None:
    task = saved()
    assert forks.start(work.delete, task.pk, point, "kill").died() == -signal.SIGKILL
    assert (reload(task).gone_why, reload(task).prompt) == ("deleted", "")
    assert forks.call(work.delete, task.pk) is False  # its owner asks again
    assert files(task) == []
    assert forks.call(work.sweep_stored) == 0


def test_a_video_goes_when_its_time_is_over(system: System) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    system.web(port)
    system.worker("all")
    system.sweeper()
    user = make_user()
    headers = {"Authorization": f"Bearer {access_token(user)}"}

    def call(method: str, path: str, **more: Any) -> requests.Response:
        return requests.request(method, f"http://127.0.0.1:{port}{path}", headers=headers, timeout=30, **more)

    body = {"prompt": "short-lived", "duration": 5, "aspectRatio": "16:9", "expiresIn": 1}
    task_id = call("POST", "/api/video/create", json=body).json()["data"]["taskId"]

    def status() -> dict[str, Any]:
        data: dict[str, Any] = call("GET", f"/api/video/status?taskId={task_id}").json()["data"]
        return data

    until("its video is deleted", lambda: "gone" in status(), seconds=90)
    until("its files are", lambda: not VideoTask.objects.get(pk=task_id).output_key, seconds=30)
    assert status()["gone"]["code"] == "video_expired"
    assert files(VideoTask.objects.get(pk=task_id)) == []
    assert call("GET", "/api/storage").json()["data"]["usedBytes"] == 0
    assert call("DELETE", f"/api/video/tasks/{task_id}").status_code == 200
    assert call("GET", f"/api/video/status?taskId={task_id}").status_code == 410
