"""The shapes of what the calls answer; most are shared by several."""

from __future__ import annotations

from django.conf import settings

from media_pipeline.warnings import KINDS
from providers import catalogue, ranking
from providers.contract import ReasonCode
from providers.models import Sound
from providers.registry import PROVIDERS
from video.actions.cancel import Refund
from video.api import idempotency
from video.api.contract.codes import CODES
from video.api.contract.describe import Parameter
from video.api.contract.shapes import (
    Schema,
    always,
    any_of,
    anything,
    described,
    flag,
    link,
    many,
    mapping,
    maybe,
    moment,
    number,
    one_of,
    optional,
    partly,
    shape,
    text,
    usd,
    whole,
)
from video.models import CreditEntry, PriceRule, Stage, VideoTask

TASK_PATTERN = "^task_[0-9a-z]{1,35}$"
TASK_ID = text("The task's id.", example="task_01jd3v4k", pattern=TASK_PATTERN)
STAGE = one_of(Stage.values, "The next piece of work; of a failed task the one that failed.")
STATUS = one_of(("pending", "running", "success", "failed"), "How far it is. A closed list; the last two are final.")
PROVIDER = one_of((one.name for one in PROVIDERS), "The provider.")
MODEL = text("The model's id.", example=catalogue.MODELS[0].id)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    text("Makes a repeat harmless: the same key and body get the first answer.", pattern=r"^[\x21-\x7e]{1,255}$"),
    place="header",
)
REPLAYED = {idempotency.REPLAYED: always("true", "Only on the answer to a repeat.")}
TASK_IN_PATH = Parameter("task_id", TASK_ID, place="path")
OF_THE_PAGE_BEFORE = "`nextCursor` of the page before; without it the newest."
ENTRY_CURSOR = Parameter("cursor", text(OF_THE_PAGE_BEFORE, pattern="^[1-9][0-9]{0,17}$"))
LIMIT = Parameter("limit", {**whole("How many at most.", 1, 100), "default": 20})
NEXT_CURSOR = maybe(text("`cursor` of the next page; null at the end."))
ERROR_CODE = text("For programs: why it failed; the list is in docs/errors.md.", example="moderation")
NOTHING = shape("", "Nothing.")

# --- tasks -----------------------------------------------------------------------------------------------------------

