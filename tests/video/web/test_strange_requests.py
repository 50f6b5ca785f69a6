"""Every address of the server, with what none of them takes: NUL in any place, and methods that it doesn't have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils.regex_helper import normalize

from tests.factories import make_task
from video.web import headers

UNKNOWN_METHODS = ("TRACE", "CONNECT", "PROPFIND", "PATCHES", "X" * 500)
DELETABLE = {"/api/pauses/x", "/api/video/tasks/x", "/api/auth/sessions/x", "/api/keys/x", "/api/webhooks/x"}
PAGES = ("/", "/healthz", "/readyz", "/storage/1/vid_1.mp4", "/admin/", "/admin/login/", "/admin/queues/")
QUERIES = (
    "q=%00", "id=%00", "id__exact=%00", "%00=1", "%00", "o=%00", "p=%00", "p=99999999999999999999", "all=%00",
    "_changelist_filters=%00", "e=%00", "next=%00", "status__exact=%00", "user__id__exact=%00", "object_id=%00",
    "id=99999999999999999999999999", "expires=%00&signature=%00", "taskId=%00", "cursor=%00", "ref=%00",
)  # fmt: skip


def addresses(patterns: Any = None, before: str = "/", **values: str) -> Iterator[str]:
    """One address of each pattern, with `values` (else `x`) in the places of its arguments."""
    for one in get_resolver().url_patterns if patterns is None else patterns:
        text, names = normalize(one.pattern.regex.pattern)[0]
        filled = {name: values.get(name, values.get("any", "x")) for name in names}
        here = before + text % (filled | ({"app_label": "video"} if "app_label" in filled else {}))
        if isinstance(one, URLResolver):
            yield from addresses(one.url_patterns, here, **values)
        elif isinstance(one, URLPattern):
            yield here


EACH = sorted(set(addresses()))
WITH_ARGUMENT = sorted(set(addresses(any="a%00b")) - set(EACH))


@pytest.fixture
def staff(client: Client, db: None) -> Client:
    client.force_login(get_user_model().objects.create_superuser("operator"))
    client.raise_request_exception = False
    return client


def test_the_table_has_the_pages_of_the_admin() -> None:
    assert {"/healthz", "/admin/video/videotask/", "/admin/auth/user/add/", "/api/video/create"} <= set(EACH)
    assert "/admin/video/videotask/a%00b/change/" in WITH_ARGUMENT
    assert len(EACH) > 60


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_with_nul_is_no_error_of_the_server(staff: Client, query: str) -> None:
    for address in EACH:
        reply = staff.get(f"{address}?{query}")
        assert reply.status_code < 500, (address, reply.content[:200])
        if "%00" in query and not headers.is_api(address):
            assert (reply.status_code, reply["Content-Type"]) == (400, "text/plain; charset=utf-8")


def test_a_path_with_nul_is_refused(staff: Client) -> None:
    for address in WITH_ARGUMENT:
        for method in ("GET", "POST"):
            assert staff.generic(method, address).status_code in (400, 401, 404, 405), address


@pytest.mark.parametrize(
    "address", ["/%00", "/nothing%00", "/static/%00", "/static/admin/css/base.css%00", "/admin/%00"]
)
def test_a_path_that_names_nothing_may_hold_one_as_little(staff: Client, address: str) -> None:
    reply = staff.get(address)
    assert (reply.status_code, reply.content) == (400, b"There is a NUL character in the path; leave it out.\n")


@pytest.mark.django_db
def test_a_cookie_with_nul_is_no_error_of_the_server() -> None:
    client = Client(raise_request_exception=False)
    every = "; ".join(f'{name}="a\\000"' for name in ("sessionid", "csrftoken", "messages", "token", "refresh"))
    for address in EACH:
        for method in ("GET", "POST"):
            reply = client.generic(method, address, HTTP_COOKIE=every)
            assert reply.status_code < 500, (method, address)
    for one in ('sessionid="\\000"', 'sessionid="abc\\000def"', "sessionid=\0", 'x="\\101\\000"; y=1', "\0=1"):
        assert client.get("/admin/", HTTP_COOKIE=one).status_code == 400


@pytest.mark.django_db
def test_a_cookie_that_only_looks_like_it_is_taken(staff: Client) -> None:
    assert staff.get("/admin/", HTTP_COOKIE=f"{staff.cookies.output(header='', sep=';')}; a=\\000").status_code != 400


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("query", ["id__regex=(", "pk__iregex=[", "id__year=99999999"])
def test_a_filter_that_the_database_refuses_is_no_error_of_the_server(client: Client, query: str) -> None:
    client.force_login(get_user_model().objects.create_superuser("operator"))
    client.raise_request_exception = False
    for address in EACH:
        if address.startswith("/admin/"):
            assert client.get(f"{address}?{query}").status_code < 500, address
    assert client.get("/admin/video/videotask/").status_code == 200


def test_a_form_with_nul_is_no_error_of_the_server(staff: Client) -> None:
    task = make_task()
    form = {"action": "cancel_tasks", "_selected_action": "\0", "username": "\0", "password": "\0", "amount": "\0"}
    for address in (*EACH, f"/admin/video/videotask/{task.pk.replace('_', '_5F')}/change/"):
        if not address.startswith("/api"):
            reply = staff.post(address, form)
            assert reply.status_code < 500, (address, reply.content[:200])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", *UNKNOWN_METHODS])
@pytest.mark.parametrize("address", PAGES)
def test_a_page_takes_no_method_that_it_does_not_name(address: str, method: str) -> None:
    """Without a cookie or a token of any kind, and with CSRF checked as it is for browsers."""
    if address.startswith("/admin/") and method == "POST":
        return
    reply = Client(enforce_csrf_checks=True).generic(method, address)
    assert reply.status_code == 405
    assert reply["Allow"] == ("GET, HEAD, POST" if address.startswith("/admin/") else "GET, HEAD")
    if address in ("/healthz", "/readyz"):
        assert reply.json()["error"]["code"] == "method_not_allowed"
        assert reply["Cache-Control"] == "no-store"
    else:
        assert reply["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.django_db
def test_the_api_says_so_in_its_envelope_with_and_without_a_login(api: Client) -> None:
    tried = [(address, client) for address in EACH if address.startswith("/api/") for client in (api, Client())]
    for address, client in tried:
        for method in ("OPTIONS", "PUT", "DELETE", *UNKNOWN_METHODS):
            reply = client.generic(method, address)
            # A provider that is nobody; and what may be deleted.
            if reply.status_code == 404 or (method == "DELETE" and address in DELETABLE):
                continue
            assert reply.status_code == 405, method
            error = reply.json()["error"]
            assert error.get("metadata", error)["code"] == "method_not_allowed"  # there in OpenRouter's shape
            assert "OPTIONS" not in reply["Allow"]
            assert reply["Allow"]


def test_head_is_answered_as_get_is(staff: Client) -> None:
    for address in EACH:
        client = Client() if address == "/admin/login/" else staff  # who is logged in is sent on, but only from GET
        found, asked = client.get(address), client.head(address)
        assert (asked.status_code, asked["Content-Type"]) == (found.status_code, found["Content-Type"]), address
        assert not asked.content
