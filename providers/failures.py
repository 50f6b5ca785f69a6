"""Why a job failed: told by the tables of its adapter, or never seen, and then no other model is tried.

A failure that nobody has seen may be a refusal of the content, and trying refused content at other vendors is what gets
accounts suspended. So it is `is_known=False`, and `signature` is the key under which an operator says what it means.
"""

from __future__ import annotations

import re
from typing import Any

from providers.errors import JobFailed, Outcome
from providers.untrusted import safe_text

#: Our code of a failure that is in no table.
NEVER_SEEN = "unknown_failure"
NO_REASON = "no reason given"
LONGEST_SIGNATURE = 200

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+|\bwww\.\S+|\bdata:\S+")
#: Quoted parts hold what the user wrote, or the value that was refused. A quotation that does not end was cut off.
_QUOTED = re.compile(
    r'"[^"]*(?:"|$)|“[^”]*(?:”|$)|‘[^’]*(?:’|$)|«[^»]*(?:»|$)|`[^`]*(?:`|$)|「[^」]*(?:」|$)|『[^』]*(?:』|$)'
    r"|《[^》]*(?:》|$)|【[^】]*(?:】|$)|(?<!\w)'.*?(?:'(?!\w)|$)"
)
#: Behind this word the rest is the user's.
_ECHO = re.compile(r"(?:\bprompt(?:text)?|提示词)\s*[:=：].*")
#: Letters of other scripts are no part of it: Chinese has no blanks between words.
_NUMBERED = re.compile(r"[a-z_.\d-]*\d[a-z_.\d-]*")
_LONG_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b(?=[a-z_]*\d)[0-9a-z]{12,}\b|\d{6,}")


def job_failed(
    provider: str,
    outcome: Outcome | None,
    *,
    title: str,
    text: str,
    provider_code: str = "",
    codeless: str = "",
    **more: Any,
) -> JobFailed:
    """The failure of a job at `provider`, with its signature; `outcome` None: it is in no table.

    In the message, `title` says who spoke, and `codeless` stands where a code belongs and none was given. `more` as for
    JobFailed.
    """
    shown = provider_code or codeless
    message = f"{title}: {text or NO_REASON}" + (f" ({shown})" if shown else "")
    more |= {"provider_code": provider_code, "signature": signature(provider, provider_code, text)}
    if outcome is not None:
        return JobFailed.of(outcome, message, **more)
    return JobFailed(message, another_model_could=False, is_known=False, code=NEVER_SEEN, **more)


def signature(provider: str, code: str, text: str) -> str:
    """One line for all failures of a kind: provider, and its code, else its text without what differs from job to job.

    Lower case, at most LONGEST_SIGNATURE characters; ids, numbers, addresses and quotations are out of it, so that it
    holds no words of a prompt that was quoted.
    """
    kind = _LONG_ID.sub("#", safe_text(code, LONGEST_SIGNATURE).lower()) if code else _kind_of(text)
    return f"{provider.lower()}: {kind}"[:LONGEST_SIGNATURE].rstrip()


def _kind_of(text: str) -> str:
    line = safe_text(text, 2000).lower()
    if not line:
        return NO_REASON
    for pattern, stand_in in ((_URL, " "), (_QUOTED, " "), (_ECHO, " "), (_NUMBERED, "#")):
        line = pattern.sub(stand_in, line)
    line = " ".join(line.split()).strip(" .,:;!。，：；！-")
    return line or "no words of its own"
