"""Pauses, for staff: which are in force, a new one, and the end of one."""

from __future__ import annotations

import re

from django.http import HttpResponse
from rest_framework.request import Request

from video.actions import pause as pausing
from video.actions.pause import WrongTarget
from video.api.base import ApiView, caller, success
from video.api.bodies import PauseSerializer, ResumeSerializer, fields_of
from video.api.contract import pause_answers
from video.api.contract.describe import Answer, describe
from video.api.errors import ApiError, invalid, not_found
from video.models import Pause, Scope
from video.routing import pauses
from video.web.actors import of_request

MAY_PAUSE, MAY_SEE = "video.pause", "video.view_pause"


class PausesView(ApiView):
    """GET /api/pauses: those in force. POST: a new one; what is paused already gets this reason and end instead."""

    key_scope = {"GET": Scope.READ, "POST": Scope.MANAGE}

    @describe(
        "Queues",
        "List the pauses in force",
        about="GET /api/pauses, for staff who may look at pauses.",
        answers={200: Answer("The widest and oldest first.", pause_answers.PAUSES)},
        errors="forbidden",
    )
    def get(self, request: Request) -> HttpResponse:
        _refuse_others(request, MAY_SEE, MAY_PAUSE)
        return success({"pauses": [pauses.as_json(one) for one in pauses.rows_live()]})

    @describe(
        "Queues",
        "Pause something",
        about="POST /api/pauses, for staff with the permission `video.pause`: no new submit is sent for what it "
        "covers. What is at a provider goes on. Name one of `everything`, `provider`, `model`, `user`, or `account` "
        "with its `provider`.",
        body=PauseSerializer,
        answers={
            200: Answer("It was paused already; reason and end are these now.", pause_answers.PAUSE),
            201: Answer("It is paused.", pause_answers.PAUSE),
        },
        errors="forbidden",
        examples={
            "Everything, until it is resumed": {"everything": True, "reason": "Maintenance"},
            "One provider for an hour": {"provider": "runway", "reason": "Their bill is open", "endsIn": 3600},
        },
    )
    def post(self, request: Request) -> HttpResponse:
        fields = fields_of(request, PauseSerializer)
        _refuse_others(request, MAY_PAUSE)
        ends_in, reason = fields.pop("ends_in", None), fields.pop("reason", None)
        try:
            wanted = pausing.target(**{name: value for name, value in fields.items() if value})
        except WrongTarget as err:
            raise invalid(err.field, err.message) from None
        until = None if ends_in is None else pausing.in_seconds(ends_in)
        made, is_new = pausing.pause(wanted, actor=of_request(request), reason=reason or "", until=until)
        return success(pauses.as_json(made), status=201 if is_new else 200)


class PauseView(ApiView):
    """DELETE /api/pauses/{id}: it ends now, and what waited for it goes on."""

    key_scope = Scope.MANAGE

    @describe(
        "Queues",
        "Resume what is paused",
        parameters=(pause_answers.PAUSE_IN_PATH,),
        body=ResumeSerializer,
        answers={200: Answer("The pause, which has ended.", pause_answers.PAUSE)},
        errors="forbidden not_found not_paused",
        examples={"With a reason for the audit": {"reason": "The bill is paid"}},
    )
    def delete(self, request: Request, pause_id: str) -> HttpResponse:
        reason = fields_of(request, ResumeSerializer).get("reason") or ""
        if not re.fullmatch("[0-9]{1,18}", pause_id, re.ASCII):
            raise not_found("pause")
        _refuse_others(request, MAY_PAUSE)
        if not Pause.objects.filter(pk=int(pause_id)).exists():
            raise not_found("pause")
        ended = pausing.resume(int(pause_id), actor=of_request(request), reason=reason)
        return success(pauses.as_json(ended))


def _refuse_others(request: Request, *permissions: str) -> None:
    """Raise a 403 for a caller who is no staff, or has none of these permissions."""
    user = caller(request)
    if not user.is_staff or not any(user.has_perm(one) for one in permissions):
        raise ApiError(403, "forbidden", "Only staff with the permission to pause may do that.")
