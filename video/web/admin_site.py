"""The admin's site: Django's, which may ask for a second factor before it opens."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import SimpleTemplateResponse
from django.urls import Resolver404, URLPattern, URLResolver, path, resolve, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.common import no_append_slash
from django.views.decorators.csrf import csrf_protect
from unfold.sites import UnfoldAdminSite

from providers.untrusted import printable
from video.routing import pauses
from video.web import second_factor_pages
from video.web.logins import second_factor
from video.web.logins.second_factor import Standing

View = TypeVar("View", bound=Callable[..., HttpResponseBase])


class Site(UnfoldAdminSite):
    """`admin.site`, by `config.admin_app`. Every page of it, and `admin-queues`, asks `has_permission`."""

    def has_permission(self, request: HttpRequest) -> bool:
        """Staff, who have given a second factor where one is asked for. All staff may leave."""
        return self._is_staff(request) and (
            second_factor.standing(request) in (Standing.NOTHING, Standing.PASSED)
            or request.path == reverse("admin:logout", current_app=self.name)
        )

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        """As Django's. Pages show what strangers wrote: nothing in it turns the text around it, or is obeyed where a
        page is copied to."""
        inner = super().admin_view(view, cacheable)

        @wraps(inner)
        def plain(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            response = inner(request, *args, **kwargs)
            if isinstance(response, SimpleTemplateResponse):
                response.add_post_render_callback(_make_plain)
            return response

        return cast(View, plain)

    @no_append_slash
    def catch_all_view(self, request: HttpRequest, url: str) -> HttpResponse:
        """An address that lacks only its slash goes on to its page.

        Django's own does so by APPEND_SLASH alone, which is off: a program that posts to an address of the API must get
        an error, not a redirect that drops its body.
        """
        if request.method in ("GET", "HEAD") and not request.path.endswith("/"):
            try:
                match = resolve(f"{request.path_info}/")
            except Resolver404:
                raise Http404 from None
            if getattr(match.func, "should_append_slash", True):
                return HttpResponseRedirect(request.get_full_path(force_append_slash=True))
        raise Http404

    def get_urls(self) -> list[URLResolver | URLPattern]:
        """With the page of the second factor, which is open to staff who owe one."""
        return [path("second-factor/", self.second_factor, name="second_factor"), *super().get_urls()]

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The password; who has given it and owes a second factor goes on to that."""
        if request.method == "GET" and self._is_staff(request) and not self.has_permission(request):
            target = request.GET.get(REDIRECT_FIELD_NAME, "")
            return redirect_to_login(target, reverse("admin:second_factor", current_app=self.name))
        return super().login(request, extra_context)

    @method_decorator(never_cache)
    @method_decorator(csrf_protect)
    def second_factor(self, request: HttpRequest) -> HttpResponseBase:
        """Give it, set it up, or see to it."""
        if not self._is_staff(request):
            return redirect_to_login(request.get_full_path(), reverse("admin:login", current_app=self.name))
        return second_factor_pages.page(request, self.each_context(request))

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """With the links of the user's menu; without colours, which unfold would write into the page."""
        links = []
        if request.user.is_authenticated and request.user.has_usable_password():
            links.append({"title": "Change password", "link": reverse("admin:password_change")})
        if settings.ADMIN_SECOND_FACTOR != "off":
            links.append({"title": "Second factor", "link": reverse("admin:second_factor")})
        found = {**super().each_context(request), "colors": {}, "account_links": links}
        if not found["has_permission"]:
            return found
        return {**found, "pauses": pauses.lately(), "may_pause": request.user.has_perm("video.pause")}

    def _is_staff(self, request: HttpRequest) -> bool:
        return super().has_permission(request)


def _make_plain(response: HttpResponseBase) -> None:
    assert isinstance(response, SimpleTemplateResponse)
    page = response.content.decode()
    shown = printable(page)
    if shown != page:
        response.content = shown
