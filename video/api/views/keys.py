"""One's own API keys: make, list, roll, revoke. Only a login may, so that a key that was stolen makes no other."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django.http import HttpResponse
from django.utils import timezone
from rest_framework.request import Request

from video.api.base import ApiView, caller, success, user_id
from video.api.bodies import KeySerializer, RollSerializer, fields_of
from video.api.contract import answers, key_answers
from video.api.contract.describe import Answer, describe
from video.api.errors import not_found
from video.infra.camel import camel
from video.models import ApiKey
from video.web import security_log
from video.web.client_address import client_address
from video.web.logins import api_keys
from video.web.logins.api_keys import KeyOrder

#: The old text of a key that is rolled stays good for so long, unless the body says another time.
OVERLAP_S = 86400


class KeysView(ApiView):
    """GET /api/keys: the keys of the caller that are good, the newest first. POST: a new one, whose `key` is shown in
    this answer and never again.
    """

    key_scope = None

    @describe(
        "API keys",
        "List one's keys",
        about="GET /api/keys: the keys of the caller that are good, without their texts.",
        answers={200: Answer("The newest first.", key_answers.KEYS)},
    )
    def get(self, request: Request) -> HttpResponse:
        keys = api_keys.with_secrets(api_keys.alive(user_id(request)))
        return success({"keys": [shown(key) for key in keys]})

    @describe(
        "API keys",
        "Make a key",
        about="POST /api/keys: a new key, whose text is shown in this answer and never again.",
        body=KeySerializer,
        answers={201: Answer("The key and its text.", key_answers.NEW_KEY)},
        errors="too_many_keys",
        examples={"For a program that makes videos": {"name": "nightly", "scopes": ["read", "create"]}},
    )
    def post(self, request: Request) -> HttpResponse:
        fields = fields_of(request, KeySerializer)
        lasts = fields.pop("expires_in", None)
        order = KeyOrder(**fields, lasts=None if lasts is None else timedelta(seconds=lasts))
        key_id, text = api_keys.make(caller(request), order)
        record(request, "key_made", key_id, scopes=" ".join(sorted(order.scopes)))
        return success({"key": text, **_of_caller(request, key_id)}, status=201)


class KeyView(ApiView):
    """DELETE /api/keys/{id}: it is good no more, at once."""

    key_scope = None

    @describe(
        "API keys",
        "Revoke a key",
        parameters=(key_answers.KEY_IN_PATH,),
        answers={200: Answer("It is over.", answers.NOTHING)},
        errors="not_found",
    )
    def delete(self, request: Request, key_id: str) -> HttpResponse:
        if not api_keys.end(checked_id(key_id), user_id(request), ApiKey.End.REVOKED):
            raise not_found("API key")
        record(request, "key_revoked", key_id)
        return success({})


class KeyRollView(ApiView):
    """POST /api/keys/{id}/roll: a new `key` in place of the old one, which stays good for `overlap` seconds."""

    key_scope = None

    @describe(
        "API keys",
        "Roll a key",
        body=RollSerializer,
        parameters=(key_answers.KEY_IN_PATH,),
        answers={200: Answer("The key and its new text.", key_answers.NEW_KEY)},
        errors="not_found",
        examples={"The old text ends at once": {"overlap": 0}},
    )
    def post(self, request: Request, key_id: str) -> HttpResponse:
        overlap = timedelta(seconds=fields_of(request, RollSerializer).get("overlap", OVERLAP_S))
        text = api_keys.roll(checked_id(key_id), user_id(request), overlap=overlap)
        record(request, "key_rolled", key_id)
        return success({"key": text, **_of_caller(request, key_id)})


def checked_id(key_id: str) -> str:
    """A key's id as the caller gave it. Raises a 404 if it has no key's shape."""
    if not api_keys.is_id(key_id):
        raise not_found("API key")
    return key_id


def shown(key: ApiKey) -> dict[str, Any]:
    """A key in the API's words; its good secrets are read already."""
    secrets = list(key.secrets.all())
    used = [one.last_used_at for one in secrets if one.last_used_at is not None]
    today: date = timezone.now().date()
    spent = key.spent_credits if key.spent_on == today else 0
    return {
        **camel(key, "id name scopes addresses daily_credits requests_per_minute made_at expires_at"),
        **camel({"spent_today": spent, "last_used_at": max(used, default=None)}, "spent_today last_used_at"),
        "secrets": [camel(one, "hint made_at ends_at last_used_at") for one in secrets],
    }


def record(request: Request, event: str, key_id: str, **facts: Any) -> None:
    """A line of the security log; of a key its id alone."""
    security_log.record(event, address=client_address(request._request), user=caller(request), key=key_id, **facts)


def _of_caller(request: Request, key_id: str) -> dict[str, Any]:
    return shown(api_keys.with_secrets(ApiKey.objects.filter(pk=key_id, user=user_id(request))).get())
