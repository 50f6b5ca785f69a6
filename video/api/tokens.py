"""The JWTs that are accepted and issued, and the cookies that carry them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils.crypto import constant_time_compare, salted_hmac
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.response import Response
from rest_framework_simplejwt.exceptions import ExpiredTokenError, TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from video.infra.camel import utc
from video.web import demo_login

ACCESS_COOKIE = "token"
REFRESH_COOKIE = "refresh"
REFRESH_PATH = "/api/auth"

EXPIRED = "Your login has expired; refresh it, or log in again."
REFUSED = "This token is not valid here; log in again."


class AcceptedToken(AccessToken):
    """An access token: ours, or one that another login signed with the same key.

    Such a login may leave out `jti` and `token_type`, but never `exp` and `user_id` (the id of a user here). A token
    that says it is of another type, such as refresh, is refused.
    """

    def verify(self) -> None:
        self.check_exp()
        if self.payload.get(api_settings.TOKEN_TYPE_CLAIM, self.token_type) != self.token_type:
            raise TokenError("Token has wrong type")


class BoundRefreshToken(RefreshToken):
    """A refresh token that ends with the password it was made under; there is no list of revoked tokens."""

    @classmethod
    def of(cls, user: AbstractBaseUser) -> BoundRefreshToken:
        token: BoundRefreshToken = cls.for_user(user)  # type: ignore[assignment]
        token["pw"] = _password_mark(user)
        return token

    def fits(self, user: AbstractBaseUser) -> bool:
        return constant_time_compare(str(self.payload.get("pw", "")), _password_mark(user))


def _password_mark(user: AbstractBaseUser) -> str:
    return salted_hmac("reelworks refresh token", user.password).hexdigest()[:24]


Kind = TypeVar("Kind", AcceptedToken, BoundRefreshToken)


def user_of_access(raw: str) -> tuple[AbstractBaseUser, AcceptedToken]:
    """The active user that an access token stands for, with one query. Raises AuthenticationFailed."""
    token = _decoded(AcceptedToken, raw)
    return _active_user(token.payload.get(api_settings.USER_ID_CLAIM)), token


def user_of_refresh(raw: str) -> AbstractBaseUser:
    """The same for a refresh token."""
    token = _decoded(BoundRefreshToken, raw)
    user = _active_user(token.payload.get(api_settings.USER_ID_CLAIM))
    if not token.fits(user):
        raise AuthenticationFailed(EXPIRED, code="invalid_token")
    return user


def _decoded(kind: type[Kind], raw: str) -> Kind:
    try:
        return kind(raw)  # type: ignore[arg-type]  # the stubs want a Token, the code takes its encoded form
    except ExpiredTokenError:
        raise AuthenticationFailed(EXPIRED, code="token_expired") from None
    except (TokenError, ValueError, TypeError, OverflowError, OSError):  # the rest: an `exp` that is no date
        raise AuthenticationFailed(REFUSED, code="invalid_token") from None


def _active_user(user_id: Any) -> AbstractBaseUser:
    users = get_user_model()
    user = None
    if isinstance(user_id, int | str) and not isinstance(user_id, bool):
        try:
            user = _user_by_id(users._meta.pk.to_python(user_id))
        except (ValidationError, ValueError):  # no id at all
            user = None
    if user is None or not user.is_active or not demo_login.may_use(user):
        raise AuthenticationFailed(REFUSED, code="invalid_token")
    return user


def _user_by_id(pk: Any) -> AbstractBaseUser | None:
    """The user's row. Read at each request; a query set costs four times the CPU of this."""
    users = get_user_model()
    names = [field.attname for field in users._meta.concrete_fields]
    with connection.cursor() as cursor:
        cursor.execute(_user_sql(users), [pk])
        row = cursor.fetchone()
    return None if row is None else users.from_db(connection.alias, names, row)


@cache
def _user_sql(users: type[AbstractBaseUser]) -> str:
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in users._meta.concrete_fields)
    pk = quote(str(users._meta.pk.column))
    return f"SELECT {columns} FROM {quote(users._meta.db_table)} WHERE {pk} = %s"  # noqa: S608 - names of the model


def hand_out(user: AbstractBaseUser, response: Response) -> dict[str, Any]:
    """Make both tokens, set their cookies on the response, and return what the body says of them."""
    refresh = BoundRefreshToken.of(user)
    access = AccessToken.for_user(user)
    _set(response, ACCESS_COOKIE, str(access), max_age_s=int(settings.JWT_ACCESS_MINUTES * 60), path="/")
    refresh_s = int(api_settings.REFRESH_TOKEN_LIFETIME.total_seconds())
    _set(response, REFRESH_COOKIE, str(refresh), max_age_s=refresh_s, path=REFRESH_PATH)
    return {
        "user": {"id": user.pk, "username": user.get_username()},
        "accessToken": str(access),
        "expiresAt": utc(datetime.fromtimestamp(access["exp"], UTC)),
    }


def clear(response: Response) -> None:
    """Take both cookies back."""
    _set(response, ACCESS_COOKIE, "", max_age_s=0, path="/")
    _set(response, REFRESH_COOKIE, "", max_age_s=0, path=REFRESH_PATH)


def _set(response: Response, name: str, value: str, *, max_age_s: int, path: str) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age_s,
        path=path,
        httponly=True,
        secure=settings.COOKIE_SECURE,
        samesite=settings.COOKIE_SAMESITE,
    )
