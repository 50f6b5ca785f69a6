"""The bodies of requests, but for the order's (`actions/order_input.py`)."""

from __future__ import annotations

import re
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from video.actions import pause
from video.actions.create_many import MOST as MOST_ORDERS
from video.actions.order_input import MOST_SPENT, Flag, OneOf, Strict, Text, WebhookAddress, WholeNumber
from video.models import Scope
from video.web.logins import api_keys
from video.webhooks import endpoints
from video.webhooks.message import EVENTS

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

    username = Text(max_length=150, help_text="The name to log in with.")
    password = Text(max_length=1024, help_text="The password to log in with.")
    email = Text(max_length=254, required=False, allow_null=True, help_text="Where a link for a new password goes.")


class ResetSerializer(Strict):
    """POST /api/auth/password-reset."""

    email = Text(max_length=254, help_text="The account's address.")


class ResetConfirmSerializer(Strict):
    """POST /api/auth/password-reset/confirm."""

    token = Text(max_length=200, help_text="That of the link.")
    newPassword = Text(max_length=1024, source="new_password", help_text="The password from now on.")


class PauseSerializer(Strict):
    """POST /api/pauses: one of the first five, `account` with its `provider`."""

    everything = Flag(required=False, allow_null=True, help_text="Whether to pause everything.")
    provider = Text(max_length=20, required=False, allow_null=True, help_text="A provider, or that of `account`.")
    model = Text(max_length=80, required=False, allow_null=True, help_text="A model's id.")
    account = Text(max_length=80, required=False, allow_null=True, help_text="An account, for all its models.")
    user = Text(max_length=150, required=False, allow_null=True, help_text="A user's name.")
    reason = Text(max_length=200, required=False, allow_null=True, help_text="Why; users whose videos wait read it.")
    endsIn = WholeNumber(
        min_value=2,
        max_value=pause.LONGEST_S,
        required=False,
        allow_null=True,
        source="ends_in",
        help_text="Seconds after which it ends by itself; left out: it stays until it is resumed.",
    )


class ResumeSerializer(Strict):
    """DELETE /api/pauses/{id}: the body may be left out."""

    reason = Text(max_length=200, required=False, allow_null=True, help_text="Why, for the audit.")


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

    orders = Several(
        "orders", MOST_ORDERS, help_text="What to make; each as a create takes it, but for data: pictures."
    )
    mode = OneOf(
        ("all", "each"),
        default="all",
        required=False,
        allow_null=True,
        help_text="`all`: all or none; `each`: those that can be made.",
    )


class CancelSerializer(Strict):
    """POST /api/video/cancel: of one task, or of several."""

    taskId = Text(
        required=False,
        allow_null=True,
        max_length=40,
        source="task_id",
        help_text="The task's id; this or `taskIds`.",
    )
    taskIds = Several(
        IDS,
        MOST_TASKS,
        required=False,
        allow_null=True,
        source="task_ids",
        help_text="Ids of several tasks, each once; this or `taskId`.",
    )

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
    maxCredits = WholeNumber(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=MOST_SPENT,
        source="most_credits",
        help_text="What the client is ready to pay for it, for each of several. A higher price is refused.",
    )


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

    name = Text(max_length=api_keys.LONGEST_NAME, help_text="What you call it.")
    scopes = ListOf(child=OneOf(Scope.values), min_length=1, max_length=len(Scope.values), help_text="What it may do.")
    addresses = ListOf(
        child=Network(max_length=50),
        max_length=50,
        required=False,
        allow_null=True,
        help_text="IP addresses and networks it may come from; none: from anywhere.",
    )
    dailyCredits = WholeNumber(
        min_value=0,
        max_value=1_000_000_000,
        required=False,
        allow_null=True,
        source="daily_credits",
        help_text="Credits that it may debit on one day in UTC.",
    )
    requestsPerMinute = WholeNumber(
        min_value=0,
        max_value=1_000_000_000,
        required=False,
        allow_null=True,
        source="requests_per_minute",
        help_text="Its limit; 0: none. Left out: that of the server.",
    )
    expiresIn = WholeNumber(
        min_value=60,
        max_value=315_360_000,
        required=False,
        allow_null=True,
        source="expires_in",
        help_text="Seconds until it ends, ten years at most; left out: it does not end.",
    )


class RollSerializer(Strict):
    """POST /api/keys/{id}/roll."""

    overlap = WholeNumber(
        min_value=0,
        max_value=api_keys.LONGEST_OVERLAP_S,
        required=False,
        allow_null=True,
        help_text="Seconds for which the old text stays good; left out: a day.",
    )


class EventList(serializers.Field):  # type: ignore[type-arg]  # it has no representation
    """Some of the events; none of them means all."""

    default_error_messages = {
        "required": "is missing",
        "null": "must be a list, not null",
        "invalid": f"must be a list of events, of {', '.join(EVENTS)}; an empty one means all",
    }

    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, list) or not all(isinstance(one, str) and one in EVENTS for one in data):
            raise ValidationError(self.error_messages["invalid"])
        return data


class EndpointSerializer(Strict):
    """POST /api/webhooks."""

    url = WebhookAddress(help_text="A public https link that events are posted to.")
    events = EventList(required=False, allow_null=True, help_text="Which ones it wants; none: all.")
    description = Text(
        required=False, allow_null=True, max_length=endpoints.LONGEST_DESCRIPTION, help_text="What you call it."
    )


class EndpointChangeSerializer(EndpointSerializer):
    """PATCH /api/webhooks/{id}."""

    url = WebhookAddress(required=False, allow_null=True, help_text="A public https link that events are posted to.")
    enabled = Flag(required=False, allow_null=True, help_text="Off: nothing is sent to it.")


class SecretRollSerializer(Strict):
    """POST /api/webhooks/secret, and of an endpoint."""

    overlapHours = WholeNumber(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=endpoints.LONGEST_OVERLAP_H,
        source="overlap_h",
        help_text="Hours for which the former secret signs as well; left out: a day.",
    )


class NothingSerializer(Strict):
    """A body in which nothing is said."""


def fields_of(request: Request, serializer: type[Strict]) -> Any:
    """The checked fields of a body. Raises ValidationError, which the API answers as 400 `invalid_request`."""
    checked = serializer(data=request.data)
    checked.is_valid(raise_exception=True)
    return checked.validated_data
