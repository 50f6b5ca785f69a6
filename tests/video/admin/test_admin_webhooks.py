"""The admin's pages of webhooks: what operators see and do, and what they don't see."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.factories import make_user
from tests.video.webhooks.hooks import endpoint_of, only, started
from video.models import WebhookDelivery
from video.webhooks import deliveries

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(make_user(is_staff=True, is_superuser=True), backend="django.contrib.auth.backends.ModelBackend")
    return client


def test_deliveries_are_shown_with_their_tries_and_without_urls(staff: Client, user: AbstractBaseUser) -> None:
    endpoint, secret = endpoint_of(user, "https://hooks.example.com/x?token=abc")
    started(user, webhook_url="https://tasks.example.com/y?token=def")
    for delivery in WebhookDelivery.objects.all():
        claimed = deliveries.claim(delivery.pk)
        assert claimed is not None
        deliveries.record(claimed, deliveries.Outcome.REFUSED, http_status=503, detail="")
        page = staff.get(f"/admin/video/webhookdelivery/{delivery.pk}/change/").content.decode()
        assert "refused 503" in page
        assert "token=" not in page
    listed = staff.get("/admin/video/webhookdelivery/").content.decode()
    assert "hooks.example.com" in listed
    assert "tasks.example.com" in listed
    page = staff.get(f"/admin/video/webhookendpoint/{endpoint.pk}/change/").content.decode()
    for text in (listed, page, staff.get("/admin/video/webhookendpoint/").content.decode()):
        assert "token=" not in text
        assert secret not in text
        assert endpoint.secret not in text


def test_the_list_costs_the_same_however_long_it_is(staff: Client, user: AbstractBaseUser) -> None:
    def statements() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert staff.get("/admin/video/webhookdelivery/").status_code == 200
        return len(captured)

    endpoint_of(user)
    started(user)
    few = statements()
    for _ in range(5):
        started(make_user(), webhook_url="https://example.com/")
    assert statements() == few


def test_an_operator_sends_again_and_switches_off(staff: Client, user: AbstractBaseUser) -> None:
    endpoint, _ = endpoint_of(user)
    started(user)
    claimed = deliveries.claim(only().pk)
    assert claimed is not None
    deliveries.record(claimed, deliveries.Outcome.DELIVERED, http_status=200)
    chosen = {"action": "resend", "_selected_action": [only().pk]}
    page = staff.post("/admin/video/webhookdelivery/", chosen, follow=True).content.decode()
    assert "Deliveries to be sent again: 1." in page
    assert only().state == "pending"
    chosen = {"action": "switch_off", "_selected_action": [endpoint.pk]}
    assert (
        "1 endpoint switched off." in staff.post("/admin/video/webhookendpoint/", chosen, follow=True).content.decode()
    )
    endpoint.refresh_from_db()
    assert (endpoint.enabled, only().state) == (False, "dropped")
    chosen = {"action": "resend", "_selected_action": [only().pk]}
    page = staff.post("/admin/video/webhookdelivery/", chosen, follow=True).content.decode()
    assert "is off or has ended" in page
