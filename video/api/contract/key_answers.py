"""The shapes of API keys, of one's account, and of webhooks."""

from __future__ import annotations

from video.api.contract.answers import NEXT_CURSOR, STORAGE, TASK_ID
from video.api.contract.describe import Parameter
from video.api.contract.shapes import (
    Schema,
    flag,
    many,
    mapping,
    maybe,
    moment,
    one_of,
    shape,
    text,
    whole,
)
from video.models import Scope, WebhookDelivery, WebhookEndpoint, WebhookTry
from video.webhooks.message import EVENTS

# --- API keys --------------------------------------------------------------------------------------------------------

KEY_IN_PATH = Parameter("key_id", text("The key's id."), place="path")
KEY = shape(
    "ApiKey",
    "An API key, without its text.",
    id=text("The key's id."),
    name=text("What its user calls it."),
    scopes=many(one_of(Scope.values, "A scope."), "What it may do."),
    addresses=many(text("An IP address or a network."), "Where it may come from; empty: from anywhere."),
    dailyCredits=maybe(whole("Credits that it may debit on one day in UTC; null: no limit.", 0)),
    requestsPerMinute=maybe(whole("Its limit; null: that of the server; 0: none.", 0)),
    spentToday=whole("Credits that it has debited on this day.", 0),
    madeAt=moment("When it was made."),
    expiresAt=maybe(moment("When it ends.")),
    lastUsedAt=maybe(moment("To the minute.")),
    secrets=many(
        shape(
            "",
            "One text of the key.",
            hint=text("How it begins."),
            madeAt=moment("When it was made."),
            endsAt=maybe(moment("When it ends, of one that was rolled.")),
            lastUsedAt=maybe(moment("To the minute.")),
        ),
        "Its texts that are good: two for a while after it was rolled.",
    ),
)
NEW_KEY = shape(
    "NewApiKey",
    "An API key with its text, which is shown in this answer and never again.",
    KEY,
    key=text("For `Authorization: Bearer …`.", pattern="^rw_live_[0-9A-Za-z]{38}$"),
)
KEYS = shape("ApiKeys", "API keys.", keys=many(KEY, "Those that are good, the newest first."))

# --- accounts --------------------------------------------------------------------------------------------------------

ACCOUNT = shape(
    "Account",
    "One's account.",
    id=whole("The user's id.", 1),
    username=text("The user's name."),
    email=maybe(text("Where a link for a new password goes.")),
    madeAt=moment("When it was made."),
    staff=flag("Whether the user may come to the admin."),
    balance=whole("Credits now.", 0),
    limits=shape(
        "",
        "What one may use; null: there is no limit.",
        waitingTasks=whole("Tasks that may wait at once.", 0),
        liveTasks=maybe(whole("Tasks that may be under way at once.", 0)),
        requestsPerMinute=maybe(whole("Requests to the API a minute.", 1)),
    ),
    storage=STORAGE,
    sessions=text("The address that lists one's logins."),
)
ASKED_FOR_RESET = shape("", "The same for each address.", message=text("For people."))

# --- webhooks --------------------------------------------------------------------------------------------------------

_EVENT = one_of(EVENTS, "An event.")
#: By its form it is none of the words that stand in the same place of an address.
ENDPOINT_IN_PATH = Parameter("endpoint_id", text("The endpoint's id.", pattern=r"^whe_[0-9a-z]{1,36}$"), place="path")
DELIVERY_IN_PATH = Parameter("delivery_id", text("The delivery's id."), place="path")
STATE = one_of(WebhookDelivery.State.values, "How far it is. A closed list.")
_ENDPOINT: dict[str, Schema] = {
    "id": text("The endpoint's id."),
    "url": text("Where events are sent."),
    "events": many(_EVENT, "Which ones it wants; empty: all."),
    "description": maybe(text("What its user says of it.")),
    "enabled": flag("Off: nothing is sent to it."),
    "endedAt": maybe(moment("When it ended.")),
    "endReason": maybe(one_of(WebhookEndpoint.EndReason.values, "Why it ended.")),
    "createdAt": moment("When it was made."),
}
ENDPOINT = shape("WebhookEndpoint", "Where one's events are sent.", **_ENDPOINT)
NEW_ENDPOINT = shape(
    "NewWebhookEndpoint",
    "An endpoint with its secret.",
    ENDPOINT,
    secret=text("What messages are signed with, by Standard Webhooks."),
)
ENDPOINTS = shape("WebhookEndpoints", "Endpoints.", endpoints=many(ENDPOINT, "The oldest first."))
SECRET = shape(
    "WebhookSecret",
    "What messages are signed with.",
    secret=text("By Standard Webhooks."),
    formerUntil=maybe(moment("Until when the secret before this one signs as well.")),
)
DELIVERY = shape(
    "WebhookDelivery",
    "One event for one receiver.",
    id=text("The delivery's id."),
    messageId=text("`webhook-id` of the message: the same for all receivers and all tries."),
    event=_EVENT,
    taskId=TASK_ID,
    endpointId=maybe(text("Its endpoint; null for the URL of a single task.")),
    host=maybe(text("The receiver's host.")),
    state=STATE,
    tries=whole("The number of the last try.", 0),
    nextTryAt=maybe(moment("When the next try may begin.")),
    createdAt=moment("When the event was."),
    settledAt=maybe(moment("When it was over.")),
)
DELIVERIES = shape(
    "WebhookDeliveries", "A page.", deliveries=many(DELIVERY, "Newest first.", most=100), nextCursor=NEXT_CURSOR
)
DELIVERY_DETAILS = shape(
    "WebhookDeliveryDetails",
    "A delivery, what it says, and each of its tries.",
    DELIVERY,
    data=mapping({}, "`data` of the message, but for its links."),
    log=many(
        shape(
            "",
            "One try.",
            number=whole("1, 2, …", 1),
            startedAt=moment("Its begin."),
            endedAt=maybe(moment("Its end.")),
            outcome=maybe(one_of(WebhookTry.Outcome.values, "How it went; null while it is under way.")),
            httpStatus=maybe(whole("Of the receiver's answer.")),
            detail=maybe(text("More on it.")),
        ),
        "Oldest first.",
    ),
)
