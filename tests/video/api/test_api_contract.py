"""The API's document: whole, valid, and the same as the committed one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from openapi_spec_validator import validate

from tests import contract
from video.api.base import success
from video.api.contract import codes, openapi
from video.api.contract.shapes import maybe, optional, shape, text, whole
from video.api.urls import urlpatterns
from video.api.views.video import StatusView

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
            for node in ast.walk(ast.parse(path.read_text())):
                found |= set(codes_in(node))
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
