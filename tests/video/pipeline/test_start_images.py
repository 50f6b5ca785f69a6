"""The start image before a submit: had once, checked, refused with a refund, and fitted to the model."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from media_pipeline.errors import StorageDown
from media_pipeline.storage import object_keys
from providers import catalogue
from providers.contract import StartImage, Submitted
from providers.errors import SubmissionUnknown
from tests.factories import admitted, age, claim_one, make_task, make_user, reload
from tests.picture_host import PictureHost, picture_host
from tests.pictures import SECRET, bomb, opened, picture, turned
from video.attempts import provider_calls
from video.credits import ledger
from video.engine.claims import Claim
from video.engine.outcomes import Park
from video.infra.toolkit import toolkit
from video.models import Generation, Stage, TaskEvent, Upload, VideoTask
from video.pipeline import provider_stages, runner, start_images
from video.processes import periodic
from video.web import uploads

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def hosting() -> Iterator[PictureHost]:
    with picture_host() as host:
        yield host


@pytest.fixture
def host(hosting: PictureHost, settings: Settings) -> PictureHost:
    hosting.answers.clear()
    hosting.asked.clear()
    settings.PRIVATE_HOSTS_ALLOWED = [hosting.name]
    return hosting


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The bodies of the submits that were sent; each is accepted."""
    bodies: list[dict[str, Any]] = []

    def send(self: provider_calls.Submission) -> Submitted:
        bodies.append(json.loads(json.dumps(self._request.json)))
        return Submitted(f"job-{len(bodies)}")

    monkeypatch.setattr(provider_calls.Submission, "send", send)
    return bodies


def run(task: VideoTask) -> VideoTask:
    runner.run_stage(Stage.GENERATE, task.pk)
    return reload(task)


def image_task(url: str, **more: Any) -> VideoTask:
    task = make_task(image_url=url, **more)
    admitted(task)
    return task


def handed_over(body: dict[str, Any]) -> bytes:
    """The picture in a submit to Runway."""
    return base64.b64decode(body["promptImage"].partition(",")[2])


def kept(task: VideoTask) -> bool:
    return toolkit().storage.exists(object_keys.start_image_key(task.pk))


def test_the_provider_gets_the_picture_upright_and_without_metadata(
    host: PictureHost, sent: list[dict[str, Any]]
) -> None:
    task = run(image_task(host.serves("/cat.jpg", turned())))
    assert (task.stage, task.error_code) == ("poll", "")
    assert sent[0]["promptImage"].startswith("data:image/jpeg;base64,")
    got = handed_over(sent[0])
    assert opened(got).size == (360, 640)
    assert SECRET not in got
    assert host.asked == ["/cat.jpg"]


def test_neither_rows_nor_events_hold_the_picture(host: PictureHost, sent: list[dict[str, Any]]) -> None:
    task = run(image_task(host.serves("/cat.jpg", picture(64, 36))))
    rows = [task, *Generation.objects.filter(task=task), *TaskEvent.objects.filter(task=task)]
    text = " ".join(str(value) for row in rows for value in vars(row).values())
    assert sent[0]["promptImage"][40:80] not in text
    assert "base64" not in text


