"""Endpoints of users and what their messages are signed with: make, list, change, end, roll."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from providers.untrusted import storable
from video import ids
from video.infra import database
from video.infra.errors import Refusal
from video.models import WebhookDelivery, WebhookEndpoint, WebhookSecret
from video.webhooks import deliveries, signing

MOST_ENDPOINTS = 20  # of one user
LONGEST_DESCRIPTION = 200
LONGEST_OVERLAP_H = 7 * 24

Signed = WebhookEndpoint | WebhookSecret


class WebhookRefused(Refusal):
    """It is not possible now; nothing was changed. `code` is for programs, `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class NoSuchWebhook(WebhookRefused):
    """There is none, or it is another user's."""

    def __init__(self, what: str) -> None:
        super().__init__("not_found", f"There is no such {what}.")


def of_user(user_id: int) -> list[WebhookEndpoint]:
    """The user's endpoints but for deleted ones, oldest first."""
    rows = WebhookEndpoint.objects.filter(user_id=user_id).exclude(end_reason=WebhookEndpoint.EndReason.DELETED)
    return list(rows.order_by("created_at", "id"))


def find(endpoint_id: str, user_id: int) -> WebhookEndpoint:
    """One of them. Raises NoSuchWebhook."""
    rows = WebhookEndpoint.objects.filter(pk=endpoint_id, user_id=user_id)
    found = rows.exclude(end_reason=WebhookEndpoint.EndReason.DELETED).first()
    if found is None:
        raise NoSuchWebhook("endpoint")
    return found


def create(user_id: int, url: str, *, events: Sequence[str] = (), description: str = "") -> tuple[WebhookEndpoint, str]:
    """A new endpoint, and its secret. `url`: as `receivers.checked` gave it; `events`: none is all.

    Raises WebhookRefused `too_many_endpoints`; creates at the same moment may exceed the limit by as many as they are.
    """
    secret = signing.new_secret()
    endpoint = WebhookEndpoint(
        id=ids.webhook_endpoint_id(),
        user_id=user_id,
        url=url,
        events=sorted(set(events)),
        description=storable(description, LONGEST_DESCRIPTION),
        secret=signing.encrypted(secret),
    )
    if len(of_user(user_id)) >= MOST_ENDPOINTS:
        raise WebhookRefused(
            "too_many_endpoints", f"You have {MOST_ENDPOINTS} endpoints, which is the most: delete one first."
        )
    endpoint.save(force_insert=True)
    return find(endpoint.pk, user_id), secret


def change(endpoint_id: str, user_id: int, **fields: Any) -> WebhookEndpoint:
    """Change url, events, description or enabled. Switched off, it loses what waits for it. Raises NoSuchWebhook, and
    WebhookRefused `endpoint_ended` for one whose receiver answered 410.
    """
    if "events" in fields:
        fields["events"] = sorted(set(fields["events"]))
    if "description" in fields:
        fields["description"] = storable(fields["description"], LONGEST_DESCRIPTION)
    rows = WebhookEndpoint.objects.filter(pk=endpoint_id, user_id=user_id, ended_at=None)
    if fields and not rows.update(**fields):
        find(endpoint_id, user_id)
        raise WebhookRefused("endpoint_ended", "This endpoint has ended: its receiver answered 410. Make a new one.")
    if fields.get("enabled") is False:
        deliveries.drop_pending(endpoint_id)
    return find(endpoint_id, user_id)


def delete(endpoint_id: str, user_id: int) -> None:
    """End an endpoint: its URL and secrets go now, its row with the last of its deliveries. Raises NoSuchWebhook."""
    rows = WebhookEndpoint.objects.filter(pk=endpoint_id, user_id=user_id)
    ended = rows.exclude(end_reason=WebhookEndpoint.EndReason.DELETED).update(
        url="",
        description="",
        secret="",
        former_secret="",
        former_until=None,
        ended_at=Now(),
        end_reason=WebhookEndpoint.EndReason.DELETED,
    )
    if not ended:
        raise NoSuchWebhook("endpoint")
    deliveries.drop_pending(endpoint_id)


def secret_of_user(user_id: int) -> WebhookSecret:
    """What messages to the URLs of the user's single tasks are signed with; made when it is first asked for."""
    found = WebhookSecret.objects.filter(pk=user_id).first()
    if found is None:
        made = WebhookSecret(user_id=user_id, secret=signing.encrypted(signing.new_secret()))
        WebhookSecret.objects.bulk_create([made], ignore_conflicts=True)
        found = WebhookSecret.objects.get(pk=user_id)
    return found


def shown(signed: Signed) -> str:
    """The present secret, for its user. Raises WebhookRefused `secret_unreadable`."""
    try:
        return signing.decrypted(signed.secret)
    except signing.SecretUnreadable:
        raise WebhookRefused(
            "secret_unreadable", "This secret was stored under a SECRET_KEY that this server no longer has: roll it."
        ) from None


def roll(signed: Signed, *, overlap_h: int) -> tuple[Signed, str]:
    """A new secret; the one before signs as well for `overlap_h` more hours, so that a receiver can change in peace.

    Raises NoSuchWebhook, and WebhookRefused `secret_rolled_lately` while an earlier one still signs, unless `overlap_h`
    is 0, which ends all earlier ones at once.
    """
    secret = signing.new_secret()
    model: Any = type(signed)
    with transaction.atomic():
        rows: QuerySet[Any] = model.objects.filter(pk=signed.pk).exclude(secret="")  # it was deleted
        free = Q(former_until=None) | Q(former_until__lte=Now())
        rolled = (rows if overlap_h == 0 else rows.filter(free)).update(
            former_secret="" if overlap_h == 0 else F("secret"),
            former_until=None if overlap_h == 0 else _hours_from_now(overlap_h),
            secret=signing.encrypted(secret),
        )
        found: Signed | None = rows.first()
    if found is None:
        raise NoSuchWebhook("endpoint")
    if not rolled:
        raise WebhookRefused(
            "secret_rolled_lately",
            "The secret before this one still signs: roll again when its time is over, or with overlapHours 0, which "
            "ends both at once.",
        )
    return found, secret


def _hours_from_now(hours: int) -> datetime:
    moment: datetime = database.value("SELECT statement_timestamp() + %s * interval '1 hour'", [hours])
    return moment


def find_delivery(delivery_id: str, user_id: int) -> WebhookDelivery:
    """One of the user's deliveries. Raises NoSuchWebhook."""
    found = WebhookDelivery.objects.filter(pk=delivery_id, user_id=user_id).select_related("endpoint").first()
    if found is None:
        raise NoSuchWebhook("delivery")
    return found


def resend(delivery_id: str, user_id: int | None = None) -> None:
    """Send a delivery again, now; of this user only, if one is given. For a receiver it is the same message.

    Raises NoSuchWebhook, and WebhookRefused `endpoint_off` if its endpoint is off or has ended.
    """
    if deliveries.send_again(delivery_id, user_id):
        return
    rows = WebhookDelivery.objects.filter(pk=delivery_id)
    if not (rows if user_id is None else rows.filter(user_id=user_id)).exists():
        raise NoSuchWebhook("delivery")
    raise WebhookRefused("endpoint_off", "Its endpoint is off or has ended, so nothing can be sent to it.")
