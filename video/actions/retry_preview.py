"""What a retry of many tasks would do and cost, before anybody says yes. Changes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from video.actions import retry, task_rows
from video.actions.task_filters import Rows
from video.actions.task_rows import ActionRefused
from video.attempts import retry_outlook
from video.credits.ledger import InsufficientCredits
from video.models import Account, Generation, Stage, VideoTask

MOST_LOOKED_AT = 200  # tasks
MOST_COUNTED = 10_000


@dataclass(frozen=True)
class Expected:
    """What would become of one task."""

    task_id: str
    cause: str  # the error code with which it failed, or cancelled
    words: str  # where it goes on, or why it is refused
    ok: bool
    credits: int = 0
    usd: Decimal | None = Decimal(0)  # what a new attempt is expected to cost; None: its price is not known
    warning: str = ""


@dataclass(frozen=True)
class Preview:
    """The tasks that were looked at, and what they come to."""

    tasks: list[Expected]
    number: int  # that match; of more than 10,000 this says 10,001

    @property
    def possible(self) -> list[Expected]:
        return [one for one in self.tasks if one.ok]

    @property
    def credits(self) -> int:
        return sum(one.credits for one in self.possible)

    @property
    def usd(self) -> Decimal:
        return sum((one.usd for one in self.possible if one.usd is not None), Decimal(0))

    @property
    def unpriced(self) -> int:
        """Tasks with a new attempt whose price is not known."""
        return sum(one.usd is None for one in self.possible)

    @property
    def is_part(self) -> bool:
        """More match than were looked at: the sums are of those alone."""
        return self.number > len(self.tasks)

    @property
    def counted(self) -> str:
        """How many match, in words."""
        return f"more than {MOST_COUNTED:,}" if self.number > MOST_COUNTED else f"{self.number:,}"

    @property
    def causes(self) -> list[tuple[str, int, str]]:
        """(error code, how many, why a retry is known to fail again), the most frequent first."""
        return [
            (code, number, retry_outlook.warning_of(code))
            for code, number in Counter(one.cause for one in self.tasks).most_common()
        ]

    @property
    def doomed(self) -> int:
        """Tasks of which a retry is known to fail again."""
        return sum(bool(one.warning) for one in self.possible)


def preview(rows: Rows, *, free: bool = False, regenerate: bool = False) -> Preview:
    """Looks at the first 200 in the order of a job. A few statements for all, and two or three for each of these.

    The users' balances are counted down in that order, so of what one user can't pay for, the last tasks are refused.
    """
    number = rows.order_by().values("pk")[: MOST_COUNTED + 1].count()
    tasks = list(rows.select_related("user").order_by("pk")[:MOST_LOOKED_AT])
    last = task_rows.last_attempts([task.pk for task in tasks])
    accounts = Account.objects.filter(pk__in={task.user_id for task in tasks})
    left = dict(accounts.values_list("pk", "balance"))
    found = []
    for task in tasks:
        one = _expect(task, last.get(task.pk), None if free else left.get(task.user_id, 0), regenerate=regenerate)
        if one.ok and not free:
            left[task.user_id] = left.get(task.user_id, 0) - one.credits
        found.append(one)
    return Preview(found, number)


def _expect(task: VideoTask, last: Generation | None, balance: int | None, *, regenerate: bool) -> Expected:
    cause = task.error_code or task.status
    try:
        plan = retry.plan_retry(task, last, regenerate=regenerate)
    except ActionRefused as err:
        return Expected(task.pk, cause, err.message.rstrip("."), ok=False)
    if balance is not None and balance < plan.debit:
        short = InsufficientCredits(needed=plan.debit, balance=balance)
        return Expected(task.pk, cause, f"its user is short of credits: {short}".rstrip("."), ok=False)
    words = retry.Retried(task.pk, plan.run, plan.stage, plan.debit, plan.debit if balance is None else 0).words
    usd: Decimal | None = Decimal(0)
    if plan.stage is Stage.GENERATE:
        usd = None if last is None else last.expected_usd
    doomed = not (regenerate and task.error_code == "source_gone")
    warning = retry_outlook.warning_of(task.error_code) if doomed else ""
    return Expected(task.pk, cause, words, ok=True, credits=plan.debit, usd=usd, warning=warning)
