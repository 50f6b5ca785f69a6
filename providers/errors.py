"""Every way in which talking to a provider can fail; each class answers "what does the caller do now?".

ProviderError
├── RequestRejected     bad request or moderation                     → end the task, refund; counts against nobody
├── KeyRefused          the key is wrong or disabled                  → quarantine the key, take the next
├── OutOfCredits        empty balance, whatever the HTTP status       → bench the key, tell the operator, next
├── ModelForbidden      this account may not use this model           → this key and model only
├── Busy                too many, too fast; retry_after_s             → cool the account down, give the slot back
│   └── GatewayAnswer   a proxy in front of the provider said no      → the same; no news of key, model or account
├── ProviderDown        a read call failed (poll, look-up, download)  → park, count it for the circuit
├── JobFailed           verified: the job ended badly                 → next model if another could surely do it
├── JobNotFound         a read says that the job does not exist       → believed after three in a row over a minute
├── NotSent             no byte left this machine                     → safe to send again
└── SubmissionUnknown   everything else about a submit                → reconcile before any new submit
    └── DuplicateReference  our reference is taken: a job exists      → look it up now and adopt it

ForeignOrigin is both NotSent and ProviderDown: a URL outside the provider's base URL, refused before the socket.

Messages are safe to log and to store: never a key, a header or a signed URL in them, and no character that a row
refuses.
"""

from __future__ import annotations

from typing import Any

from providers.untrusted import storable

LONGEST_TEXT = 1000  # characters of a message
LONGEST_CODE = 60  # of our own word

Outcome = tuple[str, bool, str]  # of a failed job: our code, could another model make it, sentence for the user

#: Sentences for users that several providers' failures come down to.
REFUSED_BY_SAFETY = "The video provider's safety check refused this request."
BAD_IMAGE = "The video provider could not use the image."
INTERNAL_ERROR = "The video provider had an internal error."


class ProviderError(Exception):
    """Root of the tree.

    `message` is for operators; `user_message` is a plain sentence that a page may print; `code` is our own stable
    word (`moderation`, `bad_request`, …); `provider_code` is the provider's, verbatim.
    """

    code = "provider_error"
    user_message = "The video provider failed."
    #: What the provider answered, as it may be kept; set by who has the answer.
    answer = ""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        user_message: str | None = None,
        provider_code: str = "",
        http_status: int | None = None,
    ) -> None:
        self.message = storable(message, LONGEST_TEXT)
        super().__init__(self.message)
        self.provider_code = storable(provider_code, LONGEST_TEXT)
        self.http_status = http_status
        if code is not None:
            self.code = storable(code, LONGEST_CODE)
        if user_message is not None:
            self.user_message = storable(user_message, LONGEST_TEXT)


class RequestRejected(ProviderError):
    """The request itself is at fault (bad parameter, moderation): no other try of it can succeed."""

    code = "bad_request"
    user_message = "The video provider refused this request."


class KeyRefused(ProviderError):
    code = "key_refused"


class OutOfCredits(ProviderError):
    code = "out_of_credits"


class ModelForbidden(ProviderError):
    code = "model_forbidden"


class Busy(ProviderError):
    """Too many or too fast, and no job was made. `retry_after_s` in seconds when the provider said one."""

    code = "busy"

    def __init__(self, message: str, *, retry_after_s: float | None = None, **more: object) -> None:
        super().__init__(message, **more)  # type: ignore[arg-type]  # the same keywords as the root's
        self.retry_after_s = retry_after_s


class GatewayAnswer(Busy):
    """A submit was answered by something before the provider (a proxy, a firewall, a wrong address), not by its API.

    What is not the provider's own JSON is a proxy's answer: proof that no job exists, nothing about key or model: sent
    again later, cooling down. `Provider.parse_submit` decides for all providers which answers are that.
    """

    code = "gateway_answer"
    user_message = "The video provider can't be reached."


class ProviderDown(ProviderError):
    code = "provider_down"


class JobFailed(ProviderError):
    """The job ended badly.

    `another_model_could` is False where no other model could get past it (moderation, bad input), and where the failure
    is in no table of the adapter (`is_known` False): it may be moderation. `may_be_the_request`: another model could,
    but the cause may lie in what was asked for (a failed check of the finished video), so it does not speak against the
    provider. `signature` is one line for all failures of this kind, without anything of this one job
    (`failures.signature`); empty where the adapter gives none.
    """

    code = "generation_failed"
    user_message = "The video provider could not make this video."

    def __init__(
        self,
        message: str,
        *,
        another_model_could: bool,
        is_known: bool = True,
        may_be_the_request: bool = False,
        signature: str = "",
        **more: object,
    ) -> None:
        super().__init__(message, **more)  # type: ignore[arg-type]  # the same keywords as the root's
        self.another_model_could = another_model_could
        self.is_known = is_known
        self.may_be_the_request = may_be_the_request
        self.signature = signature

    @classmethod
    def of(cls, outcome: Outcome, message: str, **more: Any) -> JobFailed:
        """A failure whose outcome is known from the provider's code or text."""
        code, another, sentence = outcome
        return cls(message, another_model_could=another, code=code, user_message=sentence, **more)


class JobNotFound(ProviderError):
    code = "job_not_found"


class NotSent(ProviderError):
    code = "not_sent"


class SubmissionUnknown(ProviderError):
    """The submit may or may not have made a job: never send it again before the truth is known."""

    code = "outcome_unknown"
    user_message = (
        "The connection to the video provider was lost at a moment when nobody can tell whether the job began."
    )


class DuplicateReference(SubmissionUnknown):
    """An earlier send with our reference was accepted, and this one made nothing: that job runs and costs money."""

    code = "duplicate_reference"


class ForeignOrigin(NotSent, ProviderDown):
    code = "foreign_origin"