WARNING = shape(
    "Warning",
    "What is odd about a video that was delivered all the same.",
    code={**one_of(KINDS, "For programs. More may come."), "x-extensible": True},
    message=text("For people."),
)
RESULT = shape(
    "Result",
    "Links to the files. Each is signed and ends after some hours; ask the status again for fresh ones. Those of the "
    "video and the cover are null when the files are gone.",
    videoUrl=maybe(link("The video: MP4, H.264.")),
    thumbnailUrl=maybe(link("The cover: the frame that `cover` chose, 1280 × 720 or less, JPEG.")),
    downloadUrl=optional(link("The video as a file to save, where videos are in a bucket.")),
    originalUrl=optional(link("The provider's own file, while it is kept.")),
    stillUrl=optional(link("Of `extras`: the cover's frame in full size, JPEG.")),
    previewUrl=optional(link("Of `extras`: a short silent animation, WebP.")),
    spritesUrl=optional(link("Of `extras`: a WebVTT track of pictures for scrubbing.")),
    hlsUrl=optional(link("Of `extras`: the playlist of HLS in up to three sizes.")),
)
VIDEO = shape(
    "Video",
    "The finished video as it was measured.",
    seconds=number("Its length.", 0),
    width=maybe(whole("Pixels.", 1)),
    height=maybe(whole("Pixels.", 1)),
    bytes=maybe(whole("Of its file.", 1)),
    fps=maybe(number("Frames a second; null for an older video.", 0)),
    sound=maybe(flag("Whether it has sound; null for an older video.")),
)
METADATA = mapping(text("The client's own value."), "The client's own pairs; left out without any.")
RENDER_OF = text("Of a render: the task whose video it shows anew.", example="task_01jd3v4k", pattern=TASK_PATTERN)
GONE = shape(
    "Gone",
    "The files are gone.",
    code=one_of(("video_expired", "video_missing", "task_deleted"), "Why."),
    message=text("For people."),
    at=moment("Since when."),
)
TASK = shape(
    "Task",
    "A task as `status` shows it.",
    taskId=TASK_ID,
    status=STATUS,
    progress=whole("Percent over all stages. Never falls within a run.", 0, 100),
    stage=STAGE,
    model=optional(described(MODEL, "The model of its last attempt; left out until there is one.")),
    renderOf=optional(RENDER_OF),
    metadata=optional(METADATA),
    result=optional(described(RESULT, "Of a success.")),
    video=optional(described(VIDEO, "Of a success.")),
    warnings=optional(many(WARNING, "Of a success: what is odd about its video.")),
    error=optional(text("Of a failed task: why, for people.")),
    errorCode=optional(ERROR_CODE),
    position=optional(whole("While it waits for a slot: its place in the line.", 1)),
    expectedWait=optional(whole("While it waits for a slot: seconds until it gets one, as far as can be said.", 0)),
    waitsFor=optional(text("While it waits for a slot, and none of its models takes it now: why.")),
    waitsForCode=optional(text("The same as a code, such as `full`, `paused` or `switched_off`. New ones may come.")),
    expiresAt=optional(moment("Of a success: when its files are deleted, where that is known.")),
    expiredAt=optional(moment("When its files were deleted, because their time was over.")),
    gone=optional(GONE),
)
CREATED = shape(
    "Created",
    "The new task.",
    taskId=TASK_ID,
    status=STATUS,
    estimatedTime=whole("Seconds until it is done, as far as can be said.", 0),
    metadata=optional(METADATA),
)
_ID = "task_01jd3v4k"
_LINK = f"https://videos.example.com/storage/7/videos/{_ID}"
EXAMPLES_OF_CREATE = {"A new task": {"taskId": _ID, "status": "pending", "estimatedTime": 120}}
EXAMPLES_OF_STATUS = {
    "It waits": {
        "taskId": _ID, "status": "pending", "progress": 0, "stage": "generate", "position": 3, "expectedWait": 40,
    },
    "It is made": {"taskId": _ID, "status": "running", "progress": 50, "stage": "poll", "model": "gen4.5"},
    "It is done": {
        "taskId": _ID, "status": "success", "progress": 100, "stage": "done", "model": "gen4.5",
        "result": {
            "videoUrl": f"{_LINK}.mp4?expires=1764331200&signature=0a1b2c",
            "thumbnailUrl": f"{_LINK}_thumb.jpg?expires=1764331200&signature=3d4e5f",
        },
        "video": {"seconds": 5.0, "width": 1280, "height": 720, "bytes": 1_203_450, "fps": 30.0, "sound": False},
    },
    "It failed": {
        "taskId": _ID, "status": "failed", "progress": 30, "stage": "poll", "model": "gen4.5",
        "error": "The video provider's safety check refused this request.", "errorCode": "moderation",
    },
}  # fmt: skip
CANCELLED = shape(
    "Cancelled",
    "The task, and what becomes of its credits.",
    TASK,
    refund=one_of(
        (one.value for one in Refund),
        "`refunded`; `pending` until the provider has reported the cost of its job; or `none`. A closed list.",
    ),
)
RETRIED = shape(
    "Retried",
    "The task, and what it costs again.",
    TASK,
    run=whole("The task's run: a retry that pays again is the next one.", 1),
    debited=whole("Credits that were taken.", 0),
)
REFUSAL = shape(
    "Refusal",
    "Why one of many was refused, as `error` of a call for it alone would say.",
    code={**one_of(sorted(CODES), "For programs. More may come."), "x-extensible": True},
    message=text("For people."),
    details=anything("A list of `{field, message}` where fields are wrong, else an object with facts."),
)
REFUSED_TASK = shape("RefusedTask", "A task of which nothing was changed.", taskId=TASK_ID, refusal=REFUSAL)


def _of_many(name: str, one: Schema) -> Schema:
    return shape(
        name,
        "The answer to a call with `taskIds`.",
        tasks=many(any_of("A task, or why it was refused.", one, REFUSED_TASK), "In the order of the request."),
        done=whole("How many were not refused.", 0),
        refused=whole("How many were.", 0),
    )


