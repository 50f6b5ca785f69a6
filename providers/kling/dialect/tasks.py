"""How Kling's two standards show, find and list tasks.

Chosen where the documentation is silent: lists begin with the newest task; a cursor is the id of the last task of a
page; `product_type` is `text-to-video` or `image-to-video`; a legacy page beyond the end is empty; what `GET /tasks` is
asked twice it answers once.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from typing import Any

from providers.dialect.dialect import Dialect, Refusal
from providers.dialect.jobs import Account, Job, Phase
from providers.dialect.messages import Later, Reply, Request
from providers.kling.dialect import schema
from providers.kling.dialect.replies import good

MOST_IDS = 20
MOST_LISTED = 500

_FAILURES = (  # beginning of a `fail=` code to Kling's text
    ("SAFETY", "Failure to pass the risk control system"),
    ("content_policy", "Failure to pass the risk control system"),
    ("risk", "Failure to pass the risk control system"),
    (schema.PIXELS_FAILURE, "Image pixel is invalid"),
    (schema.RATIO_FAILURE, "The resolution or aspect ratio of the input image is invalid, please check the image"),
    ("ASSET", "Image pixel is invalid"),
    ("INTERNAL", "Internal error, please try again later"),
    ("THIRD_PARTY", "Internal error, please try again later"),
)


class Tasks(abc.ABC):
    """One standard."""

    name: str
    status_field: str
    words: Mapping[Phase, str]

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.host = dialect.host

    @abc.abstractmethod
    def accepted(self, job: Job) -> dict[str, Any]:
        """The answer to the submit."""

    @abc.abstractmethod
    def view(self, job: Job, phase: Phase, origin: str) -> dict[str, Any]:
        """The task in this phase."""

    def now(self, job: Job, origin: str) -> dict[str, Any]:
        """The task as it is, or as its script says."""
        moment = self.host.now()
        view = self.view(job, job.phase(moment), origin)
        strange_s = job.faults.unknown_status
        if strange_s is not None and moment < job.created_at + strange_s:
            view[self.status_field] = "awaiting_review"
        return view

    def find(self, account: Account, name: str, *, by_reference: bool) -> Job | None:
        """A task of this standard."""
        if by_reference:
            return self.host.find_reference(self.dialect, account, name, self.name)
        job = self.host.find(self.dialect, account, name)
        return job if job is not None and job.extra["tasks"] is self else None

    def newest_first(self, account: Account) -> Iterator[Job]:
        for job in reversed(self.host.jobs()):
            if job.account is account and job.extra.get("tasks") is self and not job.deleted:
                yield job


class OlderTasks(Tasks):
    name = "older"
    status_field = "task_status"
    words: Mapping[Phase, str] = {
        Phase.PENDING: "submitted", Phase.THROTTLED: "submitted", Phase.RUNNING: "processing",
        Phase.SUCCEEDED: "succeed", Phase.FAILED: "failed", Phase.CANCELLED: "failed",
    }  # fmt: skip

    def accepted(self, job: Job) -> dict[str, Any]:
        created = int(job.created_at * 1000)
        return {
            "task_id": job.id, "task_status": "submitted", "task_info": _info(job), "created_at": created,
            "updated_at": created,
        }  # fmt: skip

    def view(self, job: Job, phase: Phase, origin: str) -> dict[str, Any]:
        view: dict[str, Any] = {
            "task_id": job.id, "task_status": self.words[phase], "task_status_msg": _message(job, phase),
            "task_info": _info(job), "task_result": {}, "created_at": int(job.created_at * 1000),
            "updated_at": _updated_ms(job, phase),
        }  # fmt: skip
        if phase is Phase.SUCCEEDED:
            url = self.host.link(job, origin)
            mark = job.extra["watermark"]
            video = {"id": f"v{job.id}", "url": url, "watermark_url": url if mark else "", "duration": _length(job)}
            view["task_result"] = {"videos": [video]}
            view["watermark_info"] = {"enabled": mark}
            view["final_unit_deduction"] = _units(job)
        return view

    def one(self, request: Request, account: Account, name: str, image: bool) -> Later:
        """By Kling's id or by the client's own, on the path of its kind."""
        job = self.find(account, name, by_reference=False) or self.find(account, name, by_reference=True)
        if job is None or job.extra["image"] is not image:
            return self.dialect.refuse(Refusal(400, "not_found"))
        job.polls += 1
        found = job
        return self.host.poll(self.dialect, [job], lambda: good(self.now(found, request.origin)))

    def page(self, request: Request, account: Account, image: bool) -> Reply:
        params = request.params
        number, size = _whole(params, "pageNum", 1, 1000), _whole(params, "pageSize", 30, 500)
        jobs = [job for job in self.newest_first(account) if job.extra["image"] is image]
        return good([self.now(job, request.origin) for job in jobs[(number - 1) * size : number * size]])


class NewerTasks(Tasks):
    name = "newer"
    status_field = "status"
    words: Mapping[Phase, str] = {**OlderTasks.words, Phase.SUCCEEDED: "succeeded"}

    def accepted(self, job: Job) -> dict[str, Any]:
        created = int(job.created_at * 1000)
        return {
            "id": job.id, "status": "submitted", "create_time": created, "update_time": created,
            "external_id": job.reference,
        }  # fmt: skip

    def view(self, job: Job, phase: Phase, origin: str) -> dict[str, Any]:
        view: dict[str, Any] = {
            "id": job.id, "status": self.words[phase], "message": _message(job, phase),
            "create_time": int(job.created_at * 1000), "update_time": _updated_ms(job, phase),
            "external_id": job.reference, "outputs": [], "billing": [],
        }  # fmt: skip
        if phase is Phase.SUCCEEDED:
            url = self.host.link(job, origin)
            output = {"type": "video", "id": f"v{job.id}", "url": url, "duration": _length(job)}
            view["outputs"] = [{**output, "watermark_url": url if job.extra["watermark"] else ""}]
            view["billing"] = [{"charge_type": "unit", "amount": _units(job), "package_type": "video"}]
        return view

    def query(self, request: Request, account: Account) -> Later:
        """`GET /tasks`: up to twenty, without a word about those that are not known. A script hits the whole answer."""
        params = request.params
        given = [name for name in ("task_ids", "external_task_ids") if params.get(name)]
        if len(given) != 1:
            raise schema.Invalid("exactly one of task_ids and external_task_ids is required")
        names = list(dict.fromkeys(name for name in params[given[0]].split(",") if name))
        if len(names) > MOST_IDS:
            raise schema.Invalid(f"{given[0]} cannot exceed {MOST_IDS}")
        by_reference = given[0] == "external_task_ids"
        shown: list[Job] = []
        for name in names:
            job = self.find(account, name, by_reference=by_reference)
            if job is not None:
                job.polls += 1
                if job.polls > job.faults.not_found:
                    shown.append(job)
        return self.host.poll(self.dialect, shown, lambda: good([self.now(job, request.origin) for job in shown]))

    def search(self, body: Mapping[str, Any], account: Account) -> dict[str, Any]:
        """`POST /tasks`."""
        limit = body.get("limit", MOST_LISTED)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_LISTED:
            raise schema.Invalid(f"limit value '{limit}' is invalid")
        begin, end = (body.get(name) for name in ("start_time", "end_time"))
        wanted = _filters(body.get("filters") or [])
        jobs = list(self.newest_first(account))
        cursor = body.get("cursor")
        if cursor:
            places = [place for place, job in enumerate(jobs) if job.id == cursor]
            if not places:
                raise schema.Invalid(f"cursor value '{cursor}' is invalid")
            jobs = jobs[places[0] + 1 :]
        found = [
            (job, view)
            for job in jobs
            if (not isinstance(begin, int) or job.created_at * 1000 >= begin)
            and (not isinstance(end, int) or job.created_at * 1000 <= end)
            for view in [self.now(job, job.origin)]
            if (not wanted.get("status") or view["status"] in wanted["status"])
            and (not wanted.get("product_type") or _product(job) in wanted["product_type"])
        ]
        page = found[:limit]
        more = len(found) > limit
        return {
            "result": [view for _, view in page], "count": len(page),
            "next_cursor": page[-1][0].id if more else "", "has_more": more,
        }  # fmt: skip


def _info(job: Job) -> dict[str, str]:
    return {"external_task_id": job.reference} if job.reference else {}


def _message(job: Job, phase: Phase) -> str:
    if phase is Phase.CANCELLED:
        return "Task was cancelled"
    if phase is not Phase.FAILED:
        return ""
    code = job.failure or ""
    return next((text for start, text in _FAILURES if code.startswith(start)), code.replace("_", " "))


def _updated_ms(job: Job, phase: Phase) -> int:
    moment = job.created_at
    if phase is Phase.RUNNING:
        moment = job.run_at
    elif not phase.is_live:
        moment = job.end_at
    return int(moment * 1000)


def _length(job: Job) -> str:
    return f"{job.clip.duration_s + 0.041:.3f}"  # the real ones are a frame longer than asked for


def _units(job: Job) -> str:
    return f"{round(job.expected_cost, 4):g}"


def _product(job: Job) -> str:
    return "image-to-video" if job.extra["image"] else "text-to-video"


def _filters(given: Any) -> dict[str, list[Any]]:
    if not isinstance(given, list):
        raise schema.Invalid("filters is invalid")
    wanted: dict[str, list[Any]] = {}
    for one in given:
        key, values = (one.get("key"), one.get("values") or []) if isinstance(one, dict) else (None, [])
        if key not in ("status", "product_type") or not isinstance(values, list):
            raise schema.Invalid("filters is invalid")
        wanted.setdefault(key, []).extend(values)
    return wanted


def _whole(params: Mapping[str, str], name: str, default: int, most: int) -> int:
    value = params.get(name, str(default))
    if not value.isdecimal() or not 1 <= int(value) <= most:
        raise schema.Invalid(f"{name} value '{value[:100]}' is invalid")
    return int(value)
