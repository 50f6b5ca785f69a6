"""Tables, the constraints that keep them true, and indexes that name the query they serve.

`states.py` and `steering.py` are the only writers of a task's status, stage and clocks; `attempts.py` of a generation's
state; `credits.py` of the ledger. What must never be false is a constraint here, so that a mistake there fails loudly.
"""

from video.models.generations import Generation
from video.models.money import Account, CreditEntry
from video.models.operations import PeriodicRun, UserShare, UserUsage, WorkerSign
from video.models.providers import Circuit, ModelSetting, ProviderAccount, ProviderKey
from video.models.tasks import ACTIVE, Stage, Status, TaskEvent, VideoTask

__all__ = [
    "ACTIVE",
    "Account",
    "Circuit",
    "CreditEntry",
    "Generation",
    "ModelSetting",
    "PeriodicRun",
    "ProviderAccount",
    "ProviderKey",
    "Stage",
    "Status",
    "TaskEvent",
    "UserShare",
    "UserUsage",
    "VideoTask",
    "WorkerSign",
]