CANCELLED_OR_MANY = any_of("By `taskIds` the second.", CANCELLED, _of_many("CancelledTasks", CANCELLED))
RETRIED_OR_MANY = any_of("By `taskIds` the second.", RETRIED, _of_many("RetriedTasks", RETRIED))
BATCH = shape(
    "Batch",
    "What became of each order.",
    tasks=many(
        any_of(
            "A new task, or why there is none.",
            shape(
                "BatchCreated",
                "A new task.",
                index=whole("The place of its order, from 0.", 0),
                taskId=TASK_ID,
                status=STATUS,
                estimatedTime=whole("Seconds until it is done, as far as can be said.", 0),
            ),
            shape(
                "BatchRefused",
                "An order of which nothing was made.",
                index=whole("The place of its order, from 0.", 0),
                refusal=REFUSAL,
            ),
        ),
        "In the order of the request.",
        most=100,
    ),
    created=whole("New tasks.", 0),
    refused=whole("Orders of which nothing was made.", 0),
)
RENDERED = shape(
    "Rendered", "The new task.", taskId=TASK_ID, renderOf=RENDER_OF, status=STATUS, metadata=optional(METADATA)
)
LISTED = shape(
    "ListedTask",
    "A task of a list.",
    TASK,
    prompt=text("What was asked for."),
    run=whole("The task's run.", 1),
    createdAt=moment("When it was made."),
    finishedAt=maybe(moment("When it ended.")),
)
TASKS = shape(
    "Tasks",
    "A page.",
    tasks=many(
        any_of(
            "The second where the query has `fields`.",
            LISTED,
            partly("PartOfTask", "The fields of a listed task that were asked for.", LISTED),
        ),
        "In the order of the query, the newest first without one.",
        most=100,
    ),
    nextCursor=NEXT_CURSOR,
)
DELETED = shape(
    "Deleted",
    "The task is deleted.",
    taskId=TASK_ID,
    deleted=always(True, "It is deleted, now or before."),
    filesLeft=flag("Whether files are left, which go as soon as the storage can be asked."),
)
STORAGE = shape(
    "Storage",
    "Stored files.",
    usedBytes=whole("Bytes of the stored files.", 0),
    limitBytes=maybe(whole("What they may come to; null: no limit.", 0)),
    videos=whole("How many videos they are.", 0),
)
UPLOADED = shape(
    "Upload",
    "A picture for a video that is to begin with it.",
    url=text("The address to give as `imageUrl`.", pattern="^upload://[0-9a-f]{40}$"),
    expiresAt=moment("Until when it may be used."),
    type=one_of(("image/jpeg", "image/png", "image/webp"), "Of the picture as it is kept."),
    width=whole("Pixels, upright.", 1),
    height=whole("Pixels, upright.", 1),
    bytes=whole("As it is kept, without metadata.", 1),
)

UPLOAD_FORM = shape(
    "",
    "One field.",
    file={
        "type": "string",
        "contentMediaType": "application/octet-stream",
        "format": "binary",
        "description": f"A JPEG, PNG or WebP picture of at most {settings.UPLOAD_MAX_BYTES:,} bytes.",
    },
)

# --- logins ----------------------------------------------------------------------------------------------------------

WELCOME = shape(
    "Login",
    "A login. Both tokens are in cookies, too.",
    user=shape("User", "Who.", id=whole("The user's id.", 1), username=text("The user's name.")),
    accessToken=text("For `Authorization: Bearer …`."),
    expiresAt=moment("When the access token ends; refresh it before."),
)
SESSIONS = shape(
    "Sessions",
    "Logins.",
    sessions=many(
        shape(
            "Session",
            "A login that is alive.",
            id=text("The login's id."),
            madeAt=moment("When it began."),
            lastUsedAt=moment("The login, or its last refresh."),
            endsAt=moment("When it ends at the latest."),
            address=maybe(text("The client's IP address.")),
            userAgent=maybe(text("What the client calls itself.")),
            current=flag("Whether it is the one that asks."),
        ),
        "The last used first.",
        most=200,
    ),
)

# --- models and prices -----------------------------------------------------------------------------------------------

