"""The sweeper's turn at alerts: what is wrong is read once a period by one of the sweepers; any sends what is due."""

from __future__ import annotations

from video.alerts import send, watch
from video.monitoring import overview
from video.processes.periodic import take_period

EVERY_S = 15.0
SENDS_FOR_S = 20.0


def turn() -> None:
    """Look, and send. Nothing where ALERT_URLS is empty."""
    if not watch.receivers():
        return
    if take_period("alerts", EVERY_S):
        watch.note(overview.read().problems)
    send.send_due(for_s=SENDS_FOR_S)
