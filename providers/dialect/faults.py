"""Misbehaviour by script: `[[sim status=429x2 render=30]]` in a prompt, or a rule set through `/_sim/config`.

Directives stand in double square brackets and are not drawn into the picture. `VALUExN` limits one to the first N:
of the submits with the same prompt for the submit stage, of the job's polls or downloads for the others. A group can
be limited as a whole: `only=<provider or model>`, `first=N` submits with this prompt. An unknown directive is refused
with 400, so that a typing error cannot make a test pass. Adding one: a field in `Faults`, a line in `DIRECTIVES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

_GROUP = re.compile(r"\[\[sim[ \t]([^\[\]]*)\]\]")
_STATUS = re.compile(r"[45][0-9]{2}(-[A-Za-z0-9_.]{1,40})?")
_REDIRECT = re.compile(r"30[12378]")
_INTERIM = re.compile(r"1[0-9]{2}(,1[0-9]{2}){0,99}")
_RETRY_AFTER = re.compile(r"[!-~]{1,80}")
_RETRY_DATE = re.compile(r"date:([+-][0-9]{1,10})")
_COUNTED = re.compile(r"(.*?)(?:x([0-9]{1,6}))?", re.DOTALL)


class Counted(NamedTuple):
    """A value for the first `times` occasions; None means every one."""

    value: str
    times: int | None

    def applies(self, nth: int) -> bool:
        return self.times is None or nth <= self.times


@dataclass(frozen=True, slots=True)
class CallbackFault:
    """How call-backs go wrong."""

    late_s: float = 0.0
    copies: int = 1
    forged: bool = False
    never: bool = False


@dataclass(frozen=True, slots=True)
class Faults:
    """What will go wrong with one submit and its job. The submit stage is already counted: set means now."""

    # submit, before a job exists
    hang_before: float | None = None
    reset: bool = False
    status: str | None = None
    redirect: str | None = None
    moderation: bool = False
    # submit, after the job was made
    hang: float | None = None
    status_after: str | None = None
    lost_reply: bool = False
    lost_reply_reset: bool = False
    garbage: bool = False
    # submit, with whatever is answered
    interim: str | None = None  # "103", "102,103"
    retry_after: str | None = None  # goes with every refusal, at submit and at poll; "date:+60": as an HTTP date
    # the job
    render: float | None = None
    throttled: float | None = None
    fail: str | None = None
    cancel: str | None = None
    # polls
    unknown_status: float | None = None
    not_found: int = 0
    poll_status: Counted | None = None
    poll_redirect: Counted | None = None
    poll_interim: Counted | None = None
    poll_reset: int = 0
    poll_garbage: int = 0
    poll_hang: float | None = None
    result_status: Counted | None = None
    hidden_failure: bool = False
    # call-backs
    callback: CallbackFault | None = None
    # downloads
    link_expired: int = 0
    file: Counted | None = None
    file_status: Counted | None = None
    odd_link: bool = False
    file_for: float | None = None  # how long `file` and `file_status`, from the first download on


NO_FAULTS = Faults()  # most jobs share it


class BadDirective(Exception):
    """The script in a prompt or a rule cannot be read; the message says why."""


@dataclass(frozen=True)
class Directive:
    """How one word is read, when it acts, and what it does."""

    read: Callable[[str], Any]
    stage: str  # "submit", "job", "poll", "callback", "download"
    help: str


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1e7:
        raise ValueError
    return value


def _count(text: str) -> int:
    return int(text.removeprefix("x"))


def _word(text: str) -> str:
    if not re.fullmatch(r"[\w.:\-]{1,80}", text):
        raise ValueError
    return text


def _retry_after(text: str) -> str:
    """Whatever a header may hold, sense or none; only a date is written as what it means."""
    if not _RETRY_AFTER.fullmatch(text) or (text.startswith("date:") and not _RETRY_DATE.fullmatch(text)):
        raise ValueError
    return text


def _counted(text: str, allowed: re.Pattern[str]) -> Counted:
    match = _COUNTED.fullmatch(text)
    assert match is not None  # the pattern takes every text
    if not allowed.fullmatch(match[1]):
        raise ValueError
    return Counted(match[1], int(match[2]) if match[2] else None)


def _file_fault(text: str) -> Counted:
    return _counted(text, _FILE_FAULT)


def _http_status(text: str) -> Counted:
    return _counted(text, _STATUS)


def _cancel(text: str) -> str:
    if text != "ignored" and not _STATUS.fullmatch(text):
        raise ValueError
    return text


def _redirect(text: str) -> Counted:
    return _counted(text, _REDIRECT)


def _interim(text: str) -> Counted:
    return _counted(text, _INTERIM)


def _callback(text: str) -> CallbackFault:
    """`late:5`, `duplicate:3`, `forged`, `never`, or several with commas."""
    said: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition(":")
        match name:
            case "late":
                said["late_s"] = _seconds(value)
            case "duplicate":
                said["copies"] = copies = int(value)
                if not 1 <= copies <= 100:
                    raise ValueError
            case "forged" | "never" if not value:
                said[name] = True
            case _:
                raise ValueError
    return CallbackFault(**said)


def _flag(text: str) -> Counted:
    """`name`, or `name=3` for the first three."""
    return Counted("1", _count(text) if text else None)


FILE_FAULTS = (
    "corrupt", "truncated", "short", "cut", "empty", "html", "json", "gzip", "oversized", "endless", "hls", "drip",
    "redirect", "redirect_odd", "redirect_private", "redirect_nowhere", "reset", "refused",
)  # fmt: skip
_FILE_FAULT = re.compile("|".join(FILE_FAULTS))
#: For how long `refused` lets nobody in where `file_for` doesn't say it, and at most.
REFUSED_S, MOST_REFUSED_S = 3.0, 600.0

DIRECTIVES: Mapping[str, Directive] = {
    "hang_before": Directive(_seconds, "submit", "wait SECONDS; no job if the client has gone by then"),
    "reset": Directive(_flag, "submit", "reset the connection, no job made"),
    "status": Directive(
        _http_status,
        "submit",
        "no job, but this status: 503, 400-credits, 429-1101 (provider's code), 403-html (a page)",
    ),
    "redirect": Directive(_redirect, "submit", "no job, but this 30x status, with a Location at another origin"),
    "moderation": Directive(_flag, "submit", "refuse as the provider refuses a forbidden prompt"),
    "hang": Directive(_seconds, "submit", "make the job, answer after SECONDS"),
    "status_after": Directive(_http_status, "submit", "make the job, answer with this HTTP status"),
    "lost_reply": Directive(_flag, "submit", "make the job, close the connection without an answer"),
    "lost_reply_reset": Directive(_flag, "submit", "make the job, reset the connection"),
    "garbage": Directive(_flag, "submit", "make the job, answer 200 with a body that is not JSON"),
    "interim": Directive(_interim, "submit", "these 1xx answers before the real one: 103, or several: 102,103"),
    "retry_after": Directive(
        _retry_after,
        "submit",
        "Retry-After header on every refusal, at polls and downloads too: any word; date:+60 is an HTTP date",
    ),
    "render": Directive(_seconds, "job", "SECONDS from submit to the end"),
    "throttled": Directive(_seconds, "job", "held back for SECONDS before it runs"),
    "fail": Directive(_word, "job", "ends as failed with this failure code"),
    "cancel": Directive(_cancel, "job", "on cancel: 404 (unknown afterwards), ignored (renders on), or an HTTP status"),
    "unknown_status": Directive(_seconds, "poll", "a status nobody documented, for the first SECONDS"),
    "not_found": Directive(_count, "poll", "404 for the first N polls"),
    "poll_status": Directive(_http_status, "poll", "this HTTP status on polls; 404-html is a proxy's page"),
    "poll_redirect": Directive(_redirect, "poll", "this 30x status on polls, with a Location at another origin"),
    "poll_interim": Directive(_interim, "poll", "these 1xx answers before the real one of polls"),
    "poll_reset": Directive(_count, "poll", "reset the first N polls"),
    "poll_garbage": Directive(_count, "poll", "200 and no JSON for the first N polls"),
    "poll_hang": Directive(_seconds, "poll", "every poll is answered after SECONDS"),
    "link_expired": Directive(_count, "download", "403 for the first N downloads"),
    "file": Directive(_file_fault, "download", "bad file: " + ", ".join(FILE_FAULTS)),
    "file_status": Directive(_http_status, "download", "this HTTP status on downloads"),
    "odd_link": Directive(_flag, "download", "links with blanks, bars, braces and letters outside ASCII in them"),
    "file_for": Directive(_seconds, "download", "file and file_status for SECONDS from the first download on"),
    "result_status": Directive(
        _http_status, "poll", "fal: this status on looks at the result; a bare 5xx is a gateway's"
    ),
    "hidden_failure": Directive(_flag, "poll", "fal: a failed job's status does not say so, only its result does"),
    "callback": Directive(_callback, "callback", "late:SECONDS, duplicate:N, forged (one more), never; or several"),
}
_FLAGS = frozenset(name for name, directive in DIRECTIVES.items() if directive.read is _flag)
# These are counted at each poll or download.
_NOT_COUNTED_HERE = frozenset({"poll_status", "poll_redirect", "poll_interim", "result_status", "file", "file_status"})


@dataclass(frozen=True)
class Group:
    """One bracket: directives with a common condition."""

    values: Mapping[str, Any]
    only: str | None = None  # a provider or a model
    first: int | None = None  # of the submits with this prompt

    def applies(self, provider: str, model: str, nth: int) -> bool:
        return (self.only is None or self.only in (provider, model)) and (self.first is None or nth <= self.first)


def parse_group(text: str) -> Group:
    """`"status=429x2 render=1"` as a group. Raises BadDirective."""
    values: dict[str, Any] = {}
    only: str | None = None
    first: int | None = None
    for item in text.split():
        name, _, value = item.partition("=")
        try:
            if name == "only":
                only = value
            elif name == "first":
                first = _count(value)
            else:
                values[name] = DIRECTIVES[name].read(value)
        except KeyError:
            raise BadDirective(f"unknown directive {name!r}; GET /_sim/directives lists them") from None
        except ValueError:
            raise BadDirective(f"bad value in directive {item!r}") from None
    return Group(values, only, first)


def split_prompt(prompt: str) -> tuple[str, list[Group]]:
    """The prompt without its directives, and the directives. Text that merely looks alike stays text."""
    if "[[sim" not in prompt:
        return prompt, []
    groups = [parse_group(match) for match in _GROUP.findall(prompt)]
    return _GROUP.sub(" ", prompt).strip(), groups


def resolve(groups: list[Group], provider: str, model: str, nth: int) -> Faults:
    """What applies to the nth submit of a prompt; later groups win."""
    chosen: dict[str, Any] = {}
    for group in groups:
        if not group.applies(provider, model, nth):
            continue
        for name, value in group.values.items():
            if isinstance(value, Counted) and name not in _NOT_COUNTED_HERE:
                if value.applies(nth):
                    chosen[name] = True if name in _FLAGS else value.value
            else:
                chosen[name] = value
    return Faults(**chosen) if chosen else NO_FAULTS


@dataclass(eq=False)
class Rule:
    """Faults for every prompt that holds `match` ("" for all), set from outside; `first` counts its own submits."""

    match: str
    group: Group
    used: int = 0

    def take(self, prompt: str, provider: str, model: str) -> Faults | None:
        if self.match not in prompt or (self.group.only is not None and self.group.only not in (provider, model)):
            return None
        self.used += 1
        return resolve([self.group], provider, model, self.used)


def merge(base: Faults, over: Faults) -> Faults:
    """`over` wins wherever it says something."""
    if base is NO_FAULTS:
        return over
    said = {name: value for name in Faults.__slots__ if (value := getattr(over, name)) != getattr(NO_FAULTS, name)}
    return Faults(**({name: getattr(base, name) for name in Faults.__slots__} | said))
