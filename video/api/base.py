"""What all API views share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NoReturn

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.views import APIView

from providers.untrusted import storable
from video.api import errors, key_login, parsing, tokens, transfer
from video.api.deprecation import Deprecation
from video.web import answers, request_limits

_READS = frozenset({"GET", "HEAD"})


class JsonWhateverIsAsked(BaseContentNegotiation):
    """JSON for every Accept header: an API address opened in a browser shows its answer, not a 406."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        essence = request.content_type.partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == essence), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class ApiView(APIView):
    """JSON in, one envelope out, never cached. Needs a login."""

    content_negotiation_class = JsonWhateverIsAsked
    longest_body = staticmethod(parsing.longest)
    unpacks = False  # bodies with a Content-Encoding
    #: What an API key needs for the view, or for each of its methods; None: only a login may. Each view names it.
    key_scope: key_login.KeyScope = None
    takes: Collection[str] | None = ()  # parameters of the query; None: whatever comes
    has_etag = False  # reads: answered 304 to a client who has the answer already
    #: Reads, in gzip. Not where a secret (a signed link, a token) stands in the answer: its length would tell of it to
    #: who chooses a text beside it and counts the bytes on the line (BREACH).
    is_compressed = False
    deprecation: Deprecation | None = None
    http_method_names = ("get", "head", "post", "put", "patch", "delete")

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # Before the login is read: who has none is told what is wrong all the same. OPTIONS is for CORS, which its
        # middleware answers; TRACE and what nobody knows are answered nowhere.
        plain = request._request  # each look through REST framework's wrapper costs a microsecond
        if plain.method not in self.allowed_methods:
            raise MethodNotAllowed(str(plain.method)[:20])
        super().initial(request, *args, **kwargs)
        parsing.refuse_by_header(plain.META, type(self).longest_body(), unpacks=self.unpacks)
        if plain.META.get("QUERY_STRING") and self.takes is not None:
            self._refuse_query(plain)

    def takes_parameter(self, name: str) -> bool:
        """Whether the query may have this parameter."""
        return name in (self.takes or ())

    def _refuse_query(self, request: HttpRequest) -> None:
        """Raise a 400 for a parameter that is not known here, and for one that comes twice: which is meant?"""
        for name, values in request.GET.lists():
            if not self.takes_parameter(name):
                known = ", ".join(sorted(self.takes or ()))
                hint = f"there are {known}" if known else "this address takes none"
                raise errors.invalid(storable(name[:60], 60), f"is not known here; {hint}")
            if len(values) > 1:
                raise errors.invalid(name, "is given twice")

    def check_permissions(self, request: Request) -> None:
        super().check_permissions(request)
        login: tokens.Caller | None = request.auth  # type: ignore[assignment]
        if login is not None and login.key is not None:
            key_login.refuse_beyond(login.key, type(self).key_scope, str(request.method))

    def beside_login(self, request: Request) -> tokens.Beside | None:
        """What the statement that reads the login reads as well, for a view that needs one row of its caller's; the
        row is `beside(request)`.
        """
        return None

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"] = errors.NO_STORE
        plain = request._request
        if response.status_code == 200 and plain.method in _READS:
            if self.has_etag:
                response = transfer.revalidated(plain, response)
            if self.is_compressed and response.status_code == 200:
                transfer.compress(plain, response)
        if self.deprecation is not None:
            self.deprecation.say(response)
        for name, value in plain.META.get(request_limits.META, {}).items():
            response[name] = value
        return response


class PublicApiView(ApiView):
    """A view that reads no token, so that a stale cookie does no harm."""

    authentication_classes = ()
    permission_classes = ()


class UnknownAddress(PublicApiView):
    """Everything under /api that isn't there, for every method."""

    schema = None  # it is no call, so the document doesn't have it

    def initial(self, request: HttpRequest, *args: Any, **kwargs: Any) -> NoReturn:
        raise errors.not_found("address")


def success(data: Any, status: int = 200) -> HttpResponse:
    """The envelope of a success."""
    return answers.as_json({"success": True, "data": data}, status)


def caller(request: Request) -> User:
    """The caller; only for views that need a login."""
    user: User = request.user  # type: ignore[assignment]
    return user


def beside(request: Request) -> tuple[Any, ...] | None:
    """The row that `beside_login` asked for, if there is one."""
    login: tokens.Caller = request.auth  # type: ignore[assignment]
    return login.beside


def key_id(request: Request) -> str | None:
    """The id of the API key that the caller came with, whose limits count; None for a login."""
    login: tokens.Caller = request.auth  # type: ignore[assignment]
    return None if login.key is None else login.key.id


def user_id(request: Request) -> int:
    """The caller's id."""
    return caller(request).pk
