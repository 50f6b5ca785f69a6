"""Make an account: a user, and the credits that it begins with."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.password_validation import validate_password
from django.db import IntegrityError, transaction

from video.audit import records
from video.audit.actors import Actor, Unaudited
from video.credits import ledger
from video.infra.errors import Refusal
from video.web import demo_login, roles


class NameTaken(Refusal):
    """Somebody has this name, perhaps in other capitals. Nothing was made."""

    code = "username_taken"


def make(
    username: str,
    password: str,
    *,
    email: str = "",
    credits: int = 0,
    note: str = "",
    role: str = "",
    by: Actor | Unaudited,
) -> AbstractBaseUser:
    """A new user, who may log in at once; the user and the grant, or neither. `role`: such a member of the staff.

    Raises NameTaken, and ValidationError of Django with the wrong fields by name: `username`, `email`, `password`.
    """
    users = get_user_model()
    user = users(username=users.normalize_username(username), email=users.objects.normalize_email(email))
    user.clean_fields(exclude={"password"})
    validate_password(password, user)
    if username == demo_login.NAME or users.objects.filter(username__iexact=user.get_username()).exists():
        raise NameTaken(username)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
            if credits:
                ledger.grant(user.pk, credits, note=note)
            if role:
                roles.give(user, role)
            records.record(by, "create", "user", user.pk, detail=_made(credits, role))
    except IntegrityError:  # of two at the same moment
        raise NameTaken(username) from None
    return user


def _made(credits: int, role: str) -> str:
    return f"{credits} credits" + (f", role {role}" if role else "")