SECONDS = number("Seconds.", 0)
REASON_CODE = text(
    "The reason as a code: " + ", ".join(f"`{one}`" for one in ReasonCode) + ". New ones may come.", example="paused"
)
AVAILABILITY = shape(
    "Availability",
    "Whether the model could take a job now.",
    available=flag("Whether it could."),
    reason=maybe(text("Why not.")),
    reasonCode=maybe(REASON_CODE),
    freeSlots=whole("Jobs that could start now.", 0),
    circuit=one_of(("closed", "half_open", "open"), "`open`: left out, since its jobs failed lately. A closed list."),
    successRate=maybe(number("Of its last jobs; null: not measured.", 0, 1)),
    samples=whole("How many jobs were measured.", 0),
    expectedSeconds=described(SECONDS, "Of a render."),
)
_SEES_ACCOUNTS = "Only for staff who may see accounts."
_PRICE_RULE = shape(
    "PriceRule",
    "What orders of a kind cost. What is null fits every order; of all rules that fit, the most specific one counts: a "
    "model before seconds, then resolution, then sound.",
    model=maybe(text("That the order names, by its id; `none`: it names no model.")),
    seconds=maybe(whole("That are ordered.", 1)),
    resolution=maybe(one_of(VideoTask.Resolution.values, "That is ordered.")),
    sound=maybe(one_of(PriceRule.Sound.values, "Whether sound is ordered.")),
    credits=whole("Of the video.", 0),
    creditsPerSecond=text("In addition, a decimal number; the sum is rounded up to whole credits.", example="1.5"),
)
PRICE_LIST = shape(
    "PriceList",
    "What videos cost.",
    default=whole("Credits of an order that no rule fits.", 0),
    rules=many(_PRICE_RULE, "The rules."),
)
MODELS = shape(
    "Models",
    "The catalogue.",
    models=many(
        shape(
            "Model",
            "One model.",
            id=MODEL,
            provider=PROVIDER,
            title=text("Its name for people."),
            aliases=many(text("Another name."), "Other names that `model` of a create may have."),
            text=flag("Makes a video from a prompt alone."),
            image=flag("Makes a video from a start image."),
            durations=many(whole("Seconds.", 1), "The lengths that it makes."),
            aspectRatios=shape(
                "",
                "Width to height, as `16:9`.",
                text=many(text("A ratio."), "From a prompt."),
                image=many(text("A ratio."), "From an image; empty: the image's own shape decides."),
            ),
            imageLimits=maybe(
                shape(
                    "ImageLimits",
                    "What it takes as a start image. Others are made to fit.",
                    types=many(text("A media type."), "Media types."),
                    leastPixels=whole("Of the short side.", 1),
                    widestRatio=number("Of the long side to the short one.", 1),
                )
            ),
            resolutions=many(text("Such as 720p."), "Short sides of its renders."),
            sound=one_of((one.value for one in Sound), "Whether its videos have sound. A closed list."),
            seed=flag("Whether it takes a `seed`."),
            negativePrompt=flag("Whether it takes a `negativePrompt`."),
            promptLimit=whole("Characters of a prompt.", 1),
            pricePerSecondUsd=optional(
                mapping(usd("US dollars a second."), f"What the provider charges, by resolution. {_SEES_ACCOUNTS}")
            ),
            pricePerSecondWithSoundUsd=optional(
                mapping(
                    usd("US dollars a second."), "The same with sound; empty where it has none, or one price for both."
                )
            ),
            quality=whole("Our grade, 5 is best.", 1, 5),
            speed=whole("Our grade, 5 is fastest.", 1, 5),
            availability=AVAILABILITY,
        ),
        "All of them, also those that can't be used here.",
    ),
    policies=many(one_of((one.value for one in ranking.Policy), "A policy."), "Values of `policy` of a create."),
    credits=PRICE_LIST,
    pricesCheckedOn=text("Date on which the prices were compared with the providers'.", example="2026-11-28"),
)
CANDIDATE_FIELDS: dict[str, Schema] = {
    "model": MODEL,
    "provider": PROVIDER,
    "usable": flag("Whether it could be chosen."),
    "score": number("By the policy; 0 where it can't be used.", 0, 1),
    "priceUsd": optional(
        maybe(usd(f"What the provider would charge; null where it can't make the video. {_SEES_ACCOUNTS}"))
    ),
    "renderSeconds": maybe(described(SECONDS, "Of a render; null where it can't make the video.")),
    "reason": maybe(text("What speaks for or against it.")),
    "reasonCode": maybe(described(REASON_CODE, "Of one that can't be used: the reason as a code. New ones may come.")),
}
CANDIDATE = shape("Candidate", "One model and what speaks for or against it.", **CANDIDATE_FIELDS)
QUOTE = shape(
    "Quote",
    "What a create with this body would get.",
    model=MODEL,
    provider=PROVIDER,
    policy=one_of(VideoTask.Policy.values, "The policy that chose it."),
    resolution=text("Short side of the render.", example="720p"),
    sound=flag("Whether it would have sound."),
    priceUsd=optional(maybe(usd(f"What the provider would charge. {_SEES_ACCOUNTS}"))),
    credits=whole("What the user would pay.", 0),
    expectedSeconds=whole("Until it would be done, without waiting for a slot.", 0),
    startsNow=flag("Whether it would start at once."),
    waitsFor=maybe(text("What it would wait for.")),
    waitsForCode=maybe(REASON_CODE),
    simulated=flag("Whether videos are simulated here."),
    candidates=many(CANDIDATE, "All models."),
)

# --- credits ---------------------------------------------------------------------------------------------------------

CREDITS = shape(
    "Credits",
    "A page of the ledger.",
    balance=whole("Credits now.", 0),
    entries=many(
        shape(
            "CreditEntry",
            "One line of the ledger.",
            kind=one_of(CreditEntry.Kind.values, "A closed list."),
            amount=whole("Credits; what was taken is negative."),
            taskId=maybe(TASK_ID),
            run=maybe(whole("The run of the task.", 1)),
            at=moment("When."),
        ),
        "Newest first.",
        most=100,
    ),
    nextCursor=NEXT_CURSOR,
)
