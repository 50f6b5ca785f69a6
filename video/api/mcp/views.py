"""POST /mcp."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.http import HttpResponse, HttpResponseBase
from rest_framework.request import Request

from video.api import errors
from video.api.base import ApiView
from video.api.mcp import protocol
from video.api.mcp.inner import Api, MustWait, ToolRefused
from video.api.mcp.protocol import Call, Refused
from video.api.mcp.tools import INSTRUCTIONS, TOOLS
from video.api.origins import refuse_cross_site
from video.models import Scope
from video.web import answers, shapes


class McpView(ApiView):
    """One message in, one message out. The login is a token as Bearer, as for any call of the API.

    A page of another site is refused, whatever it asks: a name that its owner points at this machine would make a
    browser ask us in its user's place (DNS rebinding).
    """

    key_scope = Scope.READ  # each tool is a call of the API, which asks for its own

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], HttpResponse]:
        """Of REST framework: what makes an answer of an exception."""

        def handler(exc: Exception, context: dict[str, Any]) -> HttpResponse:
            error = errors.translate(exc, context["request"])
            return errors.answer(
                exc, error, shapes.json_rpc(error.status_code, error.code, error.message, error.details)
            )

        return handler

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        refuse_cross_site(request)
        super().initial(request, *args, **kwargs)

    def post(self, request: Request) -> HttpResponseBase:
        try:
            message: dict[str, Any] = dict(request.data)
            call = protocol.read(message, request.headers)
            if call is None:
                return HttpResponse(status=202)
            return answers.as_json(call.answer(_result(call, Api(request._request))))
        except Refused as refused:
            return answers.as_json(refused.body, refused.status)
        except MustWait as wait:
            return wait.later


def _result(call: Call, api: Api) -> dict[str, Any]:
    """Raises Refused, and MustWait."""
    match call.method:
        case "initialize" if not call.is_stateless:
            return protocol.initialized(call, INSTRUCTIONS)
        case "ping" if not call.is_stateless:
            return {}
        case "server/discover" if call.is_stateless:
            return protocol.discovered(INSTRUCTIONS)
        case "tools/list":
            return {"tools": [tool.shown() for tool in TOOLS.values()]}
        case "tools/call":
            return _called(call, api)
    raise Refused(protocol.METHOD_NOT_FOUND, "There is no such method here; there are only tools.", call=call)


def _called(call: Call, api: Api) -> dict[str, Any]:
    """What a tool says, also of what it refuses: its caller reads both."""
    name, arguments = call.params.get("name"), call.params.get("arguments") or {}
    tool = TOOLS.get(name) if isinstance(name, str) else None
    if tool is None or not isinstance(arguments, dict):
        there_are = f"tools/call needs the name of a tool ({', '.join(TOOLS)}) and an object with its arguments."
        raise Refused(protocol.INVALID_PARAMS, there_are, call=call)
    try:
        return _shown(tool.call(api, arguments))
    except ToolRefused as no:
        return {**_shown({"code": no.code, "message": no.message, "details": no.details}), "isError": True}


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    """As data, and as the text that clients of older revisions read."""
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    return {"content": [{"type": "text", "text": text}], "structuredContent": result}
