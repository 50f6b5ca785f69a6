"""The thread that sends links for forgotten passwords, and two who use one at the same moment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.tokens import default_token_generator
from django.db import connection
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from pytest_django import Settings

from video.web.logins import reset
from video.web.logins.sign_in import LoginsBusy

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ann(settings: Settings) -> Any:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return get_user_model().objects.create_user("ann", "ann@example.com", "a first password of ann's")


def test_the_e_mail_is_sent_by_a_thread(ann: Any, mailoutbox: list[Any]) -> None:
    reset.ask("ann@example.com", address="203.0.113.7")
    reset._mailer().submit(lambda: None).result(30)  # it has done all that came before
    assert [mail.to for mail in mailoutbox] == [["ann@example.com"]]


def test_a_server_that_takes_no_e_mail_is_logged_without_the_address(
    ann: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise ConnectionRefusedError("ann@example.com")

    monkeypatch.setattr("django.core.mail.EmailMessage.send", refuse)
    reset.ask("ann@example.com", address="203.0.113.7")
    reset._mailer().submit(lambda: None).result(30)
    assert "could not be sent: ConnectionRefusedError" in caplog.text
    assert "ann@example.com" not in caplog.text


def test_more_than_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset, "_room", threading.BoundedSemaphore(1))
    assert reset._room.acquire(blocking=False)
    with pytest.raises(LoginsBusy):
        reset.ask("ann@example.com", address="203.0.113.7")


def test_of_two_who_use_a_token_at_once_one_does(ann: Any) -> None:
    token = f"{urlsafe_base64_encode(force_bytes(ann.pk))}.{default_token_generator.make_token(ann)}"
    together = threading.Barrier(2)

    def use(number: int) -> bool:
        together.wait()
        try:
            return reset.change(token, f"a new password, number {number}", address="203.0.113.7")
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(use, range(2))) == [False, True]
