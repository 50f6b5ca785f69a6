"""A user's webhooks: endpoints and their secrets, and what became of each delivery."""

from __future__ import annotations

import re
from typing import Any

from django.db.models import Q, Subquery
from django.http import HttpResponse
from rest_framework.request import Request

from video.api import errors
from video.api.base import ApiView, caller, success, user_id
from video.api.bodies import (
    TASK_ID,
    EndpointChangeSerializer,
    EndpointSerializer,
    NothingSerializer,
    SecretRollSerializer,
    fields_of,
)
from video.api.contract import answers, key_answers
from video.api.contract.describe import Answer, Parameter, describe
from video.api.contract.shapes import text
from video.api.views.lists import limit_of
from video.api.views.task_list import bad_cursor
from video.infra.camel import camel, utc
from video.models import Scope, WebhookDelivery, WebhookEndpoint, WebhookSecret
from video.web import security_log
from video.web.client_address import client_address
from video.webhooks import endpoints, receivers

_DELIVERY_ID = re.compile(r"whd_[0-9a-f]{32}", re.ASCII)
_ENDPOINT_ID = re.compile(r"whe_[0-9a-z]{1,36}", re.ASCII)
_FILTERS = {"endpoint": ("endpoint_id", _ENDPOINT_ID, "an endpoint"), "task": ("task_id", TASK_ID, "a task")}
OVERLAP_H = 24  # unless the caller says otherwise
STATES = tuple(WebhookDelivery.State.values)


class EndpointsView(ApiView):
    """GET, POST /api/webhooks: the caller's endpoints; a new one, whose answer has its secret."""

    key_scope = Scope.WEBHOOKS

    @describe(
        "Webhooks",
        "List one's endpoints",
        about="GET /api/webhooks: the caller's endpoints.",
        answers={200: Answer("All but deleted ones.", key_answers.ENDPOINTS)},
    )
    def get(self, request: Request) -> HttpResponse:
        return success({"endpoints": [_endpoint(one) for one in endpoints.of_user(user_id(request))]})

    @describe(
        "Webhooks",
        "Make an endpoint",
        about="POST /api/webhooks: a new endpoint, whose answer has its secret.",
        body=EndpointSerializer,
        answers={201: Answer("The endpoint and its secret.", key_answers.NEW_ENDPOINT)},
        errors="too_many_endpoints",
        examples={"All events": {"url": "https://example.com/hooks/reelworks"}},
    )
    def post(self, request: Request) -> HttpResponse:
        endpoint, secret = endpoints.create(user_id(request), **fields_of(request, EndpointSerializer))
        _record(request, "webhook_endpoint_made", endpoint)
        return success({**_endpoint(endpoint), "secret": secret}, 201)


class EndpointView(ApiView):
    """GET, PATCH, DELETE /api/webhooks/{id}."""

    key_scope = Scope.WEBHOOKS

    @describe(
        "Webhooks",
        "Read an endpoint",
        about="GET /api/webhooks/{id}: one of the caller's endpoints.",
        parameters=(key_answers.ENDPOINT_IN_PATH,),
        answers={200: Answer("The endpoint.", key_answers.ENDPOINT)},
        errors="not_found",
    )
    def get(self, request: Request, endpoint_id: str) -> HttpResponse:
        return success(_endpoint(endpoints.find(_checked(endpoint_id), user_id(request))))

    @describe(
        "Webhooks",
        "Change an endpoint",
        about="PATCH /api/webhooks/{id}: what is left out stays. Switched off, it loses what waits for it.",
        body=EndpointChangeSerializer,
        parameters=(key_answers.ENDPOINT_IN_PATH,),
        answers={200: Answer("The endpoint as it is now.", key_answers.ENDPOINT)},
        errors="not_found endpoint_ended",
        examples={"Off": {"enabled": False}},
    )
    def patch(self, request: Request, endpoint_id: str) -> HttpResponse:
        changes = fields_of(request, EndpointChangeSerializer)
        return success(_endpoint(endpoints.change(_checked(endpoint_id), user_id(request), **changes)))

    @describe(
        "Webhooks",
        "Delete an endpoint",
        about="DELETE /api/webhooks/{id}: it ends with its secrets, and loses what waits for it.",
        parameters=(key_answers.ENDPOINT_IN_PATH,),
        answers={200: Answer("It is gone.", answers.NOTHING)},
        errors="not_found",
    )
    def delete(self, request: Request, endpoint_id: str) -> HttpResponse:
        endpoints.delete(_checked(endpoint_id), user_id(request))
        return success({})


