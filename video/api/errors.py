"""Errors in one shape: {"success": false, "error": {"code", "message", "details"}} and the right status.

`code` is for programs and never changes; `message` is for the person who reads it; `details` is a list of
{"field", "message"} where fields are wrong, else an object that may be empty.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.views import defaults
from rest_framework import exceptions
from rest_framework.request import Request

from media_pipeline.errors import DiskFull, PictureRefused, StorageDown, StorageRefused
from video.actions.order_input import OrderRefused, flatten
from video.actions.task_rows import ActionRefused, NoSuchTask, TaskDeleted
from video.credits.key_spend import KeyLimitReached
from video.credits.ledger import InsufficientCredits
from video.credits.price import DearerThanAllowed
from video.infra import outage
from video.infra.camel import utc
from video.infra.errors import Refusal
from video.scheduling.backlog import TooManyLive, TooManyWaiting
from video.scheduling.storage_quota import StorageFull
from video.web import answers, outage_middleware, request_ids
from video.web.idempotency import KeyInUse, KeyReused
from video.web.logins.api_keys import NoSuchKey, TooManyKeys
from video.web.logins.sign_in import LoginsBusy
from video.web.logins.throttle import TooManyTries
from video.web.request_limits import TooManyRequests
from video.web.uploads import NoSuchUpload, UploadsBusy, UploadsFull
from video.webhooks.endpoints import NoSuchWebhook, WebhookRefused

log = logging.getLogger(__name__)

Details = list[dict[str, str]] | dict[str, Any]

NO_STORE = "no-store"
MOST_JOINED = 3  # errors that the message of one answer says


class ApiError(exceptions.APIException):
    """An error answer: status, code, message and details."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Details | None = None,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message, code)
        self.status_code = status
        self.code = code
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s or (outage_middleware.RETRY_AFTER_S if status == 503 else None)


def invalid(field: str, message: str, *, code: str = "invalid_request", status: int = 400) -> ApiError:
    """A 400, or another status, that names one field."""
    return ApiError(status, code, f"{field}: {message}", [{"field": field, "message": message}])


def joined(details: list[dict[str, str]]) -> str:
    """Wrong fields in one text: the first three, a sentence each, and how many more there are."""
    said = [f"{one['field']}: {one['message']}" for one in details[:MOST_JOINED]]
    if len(details) == 1:
        return said[0]
    more = len(details) - len(said)
    rest = [f"And {more} more, see details."] if more else []
    return " ".join([*(one if one[-1:] in {".", "!", "?"} else f"{one}." for one in said), *rest])


def not_found(what: str = "task") -> ApiError:
    """A 404; the same for what does not exist and for what belongs to another user."""
    return ApiError(404, "not_found", f"There is no such {what}.")


def body(code: str, message: str, details: Details | None = None) -> dict[str, Any]:
    """The envelope of an error."""
    return {"success": False, "error": {"code": code, "message": message, "details": details or {}}}


def told(exc: Exception) -> dict[str, Any]:
    """What an envelope would say of it as its `error`: for one of many in an answer."""
    error = translate(exc)
    found: dict[str, Any] = body(error.code, error.message, error.details)["error"]
    return found


def exception_handler(exc: Exception, context: dict[str, Any]) -> HttpResponse:
    """Every exception of an API view as an envelope. An unexpected one is logged; its answer is a number."""
    error = translate(exc, context["request"])
    return answer(exc, error, body(error.code, error.message, error.details))


def answer(exc: Exception, error: ApiError, shown: dict[str, Any]) -> HttpResponse:
    """The answer to `exc`, which is `error` to the API, with this body."""
    response = answers.as_json(shown, error.status_code)
    challenge = getattr(exc, "auth_header", None)
    if challenge:
        response["WWW-Authenticate"] = challenge
    if isinstance(exc, TooManyRequests):
        for name, value in exc.fields.items():
            response[name] = value
    if error.retry_after_s is not None:
        response["Retry-After"] = str(error.retry_after_s)
    return response


