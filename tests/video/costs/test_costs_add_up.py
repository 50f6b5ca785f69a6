"""Costs against a sum in plain Python: rows of any history, over any grouping, whatever was rolled up when."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import hypothesis
import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import Phase
from hypothesis import strategies as st

from providers.api_keys import parse_keys
from tests.factories import make_user
from video.attempts import configured_keys
from video.costs import report, roll_up
from video.costs.facts import FAILURES
from video.costs.report import DIMENSIONS, Query
from video.models import Account, CostDay, CreditEntry, Generation, ProviderAccount, TaskEvent, VideoTask

pytestmark = pytest.mark.django_db

NOW = timezone.now()
DAYS = 4
RATES = {"runway": Decimal("0.01"), "kling": Decimal("0.14"), "pika": Decimal(1)}
UNITS = {"runway": "credits", "kling": "units", "pika": "USD"}
ENDS = ("rejected", "succeeded", "failed", "cancelled", "lost")
MONEY = st.decimals(0, 90, places=4)
MODELS = {"runway": "gen4.5", "kling": "kling-3.0", "pika": "pika-2.2"}


def at(days_ago: int) -> datetime:
    """Noon of that day; now, of today."""
    return NOW if not days_ago else datetime.combine(NOW.date() - timedelta(days_ago), datetime.min.time(), UTC)


@st.composite
def attempts(draw: st.DrawFn) -> dict[str, Any]:
    provider = draw(st.sampled_from(sorted(MODELS)))
    return {
        "provider": provider,
        "model": MODELS[provider],
        "cost_unit": UNITS[provider],
        "key_fingerprint": draw(st.sampled_from(["one", "two"])),
        "state": draw(st.sampled_from((*ENDS, "accepted"))),
        "simulated": draw(st.booleans()),
        "expected_usd": draw(st.none() | MONEY),
        "reported_cost": draw(st.none() | MONEY),
        "took_nothing": draw(st.none() | st.booleans()),
        "days_ago": draw(st.integers(0, DAYS)),
    }


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "attempts": draw(st.lists(attempts(), max_size=2)),
        "paid": draw(st.none() | st.integers(1, 40)),
        "days_ago": draw(st.integers(0, DAYS)),
        "refunded": draw(st.none() | st.integers(0, DAYS)),
        "free": draw(st.booleans()),
        "end": draw(st.sampled_from(["failed", "cancelled"])),
    }


TASKS = st.fixed_dictionaries(
    {
        "user": st.integers(0, 1),
        "status": st.sampled_from(["success", "failed", "cancelled", "running"]),
        "runs": st.lists(runs(), min_size=1, max_size=2),
    }
)


class History:
    """Rows, and what they come to."""

    def __init__(self) -> None:
        configured_keys.sync()
        self.users = [make_user(credit=0).pk for _ in range(2)]
        Account.objects.bulk_create(Account(user_id=pk, balance=10**6) for pk in self.users)
        self.account = ProviderAccount.objects.all()[0]
        self.number = 0

    def add(self, task: dict[str, Any]) -> None:
        self.number += 1
        self._put(f"task_{self.number:026d}", task)

    def _put(self, pk: str, made: dict[str, Any]) -> None:
        status, user = made["status"], self.users[made["user"]]
        failed, done, over = status == "failed", status == "success", status != "running"
        VideoTask.objects.create(
            id=pk,
            user_id=user,
            run=len(made["runs"]),
            prompt="A cat",
            duration_s=5,
            aspect_ratio="16:9",
            status=status,
            stage="done" if done else "poll",
            progress=100 if done else 5,
            video_id=pk if done else None,
            error_code="timeout" if failed else "",
            error_message="It took too long." if failed else "",
            finished_at=NOW if over else None,
            next_run_at=None if over else NOW,
        )
        number, most = 0, sum(len(each["attempts"]) for each in made["runs"])
        for run, each in enumerate(made["runs"], 1):
            self._pay(pk, user, run, each)
            if run < len(made["runs"]):
                TaskEvent.objects.create(task_id=pk, run=run, stage="poll", outcome=each["end"])
            for one in each["attempts"]:
                number += 1
                is_live = one["state"] == "accepted" and number == most
                self._attempt(pk, user, run, number, one, is_live=is_live)

    def _pay(self, pk: str, user: int, run: int, each: dict[str, Any]) -> None:
        if each["paid"] is None:
            return
        entries = [("debit", -each["paid"], each["days_ago"])]
        if each["free"]:
            entries.append(("grant", each["paid"], each["days_ago"]))
        if each["refunded"] is not None:
            entries.append(("refund", each["paid"], each["refunded"]))
        for kind, amount, days_ago in entries:
            CreditEntry.objects.create(
                account_id=user, kind=kind, amount=amount, task_id=pk, run=run, created_at=at(days_ago)
            )

    def _attempt(self, pk: str, user: int, run: int, number: int, one: dict[str, Any], *, is_live: bool) -> None:
        state = "lost" if one["state"] == "accepted" and not is_live else one["state"]
        fields = {name: value for name, value in one.items() if name not in ("days_ago", "state")}
        Generation.objects.create(
            task_id=pk,
            user_id=user,
            run=run,
            attempt=number,
            account=self.account,
            state=state,
            job_id="" if state == "rejected" else f"{pk}-{number}",
            sent_at=NOW,
            ended_at=None if is_live else at(one["days_ago"]),
            **fields,
        )


def outcome_of(run: int, task: VideoTask, last: Generation | None) -> str:
    """Of a run."""
    word = str(task.status)
    if run != task.run:
        word = TaskEvent.objects.filter(task_id=task.pk, run=run).order_by("-pk").values_list("outcome", flat=True)[0]
    if word == "failed" and last is not None and last.state == "lost":
        return "lost"
    return {"success": "delivered", "running": "under_way"}.get(word, word)


def facts() -> list[dict[str, Any]]:
    """Every attempt and entry with its group and its amounts, told without SQL."""
    tasks = {task.pk: task for task in VideoTask.objects.all()}
    of_task: dict[str, list[Generation]] = defaultdict(list)
    for one in Generation.objects.order_by("attempt"):
        of_task[one.task_id].append(one)
    found = []
    for task_id, several in of_task.items():
        for one in several:
            if one.ended_at is None:
                continue
            outcome = {"lost": "lost", "cancelled": "cancelled"}.get(one.state, "failed")
            if one.state == "succeeded" and one is several[-1]:
                word = str(tasks[task_id].status)
                outcome = {"success": "delivered", "running": "under_way"}.get(word, word)
            rate, expected = RATES[one.provider], one.expected_usd or Decimal(0)
            free = one.state == "failed" if one.took_nothing is None else one.took_nothing
            may_charge = one.reported_cost is None and one.state != "rejected" and not free
            charge = one.reported_cost * rate if one.reported_cost is not None else expected * may_charge
            found.append(
                group_of(one, one.ended_at.date(), one.user_id, outcome)
                | {"attempts": 1, "charge": charge, "failures": charge if outcome in FAILURES else 0}
                | {"videos": int(outcome == "delivered")}
                | {"unpriced": int(may_charge and one.expected_usd is None)}
            )
    for entry in CreditEntry.objects.all():
        task = tasks.get(entry.task_id or "")
        last = next((one for one in reversed(of_task[entry.task_id or ""]) if one.run == entry.run), None)
        outcome = "none" if task is None else outcome_of(entry.run or 0, task, last)
        amounts = {"debit": "debited", "refund": "refunded", "grant": "free" if task else "granted"}
        name = amounts.get(entry.kind, "adjusted")
        found.append(group_of(last, entry.created_at.date(), entry.account_id, outcome) | {name: abs(entry.amount)})
    return found


def group_of(one: Generation | None, day: date, user: int, outcome: str) -> dict[str, Any]:
    return {
        "day": day,
        "provider": one.provider if one else "",
        "model": one.model if one else "",
        "key": one.key_fingerprint if one else "",
        "user": user,
        "outcome": outcome,
        "simulated": one.simulated if one else False,
    }


AMOUNTS = ("attempts", "videos", "charge", "failures", "unpriced", "debited", "refunded", "free", "granted", "adjusted")


def summed(query: Query) -> dict[tuple[Any, ...], dict[str, Any]]:
    sums: dict[tuple[Any, ...], dict[str, Any]] = defaultdict(lambda: dict.fromkeys(AMOUNTS, 0))
    for fact in facts():
        wanted = {word: getattr(query, word) for word in ("provider", "user", "outcome", "simulated")}
        if all(value is None or fact[word] == value for word, value in wanted.items()):
            into = sums[tuple(fact[word] for word in query.by)]
            for name in AMOUNTS:
                into[name] += fact.get(name, 0)
    return dict(sums)


def told(sums: report.Sums) -> dict[str, Any]:
    renamed = {"charge": "charge_usd", "failures": "failures_usd"}
    return {name: getattr(sums, renamed.get(name, name)) for name in AMOUNTS}


def check(query: Query) -> None:
    found, expected = report.read(query), summed(query)
    if query.by:
        assert {row.values: told(row.sums) for row in found.rows} == expected
    total = {name: sum(one[name] for one in expected.values()) for name in AMOUNTS}
    assert told(found.total) == total


QUERIES = st.builds(
    Query,
    since=st.just(NOW.date() - timedelta(DAYS + 1)),
    until=st.just(NOW.date()),
    by=st.lists(st.sampled_from(sorted(DIMENSIONS)), unique=True, max_size=4).map(tuple),
    provider=st.none() | st.sampled_from(["runway", "kling"]),
    outcome=st.none() | st.sampled_from(["delivered", "failed", "lost"]),
    simulated=st.none() | st.booleans(),
)


@hypothesis.settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(
    before=st.lists(TASKS, max_size=4),
    after=st.lists(TASKS, max_size=3),
    queries=st.lists(QUERIES, min_size=3, max_size=3),
    late=st.lists(st.tuples(st.integers(0, 30), st.none() | MONEY), max_size=3),
)
def test_every_report_is_what_the_rows_come_to(
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
    queries: list[Query],
    late: list[tuple[int, Decimal | None]],
) -> None:
    """Rolled up in between, with rows and changes that come late on days that were rolled up."""
    with transaction.atomic():
        history = History()
        for task in before:
            history.add(task)
        CreditEntry.objects.create(account_id=history.users[0], kind="grant", amount=7, created_at=at(2))
        CreditEntry.objects.create(account_id=history.users[1], kind="adjust", amount=3, created_at=at(1))
        roll_up.keep()
        kept = CostDay.objects.count()
        assert kept, "nothing was rolled up"
        for task in after:
            history.add(task)
        ended = list(Generation.objects.filter(ended_at__isnull=False).order_by("pk"))
        for place, cost in late[: len(ended)]:  # the truth of a lost job, or a bill that is told later
            one = ended[place % len(ended)]
            if one.job_id:
                Generation.objects.filter(pk=one.pk).update(state="succeeded", ended_at=NOW, reported_cost=cost)
        assert roll_up.differences() == []
        for query in [*queries, *(Query(q.since, q.until, q.by, user=history.users[0]) for q in queries[:1])]:
            check(query)
        roll_up.keep()
        assert roll_up.differences() == []
        everything = Query(NOW.date() - timedelta(DAYS), NOW.date(), tuple(DIMENSIONS))
        check(everything)
        incremental = report.read(everything)
        roll_up.rebuild()
        assert report.read(everything) == incremental
        transaction.set_rollback(True)


@pytest.mark.django_db
def test_a_key_may_be_given_by_its_name_and_no_word_by_a_nul(settings: Any) -> None:
    settings.PROVIDER_KEYS = {"runway": parse_keys("studio:key_" + "a" * 40, variable="RUNWAY_API_KEY")}
    (key,) = settings.PROVIDER_KEYS["runway"]
    assert report.asked({"key": "studio"}).key == report.asked({"key": key.fingerprint}).key == key.fingerprint
    with pytest.raises(report.BadQuery, match="NUL"):
        report.asked({"provider": "a\0b"})
