"""The shapes of pauses."""

from __future__ import annotations

from video.api.contract.describe import Parameter
from video.api.contract.shapes import many, maybe, moment, one_of, shape, text, whole
from video.models import Pause

PAUSE_IN_PATH = Parameter("pause_id", text("The pause's id."), place="path")
PAUSE = shape(
    "Pause",
    "No new submit is sent for what it covers.",
    id=whole("The pause's id.", 1),
    kind=one_of(Pause.Kind.values, "What is paused. A closed list."),
    subject=maybe(text("The provider, the model, the account as `provider account`, or the user's name.")),
    reason=maybe(text("Why, as users read it.")),
    pausedBy=text("The operator's name. Users don't see it."),
    since=moment("When it began."),
    until=maybe(moment("When it ends by itself.")),
    endedAt=maybe(moment("When it was ended.")),
)
PAUSES = shape("Pauses", "All pauses in force.", pauses=many(PAUSE, "The widest and oldest first."))
