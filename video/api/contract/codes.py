"""Every `code` of an error answer: its statuses, what it means, and what to do.

The schema, `docs/errors.md` and the tests read it; the views don't, so nothing here can break an answer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """One code. `meaning` and `remedy` are sentences for the developer of a client."""

    statuses: tuple[int, ...]
    meaning: str
    remedy: str


def _code(*statuses: int, meaning: str, remedy: str) -> Code:
    return Code(statuses, meaning, remedy)


_LATER = "Send the same request again after `Retry-After` seconds."

CODES: dict[str, Code] = {
    # What is sent.
    "invalid_request": _code(
        400,
        meaning="A field of the body, a parameter or a header is wrong. `details` names each with what would be right.",
        remedy="Correct what `details` names.",
    ),
    "invalid_json": _code(
        400,
        meaning="The body is no JSON object that can be read in one way only: cut, not UTF-8, a name twice, NaN.",
        remedy="Send one JSON object in UTF-8.",
    ),
    "invalid_form": _code(
        400, meaning="The form is cut or malformed.", remedy="Send it whole, as multipart/form-data."
    ),
    "bad_request": _code(
        400,
        meaning="The request can't be read: its Host is not served here, or it has too many parameters.",
        remedy="Check the address; operators list served names in `ALLOWED_HOSTS`.",
    ),
    "no_capable_model": _code(
        400,
        meaning="No model can make this video: what is asked does not go together. `details` has each model's reason.",
        remedy="Change one of the fields that `details` names.",
    ),
    "model_unavailable": _code(
        400,
        409,
        meaning="Nothing is wrong with the order, but no model that could make it is available here now.",
        remedy="Name one of the available models, or leave `model` out.",
    ),
    "image_unreadable": _code(
        400, meaning="The start image is no picture that can be read.", remedy="Send a whole JPEG, PNG or WebP picture."
    ),
    "image_too_large": _code(
        400, 413, meaning="The start image has too many bytes or pixels.", remedy="Send a smaller picture."
    ),
    "no_such_upload": _code(
        400, meaning="There is no such upload of yours, or its time is over.", remedy="Upload the picture again."
    ),
    "wrong_password": _code(
        400, meaning="`currentPassword` is not the present one.", remedy="Ask the user for the present password."
    ),
    "weak_password": _code(
        400, meaning="The new password is too short or too common.", remedy="Choose another one; `details` says why."
    ),
    "unknown_provider": _code(
        400,
        meaning="A call-back that no provider in use here sends.",
        remedy="Operators: name the provider in the address.",
    ),
    # Who asks.
    "not_authenticated": _code(
        401, meaning="There is no token.", remedy="Log in, or send `Authorization: Bearer <token or API key>`."
    ),
    "invalid_token": _code(
        400,
        401,
        meaning="The token is not valid here: malformed, of another server, its login has ended, its user is off. In a "
        "body (400): it was used, or its time is over.",
        remedy="Log in again; ask for another link for a new password.",
    ),
    "token_expired": _code(401, meaning="The token's time is over.", remedy="Refresh the login, or log in again."),
    "invalid_credentials": _code(401, meaning="The name or the password is wrong.", remedy="Check both."),
    "no_refresh_token": _code(
        401, meaning="No refresh token came in the cookie or the body.", remedy="Log in, or send `refreshToken`."
    ),
    "invalid_key": _code(
        401, meaning="It is no API key, or there is no such one.", remedy="Check the key; each letter of it counts."
    ),
    "key_expired": _code(401, meaning="The API key's time is over.", remedy="Make a new key, or roll it in time."),
    "key_revoked": _code(
        401, meaning="The API key was revoked, or its user is switched off.", remedy="Make a new key."
    ),
    "bad_signature": _code(
        401,
        meaning="The signature of a provider's call-back is missing, wrong or too old.",
        remedy="Operators: compare the setting that checks the provider's call-backs.",
    ),
    "insufficient_credits": _code(
        402,
        meaning="The video costs more credits than the account holds; `details` has both numbers. Nothing was made.",
        remedy="Get credits from the operator.",
    ),
    "key_limit_reached": _code(
        402,
        meaning="The API key has debited what it may on one day; `details` has the numbers and when the day ends.",
        remedy="Wait for the next day in UTC, or use a key with a higher `dailyCredits`.",
    ),
    "price_too_high": _code(
        402,
        meaning="It costs more than `maxCredits` allows; `details` has both numbers. Nothing was made or paid.",
        remedy="Ask for a new quote, and send its `credits` as `maxCredits`.",
    ),
    "scope_missing": _code(
        403, meaning="The API key lacks the scope that `details.scope` names.", remedy="Use a key that has it."
    ),
    "login_needed": _code(
        403, meaning="No API key may do this.", remedy="Log in by POST /api/auth/login, and send that token."
    ),
    "address_not_allowed": _code(
        403,
        meaning="The API key may not be used from this address.",
        remedy="Call from an address that the key's `addresses` have.",
    ),
    "sign_up_off": _code(403, meaning="Nobody can sign up here.", remedy="Ask the operator for an account."),
    "forbidden": _code(403, meaning="The caller may not do that.", remedy="Leave out what only staff may ask for."),
    "csrf": _code(
        403,
        meaning="A page of another site sent the call with the cookie.",
        remedy="Operators: add the page's origin to `FRONTEND_ORIGINS`. Programs: send a Bearer token and no cookie.",
    ),
    "storage_full": _code(
        403,
        meaning="The caller's stored videos fill what may be stored; `details` has `usedBytes` and `limitBytes`.",
        remedy="Delete tasks that are no longer needed.",
    ),
    # What it is about.
    "not_found": _code(
        404,
        meaning="There is no such task, login, key, endpoint or address, or it is somebody else's.",
        remedy="Check the id or the address.",
    ),
    "method_not_allowed": _code(
        405, meaning="The address does not take this method.", remedy="Use one that the header `Allow` names."
    ),
    "idempotency_key_in_use": _code(
        409, meaning="The first call with this Idempotency-Key is still under way.", remedy=_LATER
    ),
    "idempotency_key_reused": _code(
        409,
        meaning="The Idempotency-Key already stands for another request.",
        remedy="Use a new key for each new video, and the same one only to repeat the same request.",
    ),
    "not_cancellable": _code(
        409, meaning="The task has ended, so it can't be cancelled.", remedy="Read its status; nothing is to be done."
    ),
    "not_retryable": _code(
        409,
        meaning="The task is under way, or its video was made.",
        remedy="Read its status; create a new task for another video.",
    ),
    "attempt_unsettled": _code(
        409,
        meaning="Whether the last attempt has made a job is not known yet, or its job is being stopped.",
        remedy="Try again in some minutes.",
    ),
    "source_gone": _code(
        409,
        meaning="The provider has deleted the finished video, so only generating it anew helps, which is paid again.",
        remedy='Retry with `"regenerate": true`.',
    ),
    "original_gone": _code(
        409,
        meaning="The provider's file is not kept, or not any more, so nothing can be rendered from it.",
        remedy="Create the video anew. Operators: `KEEP_SOURCE_DAYS` is how long originals are kept.",
    ),
    "not_finished": _code(
        409, meaning="The task is under way, so there is no video yet.", remedy="Wait until it is `success`."
    ),
    "username_taken": _code(409, meaning="Somebody has this name already.", remedy="Choose another name."),
    "too_many_keys": _code(409, meaning="The user has as many API keys as one may have.", remedy="Revoke one first."),
    "too_many_endpoints": _code(
        409, meaning="The user has as many webhook endpoints as one may have.", remedy="Delete one first."
    ),
    "endpoint_ended": _code(
        409, meaning="The endpoint has ended: its receiver answered 410.", remedy="Make a new endpoint."
    ),
    "endpoint_off": _code(
        409, meaning="The endpoint is off or has ended, so nothing is sent.", remedy="Switch it on, or make a new one."
    ),
    "secret_unreadable": _code(
        409, meaning="The secret was stored under a `SECRET_KEY` that is no longer there.", remedy="Roll the secret."
    ),
    "secret_rolled_lately": _code(
        409,
        meaning="The secret before this one still signs.",
        remedy="Roll later, or with `overlapHours` 0, which ends both at once.",
    ),
    "user_off": _code(
        409, meaning="The task's user is switched off.", remedy="Operators: switch the user on, then retry."
    ),
    "not_paused": _code(409, meaning="The pause has ended.", remedy="Nothing is left to do."),
    "task_active": _code(
        409, meaning="The task is under way, so it can't be deleted.", remedy="Cancel it, or wait for its end."
    ),
    "task_deleted": _code(410, meaning="The task was deleted with its files and its prompt.", remedy="Forget its id."),
    # The body as bytes.
    "length_required": _code(
        411, meaning="The body came without a Content-Length.", remedy="Send the body whole, with its length."
    ),
    "body_too_large": _code(
        413, meaning="The body has more bytes than this call takes.", remedy="Send less; the message has the limit."
    ),
    "uri_too_long": _code(414, meaning="The path or the query is too long.", remedy="Shorten the address."),
    "unsupported_media_type": _code(
        415, meaning="The body's Content-Type is not taken here.", remedy="Send the type that the call names."
    ),
    "unsupported_encoding": _code(415, meaning="The body is compressed.", remedy="Send it without a Content-Encoding."),
    "header_too_long": _code(
        431, meaning="A header is too long.", remedy="Shorten it; cookies of other programs count."
    ),
    # How much.
    "too_many_waiting": _code(429, meaning="Too many of the caller's tasks, or of all, wait.", remedy=_LATER),
    "too_many_live": _code(
        429, meaning="The user has as many tasks under way as they may.", remedy="Wait until one of them ends."
    ),
    "too_many_tries": _code(
        429,
        meaning="Too many failed logins, wrong API keys, sign-ups or resets of this name or address.",
        remedy=_LATER,
    ),
    "too_many_requests": _code(
        429, meaning="All requests of this minute, of the user or the API key, are used up.", remedy=_LATER
    ),
    "too_many_uploads": _code(
        429, meaning="The caller's uploads fill what is kept for them; each goes when its time is over.", remedy=_LATER
    ),
    # The server.
    "internal_error": _code(
        500,
        meaning="Something broke on the server. `details.errorId`, if there is one, is in its log.",
        remedy="Repeat a reading call, or a create with its Idempotency-Key; tell the operator the number.",
    ),
    "no_email": _code(501, meaning="This server sends no e-mail.", remedy="Ask the operator for a new password."),
    "unavailable": _code(
        503, meaning="The database, the file store or their keys can't be used just now.", remedy=_LATER
    ),
    "overloaded": _code(503, meaning="The server has more requests or pictures than it can take.", remedy=_LATER),
    "logins_busy": _code(503, meaning="Too many passwords are being checked at once.", remedy=_LATER),
    "keys_unavailable": _code(
        503, meaning="The keys that check a provider's signature can't be had just now.", remedy=_LATER
    ),
}

#: What each call may answer, whatever it is: what is wrong with the request as such, or with the server.
ANYWHERE = (
    "invalid_request",
    "bad_request",
    "not_found",
    "method_not_allowed",
    "length_required",
    "body_too_large",
    "uri_too_long",
    "unsupported_encoding",
    "header_too_long",
    "too_many_requests",
    "internal_error",
    "unavailable",
    "overloaded",
)
#: Of each call that needs a login, and of each that takes one by the cookie and changes something.
LOGIN = (
    *("not_authenticated", "invalid_token/401", "token_expired", "invalid_key", "key_expired", "key_revoked"),
    *("address_not_allowed", "scope_missing", "login_needed", "too_many_tries"),
)
UNSAFE = ("csrf",)
#: Of each call with a JSON body.
BODY = ("invalid_request", "invalid_json", "body_too_large", "unsupported_media_type")


def by_status(codes: tuple[str, ...]) -> dict[int, list[str]]:
    """The codes by each status that they come with, in order; `code/401` comes with that one only."""
    found: dict[int, list[str]] = {}
    for word in dict.fromkeys(codes):
        code, _, only = word.partition("/")
        for status in (int(only),) if only else CODES[code].statuses:
            found.setdefault(status, []).append(code)
    return dict(sorted(found.items()))
