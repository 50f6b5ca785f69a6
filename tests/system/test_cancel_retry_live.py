"""Cancel × where the task stands × provider, and retries, through real workers against the simulator.

All tasks of one system are made at once and run beside each other; each is cancelled where its case says, and then
looked at when its attempt has ended.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from django.conf import settings

from tests.factories import make_task, make_user, reload
from tests.system.system import Process, Simulator, System, running, until
from video.actions import cancel, retry
from video.audit.actors import Unaudited
from video.credits import ledger
from video.models import CreditEntry, Generation, Stage, VideoTask
from video.scheduling import admission

State = Generation.State
MODELS = {"runway": "gen4.5", "pika": "pika-2.2", "kling": "kling-2.5-turbo", "kling-older": "kling-2.5-turbo"}
CAN_CANCEL = {"runway", "pika"}


@dataclass(frozen=True)
class End:
    """How a cancelled task's attempt ends, and what that means for its credits."""

    state: str  # of the attempt; empty: there is none
    refunded: bool
    created: int = 1  # jobs that the provider made
    asked: bool = False  # the provider stopped the job because we asked


@dataclass(frozen=True)
class Case:
    """Where a task is cancelled, by what the simulator is told to do, and how it ends."""

    script: str
    where: Callable[[VideoTask, Simulator], bool]
    end: End
    end_without_cancel: End | None = None  # at a provider that can't be asked to stop
    then: str = ""  # the simulator is told to end the job so there


def generation_of(task: VideoTask) -> Generation | None:
    return Generation.objects.filter(task=task).order_by("-attempt").first()


def in_line(task: VideoTask, simulator: Simulator) -> bool:
    return reload(task).admit_at is not None


def planned(task: VideoTask, simulator: Simulator) -> bool:
    admission.admit()
    generation = generation_of(task)
    return generation is not None and generation.state == State.PLANNED


def being_sent(task: VideoTask, simulator: Simulator) -> bool:
    generation = generation_of(task)
    return generation is not None and generation.state == State.UNKNOWN


def in_queue(task: VideoTask, simulator: Simulator) -> bool:
    generation = generation_of(task)
    return generation is not None and generation.state == State.ACCEPTED


def rendering(task: VideoTask, simulator: Simulator) -> bool:
    generation = generation_of(task)
    return generation is not None and bool(generation.job_id) and job(simulator, generation)["phase"] == "running"


def downloading(task: VideoTask, simulator: Simulator) -> bool:
    task = reload(task)
    return task.stage == Stage.DOWNLOAD and task.lease_until is not None


# Cancelled before a system runs at all, so that nobody is quicker.
AT_REST = {
    "in line": Case("", in_line, End("", refunded=True, created=0)),
    "planned": Case("", planned, End("rejected", refunded=True, created=0)),
}
UNDER_WAY = {
    "unknown, then refused": Case("hang_before=8 status=400", being_sent, End("rejected", refunded=True, created=0)),
    "unknown, then lost": Case("hang_before=8 status=503", being_sent, End("lost", refunded=True, created=0)),
    "unknown, then found": Case(
        "hang=8 throttled=900",
        being_sent,
        End("cancelled", refunded=True, asked=True),
        End("failed", refunded=True),
        then="failed",
    ),
    "accepted, not begun": Case(
        "throttled=900",
        in_queue,
        End("cancelled", refunded=True, asked=True),
        End("failed", refunded=True),
        then="failed",
    ),
    "accepted, rendering": Case(
        "render=900",
        rendering,
        End("cancelled", refunded=False, asked=True),
        End("succeeded", refunded=False),
        then="succeeded",
    ),
    "finished, being fetched": Case("file=drip", downloading, End("succeeded", refunded=False)),
}
CASES = AT_REST | UNDER_WAY
SLOW_ENOUGH = {
    "SUBMIT_TIMEOUT_SECONDS": "60",  # no case is about a time-out, on any machine
    "LOOKUP_SECONDS": "0.3,0.6,1",
    "UNKNOWN_WINDOW_SECONDS": "15",
    "CIRCUIT_FAULTS": "100000",
}


def end_of(provider: str, case: Case) -> End:
    return case.end if provider in CAN_CANCEL or case.end_without_cancel is None else case.end_without_cancel


def prompt_of(provider: str, name: str) -> str:
    return f"cancelled {provider} {name}. [[sim {CASES[name].script}]]" if CASES[name].script else f"{provider} {name}."


def job(simulator: Simulator, generation: Generation) -> dict[str, Any]:
    """The simulator's own view of an attempt's job."""
    (found,) = requests.get(f"{simulator.url}/_sim/jobs", params={"id": generation.job_id}, timeout=30).json()["jobs"]
    return found  # type: ignore[no-any-return]