class SecretView(ApiView):
    """GET, POST /api/webhooks/{id}/secret: show the present one; make a new one, beside which the former lives on."""

    key_scope = Scope.WEBHOOKS

    @describe(
        "Webhooks",
        "Show a secret",
        about="GET /api/webhooks/{id}/secret: the present secret of an endpoint; of /api/webhooks/secret: that of the "
        "URLs of single tasks.",
        parameters=(key_answers.ENDPOINT_IN_PATH,),
        answers={200: Answer("The present secret.", key_answers.SECRET)},
        errors="not_found secret_unreadable",
    )
    def get(self, request: Request, endpoint_id: str = "") -> HttpResponse:
        signed = self._signed(request, endpoint_id)
        _record(request, "webhook_secret_shown", signed)
        return success(_secret(signed, endpoints.shown(signed)))

    @describe(
        "Webhooks",
        "Roll a secret",
        about="POST /api/webhooks/{id}/secret: a new secret of an endpoint, beside which the former signs for a while; "
        "of /api/webhooks/secret: that of the URLs of single tasks.",
        body=SecretRollSerializer,
        parameters=(key_answers.ENDPOINT_IN_PATH,),
        answers={200: Answer("The new secret.", key_answers.SECRET)},
        errors="not_found secret_rolled_lately",
        examples={"The former one ends at once": {"overlapHours": 0}},
    )
    def post(self, request: Request, endpoint_id: str = "") -> HttpResponse:
        fields = fields_of(request, SecretRollSerializer)
        signed = self._signed(request, endpoint_id)
        rolled, secret = endpoints.roll(signed, overlap_h=fields.get("overlap_h", OVERLAP_H))
        _record(request, "webhook_secret_rolled", rolled)
        return success(_secret(rolled, secret))

    def _signed(self, request: Request, endpoint_id: str) -> WebhookEndpoint | WebhookSecret:
        if endpoint_id:
            return endpoints.find(_checked(endpoint_id), user_id(request))
        return endpoints.secret_of_user(user_id(request))


class DeliveriesView(ApiView):
    """GET /api/webhooks/deliveries?endpoint=&task=&state=&limit=&cursor=: the caller's, newest first."""

    key_scope = Scope.WEBHOOKS
    takes = ("endpoint", "task", "state", "limit", "cursor")

    @describe(
        "Webhooks",
        "List one's deliveries",
        parameters=(
            Parameter(
                "endpoint", text("Only those for this endpoint, by its id.", pattern=f"^{_ENDPOINT_ID.pattern}$")
            ),
            Parameter("task", text("Only those of this task, by its id.", pattern=f"^{TASK_ID.pattern}$")),
            Parameter("state", {**key_answers.STATE, "description": "Only those in this state."}),
            answers.LIMIT,
            Parameter("cursor", text(answers.OF_THE_PAGE_BEFORE, pattern=f"^{_DELIVERY_ID.pattern}$")),
        ),
        answers={200: Answer("A page, newest first.", key_answers.DELIVERIES)},
        errors="invalid_request",
    )
    def get(self, request: Request) -> HttpResponse:
        asked: dict[str, Any] = request.GET.dict()
        limit, cursor, state = limit_of(asked), asked.get("cursor"), asked.get("state")
        if state is not None and state not in STATES:
            raise errors.invalid("state", f"must be one of {', '.join(STATES)}")
        if cursor is not None and not _DELIVERY_ID.fullmatch(cursor):
            raise bad_cursor()
        rows = WebhookDelivery.objects.filter(user_id=user_id(request)).select_related("endpoint")
        if state is not None:
            rows = rows.filter(state=state)
        for name, (column, shape, what) in _FILTERS.items():
            if name in asked:
                if not shape.fullmatch(asked[name]):
                    raise errors.invalid(name, f"must be the id of {what}")
                rows = rows.filter(**{column: asked[name]})
        if cursor:
            before = WebhookDelivery.objects.filter(pk=cursor, user_id=user_id(request)).values("created_at")
            last = Subquery(before[:1])
            rows = rows.filter(Q(created_at__lt=last) | Q(created_at=last, pk__lt=cursor))
        found = list(rows.order_by("-created_at", "-pk")[: limit + 1])
        more = found[limit - 1].pk if len(found) > limit else None
        return success({"deliveries": [_delivery(one) for one in found[:limit]], "nextCursor": more})


