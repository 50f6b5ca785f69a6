"""One stray answer of a proxy or a provider, then good ones: the order and the next one end well, one job each.

All first orders of one system are made at once, as they meet in life: the strays of one provider come together.
"""

from __future__ import annotations

import pytest

from tests.factories import make_task, make_user, reload
from tests.system.system import Simulator, System, running, until
from tests.system.test_faults import MODELS
from video.credits import ledger
from video.models import Generation, ProviderAccount, ProviderKey, VideoTask

SUBMITS = (
    *(f"status={status}-htmlx1" for status in (400, 401, 403, 404, 405, 413, 429, 503)),
    *(f"status={status}x1" for status in (401, 403, 404, 429)),
    *(f"redirect={status}x1" for status in (301, 307)),
    "interim=103",
    "interim=102,103",
    "interim=103 status=403-htmlx1",
    "status=429x1 retry_after=1e308",
    "status=429-htmlx1 retry_after=-5",
)
LOOKS = (
    *(f"poll_status=429x1 retry_after={word}" for word in ("86400", "1e308", "-5", "date:+31536000")),
    *(f"poll_status={status}-htmlx2" for status in (401, 403, 404, 429, 503)),
    "poll_interim=103",
    "poll_redirect=302x1",
    "poll_garbage=1",
    "not_found=2",
)
CASES = (*SUBMITS, *LOOKS)
#: Kling's older standard reads looks as the newer one does.
CASES_OF = {provider: SUBMITS if provider == "kling-older" else CASES for provider in MODELS}
NEXT = "render=0"  # the next order, when all others are done
#: "Within minutes": a pause, a read or a job that tries, another pause for those that met two refusals.
WITHIN_S = 420

pytestmark = pytest.mark.scale  # its pauses take four minutes of no work


def prompt_of(provider: str, directive: str) -> str:
    return f"stray answer {provider} [[sim {directive}]]"


@pytest.fixture(scope="module")
def ends(
    database: str, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], VideoTask]:
    """Every case's task at each provider, and one more at each when these have ended."""
    folder = tmp_path_factory.mktemp("strays")
    user = make_user(10 * len(MODELS) * (len(CASES) + 1))
    made: dict[tuple[str, str], VideoTask] = {}
    with running(folder, simulator) as system:
        system.env.update(
            REELWORKS_SIMULATE="0",
            RUNWAY_API_KEY="key_of_strays_runway",
            PIKA_API_KEY="key_of_strays_pika",
            KLING_API_KEY="key_of_strays_kling",
            **{f"{name}_BASE_URL": simulator.url for name in ("RUNWAY", "PIKA", "KLING")},
            SLOTS_PER_KEY="100",
            CIRCUIT_FAULTS="100000",
        )
        _work(system)
        _make(made, ("runway", "pika", "kling"), user)
        system.stop()
        system.env.update(RUNWAY_API_KEY="", PIKA_API_KEY="", KLING_API_KEY="access-of-strays:secret-of-strays")
        _work(system)
        _make(made, ("kling-older",), user)
    return made


def _work(system: System) -> None:
    system.worker("io", queues="videoQueue", threads=16)
    system.worker("media", queues="mediaQueue", threads=2)
    system.sweeper()


def _make(made: dict[tuple[str, str], VideoTask], providers: tuple[str, ...], user: object) -> None:
    for is_next in (False, True):
        now = {
            (provider, directive): make_task(
                user,  # type: ignore[arg-type]
                prompt_of(provider, directive),
                model_requested=MODELS[provider],
            )
            for provider in providers
            for directive in ((NEXT,) if is_next else CASES_OF[provider])
        }
        made |= now
        for name, task in now.items():
            until(f"{name} ends", lambda task=task: reload(task).finished_at, seconds=WITHIN_S)


@pytest.mark.parametrize(
    ("provider", "directive"), [(provider, case) for provider in MODELS for case in (*CASES_OF[provider], NEXT)]
)
def test_a_stray_answer_costs_neither_job_nor_money(
    ends: dict[tuple[str, str], VideoTask], simulator: Simulator, provider: str, directive: str
) -> None:
    task = reload(ends[provider, directive])
    assert (task.status, task.error_code) == ("success", ""), task.error_message
    submits = simulator.submits(prompt_of(provider, directive))
    assert submits["created"] == 1
    assert submits["doubled"] == 0


def test_nothing_is_closed_afterwards_and_the_ledger_is_whole(ends: dict[tuple[str, str], VideoTask]) -> None:
    assert len(ends) == sum(len(cases) + 1 for cases in CASES_OF.values())
    used = Generation.objects.filter(task__in=[task.pk for task in ends.values()])
    assert not ProviderKey.objects.filter(
        fingerprint__in=set(used.values_list("key_fingerprint", flat=True)), state="quarantined"
    ).exists()
    assert not ProviderAccount.objects.filter(generations__in=used).exclude(closed_reason="").exists()
    assert ledger.differences() == []
