"""One task's timeline for the admin page, from its rows: its position, its events with their times, its cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from media_pipeline.errors import StorageRefused
from video.admin import task_page, waterfall
from video.admin.read_only import clock, short
from video.attempts import slow, unknown_submits
from video.attempts.unsettled import amount
from video.engine import workers
from video.engine.position import Position, State, position_of
from video.infra.durations import span
from video.models import CreditEntry, Generation, Stage, Status, TaskEvent, VideoTask, order
from video.monitoring import waits
from video.routing import key_labels
from video.web.media import link

EVENTS_SHOWN = 400
LATE_S = 15  # a task that is due for longer may have no worker
OUTCOME_WORDS = {"advanced": "done", "waiting": "in line again"}


def timeline_of(task: VideoTask, now: datetime, request: HttpRequest) -> dict[str, Any]:
    """Read the task's rows (a fixed number of queries, however long its story) and put them into words.

    `request`: of who looks, which decides what is a link.
    """
    generations = list(key_labels.with_labels(task.generations.select_related("account").order_by("attempt")))
    for generation in generations:
        generation.task = task
    beside = task_page.context(task, request, generations)
    events = list(task.events.order_by("-id")[: EVENTS_SHOWN + 1])
    entries = list(task.credit_entries.order_by("id"))
    shown = list(reversed(events[:EVENTS_SHOWN]))
    last = generations[-1] if generations else None
    has_video = task.status == Status.SUCCESS
    has_files = has_video and not task.gone_why
    return {
        "task": task,
        "headline": headline(task, now),
        "steps": _steps(task),
        "lines": _lines(task, shown, {generation.pk: generation.attempt for generation in generations}),
        "cut": len(events) > EVENTS_SHOWN,
        "attempts": [_attempt(one, now, beside["links"][one.pk]) for one in reversed(generations)],
        "waterfall": waterfall.draw(task, shown, generations, now),
        "entries": entries,
        "net": sum(entry.amount for entry in entries),
        "asked": [("User", beside["user_link"]), *_asked(task)],
        "made": _made(task) if has_video else [],
        "clocks": _clocks(task),
        "video_url": _link(task.output_key) if has_files else "",
        "poster_url": _link(task.thumbnail_key) if has_files and task.thumbnail_key else "",
        "simulated": bool(last and last.simulated),
        "took": span((task.finished_at - task.created_at).total_seconds()) if task.finished_at else "",
        "notes": _notes(task, last, entries, now),
        **{name: beside[name] for name in ("acts", "curl", "deliveries")},
        "slow": slow.of_task(task.pk) if task.stage == Stage.POLL and task.is_active else None,
        **_wait(task),
    }


def _wait(task: VideoTask) -> dict[str, Any]:
    wait = waits.why(task)
    expected = None if wait is None else wait.expected_wait_s
    return {"wait": wait, "wait_expected": "" if expected is None else span(expected)}


def _link(key: str) -> str:
    """A link to a stored file; empty while none can be signed, so that the page still opens."""
    try:
        return link(key)
    except StorageRefused:
        return ""


def waits_for(task: VideoTask, now: datetime) -> str:
    """What the task is doing or waiting for, in a few words; empty when it is over. At most two statements."""
    return _in_words(position_of(task, now, is_disk_full=workers.is_disk_full), task, now)


def _in_words(position: Position, task: VideoTask, now: datetime) -> str:
    since, until = position.since or now, position.until or now
    waited, left = span((now - since).total_seconds()), span((until - now).total_seconds())
    reason = f": {position.reason}" if position.reason else ""
    match position.state:
        case State.OVER:
            return ""
        case State.IN_WORK:
            return f"in work at {position.worker}"
        case State.NOT_BEFORE:
            return f"in line for a slot in {left}{reason}"
        case State.USER_OFF:
            return f"its user ({task.user.get_username()}), who is switched off, for {waited}"
        case State.DISK_FULL:
            return f"room, for {waited}: {workers.DISK_FULL}"
        case State.WAITS_FOR_SLOT:
            words = waits.waits_for(task)
            return f"{words}, for {waited}{reason}" if words.startswith(waits.FREE_SLOT) else f"{words}; for {waited}"
        case State.PARKED:
            return f"{position.reason or 'parked'}; next look in {left}"
        case State.WAITS_FOR_CORE:
            silent = f"; its worker ({position.worker}) went silent" if position.worker else ""
            return f"a free core, for {waited}{silent}"
        case State.WORKER_SILENT:
            return f"its worker ({position.worker}) went silent; taken up again soon"
        case State.WAITS_FOR_WORKER:
            late = (now - since).total_seconds() > LATE_S
            return f"a worker, for {waited}: do workers run?" if late else "a worker"


def headline(task: VideoTask, now: datetime) -> str:
    """Where the task stands, in one sentence for an operator who has just been woken up."""
    if task.status == Status.SUCCESS:
        gone = f"was stored, and is gone: {task.get_gone_why_display()}"
        return f"The video {gone if task.gone_why else 'is stored'}."
    if task.status == Status.FAILED:
        return task.error_message
    if task.status == Status.CANCELLED:
        return "Cancelled."
    position = position_of(task, now, is_disk_full=workers.is_disk_full)
    words = _in_words(position, task, now)
    if position.state is State.IN_WORK:
        held = span((now - position.since).total_seconds()) if position.since else "a moment"
        words = f"In work at {position.worker} for {held}"
    elif position.state in {State.NOT_BEFORE, State.WORKER_SILENT}:
        words = f"{words[:1].upper()}{words[1:]}"
    else:
        words = f"Waits for {words}" if words.startswith(waits.FREE_SLOT) else f"Waits for: {words}"
    return words if words.endswith("?") else f"{words}."


def state_of(generation: Generation, now: datetime) -> tuple[str, str]:
    """(word for the colour, label). An `unknown` whose answer may still come is just being sent."""
    if generation.state == Generation.State.UNKNOWN and generation.sent_at is not None:
        if now < unknown_submits.over_at(generation):
            return "sending", "sending"
        return "unknown", "outcome unknown"
    return generation.state, generation.state


def _steps(task: VideoTask) -> list[tuple[str, str]]:
    """Each stage with its colour: done, now, failed or ahead."""
    names: list[Stage] = [stage for stage in Stage if stage is not Stage.DONE]
    at = len(names) if task.stage == Stage.DONE else names.index(Stage(task.stage))
    here = "failed" if task.status in {Status.FAILED, Status.CANCELLED} else "now"
    return [
        (name.value, "done" if place < at else here if place == at else "ahead") for place, name in enumerate(names)
    ]


def _lines(task: VideoTask, events: list[TaskEvent], attempts: dict[str, int]) -> list[dict[str, Any]]:
    runs = [event.run for event in events]
    return [
        {
            "event": event,
            "offset": f"+{span((event.finished_at - task.created_at).total_seconds())}",
            "label": OUTCOME_WORDS.get(event.outcome, event.outcome),
            "took": _took(event),
            "attempt": attempts.get(event.generation_id or ""),
            "new_run": event.run != run_before,
        }
        for event, run_before in zip(events, [*runs[:1], *runs], strict=False)
    ]


def _took(event: TaskEvent) -> str:
    if event.outcome == TaskEvent.Outcome.CREATED:
        return ""
    took = span((event.finished_at - event.started_at).total_seconds())
    return f"{took} in line" if event.outcome == TaskEvent.Outcome.ADMITTED else took


def _attempt(generation: Generation, now: datetime, links: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    word, label = state_of(generation, now)
    ends = generation.ended_at or now
    facts = [
        *links,
        ("Job at the provider", generation.job_id),
        ("Provider says", _provider_says(generation)),
        ("Looks", _looks(generation, now)),
        ("Sent", clock(generation.sent_at)),
        ("Accepted", clock(generation.accepted_at)),
        ("Ended", clock(generation.ended_at)),
        ("Open for", span((ends - generation.sent_at).total_seconds()) if generation.sent_at else ""),
        ("Looked at again", clock(generation.look_at)),
        ("Cancel wanted", clock(generation.cancel_wanted_at)),
        ("AIGC tag", generation.aigc_tag),
        ("C2PA", "the provider's file had a manifest; ours has none" if generation.has_c2pa else ""),
        ("Our reference", generation.pk),
    ]
    candidates = generation.candidates if isinstance(generation.candidates, list) else []
    return {
        "generation": generation,
        "word": word,
        "label": label,
        "expected": amount(generation.expected_usd, "USD") or amount(generation.expected_cost, generation.cost_unit),
        "reported": amount(generation.reported_cost, generation.cost_unit),
        "facts": [(name, value) for name, value in facts if value],
        "candidates": [one for one in candidates if isinstance(one, dict)],
    }


def _provider_says(generation: Generation) -> str:
    status = generation.provider_status
    if status and generation.provider_progress is not None and generation.state == Generation.State.ACCEPTED:
        status += f", {generation.provider_progress:.0%}"
    return status


def _looks(generation: Generation, now: datetime) -> str:
    if not generation.polls:
        return ""
    words = f"{generation.polls}"
    if generation.last_polled_at:
        words += f", last {span((now - generation.last_polled_at).total_seconds())} ago"
    if generation.poll_errors:
        words += f", {generation.poll_errors} failed in a row"
    if generation.fetch_errors:
        words += f"; fetches of its video that failed in a row: {generation.fetch_errors}"
    if generation.not_found:
        words += f", {generation.not_found} times not found"
    return words


#: Fields of the order that `_asked` doesn't list one by one: the prompt heads the page, three share a line.
_NOT_LISTED = frozenset({"prompt", "policy", "fallback", "quality", "resolution", "fps"})


def _asked(task: VideoTask) -> list[tuple[str, str]]:
    listed = {name: value for name, value in order.values(task).items() if name not in _NOT_LISTED}
    listed |= {"duration_s": f"{task.duration_s} s", "model_requested": task.model_requested or "our choice"}
    if task.expires_in_s is not None:
        listed["expires_in_s"] = f"{span(task.expires_in_s)} from the success on"
    if task.sound is not None:
        listed["sound"] = "with" if task.sound else "without"
    if task.extras is not None:
        listed["extras"] = ", ".join(task.extras) or "nothing"
    facts = [
        ("A render of", task.render_of_id or ""),
        ("Padded", "on black to its ratio" if task.is_padded else ""),
        *((order.ABOUT[name].label, "" if value is None else str(value)) for name, value in listed.items()),
        ("Quality", f"{task.quality}, {task.resolution}, {_rate(task)}"),
        ("Metadata", ", ".join(f"{name}: {value}" for name, value in task.metadata.items())),
        ("Run", str(task.run) if task.run > 1 else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _rate(task: VideoTask) -> str:
    fps = order.fps_of(task)
    return "fps of the source" if fps == "source" else f"{fps} fps"


def _made(task: VideoTask) -> list[tuple[str, str]]:
    facts = [
        ("Video", task.video_id or ""),
        ("Picture", f"{task.video_width_px} × {task.video_height_px}" if task.video_width_px else ""),
        ("Length", f"{task.video_duration_s:.2f} s" if task.video_duration_s else ""),
        ("Rate", f"{task.video_fps:g} frames a second" if task.video_fps else ""),
        ("Sound", "" if task.video_has_sound is None else "yes" if task.video_has_sound else "none"),
        ("Size", f"{task.video_bytes / 1e6:.2f} MB" if task.video_bytes else ""),
        ("Original kept", f"{task.original_bytes / 1e6:.2f} MB" if task.original_bytes is not None else ""),
        ("Beside it", ", ".join(f"{name} ({size / 1e6:.2f} MB)" for name, size in task.extra_files.items())),
        ("Kept until", clock(task.expires_at) if task.gone_at is None else ""),
        ("Gone", f"{clock(task.gone_at)}: {task.get_gone_why_display()}" if task.gone_why else ""),
        ("File", task.output_key),
        ("Thumbnail", task.thumbnail_key),
    ]
    return [(name, value) for name, value in facts if value]


def _clocks(task: VideoTask) -> list[tuple[str, str]]:
    """The columns that explain a stuck task."""
    facts = [
        ("Created", clock(task.created_at)),
        ("First sent", clock(task.started_at)),
        ("Finished", clock(task.finished_at)),
        ("In line since", clock(task.admit_at)),
        ("Priority", str(task.priority) if task.priority else ""),
        ("Retried", "comes after fresh work" if task.rerun else ""),
        ("Has a core since", clock(task.core_at)),
        ("Due", clock(task.next_run_at)),
        ("Held until", clock(task.lease_until)),
        ("Last held by", task.claimed_by),
        ("Fence", str(task.fence) if task.fence else ""),
        ("Rung", clock(task.rung_at)),
        ("Hint came", clock(task.hinted_at)),
        ("Deadline", clock(task.deadline_at)),
        ("Failed tries here", str(task.tries) if task.tries else ""),
        ("Workers lost here", str(task.deaths) if task.deaths and task.lease_until is None else ""),
        ("Source file", task.source_key if task.has_work_files else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _notes(task: VideoTask, last: Generation | None, entries: list[CreditEntry], now: datetime) -> list[str]:
    """Facts that an operator needs beyond the state."""
    notes = []
    refunded = {entry.run for entry in entries if entry.kind == CreditEntry.Kind.REFUND}
    if task.status in {Status.FAILED, Status.CANCELLED} and task.run in refunded:
        notes.append("The credits of this run were given back.")
    elif task.status == Status.FAILED:
        notes.append("Nothing was given back for this run.")
    elif task.status == Status.CANCELLED:
        live = last is not None and last.state in {Generation.State.UNKNOWN, Generation.State.ACCEPTED}
        notes.append(
            "Whether its credits are given back is decided when its job has ended."
            if live
            else "Nothing was given back: the provider had done its work, or may charge for it."
        )
    if task.status == Status.SUCCESS and task.run in refunded:
        notes.append("The video came after the refund; it was delivered, and the refund stays.")
    if last is None:
        return notes
    if state_of(last, now)[0] == "unknown":
        until = clock((last.sent_at or now) + timedelta(seconds=settings.UNKNOWN_WINDOW_SECONDS[last.provider]))
        notes.append(
            f"Nobody can tell whether {last.provider} has attempt {last.attempt} ({short(last.pk)}). "
            f"No other attempt is made meanwhile; its slot stays taken until {until} UTC at the latest."
        )
    if not task.is_active and last.state == Generation.State.ACCEPTED:
        late = (
            "told to stop" if task.status == Status.CANCELLED else "looked at now and then; a late video is delivered"
        )
        notes.append(f"The job is still open at its provider and is {late}.")
    return notes
