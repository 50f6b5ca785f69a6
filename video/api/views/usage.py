"""What was used: one's own credits and videos; for staff the costs of the whole system."""

from __future__ import annotations

from dataclasses import replace

from django.http import HttpResponse
from rest_framework.request import Request

from video.api import errors
from video.api.base import ApiView, success, user_id
from video.api.contract import usage_answers
from video.api.contract.describe import Answer, Parameter, describe
from video.api.contract.shapes import described, one_of, text
from video.costs import as_text, report
from video.costs.facts import OUTCOMES
from video.models import Scope
from video.monitoring import overview

OWN = ("day", "model", "outcome")
_STAFF = "Only for staff who may see accounts."
_PARAMETERS = (
    Parameter(
        "since", text("A day in UTC, or a number of days with today.", pattern=r"^([0-9]{1,5}d|\d{4}-\d\d-\d\d)$")
    ),
    Parameter("until", text("A day in UTC; default today.", pattern=r"^\d{4}-\d\d-\d\d$")),
    Parameter(
        "by",
        text(
            f"What is grouped by, with commas between: some of {', '.join(OWN)}; for staff also "
            f"{', '.join(word for word in report.DIMENSIONS if word not in OWN)}."
        ),
    ),
    Parameter("model", text("This one only, by its id.")),
    Parameter("outcome", one_of(OUTCOMES, "This one only.")),
    Parameter("provider", text(f"This one only. {_STAFF}")),
    Parameter("key", text(f"This one only, by its name or fingerprint. {_STAFF}")),
    Parameter("user", text(f"This one only, by name. {_STAFF}")),
    Parameter("simulated", one_of(("yes", "no"), f"What was simulated only, or all else. {_STAFF}")),
)
_FOR_STAFF = frozenset({"provider", "key", "user", "simulated"})


class UsageView(ApiView):
    """GET /api/usage: credits and videos by day, model or outcome, the caller's own; for staff who may see accounts of
    all users, also by provider, key and user, with what providers charge.
    """

    key_scope = Scope.READ
    takes = tuple(one.name for one in _PARAMETERS)
    has_etag = True
    is_compressed = True

    @describe(
        "Credits",
        "Read what was used, and what it cost",
        parameters=_PARAMETERS,
        answers={
            200: Answer(
                "A row for each group, and the sum; `scope` says whose.",
                described({"oneOf": [usage_answers.OWN, usage_answers.ALL]}, "`scope` says which of the two."),
            )
        },
        errors="invalid_request forbidden",
    )
    def get(self, request: Request) -> HttpResponse:
        words, staff = request.GET.dict(), overview.may_see_all(request.user)
        if not staff and (refused := sorted(_FOR_STAFF & words.keys())):
            raise errors.ApiError(403, "forbidden", f"{refused[0]}: only staff who may see accounts can ask for it.")
        for name, word in words.items():  # a form's empty field means all; a program that sends one means something
            if not word:
                raise errors.invalid(name, "must not be empty")
        try:
            query = report.asked(words, dimensions=tuple(report.DIMENSIONS) if staff else OWN)
        except report.BadQuery as err:
            raise errors.invalid(err.field, str(err)) from None
        if staff:
            return success({"scope": "all", **as_text.as_json(report.read(query))})
        return success({"scope": "own", **as_text.own_json(report.read(replace(query, user=user_id(request))))})
