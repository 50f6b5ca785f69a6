"""The shapes of what was used and what it cost."""

from __future__ import annotations

from typing import Any

from video.api.contract.shapes import always, flag, many, maybe, optional, shape, text, usd, whole

_OF_CREDITS: dict[str, Any] = {
    "videos": whole("That providers made and users got.", 0),
    "runs": whole("Runs that were paid for.", 0),
    "debited": whole("Credits.", 0),
    "refunded": whole("Credits.", 0),
    "free": whole("Credits that were granted for a retry.", 0),
    "granted": whole("Other credits that were granted.", 0),
    "adjusted": whole("Credits of corrections, with their sign."),
}
_PAID = whole("Debited, less refunded and free.")
_GROUP = {
    name: optional(text(f"Of the group, where `by` has {name}."))
    for name in ("day", "provider", "model", "key", "user", "outcome")
}
_OWN_GROUP = {name: _GROUP[name] for name in ("day", "model", "outcome")}
_HEAD: dict[str, Any] = {
    "since": text("The first day, UTC."),
    "until": text("The last day, UTC."),
    "by": many(text("A dimension."), "What the rows are grouped by."),
    "cut": flag("Whether there are more groups than rows."),
}
_IN_UNIT = shape(
    "ChargeInUnit",
    "What a provider reported.",
    provider=text("The provider."),
    unit=text("Its unit."),
    amount=text("A decimal number.", example="120"),
)
_OF_CHARGES: dict[str, Any] = {
    "attempts": whole("Jobs that ended.", 0),
    "chargeUsd": usd("What providers take: what was reported, and what was expected where nothing was."),
    "expectedUsd": usd("What was expected of the same attempts."),
    "reportedUsd": usd("The reported part."),
    "reportedExpectedUsd": usd("What was expected of the attempts that were reported."),
    "estimatedUsd": usd("The part that was not reported."),
    "failuresUsd": usd("The part that brought no video."),
    "reports": whole("Attempts whose charge was reported.", 0),
    "unpriced": whole("Attempts that may be charged, of which neither is known.", 0),
    "earned": _PAID,
    "marginUsd": optional(usd("Earned credits at `creditUsd`, less the charge.")),
    "reported": many(_IN_UNIT, "In the providers' units."),
}
OWN = shape(
    "OwnUsage",
    "The caller's own credits and videos.",
    scope=always("own", "The caller's own."),
    rows=many(shape("OwnUsageRow", "One group.", **_OWN_GROUP, **_OF_CREDITS, paid=_PAID), "The groups."),
    total=shape("OwnUsageSum", "All groups.", **_OF_CREDITS, paid=_PAID),
    **_HEAD,
)
ALL = shape(
    "SystemUsage",
    "Charges and credits of all users, for staff who may see accounts.",
    scope=always("all", "All users."),
    rows=many(
        shape("UsageRow", "One group.", **_GROUP, **_OF_CREDITS, **_OF_CHARGES), "By day, then the dearest first."
    ),
    total=shape("UsageSum", "All groups.", **_OF_CREDITS, **_OF_CHARGES),
    hasSimulated=flag("Whether some of it was simulated."),
    creditUsd=maybe(usd("What users pay for a credit, as CREDIT_USD says.")),
    rates=many(
        shape(
            "UnitRate",
            "What a unit of a provider's bill is worth.",
            provider=text("The provider."),
            unit=text("Its unit."),
            usd=usd("US dollars."),
            source=text("Where that is written; or the setting."),
        ),
        "The rates.",
    ),
    **_HEAD,
)
