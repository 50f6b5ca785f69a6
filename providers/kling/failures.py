"""Why a task of Kling's failed: it has no code, only a text (`task_status_msg`, `message`), in English or Chinese.

Kling documents no list of these texts. The tables hold what its documents say of its error codes, what was seen in
public reports, and the words by which other programs that use Kling tell a refusal; read 2026-11-28. A word of a
refusal anywhere in the text makes it one: one too many costs a fallback, one too few may cost an account. A fault of
Kling's own is believed only if the text says nothing else. A text in no table is never tried elsewhere
(`failures.job_failed`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from providers import errors
from providers.errors import JobFailed, Outcome
from providers.failures import job_failed
from providers.untrusted import safe_text

_MODERATION: Outcome = ("moderation", False, errors.REFUSED_BY_SAFETY)
_BAD_IMAGE: Outcome = ("bad_request", False, errors.BAD_IMAGE)
_INTERNAL: Outcome = ("generation_failed", True, errors.INTERNAL_ERROR)

#: Fragments in lower case by what they mean, one group a source; separated by "|". The first in the text counts.
_TABLE: Mapping[Outcome, tuple[str, ...]] = {
    _MODERATION: (
        # Seen in failed tasks: "Failure to pass the risk control system" (github QuantumNous/new-api pull 3148, and
        # many others; for a known person in a picture, reported 2026-05-13), "content policy".
        "risk control|risk_control|content policy",
        # Kling's error codes 1300 and 1301: "Trigger strategy of the platform", "Trigger the content security policy
        # of the platform", in the newer translation "Request blocked by platform policy".
        "content security|security policy|trigger strategy|platform policy|blocked",
        # The same page in Chinese: 触发策略, 触发平台策略, 触发平台的内容安全策略.
        "触发策略|平台策略|内容安全|安全策略",
        # A client of kie.ai's Kling 3.0 lists the words that it saw: sensitive, nsfw, explicit, porn, sexual, minor,
        # child, underage; moderation, policy, prohibited, forbidden, inappropriate.
        "sensitive|nsfw|explicit|porn|sexual|underage|child|moderat|policy|policies|prohibit|forbidden|inappropriate",
        # "Kling task failed: unsafe image"; Runway's and fal's words for the same.
        "unsafe|safety|violat|guideline|content filter|content_filter|content check|compliance|non-compliant",
        # ByteDance's and fal's texts for likenesses and rights, which resellers of Kling pass on beside its own:
        # "may contain likenesses of real people", "related to copyright restrictions".
        "copyright|infring|trademark|likeness|real person|real people|public figure|celebrit|privacy|portrait right",
        # As 审核未通过 (review not passed) and its reasons are translated.
        "not pass|rejected by|audit|nudity|violen|gore|terror|politic|illegal content|illegal information",
        "not allowed|not permitted|disallow|banned",
        # The same in Chinese, from classifiers of programs that use Kling and its neighbours: sensitive, violation,
        # banned, against the rules or the law, review, inspection, risk control, risk, compliance, improper, stopped.
        "敏感|违规|违禁|违反|违法|审核|审查|风控|风险|合规|不合适|不当|拦截|屏蔽|拒绝|禁止",
        # And its reasons: pornography, vulgarity, nudity, what touches on sex, politics or terror, violence, blood,
        # politics, copyright, infringement, likeness, real person, privacy, minors, children, safety.
        "色情|低俗|裸露|涉黄|涉政|涉恐|暴力|血腥|政治|版权|侵权|肖像|真人|隐私|未成年|儿童|安全",
        # Those of them that traditional characters write otherwise.
        "違規|違禁|違反|違法|審核|審查|風控|風險|合規|不合適|不當|攔截|遮蔽|拒絕|版權|侵權|隱私|內容安全",
    ),
    _BAD_IMAGE: (
        # "Image pixel is invalid" (github QuantumNous/new-api pull 2532): a side below 300 pixels; "The resolution or
        # aspect ratio of the input image is invalid, please check the image".
        "image pixel is invalid|aspect ratio of the input image|resolution of the input image",
        # Seen through fal: "File is not in a valid base64 format".
        "not in a valid base64",
    ),
}

#: Kling's error codes 5000 to 5002, in English and Chinese, as far as their table words them: "Server internal error",
#: "Server temporarily unavailable, usually due to maintenance", "Server internal timeout, usually due to a backlog".
_FAULT = re.compile(
    r"(?:(?:server )?internal (?:server )?error|server temporarily unavailable|server (?:internal )?timeout"
    r"|(?:服务器)?内部错误|服务器暂时不可用|服务器内部超时)"
    r"(?:\W+(?:usually due to (?:maintenance|a backlog)|please (?:try again|retry)(?: later)?"
    r"|通常是在维护|通常是发生积压|请?稍后重试))?\W*"
)


def _rows() -> Iterator[tuple[str, Outcome]]:
    for outcome, groups in _TABLE.items():
        for group in groups:
            for fragment in group.split("|"):
                yield fragment, outcome


_ROWS = tuple(_rows())


def outcome_of(text: str) -> Outcome | None:
    """What a text of a failed task means; None for one that is in no table, and for none at all."""
    lower = text.lower()
    found = next((outcome for fragment, outcome in _ROWS if fragment in lower), None)
    return found or (_INTERNAL if _FAULT.fullmatch(lower) else None)


def failure(text: object) -> JobFailed:
    """The failure of a task with this text."""
    whole = safe_text(text, 2000)  # a refusal may come at the end
    return job_failed("kling", outcome_of(whole), title="Kling", text=safe_text(whole))
