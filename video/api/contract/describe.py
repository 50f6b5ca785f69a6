"""`@describe`: what one call takes, answers and refuses, beside the method that does it.

    @describe(
        "Tasks",
        "Cancel a task",
        body=CancelSerializer,
        answers={200: Answer("The task, and what becomes of its credits.", CANCELLED)},
        errors="not_found task_deleted not_cancellable",
    )
    def post(self, request: Request) -> HttpResponse:

Not to be listed, since every call of its kind has them: what is wrong with a login, a body that can't be read, a call
from another site's page, and `codes.ANYWHERE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from video.actions.order_input import Strict
from video.api.contract.shapes import Schema

Method = TypeVar("Method", bound=Callable[..., Any])

JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """A success: what it says, the shape of its `data`, headers of its own, and examples of `data` by their summaries.

    `media_type` other than JSON: `data` is the shape of the whole body. No shape: no body.
    """

    about: str
    data: Schema | None = None
    headers: Mapping[str, Schema] = field(default_factory=dict)
    media_type: str = JSON
    examples: Mapping[str, Any] = field(default_factory=dict)
    in_envelope: bool = True


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query, the path, or a header; its `schema` says what it is."""

    name: str
    schema: Schema
    place: Literal["query", "path", "header"] = "query"
    required: bool = False


@dataclass(frozen=True)
class Description:
    """One call of the API."""

    tag: str
    summary: str
    answers: Mapping[int, Answer]
    body: type[Strict] | None = None
    form: Schema | None = None
    raw: Schema | None = None
    parameters: Sequence[Parameter] = ()
    errors: tuple[str, ...] = ()
    examples: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    about: str = ""


def describe(
    tag: str, summary: str, *, answers: Mapping[int, Answer], errors: str = "", **more: Any
) -> Callable[[Method], Method]:
    """Put a `Description` on a method of a view; see there for what else it takes.

    `errors`: codes with blanks between, `code/400` where one has several statuses and comes with one. `body`: the
    serializer of a JSON body, of which `examples` are some by their summaries; `form`: the shape of a multipart form;
    `raw`: of a JSON body that no serializer reads.
    """
    description = Description(tag, summary, answers, errors=tuple(errors.split()), **more)

    def put(method: Method) -> Method:
        method.described = description  # type: ignore[attr-defined]
        return method

    return put
