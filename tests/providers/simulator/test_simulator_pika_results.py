"""A result call that fails: a gateway's page speaks of nothing, fal's own body of the job."""

from __future__ import annotations

from tests.providers.simulator.client import PikaClient


def test_a_bare_status_is_a_gateways_page_and_one_with_a_code_is_fals(pika: PikaClient) -> None:
    job = pika.job("page [[sim render=0 result_status=503x1]]")
    pika.wait(job)
    reply = pika.result(job)
    assert (reply.status_code, reply.headers["content-type"]) == (503, "text/html")
    assert "nginx" in reply.text  # what fal's own client looks for before it asks again
    assert pika.result(job).status_code == 200
    job = pika.job("fal [[sim render=0 result_status=503-runner_disconnected]]")
    pika.wait(job)
    reply = pika.result(job)
    assert (reply.status_code, reply.json()["error_type"]) == (503, "runner_disconnected")
