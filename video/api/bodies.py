"""The bodies of requests, but for the order's (`actions/order_input.py`)."""

from __future__ import annotations

import re
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from video.actions.create_many import MOST as MOST_ORDERS
from video.actions.order_input import Flag, OneOf, Strict, Text, WholeNumber
from video.models import Scope
from video.web.logins import api_keys

TASK_ID = re.compile(r"task_[0-9a-z]{1,35}", re.ASCII)
MOST_TASKS = 100  # that one call cancels or retries


class LoginSerializer(Strict):
    """POST /api/auth/login."""

    username = Text(max_length=150, help_text="The user's name.")
    password = Text(max_length=1024, help_text="The user's password.")


class RefreshSerializer(Strict):
    """POST /api/auth/refresh: the body is for clients that keep no cookies."""

    refreshToken = Text(
        required=False,
        allow_null=True,
        source="refresh_token",
        help_text="The refresh token, where it is not in the cookie.",
    )


class LogoutSerializer(RefreshSerializer):
    """POST /api/auth/logout."""

    everywhere = Flag(required=False, allow_null=True, help_text="Whether to end all of the user's logins.")


class PasswordSerializer(Strict):
    """POST /api/auth/password."""

    currentPassword = Text(max_length=1024, source="current_password", help_text="The present password.")
    newPassword = Text(max_length=1024, source="new_password", help_text="The password from now on.")


class SignUpSerializer(Strict):
    """POST /api/auth/sign-up."""

    username = Text(max_length=150)
    password = Text(max_length=1024)
    email = Text(max_length=254, required=False, allow_null=True)


class ResetSerializer(Strict):
    """POST /api/auth/password-reset."""

    email = Text(max_length=254)


class ResetConfirmSerializer(Strict):
    """POST /api/auth/password-reset/confirm."""

    token = Text(max_length=200)
    newPassword = Text(max_length=1024, source="new_password")


IDS = "ids of tasks"


class Several(serializers.Field[Any, Any, Any, Any]):
    """A list of 1 to `most` objects, or of as many ids of tasks, each once."""

    default_error_messages = {
        "required": "is missing",
        "null": "must be a list, not null",
        "invalid": "must be a list of 1 to {most} {what}",
        "twice": "has one of its {what} twice",
    }

    def __init__(self, what: str, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what, self.most = what, most

    def to_internal_value(self, data: Any) -> list[Any]:
        if not isinstance(data, list) or not 1 <= len(data) <= self.most or not all(map(self._is_one, data)):
            self.fail("invalid", most=self.most, what=self.what)
        if self.what == IDS and len(set(data)) != len(data):
            self.fail("twice", what=self.what)
        return list(data)

    def _is_one(self, one: Any) -> bool:
        if self.what == IDS:
            return isinstance(one, str) and TASK_ID.fullmatch(one) is not None
        return isinstance(one, dict)


class BatchSerializer(Strict):
    """POST /api/video/batch. The orders are checked one by one by the view."""

    orders = Several("orders", MOST_ORDERS)
    mode = OneOf(("all", "each"), required=False, allow_null=True)


class CancelSerializer(Strict):
    """POST /api/video/cancel: of one task, or of several."""

    taskId = Text(required=False, allow_null=True, max_length=40, source="task_id")
    taskIds = Several(IDS, MOST_TASKS, required=False, allow_null=True, source="task_ids")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of the two."""
        given = [name for name in ("task_id", "task_ids") if attrs.get(name) is not None]
        if not given:
            raise ValidationError({"taskId": ["is missing"]})
        if len(given) > 1:
            raise ValidationError({"taskIds": ["can't be beside taskId: give one of the two"]})
        return attrs


class RetrySerializer(CancelSerializer):
    """POST /api/video/retry."""

    regenerate = Flag(
        required=False,
        allow_null=True,
        help_text="Whether the provider is to make the video anew, which is paid again.",
    )
    free = Flag(required=False, allow_null=True, help_text="Whether it costs nothing; only for who may grant credits.")


class Network(Text):
    """An address, or a network in CIDR."""

    def to_internal_value(self, data: Any) -> str:
        try:
            return api_keys.network(super().to_internal_value(data))
        except ValueError as err:
            raise serializers.ValidationError(str(err)) from None


class ListOf(serializers.ListField):
    """A list; what is wrong with an item is said of the field."""

    default_error_messages = {
        "required": "is missing",
        "null": "must be a list, not null",
        "not_a_list": "must be a list",
        "empty": "must not be empty",
        "min_length": "must have at least {min_length} items",
        "max_length": "must have at most {max_length} items",
    }

    def run_child_validation(self, data: Any) -> list[Any]:
        found = []
        for place, item in enumerate(data, 1):
            try:
                found.append(self.child.run_validation(item))
            except serializers.ValidationError as err:
                raise serializers.ValidationError([f"item {place} {one}" for one in err.detail]) from None
        return found


class KeySerializer(Strict):
    """POST /api/keys."""

    name = Text(max_length=api_keys.LONGEST_NAME)
    scopes = ListOf(child=OneOf(Scope.values), min_length=1, max_length=len(Scope.values))
    addresses = ListOf(child=Network(max_length=50), max_length=50, required=False, allow_null=True)
    dailyCredits = WholeNumber(
        min_value=0, max_value=1_000_000_000, required=False, allow_null=True, source="daily_credits"
    )
    requestsPerMinute = WholeNumber(
        min_value=0, max_value=1_000_000_000, required=False, allow_null=True, source="requests_per_minute"
    )
    # Seconds; up to ten years.
    expiresIn = WholeNumber(min_value=60, max_value=315_360_000, required=False, allow_null=True, source="expires_in")


class RollSerializer(Strict):
    """POST /api/keys/{id}/roll."""

    overlap = WholeNumber(min_value=0, max_value=api_keys.LONGEST_OVERLAP_S, required=False, allow_null=True)


def fields_of(request: Request, serializer: type[Strict]) -> Any:
    """The checked fields of a body. Raises ValidationError, which the API answers as 400 `invalid_request`."""
    checked = serializer(data=request.data)
    checked.is_valid(raise_exception=True)
    return checked.validated_data
