"""A password is looked at here, for both doors: the API's and the admin's; and the code that may follow it.

Hashing one takes a fifth of a second of a processor, on purpose. So few are hashed at once in a process, few may wait
for it, and the rest are refused at once: a flood of logins leaves threads and processor to everything else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from django.contrib.auth import authenticate
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest

from video.infra.errors import Refusal
from video.web import security_log
from video.web.client_address import client_address
from video.web.logins import throttle
from video.web.logins.throttle import Attempt, TooManyTries

HASHES_AT_ONCE = 2
WAIT_S = 5.0
# Tries that are hashed or wait for it. Those of networks that know the name have places of their own, which a flood
# from elsewhere can't take.
PLACES, PLACES_OF_KNOWN = 4, 2


class LoginsBusy(Refusal):
    """As many passwords as may are being checked; repeat after `retry_after_s`."""

    code = "logins_busy"
    retry_after_s = 2

    def __init__(self) -> None:
        super().__init__("Too many logins come at once just now. Please try again in a moment.")


_hashing = threading.BoundedSemaphore(HASHES_AT_ONCE)
_places = {False: threading.BoundedSemaphore(PLACES), True: threading.BoundedSemaphore(PLACES_OF_KNOWN)}


def sign_in(request: HttpRequest, name: str, password: str, *, door: str) -> AbstractBaseUser | None:
    """The active user of this name and password; None if one of them is wrong, after the same time for both.

    `door` is a word for the log. Raises TooManyTries and LoginsBusy, also for the right password.
    """
    # Django hashes a password for unknown names too, so the time taken tells nothing.
    attempt_of = partial(throttle.look, name)
    check = lambda: authenticate(request, username=name, password=password)  # noqa: E731
    return _guarded(request, name, attempt_of, check, door=door)


def confirm(request: HttpRequest, user: AbstractBaseUser, password: str) -> bool:
    """Whether it is the user's present password. Raises as `sign_in` does: it could be guessed here as well."""
    check = lambda: user if user.check_password(password) else None  # noqa: E731
    name = user.get_username()
    return _guarded(request, name, partial(throttle.look, name), check, door="password") is not None


def confirm_code(request: HttpRequest, user: AbstractBaseUser, is_right: Callable[[], bool]) -> bool:
    """Whether a code of the user's second factor is right, which `is_right` says. Raises as `sign_in` does."""
    attempt_of = partial(throttle.look_at_code, user.pk)
    check = lambda: user if is_right() else None  # noqa: E731
    return _guarded(request, user.get_username(), attempt_of, check, door="second_factor") is not None


def _guarded(
    request: HttpRequest,
    name: str,
    attempt_of: Callable[[str], Attempt],
    check: Callable[[], AbstractBaseUser | None],
    *,
    door: str,
) -> AbstractBaseUser | None:
    address = client_address(request)
    try:
        attempt = attempt_of(address)
        with _turn(attempt.is_known):
            attempt.count()
            user = check()
    except (TooManyTries, LoginsBusy) as err:
        security_log.record_sample(err.code, address=address, door=door, wait_s=err.retry_after_s)
        raise
    if user is None:
        pause_s = None if attempt.pause_s is None else round(attempt.pause_s)
        security_log.record_refused_name("login_refused", name, address=address, door=door, pause_s=pause_s)
    else:
        attempt.succeeded()
    return user


def turn_to_hash() -> AbstractContextManager[None]:
    """Hold the right to hash a password that somebody unknown gives. Raises LoginsBusy."""
    return _turn(is_known=False)


@contextmanager
def _turn(is_known: bool) -> Iterator[None]:
    """Hold the right to hash a password. Raises LoginsBusy."""
    places = _places[is_known]
    if not places.acquire(blocking=False):
        raise LoginsBusy
    try:
        if not _hashing.acquire(timeout=WAIT_S):
            raise LoginsBusy
        try:
            yield
        finally:
            _hashing.release()
    finally:
        places.release()
