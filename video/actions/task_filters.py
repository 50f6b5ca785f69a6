"""Which tasks a list shows and a job is about: one set of conditions, by the names that the admin's addresses have.

An address with its filters is a saved search: the list, the preview of "all that match" and the job read it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import BooleanField, DateTimeField, Exists, OuterRef, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.utils import timezone

from media_pipeline.warnings import KINDS
from providers import catalogue
from video.attempts import slow
from video.engine.position import SQL, State
from video.infra import database
from video.infra.errors import Refusal
from video.models import Generation, Stage, Status, VideoTask

Rows = QuerySet[VideoTask]


class InvalidSelection(Refusal, ValueError):
    """The task or user that was named does not exist, or a filter means nothing; the text is for the operator."""


#: What a task does now: value in the address, title, states. Each active task is in exactly one row; one whose render
#: is slow is in that row as well.
STANDS: dict[str, tuple[str, tuple[State, ...]]] = {
    "waiting": ("waits for a slot", (State.WAITS_FOR_SLOT,)),
    "off": ("its user is switched off", (State.USER_OFF,)),
    "later": ("waits for a slot later", (State.NOT_BEFORE,)),
    "core": ("waits for a core", (State.WAITS_FOR_CORE,)),
    "due": ("due, nobody has it", (State.WAITS_FOR_WORKER, State.WORKER_SILENT)),
    "held": ("in work", (State.IN_WORK,)),
    "parked": ("parked", (State.PARKED,)),
    "slow": ("its render is slow", ()),
}
#: Lengths of time that may be chosen, in seconds.
SPANS: dict[str, float] = {
    "1m": 60, "10m": 600, "1h": 3600, "6h": 6 * 3600, "24h": 86400, "7d": 7 * 86400, "30d": 30 * 86400
}  # fmt: skip

SPAN_WORDS: dict[str, str] = {
    "1m": "1 minute",
    "10m": "10 minutes",
    "1h": "1 hour",
    "6h": "6 hours",
    "24h": "24 hours",
    "7d": "7 days",
    "30d": "30 days",
}

#: When a task came into its stage: its last event that is no wait within it.
_ENTERED = RawSQL(
    "(SELECT max(e.finished_at) FROM video_taskevent e WHERE e.task_id = video_videotask.id "
    "AND e.outcome IN ('created', 'admitted', 'advanced', 'waiting', 'resumed'))",
    (),
    output_field=DateTimeField(),
)


def _stands(rows: Rows, value: str) -> Rows:
    condition = " OR ".join(f"({SQL[state]})" for state in STANDS[_one_of(STANDS, value)][1]) or slow.IS_SLOW
    return rows.filter(RawSQL(condition, (), output_field=BooleanField()))  # noqa: S611 - constants


def _warning(rows: Rows, value: str) -> Rows:
    # The first condition is the one that the index `task_with_warnings` serves.
    return rows.filter(~Q(warnings=[]), warnings__contains=[{"code": _one_of(KINDS, value)}])


def _last_attempt(rows: Rows, **columns: str) -> Rows:
    later = Generation.objects.filter(task_id=OuterRef("task_id"), attempt__gt=OuterRef("attempt"))
    return rows.filter(Exists(Generation.objects.filter(~Exists(later), task_id=OuterRef("pk"), **columns)))


def _model(rows: Rows, value: str) -> Rows:
    known = catalogue.BY_ID.get(value)  # its provider, too: then an index finds the few attempts of a rare model
    return _last_attempt(rows, model=value, **({"provider": known.provider} if known else {}))


def _user(rows: Rows, value: str) -> Rows:
    user = get_user_model().objects.filter(username=value).first()
    if user is None:
        raise InvalidSelection(f"There is no user {value}.")
    return rows.filter(user=user)


def _in_stage_since(rows: Rows, moment: datetime) -> Rows:
    return rows.filter(finished_at__isnull=True).annotate(entered_at=_ENTERED).filter(entered_at__lte=moment)


def search(rows: Rows, term: str) -> Rows:
    """A whole id uses its index; any other term searches the prompts, which reads the table."""
    term = term.strip()
    if term.startswith("task_"):
        return rows.filter(Q(pk__startswith=term) | Q(render_of=term))
    if term.startswith("vid_"):
        return rows.filter(video_id=term)
    if term.startswith("gen_"):
        return rows.filter(pk__in=Generation.objects.filter(pk=term).values("task_id"))
    if not term:
        return rows
    found = Q(user__username__istartswith=term) | Q(prompt__icontains=term)
    tail = term.removeprefix("…")
    if len(tail) >= 6 and tail.replace("-", "").isalnum():
        found |= Q(pk__endswith=tail.lower()) | Q(pk__in=Generation.objects.filter(job_id=term).values("task_id"))
    return rows.filter(found)


#: By name in the address: what it narrows the rows to. Values are texts.
FILTERS: dict[str, Callable[[Rows, str], Rows]] = {
    "q": search,
    "status__exact": lambda rows, value: rows.filter(status=_one_of(Status.values, value)),
    "stage__exact": lambda rows, value: rows.filter(stage=_one_of(Stage.values, value)),
    "stands": _stands,
    "error": lambda rows, value: rows.filter(error_code=value),
    "provider": lambda rows, value: _last_attempt(rows, provider=value),
    "model": _model,
    "user": _user,
    "user_id": lambda rows, value: rows.filter(user_id=_whole(value)),
    "warning": _warning,
    "ended": lambda rows, value: rows.filter(finished_at__gte=_ago(value)),
    "ended_after": lambda rows, value: rows.filter(finished_at__gte=_moment(value)),
    "ended_before": lambda rows, value: rows.filter(finished_at__lt=_moment(value)),
    "created_at__gte": lambda rows, value: rows.filter(created_at__gte=_moment(value)),
    "created_at__lt": lambda rows, value: rows.filter(created_at__lt=_moment(value)),
    "in_stage": lambda rows, value: _in_stage_since(rows, _ago(value)),
    "in_stage_since": lambda rows, value: _in_stage_since(rows, _moment(value)),
}


def given(params: Mapping[str, Any]) -> dict[str, str]:
    """The filters among the parameters of an address, without empty ones."""
    return {name: str(params[name]) for name in FILTERS if params.get(name)}


def narrow(rows: Rows, filters: Mapping[str, str]) -> Rows:
    """The rows for which every filter holds. Raises InvalidSelection for a value that means nothing."""
    for name, value in filters.items():
        if "\x00" in value:
            raise InvalidSelection(f"{name} has a character that no text has.")
        rows = FILTERS[name](rows, value)
    return rows


def fixed(filters: Mapping[str, str]) -> dict[str, str]:
    """The same, whenever it is read: times from now become times of the calendar, a name becomes an id.

    Raises InvalidSelection.
    """
    narrow(VideoTask.objects.none(), filters)
    found = dict(filters)
    for name, into in (("ended", "ended_after"), ("in_stage", "in_stage_since")):
        if name in found:
            moment = _ago(found.pop(name))
            # Both may be given; of two beginnings the later one counts.
            if name == "ended" and into in found:
                moment = max(moment, _moment(found[into]))
            found[into] = moment.isoformat()
    if "user" in found:
        found["user_id"] = str(get_user_model().objects.get(username=found.pop("user")).pk)
    return found


def error_codes() -> list[str]:
    """Those with which tasks have failed. One statement, which reads an entry of the index for each."""
    rows = database.fetch(
        """
        WITH RECURSIVE codes AS (
            (SELECT error_code FROM video_videotask WHERE error_code > '' ORDER BY error_code LIMIT 1)
            UNION ALL
            SELECT (SELECT t.error_code FROM video_videotask t WHERE t.error_code > c.error_code
                AND t.error_code <> '' ORDER BY t.error_code LIMIT 1)
            FROM codes c WHERE c.error_code IS NOT NULL
        )
        SELECT error_code FROM codes WHERE error_code IS NOT NULL
        """
    )
    return [code for (code,) in rows]


_WORDS = {
    "q": "found by “{}”",
    "status__exact": "{}",
    "stage__exact": "in {}",
    "error": "failed with {}",
    "provider": "last tried at {}",
    "model": "last tried with {}",
    "user": "of {}",
    "user_id": "of user {}",
    "warning": "with the warning {}",
    "ended": "ended in the last {}",
    "ended_after": "ended since {} UTC",
    "ended_before": "ended before {} UTC",
    "created_at__gte": "created since {} UTC",
    "created_at__lt": "created before {} UTC",
    "in_stage": "in their stage for longer than {}",
    "in_stage_since": "in their stage since before {} UTC",
}
_SPANNED = {"ended", "in_stage"}
_MOMENTS = {"ended_after", "ended_before", "created_at__gte", "created_at__lt", "in_stage_since"}


def words(filters: Mapping[str, str]) -> str:
    """For people: what the filters say of a task."""
    said = []
    for name, value in filters.items():
        if name == "stands":
            said.append(STANDS.get(value, (value,))[0])
        else:
            shown = f"{_moment(value):%Y-%m-%d %H:%M}" if name in _MOMENTS else value
            said.append(_WORDS[name].format(SPAN_WORDS[value] if name in _SPANNED else shown))
    return ", ".join(said) or "all"


def _one_of(allowed: Any, value: str) -> str:
    if value not in allowed:
        raise InvalidSelection(f"{value} is none of {', '.join(allowed)}.")
    return value


def _whole(value: str) -> int:
    if not value.isdecimal() or len(value) > 9:
        raise InvalidSelection(f"{value} is no id of a user.")
    return int(value)


def _ago(value: str) -> datetime:
    return timezone.now() - timedelta(seconds=SPANS[_one_of(SPANS, value)])


def _moment(value: str) -> datetime:
    """A time of ISO 8601, of UTC unless it says otherwise. Raises InvalidSelection."""
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidSelection(f"{value} is no time like 2026-01-31T18:00.") from None
