"""One message to one receiver: by the guarded sender of webhooks, or by e-mail. Short, and never with its address."""

from __future__ import annotations

from smtplib import SMTPException

from django.conf import settings
from django.core.mail import EmailMessage

from media_pipeline.fetch.post import post
from video.alerts.message import Message
from video.alerts.receivers import Receiver
from video.infra.causes import kind_of
from video.webhooks import receivers, signing

DEADLINE_S = 5.0
LONGEST_SUBJECT = 150


def transmit(receiver: Receiver, message: Message) -> str:
    """Why it was not taken, in words that name no address; empty if it was. Takes about DEADLINE_S at most; an e-mail
    EMAIL_TIMEOUT for each step.
    """
    return _mail(receiver, message) if receiver.kind == "mail" else _post(receiver, message)


def _post(receiver: Receiver, message: Message) -> str:
    headers = {"Content-Type": "application/json"}
    if receiver.kind == "webhook":
        body = message.as_webhook()
        headers |= signing.signed(message.id, body, [settings.ALERT_SECRET])
    else:
        body = message.as_slack() if receiver.kind == "slack" else message.as_discord()
    trusted = receivers.origins_allowed(receiver.target)
    answer = post(receiver.target, body, headers, deadline_s=DEADLINE_S, trusted_origins=trusted)
    if answer.status is None:
        return answer.detail
    return "" if 200 <= answer.status < 300 else f"the receiver answered {answer.status}"


def _mail(receiver: Receiver, message: Message) -> str:
    subject = f"[Reelworks] {message.title}"[:LONGEST_SUBJECT]
    domain = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2]
    mail = EmailMessage(
        subject, f"{message.text}\n", to=[receiver.target], headers={"Message-ID": f"<{message.id}@{domain}>"}
    )
    try:
        mail.send()
    except (SMTPException, OSError) as err:
        return f"the mail server could not be used ({kind_of(err)})"
    return ""