def end_there(simulator: Simulator, generation: Generation, state: str) -> None:
    reply = requests.post(f"{simulator.url}/_sim/jobs/{generation.job_id}", json={"state": state}, timeout=30)
    assert reply.ok, reply.text


def kinds(task: VideoTask) -> list[tuple[str, int]]:
    return list(CreditEntry.objects.filter(task=task).order_by("id").values_list("kind", "run"))


def work(system: System) -> None:
    system.worker("io", queues="videoQueue", threads=24)
    system.worker("media", queues="mediaQueue", threads=2)
    system.sweeper()


class Run:
    """The tasks of some providers, cancelled each in its place."""

    def __init__(self, simulator: Simulator, user: Any) -> None:
        self.simulator = simulator
        self.user = user
        self.tasks: dict[tuple[str, str], VideoTask] = {}
        self.fences: dict[tuple[str, str], int] = {}

    def make(self, provider: str, names: Iterator[str] | list[str]) -> None:
        for name in names:
            self.tasks[provider, name] = make_task(
                self.user, prompt_of(provider, name), model_requested=MODELS[provider]
            )

    def cancel(self, chosen: list[tuple[str, str]]) -> None:
        """Each as soon as it stands where its case wants it."""
        left = list(chosen)

        def all_cancelled() -> bool:
            for one in list(left):
                if CASES[one[1]].where(self.tasks[one], self.simulator):
                    assert cancel.cancel(self.tasks[one].pk, by=Unaudited("its user")).changed
                    left.remove(one)
            return not left

        try:
            until("each stands where it is to be cancelled", all_cancelled)
        except AssertionError as err:
            where = [(*one, reload(self.tasks[one]).stage, generation_of(self.tasks[one])) for one in left]
            raise AssertionError(f"{err}; not yet: {where}") from None

    def _renders_on(self, provider: str, name: str, generation: Generation) -> bool:
        waits = CASES[name].then and provider not in CAN_CANCEL and generation.state == State.ACCEPTED
        return bool(waits) and not job(self.simulator, generation)["ended"]

    def see_the_end(self, chosen: list[tuple[str, str]]) -> None:
        """Of every attempt; one that can't be asked to stop is ended at the simulator."""
        left = list(chosen)

        def all_over() -> bool:
            for one in list(left):
                provider, name = one
                generation = generation_of(self.tasks[one])
                if generation is None or generation.state not in Generation.LIVE:
                    left.remove(one)
                elif self._renders_on(provider, name, generation):
                    end_there(self.simulator, generation, CASES[name].then)
            return not left

        until("every attempt ends", all_over)


@pytest.fixture(scope="module")
def cancelled(
    database: str, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], VideoTask]:
    """Every case's task, cancelled: three providers in simulation, then Kling's older standard with a pair of keys."""
    folder = tmp_path_factory.mktemp("steering")
    run = Run(simulator, make_user(10 * 10 * len(CASES)))
    older = {
        "REELWORKS_SIMULATE": "0",
        "KLING_API_KEY": "access-key-of-tests:secret-key-of-tests",
        "KLING_BASE_URL": simulator.url,
        "SLOTS_PER_KEY": "100",
    }
    with running(folder, simulator) as system:
        system.env.update(SLOW_ENOUGH)
        for providers, more in ((("runway", "pika", "kling"), {}), (("kling-older",), older)):
            for provider in () if more else providers:
                run.make(provider, list(AT_REST))
                run.cancel([(provider, name) for name in AT_REST])
            system.env.update(more)
            work(system)
            chosen = [(provider, name) for provider in providers for name in UNDER_WAY]
            for provider in providers:
                run.make(provider, list(UNDER_WAY))
            run.cancel(chosen)
            run.see_the_end(chosen)
            until("no worker has a cancelled download any more", lambda: not list(scratch().iterdir()))
            system.stop()
    return run.tasks


def scratch() -> Path:
    return Path(settings.STORAGE_LOCAL_PATH) / ".scratch"


PLACES = [
    (provider, name)
    for provider in MODELS
    for name in (UNDER_WAY if provider == "kling-older" else CASES)  # at rest both standards are the same
]


@pytest.mark.parametrize(("provider", "name"), PLACES)
def test_a_cancelled_task_ends_as_the_table_says(
    cancelled: dict[tuple[str, str], VideoTask], simulator: Simulator, provider: str, name: str
) -> None:
    end, task = end_of(provider, CASES[name]), reload(cancelled[provider, name])
    assert (task.status, task.video_id) == ("cancelled", None)
    generation = generation_of(task)
    assert (generation.state if generation else "") == end.state
    assert kinds(task) == ([("debit", 1), ("refund", 1)] if end.refunded else [("debit", 1)])
    submits = simulator.submits(prompt_of(provider, name))
    assert (submits["created"], submits["doubled"]) == (end.created, 0)
    if generation is not None and generation.job_id:
        assert job(simulator, generation)["cancelled"] is end.asked


