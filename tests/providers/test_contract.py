"""All adapters keep the same contract, each with every kind of key that it takes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.providers.contract")

from providers.contract import JobState  # noqa: E402 - assertions of the suite are to be explained too
from providers.errors import JobNotFound, ProviderDown  # noqa: E402
from providers.kling.adapter import Kling  # noqa: E402
from providers.pika.adapter import Pika  # noqa: E402
from providers.registry import PROVIDERS  # noqa: E402
from providers.runway.adapter import Runway  # noqa: E402
from tests.providers.contract import (  # noqa: E402
    CanCancel,
    CanLookUp,
    Contract,
    RefusesDuplicates,
    TellsTheAccount,
    Variant,
)
from tests.system.system import Simulator  # noqa: E402

RUNWAY = Variant(
    adapter=Runway,
    text_model="gen4.5",
    image_model="gen4_turbo",
    key="key_contract_runway_first_5f1e",
    poor_key="key_contract_runway_poor_77aa",
    bad_keys=("key_contract_runway_nobody_0c0c",),
    unknown_job="3d0f6f0a-6f43-4a86-9d37-4b1d6a6d5d11",
    failure="INTERNAL.BAD_OUTPUT.CODE01",
    reports_cost=True,
    moderates_at_submit=True,
)
PIKA = Variant(
    adapter=Pika,
    text_model="pika-2.2",
    image_model="pika-2.2",
    key="fal-contract-first:5f1e5f1e5f1e",
    poor_key="fal-contract-poor:77aa77aa77aa",
    bad_keys=("fal-contract-nobody:0c0c0c0c0c0c",),
    unknown_job="8a1c1c0e-9f43-4c86-8d37-0b1d6a6d5d22",
    failure="internal_server_error",
    reports_cost=False,
    moderates_at_submit=False,
)
KLING_NEWER = Variant(
    adapter=Kling,
    text_model="kling-3.0",
    image_model="kling-2.5-turbo",
    key="kling-contract-plain-first-5f1e",
    poor_key="kling-contract-plain-poor-77aa",
    bad_keys=("kling-contract-plain-nobody-0c0c",),
    unknown_job="700000000000000001",
    failure="INTERNAL",
    reports_cost=True,
    moderates_at_submit=True,
)
KLING_OLDER = Variant(
    adapter=Kling,
    text_model="kling-2.6",
    image_model="kling-2.5-turbo",
    key="kling-contract-access-one:kling-contract-secret-one",
    poor_key="kling-contract-access-poor:kling-contract-secret-poor",
    bad_keys=(
        "kling-contract-access-one:kling-contract-secret-wrong",
        "kling-contract-access-nobody:kling-contract-secret-any",
    ),
    unknown_job="700000000000000002",
    failure="INTERNAL",
    reports_cost=True,
    moderates_at_submit=True,
    signs=True,
)
VARIANTS = (RUNWAY, PIKA, KLING_NEWER, KLING_OLDER)


def test_every_provider_of_the_registry_is_here() -> None:
    assert {variant.adapter for variant in VARIANTS} == {provider.adapter for provider in PROVIDERS}


@pytest.fixture(scope="module")
def simulator_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One process for the whole file: every test brings prompts and references of its own."""
    good = ",".join(key for variant in VARIANTS for key in (variant.key, variant.poor_key))
    simulator = Simulator(
        tmp_path_factory.mktemp("simulator"),
        *("--render-seconds", "0", "--canned", "--fps", "30", "--keys", good),
    )
    yield simulator.url
    simulator.stop()


class TestRunway(CanCancel, TellsTheAccount, Contract):
    variant = RUNWAY


class TestPika(CanCancel, Contract):
    variant = PIKA

    def test_a_failure_that_only_the_result_tells(self) -> None:
        status = self.look(self.start(f"fail={self.variant.failure} hidden_failure"))
        assert status.state is JobState.FAILED
        assert status.error is not None
        assert status.error.another_model_could

    def test_a_result_that_could_not_be_had_says_nothing_about_the_job(self) -> None:
        # Without an error type of fal's it is a gateway's answer; with one it would be the job's own end.
        job = self.start("result_status=507x1")
        with self.raises(ProviderDown):
            self.look(job)
        assert self.look(job).state is JobState.SUCCEEDED


class TestKlingNewer(CanLookUp, TellsTheAccount, Contract):
    variant = KLING_NEWER

    def test_one_look_at_several_jobs_tells_each_apart(self) -> None:
        jobs = [
            self.start(),
            self.start("render=60"),
            self.start(f"fail={self.variant.failure}"),
            self.ref(self.variant.unknown_job),
        ]
        request = self.provider.build_poll(jobs, key=self.variant.key)
        found = self.provider.parse_poll(self.read(request), jobs)
        done, runs, failed, unknown = (found[job.job_id] for job in jobs)
        assert not isinstance(done, JobNotFound)
        assert done.state is JobState.SUCCEEDED
        assert not isinstance(runs, JobNotFound)
        assert runs.state in {JobState.QUEUED, JobState.RUNNING}
        assert not isinstance(failed, JobNotFound)
        assert failed.state is JobState.FAILED
        assert isinstance(unknown, JobNotFound)


class TestKlingOlder(CanLookUp, RefusesDuplicates, TellsTheAccount, Contract):
    variant = KLING_OLDER

    def test_a_reference_is_taken_for_its_own_kind_of_video_only(self) -> None:
        reference = f"gen_{uuid.uuid4().hex}"
        self.send(self.order(), reference=reference)
        request = self.provider.build_lookup(reference, key=self.variant.key, image_to_video=True)
        assert self.provider.parse_lookup(self.read(request), reference) is None
