"""Which changes of the API's document break clients."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.breaking import breaking

BODY = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "maxLength": 100},
        "fps": {"anyOf": [{"type": "integer", "maximum": 60}, {"type": "string", "const": "source"}]},
        "policy": {"type": ["string", "null"], "enum": ["cost", "speed", None]},
    },
    "required": ["prompt"],
    "additionalProperties": False,
}
ANSWER = {
    "type": "object",
    "properties": {
        "taskId": {"type": "string"},
        "status": {"type": "string", "enum": ["pending", "success"]},
        "share": {"type": "number", "minimum": 0},
        "tasks": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}}}},
    },
    "required": ["taskId", "status"],
}
CALL = {
    "security": [],
    "parameters": [{"in": "query", "name": "limit", "schema": {"type": "integer", "minimum": 1, "maximum": 100}}],
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/In"}}}},
    "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Out"}}}}},
}
DOCUMENT = {"paths": {"/api/a": {"post": CALL}}, "components": {"schemas": {"In": BODY, "Out": ANSWER}}}
IN, OUT, POST = "components.schemas.In.", "components.schemas.Out.", "paths./api/a.post."
GONE: Any = object()


def changed(place: str, value: Any) -> dict[str, Any]:
    found: Any = copy.deepcopy(DOCUMENT)
    *way, last = place.split(".")
    inner = found
    for step in way:
        inner = inner[int(step) if isinstance(inner, list) else step]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return found


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("paths./api/a.post", GONE, "gone"),
        (POST + "security", [{"bearer": []}], "login"),
        (POST + "parameters", [], "limit is gone"),
        (POST + "parameters.0.required", True, "limit is required"),
        (POST + "parameters.0.schema.maximum", 50, "maximum 100 against 50"),
        (POST + "requestBody.content", {"text/plain": {"schema": {}}}, "no application/json"),
        (IN + "required", ["prompt", "fps"], "fps is required"),
        (IN + "properties.policy", GONE, "policy is known on one side only"),
        (IN + "properties.policy.enum", ["cost", None], "'speed'"),
        (IN + "properties.policy.type", "string", "null"),
        (IN + "properties.prompt.maxLength", 50, "maxLength 100 against 50"),
        (IN + "properties.prompt.pattern", "a", "pattern"),
        (IN + "properties.fps", {"type": "integer", "maximum": 60}, "string against integer"),
        (POST + "responses", {"201": {}}, "no longer answers 200"),
        (OUT + "properties.taskId.type", "integer", "integer against string"),
        (OUT + "properties.taskId.type", ["string", "null"], "null"),
        (OUT + "properties.status.enum", ["pending", "success", "odd"], "'odd'"),
        (OUT + "required", ["taskId"], "status is required on one side only"),
        (OUT + "properties.tasks.items.properties.id.type", "integer", "integer against string"),
    ],
)
def test_what_breaks(place: str, value: Any, said: str) -> None:
    found = breaking(DOCUMENT, changed(place, value))
    assert list(found) == ["POST /api/a"]
    assert said in " ".join(found["POST /api/a"])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("paths./api/b", {"get": CALL}),
        (POST + "parameters.0.schema.maximum", 200),
        (IN + "properties.seed", {"type": "integer"}),
        (IN + "properties.policy.enum", ["cost", "speed", "new", None]),
        (IN + "required", []),
        (OUT + "properties.more", {"type": "string"}),
        (OUT + "properties.status.enum", ["pending"]),
        (OUT + "properties.share.type", "integer"),
        (OUT + "required", ["taskId", "status", "share"]),
        (POST + "responses.404", {}),
    ],
)
def test_what_breaks_nothing(place: str, value: Any) -> None:
    assert breaking(DOCUMENT, changed(place, value)) == {}
