"""manage.py grant_credits"""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.factories import make_user
from video.credits import ledger
from video.models import CreditEntry

pytestmark = pytest.mark.django_db


def grant(*args: str) -> str:
    out = StringIO()
    call_command("grant_credits", *args, stdout=out)
    return out.getvalue()


def test_opens_an_account_and_says_the_new_balance() -> None:
    user = make_user(0)
    assert (
        grant(user.username, "50", "--note", "for the trial")
        == f"{user.username} got 50 credits; the new balance is 50.\n"
    )
    entry = CreditEntry.objects.get(account_id=user.pk)
    assert (entry.kind, entry.amount, entry.note) == ("grant", 50, "for the trial")


def test_each_call_gives_again() -> None:
    user = make_user(0)
    grant(user.username, "50")
    assert json.loads(grant(user.username, "25", "--json")) == {"user": user.username, "granted": 25, "balance": 75}


def test_knows_a_superuser_made_without_a_password() -> None:
    call_command("createsuperuser", "--noinput", username="root-like", email="a@example.com", stdout=StringIO())
    grant("root-like", "10")
    assert ledger.balance(get_user_model().objects.get(username="root-like").pk) == 10


def test_unknown_user_is_an_error_with_its_name() -> None:
    with pytest.raises(CommandError, match="no user 'nobody-here'") as caught:
        grant("nobody-here", "10")
    assert caught.value.returncode == 2


@pytest.mark.parametrize("amount", ["0", "-5", "1.5", "ten", "9999999999999"])
def test_takes_positive_whole_numbers_only(amount: str) -> None:
    user = make_user(0)
    with pytest.raises(CommandError):
        grant(user.username, "--", amount)
    assert ledger.balance(user.pk) == 0


def test_a_note_that_does_not_fit_is_refused_before_anything_is_given() -> None:
    user = make_user(0)
    with pytest.raises(CommandError, match="at most 200"):
        grant(user.username, "5", "--note", "x" * 201)
    assert ledger.balance(user.pk) == 0
