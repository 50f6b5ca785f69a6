"""manage.py webhooks: lists, tries, and sending again."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.core.management import CommandError, call_command

from tests.factories import make_user
from tests.video.webhooks.hooks import endpoint_of, pass_time, started
from video.models import WebhookDelivery
from video.webhooks import deliveries, schedule

pytestmark = pytest.mark.django_db


def run(*args: str) -> str:
    out = StringIO()
    call_command("webhooks", *args, stdout=out)
    return out.getvalue()


def as_json(*args: str) -> Any:
    return json.loads(run("--json", *args))


def failed(user: AbstractBaseUser) -> WebhookDelivery:
    endpoint_of(user, "https://hooks.example.com/x?token=abc")
    started(user)
    delivery = WebhookDelivery.objects.get(user=user)
    claimed = deliveries.claim(delivery.pk)
    assert claimed is not None
    deliveries.record(claimed, deliveries.Outcome.REFUSED, http_status=500)
    WebhookDelivery.objects.filter(pk=delivery.pk).update(
        state="failed", due_at=None, settled_at=delivery.created_at, step=schedule.MOST_TRIES
    )
    return delivery


def test_deliveries_are_counted_and_listed_without_their_urls(user: AbstractBaseUser) -> None:
    delivery = failed(user)
    started(make_user(), webhook_url="https://tasks.example.com/?token=def")
    pass_time(600)
    said = run()
    assert "1 pending, 0 delivered, 1 failed, 0 dropped, 1 overdue" in said
    assert delivery.pk in said
    assert "tasks.example.com" in said
    assert "token" not in said
    found = as_json("--user", user.get_username())
    assert [one["id"] for one in found["deliveries"]] == [delivery.pk]
    assert as_json("--state", "delivered")["deliveries"] == []


def test_the_tries_of_one_are_listed(user: AbstractBaseUser) -> None:
    delivery = failed(user)
    assert "refused" in run("tries", delivery.pk)
    (tried,) = as_json("tries", delivery.pk)["tries"]
    assert (tried["number"], tried["outcome"], tried["httpStatus"]) == (1, "refused", 500)


def test_failed_ones_are_sent_again_by_filter_or_by_id(user: AbstractBaseUser) -> None:
    delivery = failed(user)
    other = failed(make_user())
    assert run("resend", "--user", user.get_username()) == "To be sent again now: 1.\n"
    states = dict(WebhookDelivery.objects.values_list("id", "state"))
    assert states == {delivery.pk: "pending", other.pk: "failed"}
    assert as_json("resend", other.pk) == {"sent": 1, "refused": {}}


def test_what_is_refused_is_told_and_ends_with_1(user: AbstractBaseUser) -> None:
    failed(user)
    with pytest.raises(SystemExit) as ended:
        run("resend", "whd_nobody")
    assert ended.value.code == 1
    with pytest.raises(CommandError, match="no user"):
        run("--user", "nobody")