def test_another_try_and_another_provider_do_not_fetch_again(
    host: PictureHost, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = host.serves("/cat.jpg", picture(), 404)
    task = image_task(url)
    monkeypatch.setattr(start_images, "failpoint", _raises)
    run(task)
    assert kept(task)
    assert not sent
    monkeypatch.undo()
    monkeypatch.setattr(provider_calls.Submission, "send", lambda _: Submitted("job-1"))
    age(task.pk)
    assert run(task).stage == "poll"
    assert host.asked == ["/cat.jpg"]
    assert reload(task).has_work_files


def _raises(name: str) -> None:
    raise RuntimeError(name)


REFUSED: dict[str, tuple[Any, str, str]] = {
    "a page": (b"<html>not found</html>", "image_unreadable", "a page of text"),
    "damaged": (picture(64, 36, "JPEG")[:200], "image_unreadable", "damaged"),
    "nothing": (b"", "image_unreadable", "empty"),
    "an icon": (picture(32, 32, "ICO"), "image_unreadable", "an icon"),
    "a bomb": (bomb(20_000, 20_000), "image_too_large", "20000x20000"),
    "too many bytes": (b"\xff\xd8\xff" + b"\x00" * 70_000, "image_too_large", "65,536 bytes"),
    "gone": (410, "image_not_found", "410"),
    "not for us": (403, "image_not_found", "403"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_start_image_fails_the_task_before_any_submit(
    host: PictureHost, sent: list[dict[str, Any]], settings: Settings, name: str
) -> None:
    answer, code, says = REFUSED[name]
    settings.UPLOAD_MAX_BYTES = 65_536
    task = run(image_task(host.serves("/odd", answer)))
    assert (task.status, task.error_code) == ("failed", code)
    assert says in task.error_message
    assert not sent
    assert Generation.objects.get(task=task).state == "rejected"
    assert ledger.balance(task.user_id) == 1000
    assert not kept(task)


def test_an_address_inside_is_never_dialled(host: PictureHost, sent: list[dict[str, Any]], settings: Settings) -> None:
    """It was allowed when the task was made; now it is not."""
    task = image_task(host.serves("/cat.jpg", picture()))
    settings.PRIVATE_HOSTS_ALLOWED = []
    task = run(task)
    assert (task.status, task.error_code) == ("failed", "image_forbidden_address")
    assert not host.asked
    assert not sent
    assert ledger.balance(task.user_id) == 1000


def test_a_host_in_trouble_is_asked_again(host: PictureHost, sent: list[dict[str, Any]]) -> None:
    task = image_task(host.serves("/cat.jpg", 503, 429, 500, picture()))
    for tries in (1, 2, 3):
        task = run(task)
        assert (task.status, task.stage, task.tries) == ("pending", "generate", tries)
        age(task.pk)
    assert run(task).stage == "poll"
    assert len(host.asked) == start_images.TRIES
    assert len(sent) == 1
    assert Generation.objects.filter(task=task).count() == 1


def test_a_host_in_trouble_is_given_up_within_a_bound(host: PictureHost, sent: list[dict[str, Any]]) -> None:
    task = image_task(host.serves("/cat.jpg", 503))
    for _ in range(start_images.TRIES):
        task = run(task)
        age(task.pk)
    assert (task.status, task.error_code) == ("failed", "image_unreachable")
    assert len(host.asked) == start_images.TRIES
    assert Generation.objects.get(task=task).state == "rejected"
    assert ledger.balance(task.user_id) == 1000
    assert not sent


@pytest.mark.parametrize("trouble", [StorageDown("away")])
def test_trouble_of_ours_uses_up_no_try(
    host: PictureHost, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def put_file(*_: Any, **__: Any) -> None:
        raise trouble

    task = image_task(host.serves("/cat.jpg", picture()))
    monkeypatch.setattr(toolkit().storage, "put_file", put_file)
    for _ in range(8):
        task = run(task)
        age(task.pk)
    assert (task.status, task.tries) == ("pending", 0)
    monkeypatch.undo()
    monkeypatch.setattr(provider_calls.Submission, "send", lambda _: Submitted("job-1"))
    assert run(task).stage == "poll"


def test_a_picture_that_one_model_does_not_take_is_given_to_another(
    host: PictureHost, sent: list[dict[str, Any]]
) -> None:
    small = host.serves("/small.png", picture(200, 200))
    task = image_task(small, model_requested="kling-2.5-turbo", fallback=True)
    task = run(task)
    assert (task.status, task.admit_at is not None) == ("pending", True)
    assert "kling-2.5-turbo" not in task.eligible_models
    first = Generation.objects.get(task=task)
    assert (first.state, first.error_code) == ("rejected", "image_unsuitable")
    second = admitted(task)
    assert catalogue.BY_ID[second.model].provider != "kling"
    assert run(task).stage == "poll"
    assert len(sent) == 1
    assert host.asked == ["/small.png"]


@pytest.mark.parametrize(
    ("size", "says"), [((200, 200), "at least 300 pixels a side"), ((301, 900), "1:2.5 to 2.5:1"), ((900, 301), "2.5")]
)
def test_without_another_model_it_fails_with_what_would_be_right(
    host: PictureHost, sent: list[dict[str, Any]], size: tuple[int, int], says: str
) -> None:
    task = run(image_task(host.serves("/odd.png", picture(*size)), model_requested="kling-2.5-turbo"))
    assert (task.status, task.error_code) == ("failed", "image_unsuitable")
    assert says in task.error_message
    assert not sent
    assert ledger.balance(task.user_id) == 1000


@pytest.mark.parametrize("model", [model for model in catalogue.MODELS if model.image], ids=lambda model: model.id)
def test_each_model_gets_what_it_takes(host: PictureHost, model: Any) -> None:
    """A WebP of a size that no limit allows as it is."""
    host.serves("/cat.webp", picture(640, 360, "WEBP", lossless=True))
    lasts = min(model.durations_s)
    task = image_task(f"http://{host.name}/cat.webp", model_requested=model.id, duration_s=lasts)
    claim = claim_one(task.pk, Stage.GENERATE)
    assert claim is not None
    image = start_images.start_image(claim, model.id)
    assert image is not None
    assert image.media_type in model.image_limits.types
    assert opened(image.data).get_format_mimetype() == image.media_type  # type: ignore[attr-defined]
    assert len(image.data) <= model.image_limits.max_bytes
    assert len(StartImage("image/jpeg", b"x" * model.image_limits.max_bytes).data_uri()) <= (
        5_000_000 if model.provider == "runway" else 13_500_000
    )


def test_a_submit_of_unknown_outcome_is_not_decided_by_its_image(
    host: PictureHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with the image when it is to be sent once more says nothing of the first submit."""
    task = image_task(host.serves("/cat.jpg", picture()))
    monkeypatch.setattr(provider_calls.Submission, "send", _unknown)
    run(task)
    generation = Generation.objects.get(task=task)
    assert generation.state == "unknown"
    claim = Claim(task, Stage.GENERATE, 1, task.created_at)
    refused = start_images.ImageRefused("image_not_found", "It is gone.", "404")
    unreachable = start_images.ImageUnreachable("503", 0)
    assert isinstance(provider_stages._image_refused(claim, generation, refused, again=True), Park)
    assert isinstance(provider_stages._image_unreachable(claim, generation, unreachable, again=True), Park)
    assert Generation.objects.get(task=task).state == "unknown"


def _unknown(_: Any) -> Submitted:
    raise SubmissionUnknown("cut")


# --- uploads ---------------------------------------------------------------------------------------------------------


def test_an_upload_is_read_from_storage_and_survives_its_own_end(host: PictureHost, sent: list[dict[str, Any]]) -> None:
    user = make_user()
    address = uploads.keep(user.pk, turned()).address
    task = image_task(address, user=user)
    Upload.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert uploads.sweep() == 0  # a task that has not ended needs it
    assert run(task).stage == "poll"
    assert opened(handed_over(sent[0])).size == (360, 640)
    assert not host.asked


def test_an_upload_of_another_user_is_not_used(sent: list[dict[str, Any]]) -> None:
    """However the address got into the row."""
    address = uploads.keep(make_user().pk, picture(64, 36)).address
    mine = make_task()
    VideoTask.objects.filter(pk=mine.pk).update(image_url=address, model_requested="gen4_turbo")
    VideoTask.objects.filter(pk=mine.pk).update(eligible_models=["gen4_turbo"])
    admitted(mine)
    task = run(mine)
    assert (task.status, task.error_code) == ("failed", "image_upload_gone")
    assert not sent
    assert ledger.balance(task.user_id) == 1000


def test_an_upload_whose_file_is_gone_fails_the_task_with_a_refund(sent: list[dict[str, Any]]) -> None:
    user = make_user()
    upload = uploads.keep(user.pk, picture(64, 36))
    task = image_task(upload.address, user=user)
    toolkit().storage.delete(upload.key)
    task = run(task)
    assert (task.status, task.error_code) == ("failed", "image_upload_gone")
    assert not sent


def test_the_kept_image_goes_with_the_work_files(
    host: PictureHost, sent: list[dict[str, Any]], settings: Settings
) -> None:
    settings.KEEP_FAILED_DAYS = 0
    task = run(image_task(host.serves("/small.png", picture(200, 200)), model_requested="kling-2.5-turbo"))
    assert task.status == "failed"
    assert kept(task)
    periodic.sweep_work_files()
    assert not kept(task)


def test_slow_hosts_hold_few_threads_and_of_one_user_fewer(
    host: PictureHost, sent: list[dict[str, Any]], settings: Settings
) -> None:
    settings.VIDEO_CONCURRENCY = 12  # so three fetch at once
    fetching, url = start_images._fetching, host.serves("/cat.jpg", picture())
    slow, other = make_user(), make_user()
    tasks = [image_task(url, user=user) for user in (slow, other)]
    with fetching.one_of(slow.pk), fetching.one_of(slow.pk):
        waiting = run(tasks[0])
        assert (waiting.status, waiting.tries, waiting.park_code) == ("pending", 0, "image_waits")
        assert run(tasks[1]).stage == "poll"
        with fetching.one_of(other.pk), pytest.raises(start_images.ImageWaits):
            fetching.one_of(make_user().pk).__enter__()
    age(tasks[0].pk)
    assert run(tasks[0]).stage == "poll"
    assert len(sent) == 2


def test_the_memory_of_all_submits_is_bounded() -> None:
    memory = start_images._Memory(100)
    entered, leave = threading.Event(), threading.Event()

    def second() -> None:
        with memory.taken(60):
            entered.set()
            leave.wait(10)

    with memory.taken(60):
        thread = threading.Thread(target=second)
        thread.start()
        with memory.taken(40):  # it fits beside the first one
            assert not entered.is_set()
    assert entered.wait(10)
    leave.set()
    thread.join()
    with memory.taken(1000):  # the only one never waits
        pass