def translate(exc: Exception, request: Request | None = None) -> ApiError:
    """What any exception of a view is to its client. An unexpected one is logged, with the id of its request."""
    match exc:
        case ApiError():
            return exc
        case Refusal() if (answer := _refused(exc)) is not None:
            return answer
        case exceptions.ValidationError():
            details = flatten(exc.detail)
            return ApiError(400, "invalid_request", joined(details), details)
        case exceptions.AuthenticationFailed() | exceptions.NotAuthenticated():
            code = exc.get_codes()
            if code in ("not_authenticated", "authentication_failed"):
                return ApiError(
                    401,
                    "not_authenticated",
                    "Log in first: POST /api/auth/login sets the cookie; or send 'Authorization: Bearer <token>'.",
                )
            return ApiError(401, str(code), str(exc.detail))
        case exceptions.PermissionDenied() | PermissionDenied():
            return ApiError(403, "forbidden", "You may not do that.")
        case SuspiciousOperation():  # Django's own limits: too many parameters, say
            return ApiError(400, "bad_request", "The request can't be read; it may have too many parameters.")
        case exceptions.NotFound() | Http404():
            return not_found("address")
        case exceptions.MethodNotAllowed():
            return ApiError(405, answers.METHOD_CODE, answers.METHOD_MESSAGE)
        case exceptions.UnsupportedMediaType():
            return ApiError(
                415, "unsupported_media_type", "Send the body as JSON, with the header Content-Type: application/json."
            )
        case exceptions.APIException():
            return ApiError(exc.status_code, str(exc.default_code), str(exc.detail))
        case OperationalError() | InterfaceError():
            log.error("the database can't be used: %s", exc)
            if outage.is_outage(exc):
                outage.gate.close(exc)
            return ApiError(503, outage_middleware.CODE, outage_middleware.MESSAGE)
        case PictureRefused():
            return invalid("imageUrl", exc.user_message, code=exc.code)
        case DiskFull() | StorageDown():
            log.error("no picture can be kept: %s", exc)
            return ApiError(503, "unavailable", "Pictures can't be kept just now. Please try again in a moment.")
        case StorageRefused():  # the machine's role has no keys just now, so no link can be signed
            log.error("no link to a video can be made: %s", exc)
            return ApiError(503, "unavailable", "Links can't be made just now. Please try again in a moment.")
    number = secrets.token_hex(4)
    request_id = None if request is None else request.META.get(request_ids.META)
    log.error("unexpected error %s of request %s", number, request_id, exc_info=exc)
    return ApiError(
        500,
        "internal_error",
        "Something broke on our side. The server's log has it under this number.",
        {"errorId": number},
    )


def _refused(exc: Refusal) -> ApiError | None:
    """The answer to each refusal that a view may meet; None for the others."""
    match exc:
        case OrderRefused():
            return ApiError(400, exc.code, str(exc), exc.details)
        case InsufficientCredits():
            return ApiError(
                402,
                exc.code,
                f"This video costs {exc.needed} credits, and your account holds {exc.balance}.",
                {"needed": exc.needed, "balance": exc.balance},
            )
        case KeyLimitReached():
            details = {"needed": exc.needed, "spentToday": exc.spent, "dailyCredits": exc.limit}
            return ApiError(402, exc.code, str(exc), details | {"resetsAt": utc(exc.ends_at)})
        case DearerThanAllowed():
            return ApiError(402, exc.code, str(exc), {"credits": exc.price, "maxCredits": exc.most})
        case TooManyKeys():
            return ApiError(409, exc.code, str(exc))
        case NoSuchKey():
            return not_found("API key")
        case LoginsBusy():
            return ApiError(503, exc.code, str(exc), retry_after_s=exc.retry_after_s)
        case TooManyWaiting() | TooManyLive() | TooManyTries() | TooManyRequests():
            return ApiError(429, exc.code, str(exc), retry_after_s=exc.retry_after_s)
        case NoSuchUpload():
            return invalid("imageUrl", str(exc), code=exc.code)
        case UploadsFull():
            return ApiError(429, exc.code, str(exc), retry_after_s=exc.retry_after_s)
        case UploadsBusy():
            return ApiError(503, exc.code, str(exc), retry_after_s=exc.retry_after_s)
        case NoSuchTask():
            return not_found()
        case KeyReused():
            return ApiError(
                409,
                exc.code,
                "This Idempotency-Key already stands for another request; use a new key for each new video.",
            )
        case KeyInUse():
            return ApiError(409, exc.code, str(exc), retry_after_s=exc.retry_after_s)
        case TaskDeleted():
            return ApiError(410, exc.code, exc.message)
        case StorageFull():
            return ApiError(403, exc.code, str(exc), {"usedBytes": exc.used, "limitBytes": exc.limit})
        case NoSuchWebhook():
            return ApiError(404, exc.code, exc.message)
        case WebhookRefused():
            return ApiError(409, exc.code, exc.message)
        case ActionRefused():
            return ApiError(409, exc.code, exc.message)
    return None


# Errors outside of any view: a bad Host header, or a failing middleware. Pages keep Django's own.


def _handler(
    page: Callable[..., HttpResponseBase], status: int, code: str, message: str
) -> Callable[..., HttpResponseBase]:
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if answers.is_api(request):
            return answers.envelope(status, code, message, path=request.path_info)
        return page(request, *args, **kwargs)

    return answer


handler400 = _handler(  # what Django itself refuses; most often a Host that ALLOWED_HOSTS doesn't have
    defaults.bad_request, 400, "bad_request", "The request can't be read; perhaps its Host is not in ALLOWED_HOSTS."
)
handler403 = _handler(defaults.permission_denied, 403, "forbidden", "You may not do that.")
handler404 = _handler(defaults.page_not_found, 404, "not_found", "There is no such address.")
handler500 = _handler(  # Django has logged it
    defaults.server_error, 500, "internal_error", "Something broke on our side. The server's log has it."
)
