"""manage.py costs: a report as table, JSON and CSV; the roll-up made anew and checked."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.factories import make_task
from video.costs import roll_up
from video.models import CostRollup, CostTouch

pytestmark = pytest.mark.django_db


def costs(*arguments: str) -> str:
    out = io.StringIO()
    call_command("costs", *arguments, stdout=out)
    return out.getvalue()


def test_a_report_in_three_forms(user: Any) -> None:
    make_task(user)
    found = json.loads(costs("--by", "user,outcome", "--json"))
    assert (found["total"]["debited"], found["by"]) == (10, ["user", "outcome"])
    row = next(one for one in found["rows"] if one["outcome"] == "under_way")
    assert (row["user"], row["earned"]) == (user.get_username(), 10)
    assert "user,outcome,attempts" in costs("--by", "user,outcome", "--csv")
    table = costs("--by", "outcome", "--since", "7d")
    assert "under_way" in table
    assert "total" in table


@pytest.mark.parametrize("arguments", [("--by", "colour"), ("--since", "x"), ("--user", "nobody"), ("--csv", "--json")])
def test_wrong_usage_is_named(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as refused:
        costs(*arguments)
    assert refused.value.returncode == 2


def test_a_roll_up_that_is_wrong_is_found_and_made_anew(user: Any) -> None:
    make_task(user)
    roll_up._roll_up(CostTouch.objects.values_list("day", flat=True)[0], wait=True)
    assert "what the rows come to" in costs("--check")
    CostRollup.objects.filter(debited__gt=0).update(debited=11)
    with pytest.raises(SystemExit) as ended:
        costs("--check", "--json")
    assert ended.value.code == 1
    assert costs("--rebuild") == "0 days rolled up.\n"  # today is read from its rows
    assert json.loads(costs("--check", "--json")) == {"whole": True, "differences": []}
