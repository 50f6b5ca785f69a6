"""Every `errorCode` of a task and of its attempts: what it means, and what to do.

`docs/errors.md` and the tests read it. Adapters and stages give the codes; the tests compare.
"""

from __future__ import annotations

_RETRY = "Retry the task: it goes on where it stopped."
_AGAIN = "Retry the task later, or create it with another model."
_CHANGE = "Change the prompt or the picture, and create a new task."
_WAITS = "Nothing; the task goes on by itself. If it ended with this, retry it."

TASK_CODES: dict[str, tuple[str, str]] = {
    # What was asked for.
    "moderation": ("The provider's safety check refused the prompt, the picture or the finished video.", _CHANGE),
    "bad_request": ("The provider refused the request.", "Read `error`; change what it names, and create a new task."),
    "image_unreadable": ("The start image is no picture that can be read.", _CHANGE),
    "image_too_large": ("The start image has too many bytes or pixels.", _CHANGE),
    "image_not_found": (
        "The host says that the start image is not there.",
        "Check the link; upload the picture.",
    ),
    "image_forbidden_address": ("The link of the start image leads to no public address.", "Upload the picture."),
    "image_unreachable": ("The host of the start image did not answer as it should.", "Retry, or upload the picture."),
    "image_upload_gone": ("The uploaded picture was deleted.", "Upload it again, and create a new task."),
    "image_unsuitable": ("No model that the task may use takes a picture of this size or shape.", _CHANGE),
    # What the provider did.
    "generation_failed": ("The provider could not make the video.", _AGAIN),
    "unknown_failure": ("The provider gave a reason that nobody has seen yet, so no other model was tried.", _AGAIN),
    "generation_timeout": ("The provider gave the job up, since it took too long.", _AGAIN),
    "provider_unavailable": ("The provider is out of order.", _AGAIN),
    "provider_error": ("The provider failed.", _AGAIN),
    "provider_down": ("The provider could not be asked.", _AGAIN),
    "gateway_answer": ("Something before the provider answered in its place.", _AGAIN),
    "busy": ("The provider had too many requests.", _AGAIN),
    "no_capacity": ("No provider had room for the video in time.", _AGAIN),
    "no_attempt_left": ("All tries failed.", _AGAIN),
    "timeout": ("The provider took longer than a task may.", _AGAIN),
    "outcome_unknown": ("Nobody can tell whether the provider has begun the job.", "Retry in some minutes."),
    "duplicate_reference": ("The provider has the job already.", "Retry in some minutes."),
    "job_not_found": ("The provider no longer knows the job.", _AGAIN),
    "job_lost": ("The job was given up: the provider never told its end.", _AGAIN),
    "not_sent": ("The request never left this server.", _AGAIN),
    "foreign_origin": ("The provider named an address that is not its own.", "Tell the operator."),
    "key_refused": ("The provider refused the server's key.", "Tell the operator."),
    "out_of_credits": ("The server's account at the provider is empty.", "Tell the operator."),
    "model_forbidden": ("The server's account may not use this model.", "Name another model; tell the operator."),
    # The file.
    "link_expired": ("The provider's link to the finished video has ended.", _RETRY),
    "download_failed": ("The finished video could not be fetched from the provider.", _RETRY),
    "download_too_large": ("The finished video has more bytes than this server takes.", "Tell the operator."),
    "forbidden_address": ("The provider's link leads to no public address.", "Tell the operator."),
    "source_gone": (
        "The finished video is no longer at the provider.",
        'Retry with `"regenerate": true`, paid again.',
    ),
    "not_a_video": ("What the provider delivered is no video.", _AGAIN),
    "damaged_media": ("What the provider delivered is damaged.", _AGAIN),
    "transcode_failed": ("The video could not be converted.", _RETRY),
    "media_timeout": ("Converting the video took too long.", _RETRY),
    "media_error": ("The video could not be processed.", _RETRY),
    "disk_full": ("The server is short of disk space.", _WAITS),
    "storage_down": ("The server's storage can't be reached.", _WAITS),
    "storage_refused": ("The server's storage refuses it.", "Tell the operator; then retry."),
    # The task.
    "amount_clamped": ("Of a step: an amount that the provider named was out of all bounds.", "Tell the operator."),
    "cancelled": ("It was cancelled.", "Nothing; retry it to make it after all."),
    "task_ended": ("Of an attempt: its task ended before it.", "Nothing."),
    "user_off": ("Of an attempt: the task's user is switched off.", "Operators: switch the user on."),
    "worker_lost": ("Its workers died again and again.", "Tell the operator; then retry."),
    "internal_error": ("Something broke on the server.", "Tell the operator; then retry."),
    "failed": ("It failed, and nothing more is known.", _RETRY),
}
