"""One's own logins: list them, end one."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.request import Request

from video.api.base import ApiView, caller, success, user_id
from video.api.contract import answers
from video.api.contract.describe import Answer, Parameter, describe
from video.api.contract.shapes import text
from video.api.errors import not_found
from video.infra.camel import camel
from video.models import LoginSession
from video.web import security_log
from video.web.client_address import client_address
from video.web.logins import sessions

MOST = 200


class SessionsView(ApiView):
    """GET /api/auth/sessions: the logins of the caller that are alive, the last used first."""

    key_scope = None

    @describe("Logins", "List one's logins", answers={200: Answer("Those that are alive.", answers.SESSIONS)})
    def get(self, request: Request) -> HttpResponse:
        current = request.auth.session_id  # type: ignore[union-attr]  # a Caller
        fields = "id made_at last_used_at ends_at address user_agent"
        found = [
            {**camel(one, fields), "current": one.pk == current} for one in sessions.alive(user_id(request))[:MOST]
        ]
        return success({"sessions": found})


class SessionView(ApiView):
    """DELETE /api/auth/sessions/{id}: end one of them."""

    key_scope = None

    @describe(
        "Logins",
        "End one login",
        parameters=(Parameter("session_id", text("The login's id."), place="path"),),
        answers={200: Answer("It is over.", answers.NOTHING)},
        errors="not_found",
    )
    def delete(self, request: Request, session_id: str) -> HttpResponse:
        if not sessions.is_id(session_id) or not sessions.end(session_id, user_id(request), LoginSession.End.ENDED):
            raise not_found("login")
        address = client_address(request._request)
        security_log.record("session_ended", address=address, user=caller(request), session=session_id)
        return success({})
