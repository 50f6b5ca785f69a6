"""The address that providers call back at. Not for clients: there is no login, and every answer says the same."""

from __future__ import annotations

import logging

from django.http import HttpResponse
from rest_framework.request import Request

from providers import registry, webhooks
from video.api import errors, parsing
from video.api.base import PublicApiView, success
from video.api.contract import answers
from video.api.contract.describe import Answer, Parameter, describe
from video.api.contract.shapes import anything, one_of
from video.attempts import callbacks

log = logging.getLogger(__name__)


class WebhookView(PublicApiView):
    """POST /api/video/webhook/{provider}, or without one: known by the signature's header, or the shape.

    The body may be chunked, and compressed. A signature may be over its bytes as they came or unpacked; its content
    type does not matter. Cookies and tokens are not read, so another site's page can abuse nothing.
    """

    parser_classes = ()
    unpacks = True
    takes = None  # a provider may add some

    @describe(
        "Call-backs",
        "Take a provider's call-back",
        raw=anything("As the provider writes it."),
        parameters=(Parameter("provider", one_of(callbacks.CALLING_BACK, "Who calls."), place="path"),),
        answers={200: Answer("Taken, or of no use; both say the same.", answers.NOTHING)},
        errors="invalid_request unknown_provider bad_signature keys_unavailable",
    )
    def post(self, request: Request, provider: str | None = None) -> HttpResponse:
        if provider is not None and not callbacks.may_call(provider):
            raise errors.not_found("address")
        raw = parsing.read(request._request)
        body = parsing.unpacked(raw, request.headers.get("Content-Encoding", ""))
        if provider is None:
            provider = registry.sender_of(request.headers, body)
            if provider is None or not callbacks.may_call(provider):
                raise errors.ApiError(
                    400, "unknown_provider", "This is no call-back of a provider that we use; name it in the address."
                )
        try:
            signed = callbacks.check_sender(provider, request.headers, *dict.fromkeys((raw, body)))
        except webhooks.Unverified as err:
            _note(provider, f"refused: {err}")
            raise errors.ApiError(401, "bad_signature", "The signature is missing, wrong or too old.") from None
        except webhooks.KeysUnavailable as err:
            _note(provider, f"keys unavailable: {err}")
            # The provider tries again later, which a 401 might end.
            raise errors.ApiError(
                503, "keys_unavailable", "The keys to check the signature with can't be had just now; try again."
            ) from None
        try:
            notice = callbacks.CALLING_BACK[provider].read(body)
        except webhooks.BadNotice as err:
            _note(provider, f"unreadable: {err}")
            raise errors.ApiError(400, "invalid_request", "The body names no job.") from None
        reference = callbacks.proven_reference(provider, request.query_params)
        outcome = callbacks.take(provider, notice, signed=signed, reference=reference)
        _note(provider, outcome.value, notice.job_id or notice.reference)
        return success({})


def _note(provider: str, outcome: str, job: str = "-") -> None:
    """One line a call-back. Ids are of a shape that can't break a line; texts are our own."""
    log.info("webhook: provider=%s outcome=%s request=%s", provider, outcome, job)
