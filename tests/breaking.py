"""What a change of the API's document takes away from clients that were written against the old one.

A request that was good must stay good, so the new schema of what is sent must hold all that the old one held. What is
answered goes the other way. Only new error codes are no break: the document says that more may come.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]
Schema = dict[str, Any]
_LEAST, _MOST = ("minimum", "minLength", "minItems"), ("maximum", "maxLength", "maxItems")
JSON = "application/json"
#: Pairs of patterns of which the second allows all that the first does. Nothing can tell that, so a person has.
WIDER = {("^[0-9]{1,18}$", "^[0-9]{0,18}$")}


def breaking(old: Document, new: Document) -> dict[str, list[str]]:
    """By call (`POST /api/video/create`): what broke. Empty: nothing did."""
    found: dict[str, list[str]] = {}
    for path, methods in old["paths"].items():
        for method, call in methods.items():
            now = new["paths"].get(path, {}).get(method)
            broken = ["it is gone"] if now is None else list(_call(old, call, new, now))
            if broken:
                found[f"{method.upper()} {path}"] = broken
    return found


def _call(old: Document, before: Schema, new: Document, now: Schema) -> Iterator[str]:
    if not before["security"] and now["security"]:
        yield "it needs a login"
    known = {(one["in"], one["name"]): one for one in before["parameters"]}
    there = {(one["in"], one["name"]): one for one in now["parameters"]}
    for key, one in known.items():
        if key not in there:
            yield f"its parameter {key[1]} is gone"
        else:
            yield from Within(old, new).check(one["schema"], there[key]["schema"], f"parameter {key[1]}")
    for key, one in there.items():
        if one.get("required") and not known.get(key, {}).get("required"):
            yield f"its parameter {key[1]} is required"
    yield from _bodies(old, before, new, now)
    for status, answer in before["responses"].items():
        if status[0] != "2":
            continue
        if status not in now["responses"]:
            yield f"it no longer answers {status}"
            continue
        for kind, content in answer.get("content", {}).items():
            other = now["responses"][status].get("content", {}).get(kind)
            if other is None:
                yield f"{status} is no longer {kind}"
            else:
                yield from Within(new, old).check(other["schema"], content["schema"], f"answer {status}")
    for status in now["responses"]:
        if status[0] == "2" and status not in before["responses"]:
            yield f"it may answer {status}"


def _bodies(old: Document, before: Schema, new: Document, now: Schema) -> Iterator[str]:
    was, now_body = before.get("requestBody"), now.get("requestBody")
    if was is None:
        if now_body is not None and now_body.get("required"):
            yield "it needs a body"
        return
    for kind, content in was["content"].items():
        other = (now_body or {}).get("content", {}).get(kind)
        if other is None:
            yield f"it takes no {kind}"
        else:
            yield from Within(old, new).check(content["schema"], other["schema"], "body")


class Within:
    """Whether all that one schema allows is allowed by another one, of another document."""

    def __init__(self, inner: Document, outer: Document) -> None:
        self._inner, self._outer = inner, outer
        self._seen: set[tuple[str, str]] = set()

    def check(self, inner: Schema, outer: Schema, place: str) -> Iterator[str]:
        """What `inner` allows and `outer` does not."""
        pair = (inner.get("$ref", ""), outer.get("$ref", ""))
        if all(pair):
            if pair in self._seen:
                return
            self._seen.add(pair)
        inner, outer = _resolved(inner, self._inner), _resolved(outer, self._outer)
        branches, others = _branches(inner), _branches(outer)
        if len(branches) > 1 or len(others) > 1:
            for branch in branches:
                found = [list(self.check(branch, other, place)) for other in others]
                if all(found):
                    yield min(found, key=len)[0]
            return
        yield from self._limits(inner, outer, place)
        yield from self._fields(inner, outer, place)
        if "items" in outer and "items" in inner:
            yield from self.check(inner["items"], outer["items"], f"{place}[]")
        rest, other_rest = inner.get("additionalProperties"), outer.get("additionalProperties")
        if isinstance(rest, dict) and isinstance(other_rest, dict):
            yield from self.check(rest, other_rest, f"{place}.*")

    def _limits(self, inner: Schema, outer: Schema, place: str) -> Iterator[str]:
        types, allowed = _types(inner), _types(outer)
        allowed |= {"integer"} if "number" in allowed else set()
        if allowed and not (types and types <= allowed):
            yield f"{place}: {' or '.join(sorted(types)) or 'anything'} against {' or '.join(sorted(allowed))}"
        values, others = _values(inner), _values(outer)
        if others is not None and not outer.get("x-extensible"):
            more = "anything" if values is None else ", ".join(map(repr, [one for one in values if one not in others]))
            if more:
                yield f"{place}: {more} against {others!r}"
        for name in (*_LEAST, *_MOST):
            if name in outer and _values(inner) is None:
                limit = inner.get(name)
                is_within = limit is not None and (limit >= outer[name] if name in _LEAST else limit <= outer[name])
                if not is_within:
                    yield f"{place}: {name} {limit} against {outer[name]}"
        for name in ("pattern", "format"):
            if name in outer and inner.get(name) != outer[name] and (inner.get(name), outer[name]) not in WIDER:
                yield f"{place}: {name} {inner.get(name)} against {outer[name]}"

    def _fields(self, inner: Schema, outer: Schema, place: str) -> Iterator[str]:
        fields, others = inner.get("properties", {}), outer.get("properties", {})
        for name in outer.get("required", []):
            if name not in inner.get("required", []):
                yield f"{place}.{name} is required on one side only"
        for name, field in fields.items():
            if name in others:
                yield from self.check(field, others[name], f"{place}.{name}")
            elif outer.get("additionalProperties") is False:
                yield f"{place}.{name} is known on one side only"


def _resolved(schema: Schema, document: Document) -> Schema:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _branches(schema: Schema) -> list[Schema]:
    return schema.get("anyOf") or schema.get("oneOf") or [schema]


def _types(schema: Schema) -> set[str]:
    kinds = schema.get("type", [])
    return set([kinds] if isinstance(kinds, str) else kinds)


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")
