"""A forgotten password: a link by e-mail, good once and for PASSWORD_RESET_MINUTES.

Nothing is stored for it. The token is signed over the password's hash, so it ends with any change of the password. All
logins of the user end with the change, as with every other (a trigger of the database does that).

Whether an address is somebody's is never told: the look-up and the e-mail are the work of a thread, after the answer.
An e-mail whose process dies before it is sent is asked for again.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from smtplib import SMTPException

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.core.mail import EmailMessage
from django.db import Error, connection, transaction
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode

from video.infra.durations import span
from video.web import security_log
from video.web.logins.sign_in import LoginsBusy

log = logging.getLogger(__name__)

MOST_USERS = 5  # of one e-mail address
_room = threading.BoundedSemaphore(100)  # e-mails that wait for the thread

TEXT = """Hello {name},

somebody asked for a new password for your account at {base}. If it was you, choose one here within {time}:

{base}/admin/reset/{uid}/{token}/

A program sends {{"token": "{uid}.{token}", "newPassword": "..."}} to {base}/api/auth/password-reset/confirm.

If it was not you, do nothing: your password stays as it is.
"""


@cache
def _mailer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="mail")


def ask(email: str, *, address: str) -> None:
    """Send links to the users of this e-mail address soon, if there are any. Raises LoginsBusy."""
    if not _room.acquire(blocking=False):
        raise LoginsBusy
    _mailer().submit(_send_in_thread, email, address)


def _send_in_thread(email: str, address: str) -> None:
    try:
        send(email, address=address)
    except (SMTPException, OSError, Error) as err:  # their texts may hold addresses, so no traceback
        log.error("an e-mail for a new password could not be sent: %s", type(err).__name__)  # noqa: TRY400
    finally:
        _room.release()
        connection.close()


def send(email: str, *, address: str) -> int:
    """Send them now; returns how many. Only users who are switched on and log in by a password here get one."""
    users = get_user_model().objects.filter(email__iexact=email, is_active=True).order_by("pk")
    sent = 0
    for user in users[:MOST_USERS]:
        if not user.has_usable_password():
            continue
        text = TEXT.format(
            name=user.get_username(),
            base=settings.PUBLIC_BASE_URL,
            time=span(settings.PASSWORD_RESET_TIMEOUT),
            uid=urlsafe_base64_encode(force_bytes(user.pk)),
            token=default_token_generator.make_token(user),
        )
        EmailMessage("A new password for Reelworks", text, to=[user.email]).send()
        security_log.record("password_reset_sent", address=address, user=user)
        sent += 1
    return sent


def user_of(token: str) -> User | None:
    """Whose password a token may change now; None if it is no good, or no more."""
    uid, _, signed = token.partition(".")
    try:
        pk = int(urlsafe_base64_decode(uid).decode("ascii"))
    except (ValueError, OverflowError):
        return None
    user = get_user_model().objects.filter(pk=pk, is_active=True).first() if 0 < pk < 2**63 else None
    return user if default_token_generator.check_token(user, signed) else None


def change(token: str, password: str, *, address: str) -> bool:
    """Change the password, once: whether this token has done it. The user's logins are over then."""
    with transaction.atomic():
        user = user_of(token)
        locked = None if user is None else type(user)._default_manager.select_for_update().get(pk=user.pk)
        if locked is None or user_of(token) is None:  # of two at once the second one waited, and looks again
            return False
        locked.set_password(password)
        locked.save(update_fields=["password"])
    security_log.record("password_reset", address=address, user=locked)
    return True
