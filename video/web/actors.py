"""Who acts by a request: for the audit."""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework.request import Request

from providers.untrusted import storable
from video.audit.actors import Actor
from video.models import AuditRecord
from video.web.client_address import client_address

MOST_OF_KEY = 80


def of_request(request: HttpRequest | Request) -> Actor:
    """The signed-in user of a page of the admin, or of a view of the API: which of them the request's type says.

    The source is the client's address; before it stands the name of the API key, if the caller came with one. The
    reason is the field `reason` of a page's form; a view of the API has read its own.
    """
    if not isinstance(request, Request):
        found = _actor(request.user, AuditRecord.Via.ADMIN, client_address(request))
        return found.because(request.POST.get("reason", ""))
    address, key = client_address(request._request), getattr(request.auth, "key", None)
    source = address if key is None else f"API key {storable(key.name, MOST_OF_KEY) or key.id} at {address}"
    return _actor(request.user, AuditRecord.Via.API, source)


def _actor(user: object, via: AuditRecord.Via, source: str) -> Actor:
    return Actor(user.get_username(), via, source, user.pk)  # type: ignore[attr-defined]  # a user, behind a login
