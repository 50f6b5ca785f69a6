"""The admin's second factor: after the password a code of an authenticator app (TOTP, RFC 6238), or a recovery code.

django-otp keeps the app's secret, the step of the last code that was taken, and how far the app's clock is off. A user
has one app, and ten recovery codes. A session that gave a code holds a mark of it, bound to the user, to the app and to
the password: when one of them changes or goes, the session has to give a code again.
"""

from __future__ import annotations

import hashlib
import re
import time
from base64 import b32encode
from binascii import unhexlify
from dataclasses import dataclass
from enum import Enum
from typing import Any

import django_otp
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest
from django.middleware.csrf import rotate_token
from django.utils.crypto import constant_time_compare, get_random_string
from django_otp.oath import TOTP
from django_otp.plugins.otp_totp.models import TOTPDevice
from django_otp.util import random_hex

from video.models import RecoveryCode
from video.web import security_log
from video.web.client_address import client_address
from video.web.logins import sign_in

RECOVERY_CODES = 10
#: 20 letters of 32 are 100 random bits. No hash of such a code can be searched, however quick it is to compute.
_LETTERS, _LENGTH = "0123456789abcdefghjkmnpqrstvwxyz", 20
_MISREAD = str.maketrans("oil", "011")
_BOUND_TO, _SECRET = "second_factor_bound_to", "second_factor_secret"
#: Steps of 30 seconds that the app's clock may be off, beyond what is known of it.
_TOLERANCE = 1


class Standing(Enum):
    """What a session of a member of staff owes before the admin opens."""

    NOTHING = "no code is asked for"
    PASSED = "a code was given"
    CODE = "a code"
    SET_UP = "an app is to be set up"


class AlreadySetUp(Exception):
    """The user has an app: a code of it has to be given first."""


@dataclass(frozen=True)
class NewApp:
    """What an authenticator app is set up with."""

    secret: str  # in base 32, as it is typed
    address: str  # otpauth://…, as it is scanned


def standing(request: HttpRequest) -> Standing:
    """What this session of a member of staff owes."""
    if settings.ADMIN_SECOND_FACTOR == "off":
        return Standing.NOTHING
    if _is_marked(request):
        return Standing.PASSED
    if device_of(request.user) is not None:  # type: ignore[arg-type]  # staff is not anonymous
        return Standing.CODE
    return Standing.SET_UP if settings.ADMIN_SECOND_FACTOR == "required" else Standing.NOTHING


def device_of(user: AbstractBaseUser) -> TOTPDevice | None:
    """The user's authenticator app."""
    return TOTPDevice.objects.filter(user=user, confirmed=True).first()


def codes_left(user: AbstractBaseUser) -> int:
    """Recovery codes that were not used."""
    return RecoveryCode.objects.filter(user=user.pk).count()


def canonical(text: str) -> str:
    """A code as it is compared; empty for what is neither six digits nor a recovery code."""
    text = re.sub(r"[\s-]", "", text)
    if re.fullmatch(r"[0-9]{6}", text):
        return text
    text = text.lower().translate(_MISREAD)
    return text if len(text) == _LENGTH and set(text) <= set(_LETTERS) else ""


def give(request: HttpRequest, code: str) -> bool:
    """Whether this code of `request.user` is right, which it is once; the session is marked then.

    Raises TooManyTries and LoginsBusy, also for a right code.
    """
    user: AbstractBaseUser = request.user  # type: ignore[assignment]  # staff is not anonymous
    device = device_of(user)
    if device is None or not sign_in.confirm_code(request, user, lambda: _is_right(user, device, code)):
        return False
    how = "app" if len(code) == 6 else "recovery_code"
    left = None if how == "app" else codes_left(user)
    security_log.record("second_factor_given", address=client_address(request), user=user, how=how, codes_left=left)
    _mark(request, device)
    return True