def test_nothing_of_them_is_left_in_the_users_folder(cancelled: dict[tuple[str, str], VideoTask]) -> None:
    task = next(iter(cancelled.values()))
    folder = Path(settings.STORAGE_LOCAL_PATH) / str(task.user_id)
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_the_ledger_is_whole_after_all_of_it(cancelled: dict[tuple[str, str], VideoTask]) -> None:
    assert len(cancelled) == len(PLACES)
    assert ledger.differences() == []


# --- one by one ----------------------------------------------------------------------------------------------------


def ffmpegs_of(worker: Process) -> list[str]:
    """Children of a worker that are ffmpeg."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,command="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if re.match(rf"\s*{worker.pid}\s.*ffmpeg", line)]


def test_cancel_kills_a_transcode_and_a_retry_goes_on_with_its_source(system: System, simulator: Simulator) -> None:
    media = system.worker("media", queues="mediaQueue", threads=1)
    system.worker("io", queues="videoQueue")
    system.sweeper()
    # Large and with another frame rate: some ten seconds of ffmpeg's work.
    more = {"resolution": "1080p", "fps": 60, "quality": "high", "duration_s": 10}
    task = make_task(make_user(), "a long transcode", **more)
    until("ffmpeg runs", lambda: ffmpegs_of(media))
    done = cancel.cancel(task.pk, by=Unaudited("its user"))
    assert (done.stage, done.refund) == (Stage.TRANSCODE, cancel.Refund.NONE)
    until("ffmpeg is gone", lambda: not ffmpegs_of(media))
    until("its scratch files too", lambda: not list(scratch().iterdir()))
    assert media.alive
    task = reload(task)
    assert (task.status, task.has_work_files) == ("cancelled", True)
    VideoTask.objects.filter(pk=task.pk).update(fps=30, resolution="source")  # a quick one, for the rest
    again = retry.retry(task.pk, by=Unaudited("its user"))
    assert (again.stage, again.run, again.debited) == (Stage.TRANSCODE, 1, 0)
    until("the video is stored", lambda: reload(task).status == "success")
    assert simulator.submits("a long transcode")["created"] == 1
    assert kinds(task) == [("debit", 1)]


def test_cancel_while_saving_leaves_no_file_behind(system: System, simulator: Simulator) -> None:
    worker = system.worker("all", failpoint="save.after_thumbnail=freeze")
    sweeper = system.sweeper()
    task = make_task(make_user(), "cancelled while it was saved")
    folder = Path(settings.STORAGE_LOCAL_PATH) / str(task.user_id) / "videos"
    until("both files have their names", lambda: folder.is_dir() and len(list(folder.iterdir())) == 2)
    until("the worker stands still", lambda: _is_stopped(worker))
    sweeper.kill()
    assert cancel.cancel(task.pk, by=Unaudited("its user")).refund is cancel.Refund.NONE
    worker.signal(signal.SIGCONT)
    until("they are gone", lambda: not list(folder.iterdir()))
    assert reload(task).status == "cancelled"


def _is_stopped(process: Process) -> bool:
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(process.pid)], capture_output=True, text=True, check=False)
    return said.stdout.strip().startswith("T")


def test_a_retry_goes_on_at_the_failed_stage_and_pays_for_its_run(system: System, simulator: Simulator) -> None:
    system.worker()
    system.sweeper()
    prompt = "the first two files are no videos [[sim file=corruptx2]]"
    task = make_task(make_user(), prompt)
    until("it has failed", lambda: reload(task).status == "failed")
    assert (reload(task).error_code, reload(task).stage) == ("not_a_video", "download")
    done = retry.retry(task.pk, by=Unaudited("its user"))
    assert (done.stage, done.run, done.debited) == (Stage.DOWNLOAD, 2, 10)
    until("the video is stored", lambda: reload(task).status == "success")
    submits = simulator.submits(prompt)
    assert (submits["received"], submits["created"]) == (1, 1)
    assert kinds(task) == [("debit", 1), ("refund", 1), ("debit", 2)]
    assert ledger.differences() == []


def test_a_retry_with_nothing_to_go_on_with_submits_anew_once(system: System, simulator: Simulator) -> None:
    system.worker()
    system.sweeper()
    prompt = "refused once [[sim status=400x1]]"
    task = make_task(make_user(), prompt)
    until("it has failed", lambda: reload(task).status == "failed")
    assert retry.retry(task.pk, by=Unaudited("its user")).stage is Stage.GENERATE
    until("the video is stored", lambda: reload(task).status == "success")
    submits = simulator.submits(prompt)
    assert (submits["received"], submits["created"]) == (2, 1)
    assert [g.run for g in Generation.objects.filter(task=task).order_by("attempt")] == [1, 2]
