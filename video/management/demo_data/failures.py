"""The ways in which made-up attempts and tasks end without a video, in the words of the product and the providers."""

from __future__ import annotations

from dataclasses import dataclass

from providers.errors import BAD_IMAGE, INTERNAL_ERROR, REFUSED_BY_SAFETY


@dataclass(frozen=True)
class Failure:
    """One way to end. `state` is the attempt's, empty where none was made."""

    code: str
    message: str  # for the user
    detail: str  # for operators, as the provider put it
    state: str = ""
    stage: str = "poll"  # where the task ends
    part: int = 1  # of a hundred failures, about
    part_of_render: float = 1.0  # after how much of a usual render
    refunds: bool = True
    another_model_could: bool = True


OF_PROVIDERS = (
    Failure("generation_failed", INTERNAL_ERROR, "INTERNAL.BAD_OUTPUT: an unexpected error occurred", "failed"),
    Failure(
        "provider_unavailable",
        "The video provider is out of order.",
        "answered 503, code SERVICE_UNAVAILABLE: the service is overloaded",
        "failed",
        part_of_render=0.2,
    ),
    Failure(
        "generation_timeout",
        "The video provider gave the job up, since it took too long.",
        "task timed out on the provider's side after 600 s",
        "failed",
        part_of_render=3.0,
    ),
)
FINAL = (
    Failure(
        "moderation",
        REFUSED_BY_SAFETY,
        "answered 400, code 1301: Trigger the platform's content security policy (the content check refused it)",
        "rejected",
        "generate",
        34,
        0.0,
        another_model_could=False,
    ),
    Failure(
        "moderation",
        REFUSED_BY_SAFETY,
        "SAFETY.OUTPUT.THIRD_PARTY: the finished video did not pass the check",
        "failed",
        "poll",
        10,
        another_model_could=False,
    ),
    Failure(
        "bad_request",
        BAD_IMAGE,
        "answered 400: image dimensions are not supported",
        "rejected",
        "generate",
        8,
        0.0,
        another_model_could=False,
    ),
    Failure("generation_failed", INTERNAL_ERROR, "INTERNAL: please try again later", "failed", part=14),
    Failure(
        "timeout",
        "The video provider took longer than a task may.",
        "still IN_PROGRESS at the task's deadline; the job was given up",
        "lost",
        part=6,
        part_of_render=12.0,
    ),
    Failure(
        "outcome_unknown",
        "Nobody can tell whether the provider has begun this video.",
        "the submit got no answer within 60 s, and no job was found under our reference",
        "lost",
        "generate",
        5,
        0.0,
        another_model_could=False,
    ),
    Failure(
        "download_failed",
        "The finished video could not be fetched from the provider.",
        "the host of the file answered 503 for two hours",
        "succeeded",
        "download",
        5,
    ),
    Failure(
        "damaged_media",
        "What the provider delivered is damaged.",
        "moov atom not found, also after it was fetched again",
        "succeeded",
        "transcode",
        6,
    ),
    Failure(
        "image_unreachable",
        "The host of the start image did not answer as it should.",
        "the host of the start image answered 404 and then nothing",
        "",
        "generate",
        4,
    ),
    Failure("no_capacity", "No video provider had room for this video in time.", "", "", "generate", 8),
)
NO_ROOM = FINAL[-1]
OUT_OF_TIME = FINAL[4]
#: The same as of one in `FINAL`, a moment ago: the attempt is not given up yet, and holds its slot.
OPEN_CASE = Failure(
    "outcome_unknown",
    "Nobody can tell whether the provider has begun this video.",
    "can't tell whether the job began",
    "unknown",
    "generate",
    part_of_render=0.0,
)
CANCELLED_IN_LINE = Failure("cancelled", "", "cancelled by its user", "", "generate")
CANCELLED_WHILE_RENDERING = Failure(
    "cancelled", "", "cancelled by its user", "cancelled", "poll", part_of_render=0.4, refunds=False
)
#: What is odd about a video that was delivered all the same.
WARNINGS = (("shorter_than_ordered",), ("sound_left_out",), ("last_frame_held",), ("cover_is_first_frame",))
