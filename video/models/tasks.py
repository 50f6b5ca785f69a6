"""What users asked for, where each stands, and what happened to it."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Cast, Now
from django.db.models.lookups import Exact, LessThanOrEqual

from media_pipeline.encode.rates import MAX_FPS
from video import ids
from video.models.order import SOURCE_FPS


class Status(models.TextChoices):
    """The state of a task as its user sees it."""

    PENDING = "pending"  # nothing was sent to a provider yet; left by the first submit, a cancel or a failure
    RUNNING = "running"  # left by save (success), a final failure, a cancel, or the task's deadline
    SUCCESS = "success"  # final
    FAILED = "failed"  # final; a retry or a late result may bring it back to running
    CANCELLED = "cancelled"  # final


class Stage(models.TextChoices):
    """The next piece of work, or the one that failed."""

    GENERATE = "generate"
    POLL = "poll"
    DOWNLOAD = "download"
    TRANSCODE = "transcode"
    THUMBNAIL = "thumbnail"
    SAVE = "save"
    DONE = "done"


ACTIVE = (Status.PENDING, Status.RUNNING)

MOST_PAIRS = 16  # of metadata
#: The metadata of a task beneath its user's id, as the index of the list has it: {"7": {"project": "spring"}}.
BY_USER = Func(
    Value({}, models.JSONField()),
    Func(Cast(F("user"), models.TextField()), template="ARRAY[%(expressions)s]", output_field=models.TextField()),
    F("metadata"),
    function="jsonb_set",
    output_field=models.JSONField(),
)
#: The same in SQL, of a row `t`.
BY_USER_SQL = "jsonb_set('{}'::jsonb, ARRAY[(t.user_id)::text], t.metadata)"
#: How many pairs there are; of anything but an object, none.
_PAIRS = Func(
    Func(F("metadata"), template="jsonb_path_query_array(%(expressions)s, '$.keyvalue()', '{}', true)"),
    function="jsonb_array_length",
    output_field=models.IntegerField(),
)


class VideoTask(models.Model):
    """What a user asked for: one prompt, one finished video."""

    class Quality(models.TextChoices):
        LOW = "low"
        MEDIUM = "medium"
        HIGH = "high"

    class Policy(models.TextChoices):
        BALANCED = "balanced"
        COST = "cost"
        QUALITY = "quality"
        SPEED = "speed"

    class GoneWhy(models.TextChoices):
        EXPIRED = "expired", "its time was over"
        DELETED = "deleted", "deleted by its owner, with prompt and picture"
        MISSING = "missing", "not found in storage"

    class Resolution(models.TextChoices):
        P480 = "480p"
        P720 = "720p"
        P1080 = "1080p"
        SOURCE = "source"

    id = models.CharField(primary_key=True, max_length=40, default=ids.task_id, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="video_tasks",
        db_index=False,  # task_list_of_user begins with it
    )
    run = models.PositiveIntegerField(default=1, help_text="1 at create; a retry that pays again is the next run.")

    # What was asked for.
    prompt = models.TextField()
    duration_s = models.PositiveSmallIntegerField()
    aspect_ratio = models.CharField(max_length=8)
    image_url = models.TextField(blank=True, default="")
    policy = models.CharField(max_length=10, choices=Policy.choices, default=Policy.BALANCED)
    fallback = models.BooleanField(default=True, help_text="Whether another model may run it when one could not.")
    model_requested = models.CharField(max_length=80, blank=True, default="", help_text="As named by the client.")
    eligible_models = ArrayField(
        models.CharField(max_length=80), default=list, help_text="Models that may run it now; narrowed by each attempt."
    )
    negative_prompt = models.TextField(blank=True, default="")
    seed = models.BigIntegerField(null=True, blank=True)
    quality = models.CharField(max_length=8, choices=Quality.choices, default=Quality.MEDIUM)
    resolution = models.CharField(max_length=8, choices=Resolution.choices, default=Resolution.SOURCE)
    fps = models.PositiveSmallIntegerField(
        default=30, help_text="Frames a second of the finished video, 1 to 60; 0: those of the source."
    )
    expires_in_s = models.PositiveIntegerField(
        null=True, blank=True, help_text="Seconds after the success at which the files go; empty: as KEEP_VIDEOS_DAYS."
    )
    sound = models.BooleanField(
        null=True, blank=True, help_text="With sound, or without any; empty: silent where the model can be told."
    )
    webhook_url = models.TextField(null=True, blank=True, help_text="Where this task's events are sent, too.")  # noqa: DJ001 - NULL: nowhere
    cover = models.CharField(  # noqa: DJ001 - NULL: not chosen
        max_length=8,
        null=True,
        blank=True,
        help_text="Frame of the thumbnail: first, auto, or a second of the video; empty: as COVER says.",
    )
    extras = ArrayField(
        models.CharField(max_length=8),
        null=True,
        blank=True,
        help_text="Kinds of files to make beside the video; NULL: those that EXTRAS says.",
    )
    render_of = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="renders",
        db_index=False,  # task_render
        help_text="The task from whose kept original this one is rendered; no provider is asked.",
    )
    price_credits = models.PositiveIntegerField(
        null=True,
        blank=True,
        editable=False,
        help_text="What its run was priced at, in credits; empty: made by an older version.",
    )
    is_padded = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Of a render: whether the picture stands on black in `aspect_ratio`.",
    )
    priority = models.SmallIntegerField(
        default=0,
        db_default=0,
        help_text="Set by operators, -100 to 100; among one user's waiting tasks the highest goes first.",
    )
    metadata = models.JSONField(
        default=dict,
        db_default=Value({}, models.JSONField()),
        blank=True,
        help_text="Pairs of short strings of the client's own, by which its list is filtered.",
    )
    idempotency_key = models.CharField(max_length=255, null=True, blank=True, editable=False)  # noqa: DJ001 - NULL: no key
    request_hash = models.CharField(max_length=64, blank=True, default="", editable=False)

    # Where it stands. Written by video.engine and video.actions only.
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    stage = models.CharField(max_length=10, choices=Stage.choices, default=Stage.GENERATE)
    progress = models.PositiveSmallIntegerField(default=0, help_text="0 to 100 over all stages; never falls in a run.")
    rerun = models.BooleanField(default=False, db_default=False, help_text="Was retried, and ranks below fresh work.")
    admit_at = models.DateTimeField(null=True, blank=True, help_text="Waits for a free slot; not before this time.")
    next_run_at = models.DateTimeField(null=True, blank=True, help_text="When the stage is due.")
    lease_until = models.DateTimeField(null=True, blank=True, help_text="Held by a worker until then.")
    fence = models.BigIntegerField(default=0, help_text="Token of the last claim; a write under an older one is lost.")
    claimed_at = models.DateTimeField(null=True, blank=True)
    claimed_by = models.CharField(max_length=120, blank=True, default="")
    rung_at = models.DateTimeField(null=True, blank=True, help_text="When the broker was last told.")
    core_at = models.DateTimeField(
        null=True, blank=True, help_text="When it was given a core for transcode and thumbnail."
    )
    hinted_at = models.DateTimeField(null=True, blank=True, help_text="When something said: look now.")
    park_reason = models.CharField(max_length=300, blank=True, default="")
    park_code = models.CharField(
        max_length=60, blank=True, default="", db_default="", help_text="Cause of a wait that may repeat itself."
    )
    tries = models.PositiveSmallIntegerField(default=0, help_text="Failed tries of this stage so far.")
    deaths = models.PositiveSmallIntegerField(default=0, help_text="Claims of this stage whose worker never came back.")
    deadline_at = models.DateTimeField(null=True, blank=True, help_text="A job still open at its provider then ends.")
    error_code = models.CharField(max_length=60, blank=True, default="")
    error_message = models.TextField(blank=True, default="", help_text="A plain sentence that a page may print.")

    # What was made. Keys in storage, never paths or links.
    source_key = models.CharField(max_length=200, blank=True, default="")
    output_key = models.CharField(max_length=200, blank=True, default="")
    thumbnail_key = models.CharField(max_length=200, blank=True, default="")
    has_work_files = models.BooleanField(default=False)
    video_id = models.CharField(max_length=40, null=True, blank=True, unique=True)
    video_bytes = models.BigIntegerField(null=True, blank=True)
    thumbnail_bytes = models.BigIntegerField(null=True, blank=True)
    original_bytes = models.BigIntegerField(
        null=True, blank=True, help_text="Size of the provider's own file, while it is kept under `source_key`."
    )
    extra_files = models.JSONField(
        default=dict,
        db_default=Value({}, models.JSONField()),
        blank=True,
        help_text="What was made beside the video: bytes by the files' names; work files until the success.",
    )
    video_width_px = models.PositiveIntegerField(null=True, blank=True)
    video_height_px = models.PositiveIntegerField(null=True, blank=True)
    video_duration_s = models.FloatField(null=True, blank=True)
    video_fps = models.FloatField(null=True, blank=True, help_text="Frames a second of the finished video.")
    video_has_sound = models.BooleanField(null=True, blank=True, help_text="Whether the finished video has sound.")
    warnings = models.JSONField(
        default=list,
        db_default=Value([], models.JSONField()),
        blank=True,
        help_text="What is odd about the video: a list of {code, message}, each code once.",
    )
    fetched_again_of = models.CharField(
        max_length=40,
        blank=True,
        default="",
        db_default="",
        help_text="Id of the attempt whose file was doubted and fetched a second time.",
    )
    expires_at = models.DateTimeField(null=True, blank=True, help_text="When the files go, by `expires_in_s`.")
    gone_at = models.DateTimeField(null=True, blank=True, help_text="When the files were given up.")
    gone_why = models.CharField(max_length=8, choices=GoneWhy.choices, blank=True, default="", db_default="")

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    started_at = models.DateTimeField(null=True, blank=True, help_text="When the first submit was sent.")
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "task"
        indexes = [
            models.Index(fields=["next_run_at"], name="task_due", condition=Q(next_run_at__isnull=False)),
            # The models come before the order among a user's tasks, so that admission skips all tasks of one user that
            # wait for a full model in one index probe.
            models.Index(
                F("user"),
                F("eligible_models"),
                F("fallback"),
                F("rerun"),
                F("priority").desc(),
                F("created_at"),
                name="task_waiting_for_slot",
                condition=Q(admit_at__isnull=False),
            ),
            models.Index(
                F("user"),
                F("rerun"),
                F("priority").desc(),
                F("created_at"),
                name="task_waiting_for_core",
                condition=Q(stage="transcode", next_run_at__isnull=False),
            ),
            models.Index(fields=["user"], name="task_with_core", condition=Q(core_at__isnull=False)),
            models.Index(fields=["user", "stage"], name="task_active_of_user", condition=Q(finished_at__isnull=True)),
            models.Index(
                fields=["finished_at"],
                name="task_work_to_sweep",
                condition=Q(has_work_files=True, finished_at__isnull=False),
            ),
            # Serves the count of warnings by code: of few tasks, and by the day.
            models.Index(fields=["finished_at"], name="task_with_warnings", condition=~Q(warnings=[])),
            models.Index(
                fields=["expires_at"],
                name="task_video_to_expire",
                condition=Q(expires_at__isnull=False, gone_why__in=["", "missing"]),
            ),
            models.Index(
                fields=["finished_at"],
                name="task_video_by_age",
                condition=Q(status="success", gone_why__in=["", "missing"]),
            ),
            models.Index(
                fields=["gone_at"],
                name="task_files_to_delete",
                condition=Q(gone_why__in=["expired", "deleted"]) & (~Q(output_key="") | Q(has_work_files=True)),
            ),
            models.Index(
                fields=["finished_at"], name="task_original_to_sweep", condition=Q(original_bytes__isnull=False)
            ),
            # Serves the renders of a task on its pages, and the foreign key.
            models.Index(fields=["render_of"], name="task_render", condition=Q(render_of__isnull=False)),
            models.Index(fields=["user", "-created_at"], name="task_list_of_user"),
            models.Index(
                fields=["user", "-finished_at"], name="task_ended_of_user", condition=Q(finished_at__isnull=False)
            ),
            # Each pair under its user's id: another user's equal pairs cost a list nothing.
            GinIndex(OpClass(BY_USER, name="jsonb_path_ops"), name="task_metadata_of_user", condition=~Q(metadata={})),
            models.Index(fields=["status", "-created_at"], name="task_list_in_admin"),
            # Serves the tasks of an hour, a day or a week by how they ended, without a look at their rows.
            models.Index(
                fields=["finished_at"],
                include=["status", "error_code"],
                name="task_by_end",
                condition=Q(finished_at__isnull=False),
            ),
            models.Index(fields=["error_code", "-id"], name="task_by_error", condition=~Q(error_code="")),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "idempotency_key"],
                name="task_one_per_idempotency_key",
                condition=Q(idempotency_key__isnull=False),
            ),
            models.CheckConstraint(name="task_fps_known", condition=Q(fps__gte=SOURCE_FPS, fps__lte=MAX_FPS)),
            models.CheckConstraint(
                name="task_active_has_one_clock",
                condition=Q(status__in=ACTIVE, admit_at__isnull=True, next_run_at__isnull=False)
                | Q(status__in=ACTIVE, admit_at__isnull=False, next_run_at__isnull=True)
                | (
                    ~Q(status__in=ACTIVE) & Q(admit_at__isnull=True, next_run_at__isnull=True, lease_until__isnull=True)
                ),
            ),
            models.CheckConstraint(
                name="task_waits_in_generate_and_unheld",
                condition=Q(admit_at__isnull=True) | Q(stage="generate", lease_until__isnull=True),
            ),
            models.CheckConstraint(
                name="task_success_is_done_and_has_video",
                condition=Q(status="success", stage="done", video_id__isnull=False, progress=100)
                | (~Q(status="success") & ~Q(stage="done") & Q(video_id__isnull=True)),
            ),
            models.CheckConstraint(
                name="task_error_only_when_failed",
                condition=(Q(status="failed") & ~Q(error_code="") & ~Q(error_message=""))
                | (~Q(status="failed") & Q(error_code="", error_message="")),
            ),
            models.CheckConstraint(
                name="task_finished_at_when_final",
                condition=Q(status__in=ACTIVE, finished_at__isnull=True)
                | (~Q(status__in=ACTIVE) & Q(finished_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="task_pending_only_in_generate", condition=~Q(status="pending") | Q(stage="generate")
            ),
            models.CheckConstraint(
                name="task_render_asks_no_provider",
                condition=Q(render_of__isnull=True) | Q(stage__in=["transcode", "thumbnail", "save", "done"]),
            ),
            models.CheckConstraint(name="task_progress_percent", condition=Q(progress__lte=100)),
            models.CheckConstraint(
                name="task_priority_from_minus_100_to_100", condition=Q(priority__range=(-100, 100))
            ),
            models.CheckConstraint(name="task_run_from_one", condition=Q(run__gte=1)),
            models.CheckConstraint(
                name="task_warnings_is_array",
                condition=Q(
                    Exact(Func(F("warnings"), function="jsonb_typeof", output_field=models.TextField()), "array")
                ),
            ),
            models.CheckConstraint(
                name="task_metadata_is_object",
                condition=Q(
                    Exact(Func(F("metadata"), function="jsonb_typeof", output_field=models.TextField()), "object")
                ),
            ),
            models.CheckConstraint(
                name="task_metadata_has_16_pairs_at_most",
                condition=Q(LessThanOrEqual(_PAIRS, MOST_PAIRS)),
            ),
            models.CheckConstraint(
                name="task_deleted_holds_no_metadata", condition=~Q(gone_why="deleted") | Q(metadata={})
            ),
            models.CheckConstraint(name="task_status_known", condition=Q(status__in=Status.values)),
            models.CheckConstraint(name="task_stage_known", condition=Q(stage__in=Stage.values)),
            models.CheckConstraint(
                name="task_key_has_hash", condition=Q(idempotency_key__isnull=True) | ~Q(request_hash="")
            ),
            models.CheckConstraint(
                name="task_gone_for_a_reason",
                condition=Q(gone_at__isnull=True, gone_why="")
                | Q(gone_at__isnull=False, finished_at__isnull=False, gone_why__in=["expired", "deleted", "missing"]),
            ),
            models.CheckConstraint(
                name="task_deleted_holds_no_order",
                condition=~Q(gone_why="deleted")
                | Q(
                    prompt="",
                    negative_prompt="",
                    image_url__in=["", "deleted"],
                    idempotency_key__isnull=True,
                    request_hash="",
                ),
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def is_active(self) -> bool:
        """Whether anything may still happen by itself."""
        return self.status in ACTIVE

    @property
    def is_deleted(self) -> bool:
        """Whether its owner has deleted it: no prompt, no picture and no file is left."""
        return self.gone_why == self.GoneWhy.DELETED
