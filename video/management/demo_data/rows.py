"""A made-up task's story as the rows that the product would have written for it: task, attempts, events, entries."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from media_pipeline.storage import object_keys
from media_pipeline.warnings import KINDS
from video import ids
from video.credits import price
from video.engine.transitions import CAME_LATE, PROGRESS_AT
from video.infra.toolkit import toolkit
from video.management.demo_data.failures import CANCELLED_IN_LINE, Failure
from video.management.demo_data.stories import Attempt, Run, Story
from video.models import CreditEntry, Generation, ProviderAccount, Stage, Status, TaskEvent, VideoTask
from video.models.order import Order

Outcome = TaskEvent.Outcome
WORKERS = ("vm-1:4021", "vm-1:4022", "vm-2:3310")
#: Of a made-up video without files: it has expired so long after its success, or else, lately, so soon.
KEPT, KEPT_SHORT = timedelta(hours=36), timedelta(minutes=10)
#: Begins the idempotency keys of made-up tasks: so the table's own constraint lets each be there once.
MARK = "seed_demo past "
#: What the providers charge for a dollar, in their own units; where they tell what a job cost.
UNITS_PER_USD = {"runway": 100, "kling": 7}
SHORT_SIDE = {"source": 720, "480p": 480, "720p": 720, "1080p": 1080}


@dataclass
class Rows:
    """All rows of one task."""

    task: VideoTask
    generations: list[Generation] = field(default_factory=list)
    events: list[TaskEvent] = field(default_factory=list)
    entries: list[CreditEntry] = field(default_factory=list)


@dataclass(frozen=True)
class Media:
    """A stored video of the simulator, whose files are copied for made-up tasks."""

    prompt: str
    video_key: str
    thumbnail_key: str
    facts: dict[str, Any]  # columns of its task


#: The accounts of the providers' keys at a moment, by provider and model.
Keys = dict[tuple[str, str], ProviderAccount]


class Diary:
    """Writes one story down, moving its clock on."""

    def __init__(self, story: Story, user_id: int, number: int, begins: datetime, keys: Keys) -> None:
        self.story, self.user_id, self.now, self.keys = story, user_id, begins, keys
        self.bits = iter(story.bits)
        self.fence = 0
        self.task = VideoTask(
            id=self._id("task_"),
            user_id=user_id,
            prompt=story.prompt,
            duration_s=story.duration_s,
            aspect_ratio=story.aspect_ratio,
            policy=story.policy,
            quality=story.quality,
            resolution=story.resolution,
            model_requested=story.model_requested,
            metadata=story.metadata,
            idempotency_key=f"{MARK}{number}",
            created_at=begins,
        )
        self.task.request_hash = Order.of(self.task).fingerprint()
        self.rows = Rows(self.task)

    def write(self) -> Rows:
        """The whole story."""
        self._event(Stage.GENERATE, Outcome.CREATED)
        for number, run in enumerate(self.story.runs, 1):
            self._run(run, number)
        self.task.fence = self.fence
        self.task.claimed_at, self.task.claimed_by = self.now, self._worker() if self.fence else ""
        return self.rows

    def _run(self, run: Run, number: int) -> None:
        self.task.run = number
        if number > 1:
            self.now += timedelta(seconds=self.story.rerun_after_s)
            self.task.rerun = True
            self._event(Stage.GENERATE, Outcome.RESUMED, f"retried by its user; run {number}")
        credits = price.credits_of(self.task)
        self._entry(CreditEntry.Kind.DEBIT, -credits)
        for attempt in run.attempts:
            self._attempt(attempt, is_late=run.is_late)
        if run.end == "success":
            if run.is_late and run.failure is not None:
                self._end(Status.FAILED, run.failure, Stage.POLL)
                self._entry(CreditEntry.Kind.REFUND, credits)
                self.now += timedelta(minutes=6)
                self._event(Stage.POLL, Outcome.RESUMED, CAME_LATE)
            self._deliver()
            return
        assert run.failure is not None
        self._give_up(run.failure)
        status = Status.FAILED if run.end == "failed" else Status.CANCELLED
        self._end(status, run.failure, Stage(run.failure.stage))
        if run.failure.refunds:
            self._entry(CreditEntry.Kind.REFUND, credits)

    def _attempt(self, attempt: Attempt, *, is_late: bool) -> None:
        begun = self.now
        self._wait(attempt.queue_s)
        failure, account = attempt.failure, self._account(attempt)
        generation = Generation(
            id=self._id("gen_"),
            task=self.task,
            user_id=self.user_id,
            run=self.task.run,
            attempt=len(self.rows.generations) + 1,
            account=account,
            provider=attempt.provider,
            model=attempt.model,
            key_fingerprint=account.account,
            simulated=True,
            duration_s=self.story.duration_s,
            resolution=attempt.resolution,
            candidates=attempt.candidates,
            expected_usd=attempt.price_usd,
            cost_unit=toolkit().provider(attempt.provider).cost_unit,
            planned_at=self.now,
        )
        self.rows.generations.append(generation)
        running = f"{attempt.provider} {attempt.model}"
        self._event(Stage.GENERATE, Outcome.ADMITTED, running, owner=running, begun=begun, generation=generation)
        self._wait(0.02)
        generation.sent_at = self.now
        self.task.started_at = self.task.started_at or self.now
        self.fence += 1
        state = Generation.State(failure.state) if failure else Generation.State.SUCCEEDED
        self._wait(60.0 if failure and failure.state in {Generation.State.LOST, Generation.State.UNKNOWN} else 0.4)
        if failure and failure.stage == Stage.GENERATE:
            self._close(generation, state, failure)
            return
        generation.accepted_at = self.now
        generation.job_id = f"demo-{generation.pk[-16:]}"
        says = f"{attempt.provider} has the job"
        self._event(Stage.GENERATE, Outcome.ADVANCED, says, owner=says, begun=generation.sent_at, generation=generation)
        self._wait(attempt.render_s)
        self.fence += 1
        generation.polls = max(2, math.ceil(attempt.render_s / 6))
        generation.last_polled_at = self.now
        self._close(generation, state, failure)
        if state == Generation.State.SUCCEEDED and not is_late:
            says = f"{attempt.provider} is done"
            self._event(Stage.POLL, Outcome.ADVANCED, says, owner=says, generation=generation)
        elif failure and failure.part_of_render and failure is not self._last_failure():
            self._event(Stage.POLL, Outcome.WAITING, f"falling back: {failure.detail}", generation=generation)

    def _last_failure(self) -> Failure | None:
        return self.story.runs[self.task.run - 1].failure

    def _close(self, generation: Generation, state: Generation.State, failure: Failure | None) -> None:
        generation.state = state
        if state == Generation.State.UNKNOWN:
            generation.unknown_since = self.now
            return
        generation.ended_at = self.now
        if failure is not None and state != Generation.State.SUCCEEDED:
            generation.error_code, generation.error_message = failure.code, failure.message
            generation.another_model_could = failure.another_model_could
            if state in {Generation.State.REJECTED, Generation.State.FAILED}:
                status = 400 if state == Generation.State.REJECTED else 200
                generation.last_answer = f"HTTP {status}: {json.dumps({'status': state, 'message': failure.detail})}"
                generation.last_answer_at = self.now
        rate = UNITS_PER_USD.get(generation.provider)
        if rate and generation.job_id and state != Generation.State.LOST and generation.expected_usd is not None:
            # Some providers charge for what was rendered in vain, and some give it back.
            charged = state == Generation.State.SUCCEEDED or generation.pk[-1] in "02468"
            generation.reported_cost = generation.expected_usd * rate if charged else 0

    def _give_up(self, failure: Failure) -> None:
        """What comes before the last event of a run without a video."""
        if failure is CANCELLED_IN_LINE:
            self._wait(25)
        elif failure.code == "no_capacity":
            self._wait(3600)
        elif failure.state == Generation.State.SUCCEEDED:  # the job has a video, and it came to nothing
            self._wait(240 if failure.stage == Stage.DOWNLOAD else 2)
            if failure.stage != Stage.DOWNLOAD:
                self._event(Stage.DOWNLOAD, Outcome.ADVANCED)
            self._wait(3)
        else:
            self._wait(0.1)

    def _end(self, status: Status, failure: Failure, stage: Stage) -> None:
        task = self.task
        task.status, task.stage, task.finished_at = status, stage, self.now
        task.progress = max(task.progress, PROGRESS_AT[stage])
        is_failed = status == Status.FAILED
        task.error_code = failure.code if is_failed else ""
        task.error_message = failure.message if is_failed else ""
        last = self.rows.generations[-1] if self.rows.generations else None
        says = f"{last.provider.capitalize()}: {failure.detail}" if last and failure.state else failure.detail
        self._event(
            stage,
            Outcome.FAILED if is_failed else Outcome.CANCELLED,
            says or failure.message,
            owner=failure.message,
            code=failure.code,
            generation=last,
        )

    def _deliver(self) -> None:
        for stage, took_s in zip((Stage.DOWNLOAD, Stage.TRANSCODE, Stage.THUMBNAIL), self.story.media_s, strict=False):
            begun = self.now
            self._wait(took_s)
            self.fence += 1
            self._event(stage, Outcome.ADVANCED, begun=begun)
        self._wait(self.story.media_s[3])
        self.fence += 1
        task, story = self.task, self.story
        task.status, task.stage, task.progress = Status.SUCCESS, Stage.DONE, 100
        task.error_code = task.error_message = ""
        task.finished_at = self.now
        task.video_id = self._id("vid_")
        short = SHORT_SIDE[story.resolution]
        sides = (short * 16 // 9, short) if story.aspect_ratio == "16:9" else (short, short * 16 // 9)
        task.video_width_px, task.video_height_px = sides
        task.video_duration_s, task.video_fps, task.video_has_sound = float(story.duration_s), 30.0, False
        if "shorter_than_ordered" in story.warnings:
            task.video_duration_s *= 0.8
        task.video_bytes = int(short * story.duration_s * 640)
        task.thumbnail_bytes = short * 48
        task.warnings = [{"code": code, "message": KINDS[code].message} for code in story.warnings]
        is_old = self.story.age_s > 2 * KEPT.total_seconds()
        kept = KEPT if is_old else KEPT_SHORT
        task.expires_in_s = int(kept.total_seconds())
        task.expires_at = task.gone_at = self.now + kept
        task.gone_why = VideoTask.GoneWhy.EXPIRED
        self._event(Stage.SAVE, Outcome.SUCCEEDED)

    def _account(self, attempt: Attempt) -> ProviderAccount:
        return self.keys[attempt.provider, attempt.model]

    def _entry(self, kind: CreditEntry.Kind, amount: int) -> None:
        if amount:
            self.rows.entries.append(
                CreditEntry(
                    account_id=self.user_id,
                    kind=kind,
                    amount=amount,
                    task=self.task,
                    run=self.task.run,
                    created_at=self.now,
                )
            )

    def _event(
        self,
        stage: Stage,
        outcome: TaskEvent.Outcome,
        detail: str = "",
        *,
        owner: str = "",
        code: str = "",
        begun: datetime | None = None,
        generation: Generation | None = None,
    ) -> None:
        self.rows.events.append(
            TaskEvent(
                task=self.task,
                run=self.task.run,
                generation=generation,
                stage=stage,
                outcome=outcome,
                fence=self.fence,
                worker="" if outcome == Outcome.CREATED else self._worker(),
                detail=detail[:300],
                owner_detail=owner[:300],
                error_code=code,
                started_at=begun or self.now - timedelta(milliseconds=20),
                finished_at=self.now,
            )
        )

    def _wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def _worker(self) -> str:
        return WORKERS[self.fence % len(WORKERS)]

    def _id(self, prefix: str) -> str:
        return ids.of_time(prefix, int(self.now.timestamp() * 1000), next(self.bits))


def keep_files(task: VideoTask, media: Media) -> None:
    """The video of a made-up success is still there: the row says where its files are, and what they are."""
    assert task.video_id is not None
    task.prompt = media.prompt  # the simulator draws it into the picture
    task.request_hash = Order.of(task).fingerprint()
    task.gone_at, task.gone_why, task.expires_at, task.expires_in_s = None, "", None, None
    task.output_key = object_keys.video_key(task.user_id, task.video_id)
    task.thumbnail_key = object_keys.thumbnail_key(task.user_id, task.video_id)
    for name, value in media.facts.items():
        setattr(task, name, value)
