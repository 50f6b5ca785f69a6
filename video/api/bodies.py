"""The bodies of requests, but for the order's (`actions/order_input.py`)."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request

from video.actions.order_input import Flag, Strict, Text


class LoginSerializer(Strict):
    """POST /api/auth/login."""

    username = Text(max_length=150)
    password = Text(max_length=1024)


class RefreshSerializer(Strict):
    """POST /api/auth/refresh: the body is for clients that keep no cookies."""

    refreshToken = Text(required=False, allow_null=True, source="refresh_token")


class LogoutSerializer(RefreshSerializer):
    """POST /api/auth/logout."""

    everywhere = Flag(required=False, allow_null=True)


class PasswordSerializer(Strict):
    """POST /api/auth/password."""

    currentPassword = Text(max_length=1024, source="current_password")
    newPassword = Text(max_length=1024, source="new_password")


class CancelSerializer(Strict):
    """POST /api/video/cancel."""

    taskId = Text(max_length=40, source="task_id")


class RetrySerializer(CancelSerializer):
    """POST /api/video/retry."""

    regenerate = Flag(required=False, allow_null=True)
    free = Flag(required=False, allow_null=True)


def fields_of(request: Request, serializer: type[Strict]) -> Any:
    """The checked fields of a body. Raises ValidationError, which the API answers as 400 `invalid_request`."""
    checked = serializer(data=request.data)
    checked.is_valid(raise_exception=True)
    return checked.validated_data
