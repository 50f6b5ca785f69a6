"""The shapes of JSON values, as JSON Schema (draft 2020-12, that of OpenAPI 3.1).

Each function makes a schema from the sentence that describes the value, and from its limits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]

#: Schemas with a name, which the document keeps under `components`.
NAMED: dict[str, Schema] = {}
_OPTIONAL = "x-optional"  # a mark for `shape`; it never gets into the document
REF = "#/components/schemas/"


def text(description: str, *, example: str = "", pattern: str = "", longest: int | None = None) -> Schema:
    """A string."""
    found: Schema = {"type": "string", "description": description}
    return _with(found, pattern=pattern or None, maxLength=longest, examples=[example] if example else None)


def whole(description: str, least: int | None = None, most: int | None = None, *, example: int | None = None) -> Schema:
    """An integer."""
    found: Schema = {"type": "integer", "description": description}
    return _with(found, minimum=least, maximum=most, examples=None if example is None else [example])


def number(description: str, least: float | None = None, most: float | None = None) -> Schema:
    """A number that may have a fraction."""
    return _with({"type": "number", "description": description}, minimum=least, maximum=most)


def flag(description: str) -> Schema:
    """True or false."""
    return {"type": "boolean", "description": description}


def one_of(words: Iterable[str], description: str) -> Schema:
    """One of a closed list of words."""
    return {"type": "string", "enum": list(words), "description": description}


def always(value: str | bool, description: str) -> Schema:
    """This value and no other."""
    return {"type": "boolean" if isinstance(value, bool) else "string", "const": value, "description": description}


def moment(description: str) -> Schema:
    """A time in UTC, RFC 3339."""
    return {
        "type": "string",
        "format": "date-time",
        "description": description,
        "examples": ["2026-11-28T12:00:00.000000Z"],
    }


def link(description: str) -> Schema:
    """An address."""
    return {"type": "string", "format": "uri", "description": description}


def usd(description: str) -> Schema:
    """An amount of US dollars, as a decimal string, so that no reader adds binary fractions."""
    return text(description, example="0.25", pattern=r"^-?[0-9]+(\.[0-9]+)?$")


def many(item: Schema, description: str, *, most: int | None = None) -> Schema:
    """A list."""
    return _with({"type": "array", "items": item, "description": description}, maxItems=most)


def mapping(value: Schema, description: str) -> Schema:
    """An object whose names are data, such as ids."""
    return {"type": "object", "additionalProperties": value, "description": description}


def anything(description: str) -> Schema:
    """A value of any shape."""
    return {"description": description}


def maybe(schema: Schema) -> Schema:
    """The same, or null. An enumeration gets null as one more value."""
    if "$ref" in schema or "type" not in schema:
        outer = {key: value for key, value in schema.items() if key in ("description", _OPTIONAL)}
        inner = {key: value for key, value in schema.items() if key not in outer}
        if "anyOf" in inner:
            return {**schema, "anyOf": [*inner["anyOf"], {"type": "null"}]}
        outer.setdefault("description", resolved(schema).get("description", ""))
        return {"anyOf": [inner, {"type": "null"}], **outer}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "null" in kinds:
        return schema
    found = {**schema, "type": [*kinds, "null"]}
    return {**found, "enum": [*schema["enum"], None]} if "enum" in schema else found


def optional(schema: Schema) -> Schema:
    """A field that some answers leave out."""
    return {**schema, _OPTIONAL: True}


def shape(name: str, about: str, /, *bases: Schema, **fields: Schema) -> Schema:
    """An object: with a `name` a component of the document, which is referred to; without one it stands where it is.

    `bases` are shapes whose fields it has as well. Fields are required unless they are `optional`. Answers may get more
    fields at any time, so clients must pass over those that they don't know.
    """
    every: dict[str, Schema] = {}
    required: list[str] = []
    for base in bases:
        whole_base = resolved(base)
        every |= whole_base["properties"]
        required += whole_base.get("required", [])
    for field, schema in fields.items():
        every[field] = {key: value for key, value in schema.items() if key != _OPTIONAL}
        required = [known for known in required if known != field]
        if not schema.get(_OPTIONAL):
            required.append(field)
    found: Schema = {"type": "object", "description": about, "properties": every}
    if required:
        found["required"] = required
    return named(name, found) if name else found


def named(name: str, schema: Schema) -> Schema:
    """A reference to the schema, which is a component from now on. Raises ValueError if another one has the name."""
    if NAMED.setdefault(name, schema) != schema:
        raise ValueError(f"There are two shapes with the name {name}.")
    return {"$ref": REF + name}


def any_of(description: str, *schemas: Schema) -> Schema:
    """One of these."""
    return {"anyOf": list(schemas), "description": description}


def partly(name: str, about: str, whole_one: Schema) -> Schema:
    """The same object with any of its fields, or none."""
    return named(name, {"type": "object", "description": about, "properties": resolved(whole_one)["properties"]})


def described(schema: Schema, description: str) -> Schema:
    """A named shape with a sentence on what it is in this place."""
    return {**schema, "description": description}


def resolved(schema: Schema) -> Schema:
    """The schema itself behind a reference."""
    return NAMED[schema["$ref"].removeprefix(REF)] if "$ref" in schema else schema


def _with(schema: Schema, **more: Any) -> Schema:
    return {**schema, **{name: value for name, value in more.items() if value is not None}}
