"""Whatever a server answers, an adapter reads it or raises one of our errors; nothing that it gives on is unbounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.contract import LONGEST_ASKED_S, AccountInfo, HttpReply, JobRef, JobStatus, Provider
from providers.errors import Busy, JobNotFound, ProviderError
from providers.registry import PROVIDERS
from tests.providers.strange import JOB_ID, REFERENCE, REPLIES

ADAPTERS = {entry.name: entry.adapter("https://api.example.com") for entry in PROVIDERS}
JOB = JobRef(JOB_ID, "any", REFERENCE)


def parsers(provider: Provider) -> dict[str, Callable[[HttpReply], Any]]:
    """Every way in which this provider's answers are read."""
    found: dict[str, Callable[[HttpReply], Any]] = {
        "submit": provider.parse_submit,
        "poll": lambda reply: provider.parse_poll(reply, [JOB])[JOB_ID],
        "result": lambda reply: provider.parse_result(reply, JOB),
        "cancel": provider.parse_cancel,
        "lookup": lambda reply: provider.parse_lookup(reply, REFERENCE),
        "account": provider.parse_account,
    }
    if not provider.can_cancel:
        del found["cancel"]
    if not provider.can_look_up:
        del found["lookup"]
    if not provider.has_account_call:
        del found["account"]
    if type(provider).parse_result is Provider.parse_result:
        del found["result"]
    return found


CASES = [(name, what) for name, provider in ADAPTERS.items() for what in parsers(provider)]


@pytest.mark.parametrize(("name", "what"), CASES)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(reply=REPLIES)
def test_no_answer_makes_an_adapter_stumble(name: str, what: str, reply: HttpReply) -> None:
    provider = ADAPTERS[name]
    try:
        found = parsers(provider)[what](reply)
    except ProviderError as error:
        found = error
    if isinstance(found, JobStatus):
        assert found.progress is None or 0 <= found.progress <= 1
        assert found.cost is None or (found.cost.is_finite() and found.cost >= 0)
        provider.took_nothing(found, before="")
    if isinstance(found, AccountInfo):
        assert found.balance is None or (found.balance.is_finite() and found.balance >= 0)
    if isinstance(found, Busy):
        assert found.retry_after_s is None or 0 <= found.retry_after_s <= LONGEST_ASKED_S
    if isinstance(found, ProviderError):
        assert "\0" not in str(found)
        str(found).encode()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(reply=REPLIES, number=st.integers(1, 20))
def test_an_answer_about_several_jobs_says_something_of_each_or_of_none(reply: HttpReply, number: int) -> None:
    jobs = [JobRef(f"job-{one}", "any", f"{REFERENCE}{one}") for one in range(1, number + 1)]
    try:
        found = ADAPTERS["kling"].parse_poll(reply, jobs)
    except ProviderError:
        return
    assert set(found) == {job.job_id for job in jobs}
    assert all(isinstance(one, JobStatus | JobNotFound) for one in found.values())
