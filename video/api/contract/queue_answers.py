"""The shapes of the figures of queues, and of one task's details."""

from __future__ import annotations

from video.api.contract.answers import (
    CANDIDATE_FIELDS,
    ERROR_CODE,
    MODEL,
    PROVIDER,
    REASON_CODE,
    RENDER_OF,
    SECONDS,
    STAGE,
    STORAGE,
    TASK,
    WARNING,
)
from video.api.contract.bodies import order_as_told
from video.api.contract.shapes import (
    Schema,
    always,
    described,
    flag,
    many,
    mapping,
    maybe,
    moment,
    number,
    one_of,
    optional,
    shape,
    text,
    usd,
    whole,
)
from video.engine.queues import QUEUES
from video.models import CreditEntry, Generation, Pause, TaskEvent
from video.monitoring import stuck
from video.monitoring.stages import WINDOWS_MIN

OWN_QUEUES = shape(
    "OwnQueues",
    "The caller's own tasks and credits, for callers who are not staff.",
    scope=always("own", "The caller's own."),
    simulated=flag("Whether videos are simulated here."),
    system=one_of(("ok", "busy", "paused"), "`busy`: jobs wait for a slot; `paused`: nothing starts now."),
    active=whole("Tasks that have not ended.", 0),
    byStatus=shape("", "Active tasks.", pending=whole("Pending.", 0), running=whole("Running.", 0)),
    byStage=mapping(whole("Tasks.", 0), "Active tasks by stage; stages without any are left out."),
    waitingForSlot=whole("Tasks that wait for a slot at a provider.", 0),
    oldestWaitSeconds=maybe(described(SECONDS, "Of the one that waits the longest.")),
    last24Hours=shape(
        "",
        "Tasks that were made in the last 24 hours, by how they ended.",
        success=whole("Tasks.", 0),
        failed=whole("Tasks.", 0),
        cancelled=whole("Tasks.", 0),
    ),
    balance=whole("Credits.", 0),
    storage=STORAGE,
)
_COUNT = whole("Tasks.", 0)
_OLDEST: dict[str, Schema] = {
    "oldestWaitSeconds": maybe(described(SECONDS, "Of the oldest.")),
    "oldestTask": maybe(text("Its id.")),
}
_QUEUE: dict[str, Schema] = {
    "depth": whole("Tasks that are due.", 0),
    "inFlight": whole("Tasks that a worker holds.", 0),
    "parked": whole("Tasks that wait for a time.", 0),
}
_RATE = shape(
    "Rate",
    "Tasks a minute.",
    **{f"last{minutes}Min": number(f"In the last {minutes} minutes.", 0) for minutes in WINDOWS_MIN},
)
_SPREAD = shape(
    "Spread",
    "Seconds.",
    p50=maybe(described(SECONDS, "The median.")),
    p95=maybe(described(SECONDS, "19 of 20 take at most this.")),
)
_ERROR = maybe(text("What it last refused with."))
_TRIES: dict[str, Schema] = {
    "refusals": whole("Pauses in a row after refusals.", 0),
    "retrySeconds": maybe(described(SECONDS, "Until it is tried again.")),
}
SYSTEM_QUEUES = shape(
    "SystemQueues",
    "The whole system, for staff who may look at tasks and accounts.",
    scope=always("system", "The whole system."),
    at=moment("When the figures were read."),
    simulated=flag("Whether videos are simulated here."),
    healthy=flag("False: something needs a person."),
    troubles=many(
        shape(
            "Trouble",
            "One thing that is wrong.",
            code=text("For programs."),
            needsPerson=flag("Whether it does not pass by itself."),
            sentence=text("What is wrong."),
            system=text("What the system does about it."),
            operator=text("What a person can do."),
        ),
        "What is wrong, what needs a person first.",
    ),
    stuck=many(
        shape(
            "StuckTask",
            "One task that does not get on.",
            taskId=TASK,
            user=text("Whose it is."),
            stage=STAGE,
            kind=one_of(stuck.WORDS, "Why, in a word. A closed list."),
            label=text("The same for a person."),
            reason=text("All that is known, in sentences."),
            since=maybe(moment("When it was due, should have ended, or came into line.")),
            sinceSeconds=maybe(described(SECONDS, "Since then.")),
            ageSeconds=described(SECONDS, "Since its create."),
            nextTrySeconds=maybe(described(SECONDS, "Until its stage is due.")),
        ),
        f"Tasks that do not get on, the worst {stuck.MOST}; one that renders is none of them.",
    ),
    videoQueue=shape(
        "",
        "Submits, polls and downloads.",
        waitingForSlot=shape("", "Tasks that wait for a slot.", tasks=_COUNT, notBeforeLater=_COUNT, **_OLDEST),
        **_QUEUE,
    ),
    mediaQueue=shape(
        "",
        "Transcodes and thumbnails.",
        waitingForCore=shape("", "Tasks that wait for a core.", tasks=_COUNT, **_OLDEST),
        **_QUEUE,
    ),
    stages=many(
        shape(
            "StageFigures",
            "One stage.",
            stage=STAGE,
            queue=one_of(QUEUES, "Its queue."),
            **_QUEUE,
            parkedBy=mapping(_COUNT, "Parked tasks by the kind of wait."),
            **_OLDEST,
            donePerMinute=_RATE,
            failedPerMinute=_RATE,
            durationSeconds=described(_SPREAD, "Through the stage, with all waiting."),
            workSeconds=described(_SPREAD, "Of the work alone."),
            sample=whole("Tasks that were measured.", 0),
        ),
        "In the order of the pipeline.",
    ),
    accounts=many(
        shape(
            "AccountFigures",
            "One account and model.",
            provider=PROVIDER,
            account=text("Its name, or the fingerprint of its only key."),
            label=text("What people call it: its name, else the label of its only key."),
            model=MODEL,
            open=flag("Whether a job may start."),
            slotsInUse=whole("Jobs.", 0),
            slots=whole("Jobs at once.", 0),
            lowered=flag("Whether the provider said that it takes fewer at once."),
            cooldownSeconds=maybe(described(SECONDS, "Until a job may start.")),
            closedReason=maybe(text("Why none may.")),
            **_TRIES,
            balance=maybe(text("At the provider.")),
            balanceUnit=maybe(text("Of the balance.")),
            lastError=_ERROR,
        ),
        "Accounts at providers.",
    ),
    keys=many(
        shape(
            "KeyFigures",
            "One key.",
            provider=PROVIDER,
            fingerprint=text("Which one; never the key."),
            label=text("What people call it: its name, else its place in the settings and last four characters."),
            account=text("Its account."),
            state=one_of(("active", "draining", "quarantined"), "A closed list."),
            **_TRIES,
            configured=flag("Whether it is among the settings."),
            jobs=whole("Open jobs.", 0),
            goneSince=maybe(moment("Since when it is no longer configured.")),
            checkedAt=maybe(moment("When it was last tried.")),
            lastError=_ERROR,
        ),
        "Keys.",
    ),
    pauses=many(
        shape(
            "",
            "A pause in force.",
            id=whole("The pause's id.", 1),
            kind=one_of(Pause.Kind.values, "What is paused. A closed list."),
            what=text("The same in words, with its name."),
            reason=maybe(text("Why, as users read it.")),
            pausedBy=text("The operator's name."),
            since=moment("When it began."),
            until=maybe(moment("When it ends by itself.")),
        ),
        "Pauses in force, the widest and oldest first.",
    ),
    slowRenders=whole("Jobs at a provider for longer than 95 of 100 of their model lately took.", 0),
    circuits=many(
        shape(
            "Circuit",
            "One model whose jobs failed lately.",
            model=MODEL,
            provider=PROVIDER,
            state=one_of(("open", "probing", "half_open", "one_user", "closed"), "A closed list."),
            faults=whole("Failed jobs lately.", 0),
            openSeconds=maybe(described(SECONDS, "Until it is tried again.")),
            lastError=_ERROR,
        ),
        "Models that are watched.",
    ),
    workers=many(
        shape(
            "Worker",
            "One process.",
            name=text("Its name."),
            kind=one_of(("worker", "sweeper"), "A closed list."),
            host=text("Its machine."),
            queues=many(text("A queue."), "What it takes."),
            threads=whole("Tasks at once.", 0),
            held=_COUNT,
            draining=flag("Whether it is shutting down."),
            alive=flag("Whether it was heard of lately."),
            seenSecondsAgo=SECONDS,
            startedAt=moment("Its start."),
            memoryBytes=whole("Memory.", 0),
            diskFreeBytes=whole("Free on its disk.", 0),
            diskLow=flag("Whether that is too little for a job."),
        ),
        "Processes.",
    ),
    openCases=shape(
        "",
        "Jobs of which nobody knows whether they were paid for.",
        number=whole("Jobs.", 0),
        atStakeUsd=usd("What they may cost."),
        simulatedUsd=usd("The same of simulated ones."),
        withoutPrice=whole("Jobs without a known price.", 0),
    ),
    warnings=shape("", "Odd videos.", last24Hours=mapping(_COUNT, "By code of the warning.")),
    storage=shape("", "Stored files.", usedBytes=whole("Bytes.", 0), videos=whole("Videos.", 0)),
)