def new_app(request: HttpRequest) -> NewApp:
    """The app that this session may set up. Of no other session, or its secret were known to whoever has the password
    and was here before."""
    if _SECRET not in request.session:
        request.session[_SECRET] = random_hex(20)
    device = TOTPDevice(user=request.user, key=request.session[_SECRET])
    return NewApp(b32encode(device.bin_key).decode(), device.config_url)


def set_up(request: HttpRequest, code: str) -> list[str] | None:
    """Take the new app, if this is a code of it: the recovery codes, which are told this once. None if it is not.

    Raises AlreadySetUp.
    """
    key = request.session.get(_SECRET, "")
    totp = TOTP(unhexlify(key))
    totp.time = time.time()
    if not key or len(code) != 6 or not totp.verify(int(code), _TOLERANCE):
        return None
    with transaction.atomic():
        user = _held(request)
        if device_of(user) is not None:
            raise AlreadySetUp
        device = TOTPDevice.objects.create(
            user=user, name="app", key=key, tolerance=_TOLERANCE, drift=totp.drift, last_t=totp.t()
        )
        codes = _make_codes(user)
    del request.session[_SECRET]
    security_log.record("second_factor_set_up", address=client_address(request), user=user)
    _mark(request, device)
    return codes


def renew_codes(request: HttpRequest) -> list[str]:
    """New recovery codes in place of the old ones. A code was given for it."""
    with transaction.atomic():
        user = _held(request)
        codes = _make_codes(user)
    security_log.record("recovery_codes_renewed", address=client_address(request), user=user)
    return codes


def remove(request: HttpRequest) -> None:
    """The user has no second factor any more. A code was given for it."""
    user: AbstractBaseUser = request.user  # type: ignore[assignment]  # staff is not anonymous
    reset(user)
    security_log.record("second_factor_removed", address=client_address(request), user=user)


def reset(user: AbstractBaseUser) -> bool:
    """Whether the user had a second factor. It is gone, with the recovery codes, and no session has given it."""
    with transaction.atomic():
        RecoveryCode.objects.filter(user=user.pk).delete()
        return bool(TOTPDevice.objects.filter(user=user).delete()[0])


def _is_right(user: AbstractBaseUser, device: TOTPDevice, code: str) -> bool:
    if len(code) == 6:  # under a lock of the device's row: of two requests with one code, one
        return django_otp.verify_token(user, device.persistent_id, code) is not None
    return bool(RecoveryCode.objects.filter(user=user.pk, digest=_digest(user, code)).delete()[0])


def _held(request: HttpRequest) -> AbstractBaseUser:
    """The user, locked until the transaction ends: of two requests at once, one makes an app, or codes."""
    present: Any = request.user
    user: AbstractBaseUser = get_user_model().objects.select_for_update().get(pk=present.pk)
    return user


def _make_codes(user: AbstractBaseUser) -> list[str]:
    codes = [get_random_string(_LENGTH, _LETTERS) for _ in range(RECOVERY_CODES)]
    RecoveryCode.objects.filter(user=user.pk).delete()
    RecoveryCode.objects.bulk_create(RecoveryCode(user_id=user.pk, digest=_digest(user, code)) for code in codes)
    return ["-".join(code[at : at + 4] for at in range(0, _LENGTH, 4)) for code in codes]


def _digest(user: AbstractBaseUser, code: str) -> str:
    return hashlib.sha256(f"reelworks recovery code {user.pk} {code}".encode()).hexdigest()


def _mark(request: HttpRequest, device: TOTPDevice) -> None:
    django_otp.login(request, device)
    request.session[_BOUND_TO] = _binding(request)
    request.session.cycle_key()  # who knew the session's key before knows nothing now
    rotate_token(request)


def _is_marked(request: HttpRequest) -> bool:
    marked = request.user.is_verified()  # type: ignore[union-attr]  # the middleware's
    return bool(marked) and constant_time_compare(request.session.get(_BOUND_TO, ""), _binding(request))


def _binding(request: HttpRequest) -> str:
    """Changes with the password."""
    return request.user.get_session_auth_hash()  # type: ignore[union-attr]  # staff is not anonymous
