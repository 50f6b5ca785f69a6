"""A render as clients ask for it: the fields of an order that may differ from the first one's."""

from __future__ import annotations

from video.actions.order_input import (
    LONGEST_KEPT_S,
    RATIOS,
    CoverChoice,
    CreateSerializer,
    ExtraKinds,
    FrameRate,
    Metadata,
    OneOf,
    Strict,
    Text,
    WebhookAddress,
    WholeNumber,
)
from video.models import VideoTask


class RenderSerializer(Strict):
    """POST /api/video/render. What is left out is as in the first order, but for `expiresIn`, `cover` and `extras`,
    which are then as the settings say, and `metadata` and `webhookUrl`, of which there is then none. `aspectRatio` pads
    the picture.
    """

    taskId = Text(max_length=40, source="task_id")
    quality = OneOf(VideoTask.Quality.values, required=False, allow_null=True)
    resolution = OneOf(VideoTask.Resolution.values, required=False, allow_null=True)
    fps = FrameRate(required=False, allow_null=True)
    expiresIn = WholeNumber(
        required=False, allow_null=True, min_value=1, max_value=LONGEST_KEPT_S, source="expires_in_s"
    )
    aspectRatio = OneOf(RATIOS, required=False, allow_null=True, source="aspect_ratio")
    metadata = Metadata(required=False, allow_null=True)
    webhookUrl = WebhookAddress(required=False, allow_null=True, source="webhook_url")
    cover = CoverChoice(required=False, allow_null=True)
    extras = ExtraKinds(required=False, allow_null=True)

    validate_expiresIn = CreateSerializer.validate_expiresIn