# --- one task's details ----------------------------------------------------------------------------------------------

_STAFF = "For staff only."
EVENT = shape(
    "TaskEvent",
    "One step of the timeline.",
    run=whole("The run.", 1),
    stage=STAGE,
    outcome=one_of(TaskEvent.Outcome.values, "What happened. A closed list."),
    startedAt=moment("When the task entered it."),
    finishedAt=moment("When it happened."),
    seconds=described(SECONDS, "In between."),
    generationId=maybe(text("The attempt that it belongs to.")),
    detail=maybe(text("More on it.")),
    errorCode=maybe(ERROR_CODE),
    worker=optional(text(_STAFF)),
)
GENERATION = shape(
    "Generation",
    "One attempt at a provider.",
    generationId=text("Its id."),
    run=whole("The run.", 1),
    attempt=whole("1, 2, … over all runs.", 1),
    provider=PROVIDER,
    model=MODEL,
    state=one_of(Generation.State.values, "How far it is. A closed list."),
    simulated=flag("Whether it was simulated."),
    candidates=many(
        shape(
            "ChosenCandidate",
            "One model as it stood at the choice. What an older attempt did not note is null.",
            **{name: maybe(schema) for name, schema in CANDIDATE_FIELDS.items()},
            chosen=flag("Whether it was chosen."),
        ),
        "What could have been chosen, and why it was or was not.",
    ),
    plannedAt=moment("When its slot was taken."),
    sentAt=maybe(moment("When the submit was sent.")),
    acceptedAt=maybe(moment("When the provider took it.")),
    endedAt=maybe(moment("When it ended.")),
    looks=whole("How often the provider was asked.", 0),
    progress=maybe(number("As the provider says it, 0 to 1.")),
    cost=optional(
        shape(
            "",
            "What it costs at the provider. Only for staff who may see accounts.",
            expectedUsd=maybe(usd("As expected.")),
            expected=maybe(text("As expected, in the provider's unit.")),
            reported=maybe(text("As the provider reported it.")),
            unit=maybe(text("The provider's unit.")),
        )
    ),
    aigcTag=maybe(text("What the provider's file says of its origin.")),
    hasC2pa=flag("Whether the provider's file had a C2PA manifest."),
    errorCode=maybe(ERROR_CODE),
    error=maybe(text("Why it failed.")),
    jobId=optional(maybe(text(_STAFF))),
    keyFingerprint=optional(maybe(text(_STAFF))),
    keyLabel=optional(maybe(text(_STAFF))),
    account=optional(text(_STAFF)),
    providerStatus=optional(maybe(text(_STAFF))),
    lastLookAt=optional(maybe(moment(_STAFF))),
    failedLooks=optional(whole(_STAFF, 0)),
    cancelWantedAt=optional(maybe(moment(_STAFF))),
    looksAgainAt=optional(maybe(moment(_STAFF))),
    failedFetches=optional(whole(_STAFF, 0)),
)
DETAILS = shape(
    "TaskDetails",
    "A task with its timeline, its attempts and its credits.",
    TASK,
    user=optional(text(_STAFF)),
    run=whole("The task's run.", 1),
    now=maybe(
        shape(
            "",
            "What it does or waits for; null when it is over.",
            state=one_of(("inWork", "waitsForSlot", "parked", "waitsForCore", "waitsForWorker"), "A closed list."),
            since=maybe(moment("Since when.")),
            until=maybe(moment("The time that it waits for.")),
            worker=optional(text(_STAFF)),
            reason=optional(maybe(text(_STAFF))),
            tries=optional(whole(_STAFF, 0)),
            lostWorkers=optional(whole(_STAFF, 0)),
            accounts=optional(
                many(
                    shape(
                        "",
                        "An account that could run one of its models.",
                        provider=text("The provider."),
                        account=text("The account."),
                        model=text("The model."),
                        state=text("Whether a job may start there, and if not, why."),
                        reasonCode=maybe(REASON_CODE),
                        slotsInUse=whole("Jobs.", 0),
                        slots=whole("Jobs that may be live at once.", 0),
                        until=maybe(moment("When it opens by itself, where that is known.")),
                    ),
                    f"Of a task in line. {_STAFF}",
                )
            ),
        )
    ),
    renderOf=optional(RENDER_OF),
    request=order_as_told(),
    warnings=many(WARNING, "What is odd about its video."),
    createdAt=moment("When it was made."),
    startedAt=maybe(moment("When the first submit was sent.")),
    finishedAt=maybe(moment("When it ended.")),
    deadlineAt=maybe(moment("When it is given up if its job is still open.")),
    timeline=many(EVENT, "Oldest first.", most=400),
    timelineCut=flag("Whether older steps are left out."),
    generations=many(GENERATION, "Oldest first.", most=50),
    credits=shape(
        "",
        "What it cost.",
        total=whole("Credits; what was taken is negative."),
        runs=many(
            shape(
                "",
                "One run.",
                run=maybe(whole("The run.", 1)),
                entries=many(
                    shape(
                        "",
                        "A line of the ledger.",
                        kind=one_of(CreditEntry.Kind.values, "A closed list."),
                        amount=whole("Credits; what was taken is negative."),
                        at=moment("When."),
                        note=optional(maybe(text(_STAFF))),
                    ),
                    "Its lines.",
                ),
            ),
            "By run.",
        ),
    ),
)