class DeliveryView(ApiView):
    """GET /api/webhooks/deliveries/{id}: with what it says, and each of its tries."""

    key_scope = Scope.WEBHOOKS

    @describe(
        "Webhooks",
        "Read a delivery",
        parameters=(key_answers.DELIVERY_IN_PATH,),
        answers={200: Answer("With each of its tries.", key_answers.DELIVERY_DETAILS)},
        errors="not_found",
    )
    def get(self, request: Request, delivery_id: str) -> HttpResponse:
        found = endpoints.find_delivery(_checked_delivery(delivery_id), user_id(request))
        tries = [
            camel(one, "number started_at ended_at outcome http_status detail")
            for one in found.tries_made.order_by("number")
        ]
        return success({**_delivery(found), "data": found.facts, "log": tries})


class ResendView(ApiView):
    """POST /api/webhooks/deliveries/{id}/resend: send it again, now, as the same message."""

    key_scope = Scope.WEBHOOKS

    @describe(
        "Webhooks",
        "Send a delivery again",
        body=NothingSerializer,
        parameters=(key_answers.DELIVERY_IN_PATH,),
        answers={200: Answer("The delivery, which is due now.", key_answers.DELIVERY)},
        errors="not_found endpoint_off",
        examples={"Nothing is to be said": {}},
    )
    def post(self, request: Request, delivery_id: str) -> HttpResponse:
        fields_of(request, NothingSerializer)
        endpoints.resend(_checked_delivery(delivery_id), user_id(request))
        return success(_delivery(endpoints.find_delivery(delivery_id, user_id(request))))


def _checked(endpoint_id: str) -> str:
    """An endpoint's id as the caller gave it. Raises a 404 if it has no endpoint's shape."""
    if not _ENDPOINT_ID.fullmatch(endpoint_id):
        raise errors.not_found("endpoint")
    return endpoint_id


def _checked_delivery(delivery_id: str) -> str:
    """The same of a delivery."""
    if not _DELIVERY_ID.fullmatch(delivery_id):
        raise errors.not_found("delivery")
    return delivery_id


def _endpoint(one: WebhookEndpoint) -> dict[str, Any]:
    return camel(one, "id url events description enabled ended_at end_reason created_at")


def _secret(signed: WebhookEndpoint | WebhookSecret, secret: str) -> dict[str, Any]:
    return {"secret": secret, "formerUntil": utc(signed.former_until) if signed.former_until else None}


def _delivery(one: WebhookDelivery) -> dict[str, Any]:
    url = one.endpoint.url if one.endpoint is not None else one.url
    return {
        **camel(one, "id message_id event task_id endpoint_id"),
        "host": receivers.host_of(url) or None,
        **camel(one, "state tries due_at=nextTryAt created_at settled_at"),
    }


def _record(request: Request, event: str, signed: WebhookEndpoint | WebhookSecret) -> None:
    endpoint = signed.pk if isinstance(signed, WebhookEndpoint) else None
    security_log.record(event, address=client_address(request._request), user=caller(request), endpoint=endpoint)
