"""Every answer that a test gets from the API is checked against the description of its call.

`watch` puts the check behind Django's test client, so no test has to ask for it. The check is stricter than the
document: an answer may have no field that the document lacks, though clients must pass over new ones.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from django.test import Client
from jsonschema_rs import Draft202012Validator, ValidationError

from video.api.contract import openapi
from video.api.contract.codes import CODES
from video.web.versions import VERSIONED, unversioned

#: Of HEAD there is no body, and OPTIONS is for CORS.
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


class Undescribed(AssertionError):
    """An answer that the document does not have."""


@contextmanager
def watch() -> Iterator[None]:
    """Check what any test client gets under /api from now on."""
    plain = Client.request

    def watched(client: Client, **request: Any) -> Any:
        response = plain(client, **request)
        path, method = unversioned(request.get("PATH_INFO", "/")), request.get("REQUEST_METHOD", "GET")
        if (
            path.startswith("/api/")
            and not path.startswith(VERSIONED)  # another service's
            and method in METHODS
            and not 300 <= response.status_code < 400
            and not response.streaming
        ):
            check(method, path, response.status_code, response.get("Content-Type", ""), _plain(response))
        return response

    Client.request = watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        Client.request = plain  # type: ignore[method-assign]


def _plain(response: Any) -> bytes:
    """The body as it was before it was packed."""
    body: bytes = response.content
    return gzip.decompress(body) if response.get("Content-Encoding") == "gzip" else body


def check(method: str, path: str, status: int, content_type: str, body: bytes) -> None:
    """Raise Undescribed unless the document has this answer."""
    called = call_of(path)
    if called is None or method.lower() not in called[1]:
        where, responses = f"{method} {path}", {"default": _of_any_call()}
    else:
        where, responses = f"{method} {called[0]}", called[1][method.lower()]["responses"]
    told = responses.get(str(status)) or (responses["default"] if status >= 400 else None)
    if told is None:
        raise Undescribed(f"{where} answered {status}; described are {', '.join(responses)}.")
    kind = content_type.partition(";")[0]
    content = told.get("content", {})
    if not body and not content:
        return
    if kind not in content:
        raise Undescribed(f"{where} answered {status} as {kind or 'nothing'}; described are {', '.join(content)}.")
    if kind != "application/json":
        return
    answer = json.loads(body)
    if status >= 400:
        _check_error(where, status, answer, told, responses["default"])
    wrong = wrong_with(answer, content[kind]["schema"])
    if wrong:
        raise Undescribed(f"{where} answered {status}: {'; '.join(wrong)}")


def wrong_with(value: Any, schema: dict[str, Any]) -> list[str]:
    """What is wrong with a value by a schema of the document."""
    validator = _validator(json.dumps(schema, sort_keys=True))
    return [cause for err in validator.iter_errors(value) for cause in _causes(err)]


def _causes(err: ValidationError) -> list[str]:
    """What is wrong, and where; of alternatives, what is wrong with each."""
    branches = getattr(err.kind, "context", None)
    if not branches:
        return [f"{'.'.join(map(str, err.instance_path)) or 'it'}: {err.message[-300:]}"]
    return [cause for branch in branches for one in branch for cause in _causes(one)]


def _check_error(where: str, status: int, answer: Any, told: Any, default: Any) -> None:
    code = answer.get("error", {}).get("code")
    codes = {*told["content"]["application/json"]["examples"], *default["content"]["application/json"]["examples"]}
    if code not in codes:
        raise Undescribed(f"{where} answered {status} with the code {code}; described are {', '.join(sorted(codes))}.")
    if status not in CODES[code].statuses:
        raise Undescribed(f"{where} answered {code} with {status}; described is {CODES[code].statuses}.")


def call_of(path: str) -> tuple[str, dict[str, Any]] | None:
    """The address of the document that this path is of, and its calls; one without a parameter goes first."""
    for pattern, address, calls in _addresses():
        if pattern.fullmatch(path):
            return address, calls
    return None


@cache
def _addresses() -> list[tuple[re.Pattern[str], str, dict[str, Any]]]:
    paths = openapi.document()["paths"]
    return [
        (re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)) + "/?"), path, paths[path])
        for path in sorted(paths, key=lambda path: (path.count("{"), path))
    ]


def _of_any_call() -> dict[str, Any]:
    response: dict[str, Any] = openapi.document()["paths"]["/api/models"]["get"]["responses"]["default"]
    return response


@cache
def _validator(schema: str) -> Draft202012Validator:
    components = json.dumps(openapi.document()["components"]["schemas"])
    whole = {**json.loads(schema), "components": {"schemas": json.loads(components)}}
    return Draft202012Validator(_strict(whole), validate_formats=True)


def _strict(schema: Any) -> Any:
    """The same with no other fields than those described."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found
