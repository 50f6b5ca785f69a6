"""Reports of errors to Sentry, or what speaks its protocol, where SENTRY_DSN names it.

What is logged as an error becomes a report: its line, the kind of the error, and the places in the code. Nothing that a
user, a provider or a header said: no values of variables, no requests, no statements, no breadcrumbs. The words of an
error are sent only where they are ours.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.logging import LoggingIntegration

from config.logs import without_values
from video.infra import log_context

FLUSH_S = 2.0
OURS = ("config", "video", "providers", "media_pipeline")
LEFT_OUT = "its words are left out"
_KEPT = frozenset(
    (
        *("event_id", "timestamp", "level", "logger", "platform", "release", "environment", "server_name", "type"),
        *("exception", "logentry", "transaction", "sdk", "tags", "contexts", "threads"),
    )
)
#: What must not be in a line of a log, either: the query of an address holds signatures, the rest are keys.
_SECRETS = (
    (re.compile(r"(https?://[^\s?#'\"]*)[?#][^\s'\"]*"), r"\1?…"),
    (re.compile(r"(https?://)[^\s/@'\"]+@"), r"\1…@"),
    (re.compile(r"(?i)\b(bearer|key|token|basic)[ =:]+[A-Za-z0-9._~+/=-]{8,}"), r"\1 …"),
    (re.compile(r"\b(rw_live|key|sk|whsec)_[A-Za-z0-9_+/=-]{8,}"), r"\1_…"),
)


def begin(dsn: str, environment: str) -> None:
    """Send reports from now on, from a thread of the library's own."""
    sentry_sdk.init(
        dsn=dsn,
        environment=environment,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            LoggingIntegration(level=None, event_level=logging.ERROR, sentry_logs_level=None),
            DedupeIntegration(),
            AtexitIntegration(callback=lambda _pending, _timeout: None),
        ],
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        traces_sample_rate=0.0,
        send_client_reports=False,
        auto_session_tracking=False,
        shutdown_timeout=FLUSH_S,
        before_send=scrubbed,  # type: ignore[arg-type]  # its type is of a closed dictionary
    )


def scrubbed(event: dict[str, Any], hint: dict[str, Any]) -> dict[str, Any]:
    """The report without whatever is not ours."""
    error = (hint.get("exc_info") or (None, None, None))[1]
    found = {name: value for name, value in event.items() if name in _KEPT}
    found["tags"] = log_context.present()
    found["contexts"] = {name: one for name, one in found.get("contexts", {}).items() if name == "runtime"}
    if said := found.get("logentry"):
        line = str(said.get("formatted") or said.get("message") or "")
        found["logentry"] = {"message": cleaned(line, error)}
    for one in found.get("exception", {}).get("values", []):
        is_ours = str(one.get("module") or "").partition(".")[0] in OURS
        one["value"] = cleaned(str(one.get("value") or ""), error) if is_ours else LEFT_OUT
        for frame in (one.get("stacktrace") or {}).get("frames", []):
            frame.pop("vars", None)
    return found


def cleaned(text: str, error: BaseException | None) -> str:
    """A text of ours without what it may quote."""
    text = without_values(text, [error])
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
