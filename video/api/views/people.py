"""One's account: make it, look at it, and get into it again without the password."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from rest_framework.request import Request

from video.actions import people
from video.api.base import ApiView, caller, success
from video.api.bodies import ResetConfirmSerializer, ResetSerializer, SignUpSerializer, fields_of
from video.api.contract import answers, key_answers
from video.api.contract.describe import Answer, describe
from video.api.errors import ApiError, invalid
from video.api.views.auth import AuthView, client_of, welcome
from video.audit.actors import Unaudited
from video.credits import ledger
from video.infra.camel import utc
from video.models import Scope, UserShare
from video.monitoring import as_json
from video.scheduling import storage_quota
from video.web import security_log
from video.web.client_address import client_address
from video.web.logins import reset, sessions, sign_in, throttle

NO_TOKEN = "is not good, or not any more: it was used, its time is over, or the password was changed; ask for another"  # noqa: S105 - a text


class SignUpView(AuthView):
    """POST /api/auth/sign-up: a new account, logged in. 403 `sign_up_off` unless SIGN_UP is on."""

    @describe(
        "Logins",
        "Sign up",
        body=SignUpSerializer,
        answers={201: Answer("A login of the new account; both cookies are set.", answers.WELCOME)},
        errors="weak_password csrf sign_up_off username_taken too_many_tries logins_busy",
        examples={"A new account": {"username": "ada", "password": "correct horse battery"}},
    )
    def post(self, request: Request) -> HttpResponse:
        fields = fields_of(request, SignUpSerializer)
        if not settings.SIGN_UP:
            raise ApiError(403, "sign_up_off", "Accounts are made by the operator of this server; ask them for one.")
        address = client_address(request._request)
        throttle.count_call("sign up", address, limit=throttle.SIGN_UP)
        try:
            with sign_in.turn_to_hash():
                user = people.make(
                    **fields, credits=settings.SIGN_UP_CREDITS, note="sign-up", by=Unaudited("themselves")
                )
        except people.NameTaken:
            message = "is taken; choose another"
            raise invalid("username", message, code=people.NameTaken.code, status=409) from None
        except ValidationError as err:
            raise _refused(err) from None
        security_log.record("signed_up", address=address, user=user)
        login = sessions.start(user, **client_of(request))
        assert login is not None  # it was made a moment ago
        response = welcome(request, user, login, "login")
        response.status_code = 201
        return response


class ResetView(AuthView):
    """POST /api/auth/password-reset: a link by e-mail to whoever has this address. Always the same answer."""

    @describe(
        "Logins",
        "Ask for a link for a new password",
        body=ResetSerializer,
        answers={202: Answer("Whoever has the address.", key_answers.ASKED_FOR_RESET)},
        errors="csrf too_many_tries no_email",
        examples={"By e-mail": {"email": "ada@example.com"}},
    )
    def post(self, request: Request) -> HttpResponse:
        email = fields_of(request, ResetSerializer)["email"].strip()
        if not settings.SENDS_EMAIL:
            raise ApiError(501, "no_email", "This server sends no e-mail; its operator can give you a new password.")
        address = client_address(request._request)
        throttle.count_call("reset", address, limit=throttle.RESET)
        throttle.count_call("reset of", "", email.casefold(), limit=throttle.RESET_OF_ONE)
        reset.ask(email, address=address)
        sentence = "If an account has this address, a link for a new password is on its way to it."
        return success({"message": sentence}, status=202)


class ResetConfirmView(AuthView):
    """POST /api/auth/password-reset/confirm: a new password for a token of such an e-mail. Ends all logins."""

    @describe(
        "Logins",
        "Choose a new password by a link",
        body=ResetConfirmSerializer,
        answers={200: Answer("It is changed; all logins have ended.", answers.NOTHING)},
        errors="invalid_token/400 weak_password csrf too_many_tries logins_busy",
        examples={"By the token of the link": {"token": "…", "newPassword": "correct horse battery"}},
    )
    def post(self, request: Request) -> HttpResponse:
        fields = fields_of(request, ResetConfirmSerializer)
        address = client_address(request._request)
        user = reset.user_of(fields["token"])
        if user is None:
            throttle.count_call("reset token", address, limit=throttle.RESET)
            raise invalid("token", NO_TOKEN, code="invalid_token")
        try:
            validate_password(fields["new_password"], user)
        except ValidationError as err:
            raise invalid("newPassword", " ".join(err.messages), code="weak_password") from None
        with sign_in.turn_to_hash():
            if not reset.change(fields["token"], fields["new_password"], address=address):
                raise invalid("token", NO_TOKEN, code="invalid_token")
        return success({})


class AccountView(ApiView):
    """GET /api/account: who one is here, what one may use, and where one's logins are."""

    key_scope = Scope.READ

    @describe("Logins", "Read one's account", answers={200: Answer("The account.", key_answers.ACCOUNT)})
    def get(self, request: Request) -> HttpResponse:
        user: Any = caller(request)
        share = UserShare.objects.filter(pk=user.pk).first()
        return success(
            {
                "id": user.pk,
                "username": user.get_username(),
                "email": user.email or None,
                "madeAt": utc(user.date_joined),
                "staff": user.is_staff,
                "balance": ledger.balance(user.pk),
                "limits": _limits(share),
                "storage": as_json.storage(storage_quota.of_user(user.pk)),
                "sessions": "/api/auth/sessions",
            }
        )


def _limits(share: UserShare | None) -> dict[str, int | None]:
    """What an operator allows this user, and everybody else; None: there is no limit."""
    waiting = None if share is None else share.most_waiting
    requests = None if share is None else share.requests_per_minute
    return {
        "waitingTasks": settings.MAX_WAITING_PER_USER if waiting is None else waiting,
        "liveTasks": None if share is None else share.most_live,
        "requestsPerMinute": (settings.REQUESTS_PER_MINUTE if requests is None else requests) or None,
    }


def _refused(err: ValidationError) -> ApiError:
    """What Django says of a name, an address or a password, by our field."""
    if not hasattr(err, "error_dict"):
        return invalid("password", " ".join(err.messages), code="weak_password")
    details = [{"field": field, "message": message} for field, found in err.message_dict.items() for message in found]
    message = " ".join(f"{one['field']}: {one['message']}" for one in details)
    return ApiError(400, "invalid_request", message, details)
