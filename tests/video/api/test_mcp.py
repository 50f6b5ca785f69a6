"""POST /mcp: the messages of both kinds of revisions, and the tools. The official client: tests/system."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.test import Client
from mcp_types import methods
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from tests.factories import access_token, make_task, make_user
from tests.video.storing import saved
from video.api.mcp import protocol
from video.credits import ledger
from video.models import VideoTask

JSON = "application/json"
NEWEST = MODERN_PROTOCOL_VERSIONS[-1]
ENVELOPE = {protocol.VERSION_KEY: NEWEST, protocol.CAPABILITIES_KEY: {}}
pytestmark = pytest.mark.django_db


class Assistant:
    """A program with a token, and the revision that it speaks."""

    def __init__(self, user: AbstractBaseUser | None, version: str = "2025-11-25") -> None:
        self.version = version
        self.headers = {"Authorization": f"Bearer {access_token(user)}"} if user else {}

    def post(self, message: Any, **headers: str) -> Any:
        told = {"MCP-Protocol-Version": self.version, **self.headers, **headers}
        return Client(raise_request_exception=False).post("/mcp", message, content_type=JSON, headers=told)

    def ask(self, method: str, params: dict[str, Any] | None = None, **headers: str) -> Any:
        sent = dict(params or {})
        if self.version == NEWEST:
            sent.setdefault("_meta", ENVELOPE)
            headers = {"Mcp-Method": method, **({"Mcp-Name": sent["name"]} if "name" in sent else {}), **headers}
        return self.post({"jsonrpc": "2.0", "id": 7, "method": method, "params": sent}, **headers)

    def result(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """What is answered, checked by the official types."""
        reply = self.ask(method, params)
        assert reply.status_code == 200, reply.content
        told = reply.json()
        assert (told["jsonrpc"], told["id"]) == ("2.0", 7)
        methods.validate_server_result(method, self.version, told["result"])
        return dict(told["result"])

    def tool(self, name: str, **arguments: Any) -> dict[str, Any]:
        found = self.result("tools/call", {"name": name, "arguments": arguments})
        assert json.loads(found["content"][0]["text"]) == found["structuredContent"]
        return {**found["structuredContent"], "isError": found.get("isError", False)}


@pytest.fixture(params=["2025-11-25", NEWEST])
def assistant(request: pytest.FixtureRequest, user: AbstractBaseUser) -> Assistant:
    """Of either kind."""
    return Assistant(user, request.param)


def refused(reply: Any, status: int, number: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.content
    assert reply["Content-Type"] == JSON
    error = reply.json()["error"]
    assert error["code"] == number
    return dict(error)


def test_the_revisions_are_those_of_the_official_sdk() -> None:
    assert (protocol.HANDSHAKE, protocol.STATELESS) == (HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS)
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert protocol.SERVER["version"] == project["version"]


@pytest.mark.parametrize("version", HANDSHAKE_PROTOCOL_VERSIONS)
def test_a_handshake_takes_the_clients_revision(user: AbstractBaseUser, version: str) -> None:
    assistant = Assistant(user, version)
    asked = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    assert assistant.result("initialize", asked)["protocolVersion"] == version
    assert assistant.result("initialize", {**asked, "protocolVersion": "1999-01-01"})["protocolVersion"] == "2025-11-25"
    done = assistant.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (done.status_code, done.content) == (202, b"")
    assert assistant.result("ping") == {}
    refused(assistant.ask("server/discover"), 200, protocol.METHOD_NOT_FOUND)


def test_a_revision_without_a_handshake_is_discovered(user: AbstractBaseUser) -> None:
    assistant = Assistant(user, NEWEST)
    found = assistant.result("server/discover")
    assert found["supportedVersions"] == list(MODERN_PROTOCOL_VERSIONS)
    assert found["_meta"][protocol.SERVER_KEY]["name"] == "reelworks"
    for method in ("initialize", "ping", "resources/list"):
        refused(assistant.ask(method), 404, protocol.METHOD_NOT_FOUND)
    wrong = Assistant(user, "2099-01-01").ask("tools/list")
    told = refused(wrong, 400, protocol.UNSUPPORTED_VERSION)
    assert told["data"] == {"supported": [*protocol.HANDSHAKE, NEWEST], "requested": "2099-01-01"}


def test_what_the_head_and_the_body_say_differently_is_refused(user: AbstractBaseUser) -> None:
    assistant, call = Assistant(user, NEWEST), {"name": "list_videos", "arguments": {}}
    other = {**ENVELOPE, protocol.VERSION_KEY: "2025-11-25"}
    refused(assistant.ask("tools/call", {**call, "_meta": other}), 400, protocol.HEADER_MISMATCH)
    for header in ({"Mcp-Method": "tools/list"}, {"Mcp-Name": "create_video"}, {"Mcp-Name": "=?base64?x?="}):
        refused(assistant.ask("tools/call", call, **header), 400, protocol.HEADER_MISMATCH)
    refused(assistant.ask("tools/call", {**call, "_meta": {}}), 400, protocol.INVALID_PARAMS)
    encoded = assistant.ask("tools/call", call, **{"Mcp-Name": "=?base64?bGlzdF92aWRlb3M=?="})
    assert encoded.status_code == 200


@pytest.mark.parametrize(
    ("message", "status", "number"),
    [
        ({"id": 1, "method": "ping"}, 400, protocol.INVALID_REQUEST),
        ({"jsonrpc": "2.0", "id": 1}, 400, protocol.INVALID_REQUEST),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, 400, protocol.INVALID_REQUEST),
        ({"jsonrpc": "2.0", "id": True, "method": "ping"}, 400, protocol.INVALID_REQUEST),
        ({"jsonrpc": "2.0", "id": 1, "method": 5}, 400, protocol.INVALID_REQUEST),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}, 200, protocol.INVALID_PARAMS),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call"}, 200, protocol.INVALID_PARAMS),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "rm"}}, 200, protocol.INVALID_PARAMS),
        ([{"jsonrpc": "2.0", "id": 1, "method": "ping"}], 400, protocol.INVALID_REQUEST),
        ("{", 400, protocol.INVALID_REQUEST),
        ('"' + "a" * 70_000 + '"', 413, protocol.INVALID_REQUEST),
    ],
)
def test_what_is_no_message(user: AbstractBaseUser, message: Any, status: int, number: int) -> None:
    refused(Assistant(user).post(message), status, number)


def test_an_answer_to_what_was_never_asked_is_dropped(user: AbstractBaseUser) -> None:
    assert Assistant(user).post({"jsonrpc": "2.0", "id": 1, "result": {}}).status_code == 202


def test_nobody_and_pages_of_other_sites_are_refused(user: AbstractBaseUser, settings: Any) -> None:
    nobody = Assistant(None).ask("tools/list")
    assert refused(nobody, 401, protocol.INVALID_REQUEST)["data"]["code"] == "not_authenticated"
    assert nobody["WWW-Authenticate"].startswith("Bearer")
    assistant = Assistant(user)
    for origin in ("https://evil.example", "null", "http://testserver.evil.example"):
        told = refused(assistant.ask("ping", Origin=origin), 403, protocol.INVALID_REQUEST)
        assert told["data"]["code"] == "csrf"
    settings.FRONTEND_ORIGINS = ["https://app.example.com"]
    for origin in ("https://app.example.com", "http://testserver"):
        assert assistant.ask("ping", Origin=origin).status_code == 200
    reply = Client().get("/mcp")
    assert (refused(reply, 405, protocol.INVALID_REQUEST)["data"]["code"], reply["Allow"]) == (
        "method_not_allowed",
        "POST",
    )
    assert refused(Client().get("/mcp/x"), 404, protocol.INVALID_REQUEST)["data"]["code"] == "not_found"


def test_the_tools_are_told_with_the_fields_of_create(assistant: Assistant) -> None:
    tools = {tool["name"]: tool for tool in assistant.result("tools/list")["tools"]}
    assert list(tools) == ["list_models", "create_video", "video_status", "cancel_video", "list_videos"]
    schema = tools["create_video"]["inputSchema"]
    assert schema["required"] == ["prompt"]
    assert {"duration", "aspectRatio", "imageUrl", "idempotencyKey"} <= schema["properties"].keys()
    assert schema["properties"]["policy"]["enum"] == ["balanced", "cost", "quality", "speed"]
    assert "CREDITS" in tools["create_video"]["description"]
    assert tools["list_models"]["annotations"]["readOnlyHint"]


def test_a_video_from_the_models_to_its_links(assistant: Assistant, user: AbstractBaseUser) -> None:
    found = assistant.tool("list_models", order={"prompt": "A cat", "model": "gen4.5"})
    assert (found["quote"]["model"], found["quote"]["credits"]) == ("gen4.5", 10)
    assert {"id", "durations", "available"} <= found["models"][0].keys()
    made = assistant.tool("create_video", prompt="A cat", duration=5, idempotencyKey="one")
    assert (made["status"], made["credits"], made["isError"]) == ("pending", 10, False)
    assert assistant.tool("create_video", prompt="A cat", duration=5, idempotencyKey="one")["taskId"] == made["taskId"]
    assert assistant.tool("video_status", taskId=made["taskId"], wait=0)["status"] == "pending"
    assert assistant.tool("cancel_video", taskId=made["taskId"])["refund"] == "refunded"
    done = saved(user)
    links = assistant.tool("video_status", taskId=done.pk)["result"]
    assert Client().get(links["videoUrl"])["Content-Type"] == "video/mp4"
    listed = assistant.tool("list_videos", limit=1)
    assert ([one["taskId"] for one in listed["tasks"]], listed["nextCursor"]) == ([done.pk], done.pk)
    assert [one["taskId"] for one in assistant.tool("list_videos", cursor=done.pk)["tasks"]] == [made["taskId"]]
    assert ledger.balance(user.pk) == 990


@pytest.mark.parametrize(
    ("name", "arguments", "code", "named"),
    [
        ("create_video", {}, "invalid_request", "prompt"),
        ("create_video", {"prompt": "A cat", "duration": "5"}, "invalid_request", "duration"),
        ("create_video", {"prompt": "A cat", "colour": "red"}, "invalid_request", "colour"),
        ("create_video", {"prompt": "A cat", "idempotencyKey": "two words"}, "invalid_request", "Idempotency-Key"),
        ("create_video", {"prompt": "A cat", "idempotencyKey": 5}, "invalid_request", "idempotencyKey"),
        ("list_models", {"order": {"prompt": "A cat", "model": "sora-2"}}, "invalid_request", "model"),
        ("video_status", {"taskId": "task_1"}, "not_found", "task"),
        ("video_status", {"taskId": 5}, "invalid_request", "taskId"),
        ("video_status", {"taskId": "task_1", "wait": 100}, "invalid_request", "wait"),
        ("cancel_video", {"taskId": "task_1"}, "not_found", "task"),
        ("list_videos", {"status": "late"}, "invalid_request", "status"),
    ],
)
def test_what_a_tool_refuses_is_said_in_the_apis_words(
    user: AbstractBaseUser, name: str, arguments: dict[str, Any], code: str, named: str
) -> None:
    told = Assistant(user).tool(name, **arguments)
    assert (told["isError"], told["code"]) == (True, code)
    assert named in told["message"]
    assert not VideoTask.objects.exists()


def test_another_users_video_and_an_empty_purse(user: AbstractBaseUser) -> None:
    task = make_task(user)
    other = Assistant(make_user(credit=0))
    for name in ("video_status", "cancel_video"):
        assert other.tool(name, taskId=task.pk)["code"] == "not_found"
    assert other.tool("create_video", prompt="A cat")["code"] == "insufficient_credits"
    assert other.tool("list_videos")["tasks"] == []
    task.refresh_from_db()
    assert task.status == "pending"


HALF = "\ud800"
DEEP: Any = json.loads("[" * 700 + "]" * 700)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("create_video", {HALF: 1}),
        ("create_video", {"prompt": HALF}),
        ("create_video", {"prompt": "A cat", "idempotencyKey": HALF}),
        ("create_video", {"prompt": "A cat", "seed": 10**400}),
        ("create_video", {"prompt": DEEP}),
        ("list_models", {"order": DEEP}),
        ("video_status", {"taskId": HALF}),
        ("video_status", {"taskId": "task_1", "wait": DEEP}),
        ("list_videos", {"cursor": HALF, "limit": 1.5}),
        ("cancel_video", {"taskId": {}}),
    ],
)
def test_odd_arguments_are_refused(user: AbstractBaseUser, name: str, arguments: dict[str, Any]) -> None:
    told = Assistant(user).tool(name, **arguments)
    assert told["isError"]
    assert told["code"] in ("invalid_request", "invalid_json", "not_found")


def test_an_id_that_can_not_be_sent_back_is_refused(user: AbstractBaseUser) -> None:
    raw = '{"jsonrpc": "2.0", "id": "\\ud800", "method": "ping"}'
    refused(Assistant(user).post(raw), 400, protocol.INVALID_REQUEST)


def test_what_the_message_says_of_itself_is_not_said_of_the_call_inside(api: Client) -> None:
    """A tool's call is answered whole and plain, whatever the sender of the message takes."""
    params = {"name": "list_models", "arguments": {}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {"HTTP_ACCEPT_ENCODING": "gzip", "HTTP_IF_NONE_MATCH": "*"}
    reply = api.post("/mcp", message, content_type="application/json", **headers)
    assert reply.json()["result"]["structuredContent"]["models"]
