"""The OpenAPI document, by drf-spectacular: it walks the addresses, and each call's `@describe` says the rest."""

from __future__ import annotations

import inspect
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from http import HTTPStatus
from typing import Any

from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema as BaseAutoSchema
from drf_spectacular.plumbing import ComponentRegistry

from video.api.base import ApiView, PublicApiView
from video.api.contract import codes
from video.api.contract.bodies import body_of
from video.api.contract.describe import JSON, Answer, Description, Parameter
from video.api.contract.shapes import NAMED, REF, Schema, always, anything, one_of, resolved, shape, text

SAFE = ("GET", "HEAD")
URLCONF = "video.api.urls"  # not the same addresses under /api/v1, nor those of other services' clients
#: Headers of answers that many calls have, by their names.
HEADERS: dict[str, Schema] = {
    "X-Request-Id": text("That of the request where it was well formed, else a new one; the server's log has it."),
    "RateLimit": text(
        "Requests that are left in this minute, where the caller has a limit.", example='"user";r=587;t=42'
    ),
    "RateLimit-Policy": text("The limits of requests a minute, where there are some.", example='"user";q=600;w=60'),
    "ETag": text("Of the answer as it stands; `If-None-Match` takes it."),
}
IF_NONE_MATCH = Parameter("If-None-Match", text("The ETag of an answer that the client has."), place="header")
RETRY_AFTER = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
CHALLENGE = {"description": "Always `Bearer`.", "schema": {"type": "string"}}
ERROR = shape(
    "Error",
    "An error. Nothing was changed.",
    success=always(False, "False for each error."),
    error=shape(
        "",
        "What is wrong.",
        code={**one_of(sorted(codes.CODES), "For programs. More may come."), "x-extensible": True},
        message=text("For people: what is wrong, and what would be right."),
        details=anything("A list of `{field, message}` where fields are wrong, else an object with facts."),
    ),
)


#: The generator counts its warnings in one place for all threads.
_making = threading.Lock()


class AutoSchema(BaseAutoSchema):
    """One operation from its `Description`."""

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: ComponentRegistry
    ) -> dict[str, Any]:
        """Raises TypeError for a method that nobody has described."""
        described = getattr(getattr(self.view, method.lower()), "described", None)
        if not isinstance(described, Description):
            raise TypeError(f"{type(self.view).__name__}.{method.lower()} has no @describe (video.api.contract).")
        view: Any = self.view
        is_public, has_etag = isinstance(view, PublicApiView), method in SAFE and view.has_etag
        about = described.about or " ".join((inspect.getdoc(type(view)) or "").split("\n\n")[0].split())
        operation: dict[str, Any] = {
            "operationId": described.name or _name_of(path, method),
            "summary": described.summary,
            "description": about if is_public else f"{about} {_scope_in_words(_scope(view, method))}",
            "tags": [described.tag],
            "parameters": _parameters(path, _with_those_of(view, described, has_etag=has_etag)),
            "security": [] if is_public else [{"bearer": []}, {"cookie": []}],
            "responses": _responses(described, is_public=is_public, is_safe=method in SAFE, has_etag=has_etag),
        }
        if not is_public:
            operation["x-scope"] = _scope(view, method)
        if view.deprecation is not None:
            operation["deprecated"] = True
        body = _body(described)
        return {**operation, "requestBody": body} if body else operation


@cache
def document() -> dict[str, Any]:
    """The whole document. Raises RuntimeError for anything that the generator warns of."""
    with _making:
        found: dict[str, Any] = SchemaGenerator(urlconf=URLCONF).get_schema(request=None, public=True)
        if GENERATOR_STATS:
            raise RuntimeError("drf-spectacular has warned; see its lines in the log.")
    found["components"] = {
        "schemas": _used(found, dict(NAMED)),
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An access token or an API key."},
            "cookie": {
                "type": "apiKey",
                "in": "cookie",
                "name": "token",
                "description": "The cookie that a login sets; `__Host-token` where the server is reached by https.",
            },
        },
        "headers": {name: {"description": schema["description"], "schema": schema} for name, schema in HEADERS.items()},
        "examples": {name: _example(name, code) for name, code in sorted(codes.CODES.items())},
    }
    return found


@cache
def encoded() -> bytes:
    """The same as JSON."""
    return json.dumps(document(), ensure_ascii=False, indent=1).encode()


def _scope(view: ApiView, method: str) -> str | None:
    """What an API key needs for a method of the view; None: only a login may."""
    scope = view.key_scope.get(method) if isinstance(view.key_scope, Mapping) else view.key_scope
    return None if scope is None else str(scope.value)


def _scope_in_words(scope: str | None) -> str:
    return "No API key may do this, only a login." if scope is None else f"An API key needs the scope `{scope}`."


def _with_those_of(view: ApiView, described: Description, *, has_etag: bool) -> Description:
    """With the parameters that the view's attributes bring. Raises TypeError where they differ from those told."""
    told = {one.name for one in described.parameters if one.place == "query"}
    if view.takes is not None and told != {name for name in view.takes if "<" not in name}:
        raise TypeError(f"{type(view).__name__}: its query takes {view.takes}, and @describe says {sorted(told)}.")
    return replace(described, parameters=(*described.parameters, IF_NONE_MATCH)) if has_etag else described


