"""Create many videos by one call."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpResponse
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from media_pipeline.errors import PictureRefused
from providers import catalogue
from video.actions import create_many
from video.actions.create_many import Wanted
from video.actions.order_input import CreateSerializer, OrderRefused, flatten
from video.api import errors, idempotency
from video.api.base import ApiView, key_id, user_id
from video.api.bodies import BatchSerializer, fields_of
from video.api.contract import answers
from video.api.contract.describe import Answer, describe
from video.api.parsing import BatchParser, longest_batch
from video.infra.errors import Refusal
from video.models import Scope, VideoTask
from video.scheduling import estimates
from video.web.idempotency import Done

# What is wrong with a batch that is refused as a whole: of so many orders, and so many fields, the first ones.
MOST_WRONG, MOST_DETAILS = 10, 20
_SEND_IT_FIRST = "can't be a picture itself here: send it first (POST /api/video/upload), and give its address"


class BatchView(ApiView):
    """POST /api/video/batch: up to 100 orders, each as create takes it. `mode`: `all` makes all or none, `each` those
    that can be made.

    201 when all were made; 207 in mode `each` when some were not. Each entry has its `index`, and a `taskId` or a
    `refusal`.
    """

    key_scope = Scope.CREATE
    parser_classes = (BatchParser,)
    longest_body = longest_batch

    @describe(
        "Tasks",
        "Create many videos",
        body=BatchSerializer,
        parameters=(answers.IDEMPOTENCY_KEY,),
        answers={
            201: Answer("All were made.", answers.BATCH, headers=answers.REPLAYED),
            207: Answer("Some were not; only with `each`.", answers.BATCH, headers=answers.REPLAYED),
        },
        errors="no_capable_model model_unavailable image_unreadable image_too_large no_such_upload "
        "insufficient_credits key_limit_reached price_too_high storage_full idempotency_key_reused "
        "idempotency_key_in_use "
        "too_many_waiting too_many_live unavailable",
        examples={
            "Two of them": {"orders": [{"prompt": "A cat"}, {"prompt": "A dog", "duration": 10}], "mode": "each"}
        },
    )
    def post(self, request: Request) -> HttpResponse:
        fields = fields_of(request, BatchSerializer)
        idempotency.key_of(request)
        whole = fields.get("mode", "all") == "all"
        checked, wrong = [], []
        for at, order in enumerate(fields["orders"]):
            checked.append(one := _checked(order))
            if isinstance(one, Exception):
                wrong.append((at, one))
            if whole and len(wrong) == MOST_WRONG:
                break
        if whole and wrong:
            raise _refused(wrong)
        return idempotency.once(
            request, partial(_make, user_id(request), checked, whole=whole, api_key=key_id(request))
        )


def _checked(order: dict[str, Any]) -> Wanted | Exception:
    """What create would make of it, or what it would refuse it with."""
    serializer = CreateSerializer(data=order)
    try:
        serializer.is_valid(raise_exception=True)
    except (ValidationError, OrderRefused, PictureRefused) as err:
        return err
    wanted = serializer.validated_data
    if wanted["picture"] is not None:
        return ValidationError({"imageUrl": [_SEND_IT_FIRST]})
    return Wanted(wanted["order"], wanted["models"], wanted["metadata"], wanted["most_credits"])


def _refused(wrong: list[tuple[int, Exception]]) -> errors.ApiError:
    """What is wrong with them, each field under the index of its order."""
    details: list[dict[str, str]] = []
    for at, err in wrong:
        found = flatten(err.detail) if isinstance(err, ValidationError) else errors.told(err)["details"]
        listed = found if isinstance(found, list) else [{"field": "order", "message": str(err)}]
        details += [{**one, "field": f"orders[{at}].{one.get('field', 'order')}"} for one in listed]
    return errors.ApiError(400, "invalid_request", errors.joined(details), details[:MOST_DETAILS])


def _placed(refused: create_many.OneRefused) -> errors.ApiError:
    """What refuses an order, with the fields under its index. All of them are sound, so it is that of the request."""
    error, order = errors.translate(refused.why), f"orders[{refused.at}]"
    if isinstance(error.details, list):
        error.details = [{**one, "field": f"{order}.{one.get('field', 'order')}"} for one in error.details]
    error.message = f"{order}.{error.message}"
    return error


def _make(user: int, checked: list[Wanted | Exception], *, whole: bool, api_key: str | None) -> Done:
    sound = [one for one in checked if isinstance(one, Wanted)]
    try:
        made = iter(create_many.create_many(user, sound, whole=whole, api_key=api_key) if sound else [])
    except create_many.OneRefused as err:
        raise _placed(err) from None
    found = [next(made) if isinstance(one, Wanted) else one for one in checked]
    tasks = [_entry(at, one) for at, one in enumerate(found)]
    created = sum(isinstance(one, VideoTask) for one in found)
    data = {"tasks": tasks, "created": created, "refused": len(found) - created}
    return Done(data, status=201 if created == len(found) else 207, changed=created > 0)


def _entry(at: int, one: VideoTask | Refusal | Exception) -> dict[str, Any]:
    if not isinstance(one, VideoTask):
        return {"index": at, "refusal": errors.told(one)}
    estimated = estimates.expected_seconds(catalogue.BY_ID[one.eligible_models[0]], one.user_id)
    return {"index": at, "taskId": one.pk, "status": str(one.status), "estimatedTime": estimated}
