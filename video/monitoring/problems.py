"""What is wrong, in plain sentences: the same list for the admin, the command, and the API's answer to staff."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from video.engine.queues import MEDIA_QUEUE, QUEUES, VIDEO_QUEUE, WEBHOOK_QUEUE
from video.infra.durations import count, span
from video.models import Stage
from video.monitoring import provider_problems, remedies, workers
from video.monitoring.problem import Figures, Problem

LATE_S = 60.0
FEWEST_FAILED = 5  # in five minutes, before a share of failures means something

_QUEUE_WORK = {VIDEO_QUEUE: "submits, looks and downloads", MEDIA_QUEUE: "transcodes and thumbnails"}
_CONCURRENCY = {VIDEO_QUEUE: "VIDEO_CONCURRENCY", MEDIA_QUEUE: "MEDIA_CONCURRENCY"}


def find(figures: Figures) -> list[Problem]:
    """Everything that is wrong, problems that need a person first. Runs no statement."""
    found = [problem for check in _CHECKS for problem in check(figures)]
    return sorted(found, key=lambda problem: not problem.needs_person)


# --- processes -----------------------------------------------------------------------------------------------------


def _no_worker(figures: Figures) -> Iterator[Problem]:
    for queue in QUEUES:
        if workers.listening(figures.workers, queue):
            continue
        draining = any(one.alive and queue in one.queues for one in figures.workers)
        yield Problem(
            "no_worker",
            True,
            f"No worker takes work from {queue}, so no {_QUEUE_WORK[queue]} are made."
            + (" The one that is there is about to stop." if draining else _last_seen(figures, queue)),
            "Everything waits in the database, and goes on when a worker comes.",
            "Start one: `make up`, or the worker's line of the Procfile. If it dies again, its log says why.",
            about=queue,
        )


def _no_webhook_worker(figures: Figures) -> Iterator[Problem]:
    if not figures.webhooks_due or workers.listening(figures.workers, WEBHOOK_QUEUE):
        return
    number = figures.webhooks_due
    yield Problem(
        "no_worker",
        True,
        f"{count(number, 'webhook')} {'is' if number == 1 else 'are'} due, and no worker takes work from "
        f"{WEBHOOK_QUEUE}.{_last_seen(figures, WEBHOOK_QUEUE)}",
        "Each is kept for a day, and sent when a worker comes before; videos are made all the same.",
        "Start one: `make up`, or the line `webhooks` of the Procfile.",
        about=WEBHOOK_QUEUE,
    )


def _last_seen(figures: Figures, queue: str) -> str:
    seen = [one for one in figures.workers if queue in one.queues]
    last = min(seen, key=lambda one: one.seen_s, default=None)
    return f" The last one, {last.name}, was seen {span(last.seen_s)} ago." if last else ""


def _no_sweeper(figures: Figures) -> Iterator[Problem]:
    if not workers.sweeping(figures.workers):
        yield Problem(
            "no_sweeper",
            True,
            "No sweeper gives signs of life.",
            "Work that is under way goes on from stage to stage; what is parked or was missed stays where it is.",
            "Start one: `make up`, or `manage.py sweeper`. Any number of them may run.",
        )


def _disk(figures: Figures) -> Iterator[Problem]:
    for one in figures.workers:
        if one.alive and one.disk_low:
            yield Problem(
                "disk_low",
                True,
                f"The disk of {one.host} is nearly full: {one.disk_free_bytes / 1e9:.1f} GB are free.",
                "When no worker has room, nothing new begins until one has; what is under way ends.",
                "Make room, or move the storage folder to a larger disk. `manage.py cleanup_storage --dry-run` shows "
                "files that no task needs.",
                about=one.host,
                remedies=(remedies.LOOK_AT_STORAGE,),
            )
            return  # one report a host is enough


_STORAGE = {
    "storage_down": (
        "the storage can't be reached, or fails",
        "See whether the server of STORAGE_URL runs and can be reached from the workers' hosts.",
    ),
    "storage_refused": (
        "the storage refuses this server",
        "Put STORAGE_URL, AWS_* and the bucket's permissions right, then restart the workers; "
        "`manage.py check --deploy` says what is refused.",
    ),
}


def _storage(figures: Figures) -> Iterator[Problem]:
    for code, (what, operator) in _STORAGE.items():
        if number := sum(one.parked.get(code, 0) for one in figures.stages):
            yield Problem(
                code,
                True,
                f"{count(number, 'task')} can't store or read a file: {what}.",
                "They keep what they have and try again within a minute, without losing a try.",
                operator,
            )


_FETCHES = {
    "download_failed": "the file host can't be reached, or fails",
    "link_expired": "the file host honours no link",
    "not_a_video": "something else comes in place of the video",
    "forbidden_address": "the link leads to no public address",
    "download_too_large": "the file is larger than MAX_SOURCE_BYTES",
    "provider_down": "the provider gives no link",
    "source_gone": "the provider does not know the video",
}
_FETCHES_OF_A_PERSON = {"forbidden_address", "download_too_large"}


def _fetches(figures: Figures) -> Iterator[Problem]:
    parked = Counter[str]()
    for one in figures.stages:
        if one.stage is Stage.DOWNLOAD:
            parked.update({code: number for code, number in one.parked.items() if code in _FETCHES})
    if parked:
        why = "; ".join(f"{_FETCHES[code]} ({number})" for code, number in parked.most_common())
        yield Problem(
            "file_host",
            not _FETCHES_OF_A_PERSON.isdisjoint(parked),
            f"{count(parked.total(), 'finished video')} can't be fetched: {why}.",
            "Each is fetched again, with a fresh link and growing pauses, until its task's deadline; nothing is "
            "paid for twice.",
            "Each task says what its host answered. Nothing, if it passes; where a file is too large, raise "
            "MAX_SOURCE_BYTES and restart the workers. A task that failed of it goes on with a retry.",
        )


def _late(figures: Figures) -> Iterator[Problem]:
    for queue in QUEUES:
        listening = workers.listening(figures.workers, queue)
        stages = [one for one in figures.stages if one.queue == queue]
        late = [one for one in stages if one.oldest_s is not None and one.oldest_s > LATE_S]
        if not late or not listening:  # no_worker reports that already
            continue
        number, oldest = sum(one.due for one in late), max(one.oldest_s or 0 for one in late)
        names = " and ".join(one.stage.value for one in late)
        held, threads = sum(one.held for one in stages), sum(one.threads for one in listening)
        moving = any(one.done.per_min[0] or one.failed.per_min[0] for one in stages)
        at_work = f"{held} of {threads} threads are at work"
        if moving or 2 * held >= threads:
            yield Problem(
                "behind",
                False,
                f"{number} in {names} wait for a thread of {queue}, the oldest for {span(oldest)}: {at_work}.",
                "They are taken in turn.",
                f"If it stays so, add workers on more cores, or raise {_CONCURRENCY[queue]} if cores are idle.",
            )
            continue
        yield Problem(
            "unheard",
            True,
            f"{number} in {names} are due, the oldest for {span(oldest)}, and nobody takes them: {at_work}, and "
            f"nothing of {queue} has moved for a minute.",
            "The sweeper rings them again every ten seconds.",
            "See whether the broker can be reached (CELERY_BROKER_URL) and what the workers' log says; restarting the "
            "workers loses nothing.",
            about=queue,
        )


def _overdue(figures: Figures) -> Iterator[Problem]:
    if number := sum(one.overdue for one in figures.stages):
        names = " and ".join(one.stage.value for one in figures.stages if one.overdue)
        yield Problem(
            "overdue",
            True,
            f"{count(number, 'task')} parked in {names} {'sleeps' if number == 1 else 'sleep'} beyond "
            f"{'its' if number == 1 else 'their'} deadline.",
            "A sweeper wakes such tasks every 15 s; then they go on or end with their refund.",
            "If it stays: does a sweeper run, and what does its log say?",
        )


def _users_off(figures: Figures) -> Iterator[Problem]:
    if number := figures.waiting.off:
        yield Problem(
            "users_off",
            False,
            f"{count(number, 'task')} of users who are switched off {'waits' if number == 1 else 'wait'} for a slot.",
            "They get none. After WAIT_DEADLINE_SECONDS each ends with its refund.",
            "Users, the action Cancel what waits; or switch the user on again, and they go on.",
        )


# --- jobs and videos -----------------------------------------------------------------------------------------------


def _open_cases(figures: Figures) -> Iterator[Problem]:
    stake = figures.stake
    if stake.number:
        money = f"${stake.usd:.2f}" + (f" (and ${stake.simulated_usd:.2f} simulated)" if stake.simulated_usd else "")
        yield Problem(
            "open_cases",
            False,
            f"{count(stake.number, 'attempt')} may have cost money and {'is' if stake.number == 1 else 'are'} not "
            f"settled: {money} at stake.",
            "Each is settled by itself in time; its slot stays taken until then.",
            "Open cases shows them; who finds a job at the provider can attach it.",
            remedies=(remedies.RECONCILE,),
        )


def _failure_texts(figures: Figures) -> Iterator[Problem]:
    for provider, waiting in figures.failure_texts.items():
        one = waiting.texts == 1
        yield Problem(
            "failure_not_understood",
            True,
            f"{count(waiting.texts, 'failure text')} of {provider} {'is' if one else 'are'} not understood; "
            f"{count(waiting.jobs, 'job')} ended so.",
            f"Until you say what {'it means' if one else 'they mean'}, tasks whose job ends so fail with their refund "
            "and ask no other model.",
            "Failure texts lists them with a select for the meaning; so do `manage.py failure_texts` and its `decide`.",
            about=provider,
        )


def _much_too_short(figures: Figures) -> Iterator[Problem]:
    if number := figures.warnings.get("much_shorter_than_ordered", 0):
        one = number == 1
        yield Problem(
            "much_too_short",
            False,
            f"{count(number, 'video')} of the last day {'has' if one else 'have'} less than half of the ordered time.",
            f"{'It was' if one else 'Each was'} fetched again and came no longer; it is delivered with a warning, and "
            "the credits stay spent.",
            "Look at the tasks, and ask the provider for the money back if the jobs were charged in full.",
        )


def _failures(figures: Figures) -> Iterator[Problem]:
    failed = round(sum(one.failed.per_min[1] for one in figures.stages) * 5)
    done = round(sum(one.done.per_min[1] for one in figures.stages if one.stage == "save") * 5)
    if failed >= FEWEST_FAILED and failed > done:
        worst = max(figures.stages, key=lambda one: one.failed.per_min[1])
        yield Problem(
            "many_failures",
            True,
            f"{failed} tasks failed in the last five minutes and {done} were finished; most failed in "
            f"{worst.stage.value}.",
            "Each failed task got its credits back.",
            "Failures has them by cause, and retries them once the cause is gone; so has `manage.py failures`.",
        )


_CHECKS: tuple[Callable[[Figures], Iterable[Problem]], ...] = (
    provider_problems.paused,
    _no_sweeper,
    _no_worker,
    _no_webhook_worker,
    _late,
    _overdue,
    _disk,
    _storage,
    _fetches,
    provider_problems.keys,
    provider_problems.nothing_open,
    provider_problems.accounts,
    provider_problems.in_doubt,
    _failure_texts,
    _failures,
    provider_problems.circuits,
    _open_cases,
    _much_too_short,
    _users_off,
)