def _name_of(path: str, method: str) -> str:
    """Such as `video_create`, `video_tasks_delete`, `auth_sessions_get`."""
    words = [word for word in path.strip("/").removeprefix("api/").split("/") if not word.startswith("{")]
    name = "_".join([*words, *(["by_id"] if "{" in path else []), method.lower()])
    return re.sub(r"[^a-z_]", "_", name)


def without_slash(endpoints: list[tuple[str, str, str, Any]]) -> list[tuple[str, str, str, Any]]:
    """drf-spectacular's hook for the addresses: those that may end in a slash are told without it."""
    return [(path.rstrip("/"), *more) for path, *more in endpoints]


def _parameters(path: str, described: Description) -> list[dict[str, Any]]:
    """Those of the path first. Raises TypeError for one in the path that nobody has described."""
    in_path = re.findall(r"\{(\w+)\}", path)
    known = {one.name: one for one in described.parameters if one.place == "path"}
    if missing := set(in_path) - set(known):
        raise TypeError(f"{path}: @describe says nothing of {', '.join(sorted(missing))}.")
    others = (one for one in described.parameters if one.place != "path")
    return [_parameter(one) for one in (*(known[name] for name in in_path), *others)]


def _parameter(one: Parameter) -> dict[str, Any]:
    schema = {name: value for name, value in one.schema.items() if name != "description"}
    found = {"name": one.name, "in": one.place, "description": one.schema.get("description", ""), "schema": schema}
    if one.required or one.place == "path":
        found["required"] = True
    return found


def _body(described: Description) -> dict[str, Any] | None:
    if described.form is not None:
        return {"required": True, "content": {"multipart/form-data": {"schema": described.form}}}
    if described.raw is not None:
        return {"required": True, "content": {JSON: {"schema": described.raw}}}
    if described.body is None:
        return None
    schema = body_of(described.body)
    content: dict[str, Any] = {"schema": schema}
    if described.examples:
        content["examples"] = _examples(described.examples)
    # An empty body is read as {}.
    return {"required": "required" in resolved(schema), "content": {JSON: content}}


def _responses(described: Description, *, is_public: bool, is_safe: bool, has_etag: bool) -> dict[str, Any]:
    found = {str(status): _success(answer) for status, answer in described.answers.items()}
    own = described.errors
    if not is_public:
        own = (*codes.LOGIN, *own, *(() if is_safe else codes.UNSAFE))
    if described.body is not None:
        own = (*codes.BODY, *own)
    for status, names in codes.by_status(own).items():
        found[str(status)] = _error(HTTPStatus(status).phrase, names, status)
    found["default"] = _error("What any call may answer", list(codes.ANYWHERE), None)
    if has_etag:
        found["304"] = {"description": "The client has this answer already. There is no body."}
    for word, one in found.items():
        names = ["X-Request-Id", *([] if is_public else ["RateLimit", "RateLimit-Policy"])]
        names += ["ETag"] if has_etag and word in ("200", "304") else []
        one["headers"] = one.get("headers", {}) | {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return dict(sorted(found.items()))


def _success(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.about}
    if answer.headers:
        found["headers"] = {
            name: {"description": schema.get("description", ""), "schema": schema}
            for name, schema in answer.headers.items()
        }
    if answer.data is None:
        return found
    schema = answer.data
    if answer.media_type == JSON and answer.in_envelope:
        schema = shape("", "A success.", success=always(True, "True for each success."), data=answer.data)
    found["content"] = {answer.media_type: {"schema": schema}}
    if answer.examples:
        whole = {summary: {"success": True, "data": data} for summary, data in answer.examples.items()}
        found["content"][answer.media_type]["examples"] = _examples(whole)
    return found


def _examples(values: Mapping[str, Any]) -> dict[str, Any]:
    """By summaries, as the document has them."""
    return {
        f"example{number}": {"summary": summary, "value": value}
        for number, (summary, value) in enumerate(values.items(), start=1)
    }


def _error(phrase: str, names: list[str], status: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": f"{phrase}: {', '.join(f'`{name}`' for name in names)}.",
        "content": {
            JSON: {"schema": ERROR, "examples": {name: {"$ref": f"#/components/examples/{name}"} for name in names}}
        },
    }
    if status in (429, 503) or "idempotency_key_in_use" in names:
        found["headers"] = {"Retry-After": RETRY_AFTER}
    if status == 401:
        found["headers"] = {"WWW-Authenticate": CHALLENGE}
    return found


def _example(name: str, code: codes.Code) -> dict[str, Any]:
    error = {"code": name, "message": f"{code.meaning} {code.remedy}", "details": {}}
    statuses = " or ".join(map(str, code.statuses))
    return {"summary": f"{statuses}: {code.meaning}", "value": {"success": False, "error": error}}


def _used(found: Any, schemas: dict[str, Schema]) -> dict[str, Schema]:
    """The named shapes that the document refers to, also through each other."""
    used: dict[str, Schema] = {}
    todo = [found]
    while todo:
        for name in re.findall(rf'"{REF}(\w+)"', json.dumps(todo.pop())):
            if name not in used:
                used[name] = schemas[name]
                todo.append(schemas[name])
    return dict(sorted(used.items()))
