"""The page of the second factor: where a code is given, an app is set up, and recovery codes are shown once."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import segno
from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from video.infra.durations import count
from video.web.logins import second_factor
from video.web.logins.second_factor import AlreadySetUp, Standing
from video.web.logins.sign_in import LoginsBusy
from video.web.logins.throttle import TooManyTries

FEW_CODES = 3  # of which users are told
WRONG = "This code is not right, or was used before. A new one comes every 30 seconds."
WRONG_AT_SET_UP = "This is no code of this key. If it goes on so, set the clock of the device with the app."


class CodeForm(forms.Form):
    """A code of the app, or a recovery code."""

    code = forms.CharField(
        label="Code",
        max_length=60,
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "autocapitalize": "none", "spellcheck": "false", "autofocus": True}
        ),
    )

    def clean_code(self) -> str:
        """As codes are compared."""
        code = second_factor.canonical(self.cleaned_data["code"])
        if not code:
            raise forms.ValidationError("Six digits from your app, or one of your recovery codes.")
        return code


def page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """What this member of staff has to do, or may. `context` is the site's. Raises Http404 where none is asked for."""
    if settings.ADMIN_SECOND_FACTOR == "off":
        raise Http404("ADMIN_SECOND_FACTOR is off")
    user: Any = request.user
    standing = second_factor.standing(request)
    form = CodeForm(request.POST or None)
    context |= {"form": form, "next": _next(request), "is_required": settings.ADMIN_SECOND_FACTOR == "required"}
    if standing is Standing.PASSED:
        return _look_after(request, context, form)
    if standing is Standing.CODE:
        return _give(request, context, form)
    codes = None
    if form.is_valid():
        try:
            codes = second_factor.set_up(request, form.cleaned_data["code"])
        except AlreadySetUp:
            messages.error(request, "An app was set up meanwhile.")
            return HttpResponseRedirect(request.get_full_path())
        if codes is None:
            form.add_error("code", WRONG_AT_SET_UP)
    if codes is not None:
        return _show_codes(request, context, codes)
    app = second_factor.new_app(request)
    side, path = _qr(app.address)
    context |= {
        "title": "Set up a second factor",
        "app": app,
        "secret": " ".join(app.secret[at : at + 4] for at in range(0, len(app.secret), 4)),
        "side": side,
        "path": path,
        "account": user.get_username(),
    }
    return TemplateResponse(request, "admin/second_factor/set_up.html", context)


def _give(request: HttpRequest, context: dict[str, Any], form: CodeForm) -> HttpResponse:
    if _is_given(request, form):
        left = second_factor.codes_left(request.user)  # type: ignore[arg-type]  # staff is not anonymous
        if len(form.cleaned_data["code"]) != 6 or left <= FEW_CODES:
            messages.warning(request, f"You have {count(left, 'recovery code')} left. Second factor makes new ones.")
        return HttpResponseRedirect(context["next"])
    return TemplateResponse(request, "admin/second_factor/code.html", {**context, "title": "Second factor"})


def _look_after(request: HttpRequest, context: dict[str, Any], form: CodeForm) -> HttpResponse:
    wish = request.POST.get("wish")
    if wish in ("codes", "remove") and _is_given(request, form):
        if wish == "codes":
            return _show_codes(request, context, second_factor.renew_codes(request))
        second_factor.remove(request)
        messages.success(request, "Your second factor is removed, with its recovery codes.")
        return HttpResponseRedirect(request.path)
    user: Any = request.user
    context |= {"title": "Second factor", "left": second_factor.codes_left(user), "device": user.otp_device}
    return TemplateResponse(request, "admin/second_factor/passed.html", context)


def _is_given(request: HttpRequest, form: CodeForm) -> bool:
    """Whether the form holds the right code; else it says why not, if one was sent."""
    if not form.is_valid():
        return False
    try:
        if second_factor.give(request, form.cleaned_data["code"]):
            return True
        form.add_error("code", WRONG)
    except (TooManyTries, LoginsBusy) as err:
        form.add_error("code", str(err))
    return False


def _show_codes(request: HttpRequest, context: dict[str, Any], codes: list[str]) -> HttpResponse:
    context |= {"title": "Your recovery codes", "codes": codes}
    return TemplateResponse(request, "admin/second_factor/codes.html", context)


def _next(request: HttpRequest) -> str:
    """Where the user was going: a page of this site, else the admin's first."""
    target = request.POST.get(REDIRECT_FIELD_NAME) or request.GET.get(REDIRECT_FIELD_NAME) or ""
    is_ours = url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure())
    return target if is_ours and not target.startswith(request.path) else reverse("admin:index")


def _qr(text: str) -> tuple[int, str]:
    """A QR code as the side of its square and the `d` of a path, in modules, with the quiet zone that it needs."""
    matrix = [list(row) for row in segno.make(text, error="m", micro=False).matrix_iter(border=4)]
    path = []
    for y, row in enumerate(matrix):
        x = 0
        for is_dark, run in groupby(row):
            length = len(list(run))
            if is_dark:
                path.append(f"M{x} {y}h{length}v1h-{length}z")
            x += length
    return len(matrix), "".join(path)
