"""The published clients of others, unchanged, against the running server: docs/clients.md as it stands, and each error.

One system for all of them; it works on the simulator.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import mcp
import openai
import openrouter
import pytest
import requests
from django.contrib.auth.models import AbstractBaseUser
from mcp.client.streamable_http import streamable_http_client

from tests.factories import access_token, make_user
from tests.pictures import picture
from tests.system.system import Simulator, System, running, until
from tests.web_server import free_port
from video.credits import ledger
from video.models import VideoTask

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "tests" / "clients"
HOST = "reelworks.example"  # see tests/clients/resolve.mjs
#: OpenAI has marked its video calls; its client has them all the same.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


class Server:
    """The running server."""

    def __init__(self, system: System, port: int) -> None:
        self.system, self.port = system, port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def server(database: str, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("clients"), simulator) as system:
        system.env["ALLOWED_HOSTS"] = f"127.0.0.1,{HOST}"
        system.worker()
        system.sweeper()
        server = Server(system, free_port())
        system.web(server.port)
        yield server


@pytest.fixture
def user(database: str) -> AbstractBaseUser:
    return make_user()


def openai_of(server: Server, user: AbstractBaseUser | None, **more: Any) -> openai.OpenAI:
    key = access_token(user) if user else "nobody"
    return openai.OpenAI(base_url=more.pop("url", server.url) + "/v1", api_key=key, **more)


def openrouter_of(server: Server, user: AbstractBaseUser | None, url: str = "") -> openrouter.OpenRouter:
    key = access_token(user) if user else "nobody"
    return openrouter.OpenRouter(server_url=f"{url or server.url}/api/v1", api_key=key)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "clients.md").read_text(), re.DOTALL)


def finished(task_id: str) -> VideoTask:
    def ended() -> VideoTask | None:
        return VideoTask.objects.filter(pk=task_id, finished_at__isnull=False).first()

    found: VideoTask = until(f"{task_id} ends", ended)
    return found


@contextmanager
def loses_the_first_answer(server: Server) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A proxy that answers the first create with 503, after it was done. Its address, and the heads that it saw."""
    seen: list[dict[str, str]] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            seen.append({name.lower(): value for name, value in kept.items()})
            told = requests.post(server.url + self.path, data=body, headers=kept, timeout=60)
            assert told.ok, told.text
            self.send_response(503 if len(seen) == 1 else told.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told.content)))
            self.end_headers()
            self.wfile.write(told.content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", seen
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


@pytest.mark.parametrize("number", [0, 1], ids=["openai", "openrouter"])
def test_the_pages_code_makes_and_saves_a_video(
    server: Server, user: AbstractBaseUser, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REELWORKS_URL", server.url)
    monkeypatch.setenv("REELWORKS_TOKEN", access_token(user))
    exec(compile(blocks("python")[number], "docs/clients.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.startswith("completed ")
    (video,) = tmp_path.iterdir()
    assert video.read_bytes()[4:8] == b"ftyp"
    task = VideoTask.objects.get(user_id=user.pk)
    assert (task.status, task.policy, task.gone_why) == ("success", "speed", "deleted" if number == 0 else "")
    assert ledger.balance(user.pk) == 990


def test_openai_with_a_picture_a_list_and_files(server: Server, user: AbstractBaseUser) -> None:
    client = openai_of(server, user)
    made = [
        client.videos.create(
            prompt=f"It purrs {number}", model="runway/gen4_turbo", input_reference=("a.png", picture())
        )
        for number in range(2)
    ]
    ids = [one.id for one in made]
    for task_id in ids:
        assert finished(task_id).image_url.startswith("upload://")
    assert [one.id for one in client.videos.list(limit=1)] == ids[::-1]  # the client turns the pages
    assert [one.id for one in client.videos.list(limit=1, order="asc")] == ids
    found = client.videos.retrieve(ids[0])
    assert (found.status, found.progress, found.model, found.error) == ("completed", 100, "gen4_turbo", None)
    assert client.videos.download_content(ids[0]).read()[4:8] == b"ftyp"
    assert client.videos.download_content(ids[0], variant="thumbnail").read()[:2] == b"\xff\xd8"
    assert client.videos.delete(ids[0]).deleted
    assert [one.id for one in client.videos.list()] == ids[1:]


def test_openai_is_told_each_error(server: Server, user: AbstractBaseUser) -> None:
    client, stranger = openai_of(server, user), openai_of(server, make_user())
    with pytest.raises(openai.AuthenticationError):
        openai_of(server, None).videos.list()
    with pytest.raises(openai.BadRequestError, match="seconds: ") as wrong:
        client.videos.create(prompt="A cat", seconds="99")  # type: ignore[arg-type]
    assert (wrong.value.param, wrong.value.code) == ("seconds", "invalid_request")
    with pytest.raises(openai.APIStatusError, match="costs 10 credits") as poor:
        openai_of(server, make_user(credit=0)).videos.create(prompt="A cat")
    assert (poor.value.status_code, poor.value.code) == (402, "insufficient_credits")
    video = client.videos.create(prompt="A slow cat [[sim render=600]]")
    with pytest.raises(openai.ConflictError, match="not ready"):
        client.videos.download_content(video.id)
    for call in (stranger.videos.retrieve, stranger.videos.delete, stranger.videos.download_content):
        with pytest.raises(openai.NotFoundError):
            call(video.id)
    with pytest.raises(openai.NotFoundError):
        client.videos.remix(video.id, prompt="A dog")
    assert client.videos.delete(video.id).deleted  # under way: cancelled first
    with pytest.raises(openai.APIStatusError, match="deleted") as gone:
        client.videos.retrieve(video.id)
    assert gone.value.status_code == 410
    failed = client.videos.create(prompt="A bad cat [[sim moderation]]")
    finished(failed.id)
    found = client.videos.retrieve(failed.id)
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.message


@pytest.mark.parametrize("name", ["openai", "openrouter"])
def test_a_create_whose_answer_was_lost_is_one_video(server: Server, user: AbstractBaseUser, name: str) -> None:
    """Neither client sends a key; OpenAI's says that it repeats."""
    marks: list[str | None]
    with loses_the_first_answer(server) as (url, seen):
        if name == "openai":
            client, reference = openai_of(server, user, url=url), ("a.png", picture())
            made = client.videos.create(prompt="It purrs", input_reference=reference).id
            marks = ["0", "1"]
        else:
            made = openrouter_of(server, user, url).video_generation.generate(model="auto", prompt="It purrs").id
            marks = [None, None]
    assert [head.get("x-stainless-retry-count") for head in seen] == marks
    assert not any("idempotency-key" in head for head in seen)
    assert VideoTask.objects.get(user_id=user.pk).pk == made
    assert ledger.balance(user.pk) == 990


def test_openrouter_is_told_each_error(server: Server, user: AbstractBaseUser) -> None:
    from openrouter import errors

    videos, stranger = openrouter_of(server, user).video_generation, openrouter_of(server, make_user()).video_generation
    assert "runway/gen4.5" in {one.id for one in videos.list_videos_models().data}
    with pytest.raises(errors.UnauthorizedResponseError):
        openrouter_of(server, None).video_generation.get_generation(job_id="task_1")
    with pytest.raises(errors.BadRequestResponseError, match="no model 'openai/sora-2'"):
        videos.generate(model="openai/sora-2", prompt="A cat")
    with pytest.raises(errors.PaymentRequiredResponseError) as poor:
        openrouter_of(server, make_user(credit=0)).video_generation.generate(model="auto", prompt="A cat")
    assert poor.value.data.error.metadata == {"code": "insufficient_credits", "details": {"needed": 10, "balance": 0}}
    job = videos.generate(model="auto", prompt="A slow cat [[sim render=600]]")
    with pytest.raises(errors.NotFoundResponseError):
        stranger.get_generation(job_id=job.id)
    with pytest.raises(errors.ConflictResponseError):
        videos.get_video_content(job_id=job.id)
    login = {"Authorization": f"Bearer {access_token(user)}"}
    requests.post(f"{server.url}/api/video/cancel", json={"taskId": job.id}, headers=login, timeout=60)
    assert videos.get_generation(job_id=job.id).status == "cancelled"
    with pytest.raises(errors.NotFoundResponseError, match="cancelled"):
        videos.get_video_content(job_id=job.id)


def test_an_assistant_waits_for_a_video_by_the_pages_code(
    server: Server, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("REELWORKS_URL", server.url)
    monkeypatch.setenv("REELWORKS_TOKEN", access_token(user))
    exec(compile(blocks("python")[2], "docs/clients.md", "exec"), {"__name__": "page"})
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("costs 10 credits")
    status, link = second.split()
    assert status == "success"
    assert requests.get(link, timeout=60).content[4:8] == b"ftyp"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_the_official_mcp_client_of_each_kind(server: Server, user: AbstractBaseUser, mode: str) -> None:
    """With a handshake, and without one since 2026-07-28."""

    async def session(key: str) -> list[Any]:
        login = {"Authorization": f"Bearer {key}"}
        async with (
            httpx2.AsyncClient(headers=login, timeout=90) as http,
            mcp.Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode) as client,
        ):
            tools = await client.list_tools()
            quoted = await client.call_tool("list_models", {"order": {"prompt": "A cat"}})
            made = await client.call_tool("create_video", {"prompt": "A slow cat [[sim render=600]]"})
            asked = {"taskId": made.structured_content["taskId"]}
            # Answered by the change from pending to running, long before that.
            waited = await client.call_tool("video_status", {**asked, "wait": 60})
            ended = await client.call_tool("cancel_video", asked)
            listed = await client.call_tool("list_videos", {"limit": 1})
            wrong = await client.call_tool("create_video", {"prompt": "A cat", "duration": 99})
            with pytest.raises(mcp.MCPError, match="tools/call needs the name of a tool"):
                await client.call_tool("remove_everything", {})
            return [tools.tools, quoted, made, waited, ended, listed, wrong]

    tools, quoted, made, waited, ended, listed, wrong = asyncio.run(session(access_token(user)))
    assert {"create_video", "video_status"} <= {tool.name for tool in tools}
    assert quoted.structured_content["quote"]["credits"] == made.structured_content["credits"] == 10
    assert waited.structured_content["taskId"] == made.structured_content["taskId"]
    assert ended.structured_content["errorCode"] == "cancelled"
    assert listed.structured_content["tasks"][0]["taskId"] == made.structured_content["taskId"]
    assert wrong.is_error
    assert wrong.structured_content["code"] == "invalid_request"
    with pytest.raises(Exception) as refused:
        asyncio.run(session("nobody"))
    assert "not valid here" in str(refused.value) or "not valid here" in repr(refused.value)


def need_node() -> str:
    """Skip the test where the clients are not installed; fail it where they have to be."""
    node = shutil.which("node")
    if node is None or not (CLIENTS / "node_modules").is_dir():
        if os.environ.get("TESTS_REQUIRE_NODE"):
            pytest.fail("TESTS_REQUIRE_NODE is set, and there is no node, or no tests/clients/node_modules")
        pytest.skip("needs node, and npm ci in tests/clients")
    return node


def test_the_ai_sdk_makes_a_video_and_is_told_errors(server: Server, user: AbstractBaseUser, tmp_path: Path) -> None:
    node = need_node()
    (tmp_path / "node_modules").symlink_to(CLIENTS / "node_modules")
    (block,) = blocks("typescript")
    poor = block.replace("'A ship in a storm'", "' '")
    assert poor != block
    told = []
    for name, code in (("page.mjs", block), ("wrong.mjs", poor)):
        (tmp_path / name).write_text(code)
        env = {**os.environ, "REELWORKS_URL": f"http://{HOST}:{server.port}", "REELWORKS_TOKEN": access_token(user)}
        argv = [node, "--import", str(CLIENTS / "resolve.mjs"), name]
        told.append(subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240))
    made, wrong = told
    assert made.returncode == 0, made.stderr[-3000:]
    kind, size = made.stdout.split()
    assert (kind, int(size) > 1000) == ("video/mp4", True)
    assert wrong.returncode == 1
    assert "prompt: must not be blank" in wrong.stderr
    assert VideoTask.objects.get(user_id=user.pk).policy == "speed"
