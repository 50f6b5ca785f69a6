"""Tables, the constraints that keep them true, and indexes that name the query they serve.

Each is written by one area alone:

- a task by `video.engine` and `video.actions`
- a generation and a failure text by `video.attempts`
- the ledger by `video.credits`
- a login by `video.web.logins`, an upload by `video.web.uploads`, an answered call by `video.web.idempotency`
- a record of an act by `video.audit`, a role by `video.web.roles`, an alert by `video.alerts`
- a pause by `video.actions.pause`
- the figures of an hour by `video.monitoring`, the roll-up of costs by `video.costs`

What must never be false is a constraint here, so that a mistake there fails loudly.
"""

from video.models.alerts import Alert, AlertMessage, AlertSilence
from video.models.api_keys import ApiKey, ApiKeySecret, RequestWindow, Scope
from video.models.audit import AuditRecord
from video.models.calls import AnsweredCall
from video.models.costs import CostDay, CostRollup, CostTouch
from video.models.events import TaskEvent
from video.models.failures import FailureText
from video.models.generations import AttachRequest, Generation
from video.models.jobs import OperatorJob
from video.models.logins import LoginSession, LoginThrottle, RecoveryCode
from video.models.money import Account, CreditEntry
from video.models.operations import (
    HourFigures,
    PeriodicRun,
    ProcessFigures,
    UserErasure,
    UserShare,
    UserStorage,
    UserUsage,
    WorkerSign,
)
from video.models.pauses import Pause
from video.models.prices import PriceRule
from video.models.providers import Circuit, ModelSetting, ProviderAccount, ProviderKey
from video.models.roles import Role
from video.models.tasks import ACTIVE, Stage, Status, VideoTask
from video.models.uploads import Upload
from video.models.webhooks import WebhookCircuit, WebhookDelivery, WebhookEndpoint, WebhookSecret, WebhookTry

__all__ = [
    "ACTIVE",
    "Account",
    "Alert",
    "AlertMessage",
    "AlertSilence",
    "AnsweredCall",
    "ApiKey",
    "ApiKeySecret",
    "AttachRequest",
    "AuditRecord",
    "Circuit",
    "CostDay",
    "CostRollup",
    "CostTouch",
    "CreditEntry",
    "FailureText",
    "Generation",
    "HourFigures",
    "LoginSession",
    "LoginThrottle",
    "ModelSetting",
    "OperatorJob",
    "Pause",
    "PeriodicRun",
    "PriceRule",
    "ProcessFigures",
    "ProviderAccount",
    "ProviderKey",
    "RecoveryCode",
    "RequestWindow",
    "Role",
    "Scope",
    "Stage",
    "Status",
    "TaskEvent",
    "Upload",
    "UserErasure",
    "UserShare",
    "UserStorage",
    "UserUsage",
    "VideoTask",
    "WebhookCircuit",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookSecret",
    "WebhookTry",
    "WorkerSign",
]
