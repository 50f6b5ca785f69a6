"""The API's document: whole, valid, and the same as the committed one."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from openapi_spec_validator import validate

from docs import make_api
from media_pipeline.errors import MediaError
from providers.errors import ProviderError
from providers.failures import NEVER_SEEN
from tests import contract
from tests.breaking import breaking
from video.api.base import success
from video.api.contract import codes, openapi
from video.api.contract.shapes import maybe, optional, shape, text, whole
from video.api.contract.task_codes import TASK_CODES
from video.api.urls import urlpatterns
from video.api.views.video import StatusView
from video.attempts import clamped
from video.pipeline import start_images
from video.scheduling import wait_deadline

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = openapi.document()
#: Codes of refusals that never leave by the API: staff and commands see them.
NOT_HERE = {"refused", "not_waiting", "last_superuser", "not_settleable", "decision_refused"}


def calls() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, call in methods.items():
            yield f"{method.upper()} {path}", call


def schemas(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a value of the document that describes fields, with its place."""
    if isinstance(value, dict):
        if isinstance(value.get("properties"), dict):
            yield place, value
        for name, inner in value.items():
            yield from schemas(inner, f"{place}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from schemas(inner, f"{place}.{number}")


def test_it_is_openapi_3_1() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"] == "3.1.0"


def test_every_address_and_method_is_described() -> None:
    """What nobody has described stops the document, by name."""
    named = [pattern for pattern in urlpatterns if pattern.name]
    assert len(DOCUMENT["paths"]) == len(named)
    for pattern in named:
        view = pattern.callback.view_class
        for method in ("get", "post", "put", "patch", "delete"):
            assert not hasattr(view, method) or hasattr(getattr(view, method), "described"), f"{view}.{method}"


def test_every_call_has_a_name_of_its_own_and_says_what_it_does() -> None:
    found = dict(calls())
    names = [call["operationId"] for call in found.values()]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for where, call in found.items():
        assert call["summary"], where
        assert call["description"], where
        assert set(call["tags"]) <= tags, where
        assert any(status[0] == "2" for status in call["responses"]), where


def test_every_field_and_parameter_has_a_description() -> None:
    for place, schema in schemas(DOCUMENT):
        for name, field in schema["properties"].items():
            assert field.get("description") or "$ref" in field, f"{place}.{name}"
        assert set(schema.get("required", [])) <= set(schema["properties"]), place
    for where, call in calls():
        for parameter in call["parameters"]:
            assert parameter["description"], f"{where}: {parameter['name']}"


def test_every_code_that_the_code_knows_is_described() -> None:
    """Each word that an error of the API, or a refusal that it passes on, is made with."""
    found: set[str] = set()
    for folder in ("api", "web", "actions", "scheduling", "credits", "routing"):
        for path in (ROOT / "video" / folder).rglob("*.py"):
            if path.parent.name != "dialects":  # they speak other services' codes
                found |= {code for node in ast.walk(ast.parse(path.read_text())) for code in codes_in(node)}
    assert "insufficient_credits" in found
    assert "weak_password" in found
    assert found - NOT_HERE - set(codes.CODES) == set()


def codes_in(node: ast.AST) -> Iterator[str]:
    texts: list[ast.expr] = []
    match node:
        case ast.Assign(targets=[ast.Name(id="code" | "CODE" | "METHOD_CODE")], value=value):
            texts = [value]
        case ast.Call(func=ast.Name(id="ApiError") | ast.Attribute(attr="ApiError"), args=[_, code, *_]):
            texts = [code]
        case ast.Call(func=ast.Name(id="ActionRefused" | "OrderRefused"), args=[code, *_]):
            texts = [code]
        case ast.Call(func=ast.Name(id="invalid" | "AuthenticationFailed") | ast.Attribute(attr="invalid")):
            texts = [one.value for one in node.keywords if one.arg == "code"]
    return (one.value for one in texts if isinstance(one, ast.Constant) and re.fullmatch("[a-z_]+", str(one.value)))


def test_every_code_that_is_described_is_one_of_the_code() -> None:
    text_of_all = "\n".join(
        path.read_text() for folder in ("video", "media_pipeline") for path in (ROOT / folder).rglob("*.py")
    ).replace((ROOT / "video/api/contract/codes.py").read_text(), "")
    for code in codes.CODES:
        assert re.search(rf'"{code}"', text_of_all), code


def test_it_is_served_to_everybody() -> None:
    reply = Client().get("/api/schema")
    assert reply.status_code == 200
    assert reply["Content-Type"] == "application/json"
    assert reply.json() == DOCUMENT


@pytest.mark.parametrize(
    ("made", "path"),
    [(make_api.document, make_api.DOCUMENT), (make_api.errors, make_api.ERRORS)],
    ids=["api", "errors"],
)
def test_what_is_committed_is_what_is_made(made: Callable[[], str], path: Path) -> None:
    assert path.read_text() == made(), f"run `make api`: {path.name} is not what the code says"


def test_no_change_breaks_a_client_without_a_word_in_the_changelog() -> None:
    """Against the last committed document that differs from this one."""
    before = committed_before()
    unreleased = (ROOT / "CHANGELOG.md").read_text().partition("## [Unreleased]")[2].partition("\n## ")[0]
    said = [item for item in unreleased.split("\n- ") if item.startswith("**Breaking**")]
    broken = breaking(before, DOCUMENT)
    assert {call: how for call, how in broken.items() if not any(call in item for item in said)} == {}


def committed_before() -> dict[str, Any]:
    """The present one where there is no other."""
    name = str(make_api.DOCUMENT.relative_to(ROOT))
    versions = git("log", "-2", "--format=%H", "--", name).split()
    for version in versions:
        found: dict[str, Any] = json.loads(git("show", f"{version}:{name}"))
        if found != json.loads(make_api.DOCUMENT.read_text()):
            return found
    return DOCUMENT


def git(*words: str) -> str:
    """Its output; empty where this is no repository."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_every_code_of_a_failed_task_is_described() -> None:
    """What providers, files and start images fail with."""
    found = {error.code for root in (ProviderError, MediaError) for error in every(root) if "code" in vars(error)}
    found |= start_images.FINAL_CODES
    sources = [*(ROOT / "providers").rglob("*.py"), *(ROOT / "video").rglob("*.py")]
    text_of_all = "\n".join(path.read_text() for path in sources if path.name not in ("task_codes.py", "codes.py"))
    outcome = r"""\(\s*"([a-z_]+)",\s*(?:True|False),"""
    of_providers = "\n".join(path.read_text() for path in (ROOT / "providers").rglob("*.py"))
    found |= set(re.findall(outcome, of_providers))
    for pattern in (r'Fail\(\s*"([a-z_]+)"', r'ends_as="([a-z_]+)"', r'\berror_code="([a-z_]+)"'):
        found |= set(re.findall(pattern, text_of_all))
    found |= {NEVER_SEEN, clamped.CODE, wait_deadline.NO_ROOM[0]}
    assert found - set(TASK_CODES) == set()
    assert {code for code in TASK_CODES if f'"{code}"' not in text_of_all and code not in found} == set()


def every(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from every(child)


def test_every_body_has_an_example_and_each_example_is_as_described() -> None:
    for where, call in calls():
        bodies = call.get("requestBody", {}).get("content", {}).get("application/json", {})
        assert "examples" in bodies or "$ref" not in bodies.get("schema", {}), where
        answers = (answer.get("content", {}).get("application/json", {}) for answer in call["responses"].values())
        for content in (bodies, *answers):
            for name, example in content.get("examples", {}).items():
                value = example["value"] if "value" in example else DOCUMENT["components"]["examples"][name]["value"]
                assert contract.wrong_with(value, content["schema"]) == [], f"{where}: {name}"


@pytest.mark.django_db
def test_the_defaults_of_an_order_are_those_that_are_described(api: Client) -> None:
    made = api.post("/api/video/create", {"prompt": "A cat"}, content_type="application/json").json()["data"]
    asked = api.get(f"/api/queues/tasks/{made['taskId']}").json()["data"]["request"]
    fields = DOCUMENT["components"]["schemas"]["CreateRequest"]["properties"]
    defaults = {name: field.get("default") for name, field in fields.items() if name not in ("metadata", "maxCredits")}
    assert asked == defaults | {"prompt": "A cat"}


def test_only_the_page_of_the_document_may_show_inline_pictures_and_nothing_else_inline() -> None:
    policy, plain = (Client().get(path)["Content-Security-Policy"] for path in ("/api/docs", "/"))
    assert policy.replace(" data:", "") == plain
    assert "img-src 'self' data:;" in policy
    assert "unsafe" not in policy


class TestAnswers:
    """The check behind every test client."""

    def test_a_field_that_nobody_described_is_found(self, monkeypatch: pytest.MonkeyPatch, api: Client) -> None:
        monkeypatch.setattr(StatusView, "get", lambda view, request: success({"taskId": "task_1", "surprise": 1}))
        with pytest.raises(contract.Undescribed, match=r"GET /api/video/status answered 200: .*surprise"):
            api.get("/api/video/status?taskId=task_1")

    @pytest.mark.parametrize(
        ("status", "error", "said"),
        [
            (409, {"code": "no_such_word"}, "no_such_word"),
            (404, {"code": "not_found"}, "details"),
        ],
    )
    def test_an_error_that_nobody_described_is_found(self, status: int, error: dict[str, Any], said: str) -> None:
        body = f'{{"success": false, "error": {{"code": "{error["code"]}", "message": "m"}}}}'.encode()
        with pytest.raises(contract.Undescribed, match=said):
            contract.check("GET", "/api/video/status", status, "application/json", body)

    def test_a_status_that_nobody_described_is_found(self) -> None:
        with pytest.raises(contract.Undescribed, match="answered 202"):
            contract.check("GET", "/api/video/status", 202, "application/json", b"{}")


class TestShapes:
    def test_fields_are_required_unless_they_are_optional(self) -> None:
        found = shape("", "A thing.", one=text("One."), two=optional(whole("Two.", 1)), three=maybe(text("Three.")))
        assert found["required"] == ["one", "three"]
        assert found["properties"]["two"] == {"type": "integer", "description": "Two.", "minimum": 1}
        assert found["properties"]["three"]["type"] == ["string", "null"]

    def test_a_shape_takes_over_the_fields_of_others(self) -> None:
        base = shape("", "A thing.", one=text("One."), two=text("Two."))
        found = shape("", "More.", base, two=optional(text("Twice.")), three=text("Three."))
        assert list(found["properties"]) == ["one", "two", "three"]
        assert found["required"] == ["one", "three"]

    def test_two_shapes_of_one_name_are_refused(self) -> None:
        with pytest.raises(ValueError, match="Task"):
            shape("Task", "Another one.", one=text("One."))
