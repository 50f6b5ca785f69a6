"""Every page of the admin in a real browser: its policy forbids nothing that it needs, and its scripts work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import resolve
from PIL import Image
from playwright.sync_api import Page
from pytest_django import Settings

from tests.browser.complaints import complaints_of
from tests.factories import accepted, admitted, claimed, make_task, reload
from tests.video.presence import everybody
from video.attempts import configured_keys, records
from video.credits import ledger
from video.infra import toolkit
from video.models import Generation, VideoTask
from video.web import media

PASSWORD = "correct horse battery staple"


@pytest.fixture
def complaints(page: Page) -> list[str]:
    return complaints_of(page)


@pytest.fixture
def operator(page: Page, live_server: Any) -> Page:
    """A signed-in operator's browser."""
    configured_keys.sync()
    everybody()
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("olga", password=PASSWORD))
    name = settings.SESSION_COOKIE_NAME
    page.context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": str(live_server.url)}])
    return page


@pytest.fixture
def stored(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    settings.STORAGE_LOCAL_PATH = tmp_path
    toolkit.toolkit.cache_clear()
    yield tmp_path
    toolkit.toolkit.cache_clear()


def film(path: Path) -> None:
    """A second in a codec that every Chromium plays."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for _ in range(10):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 36), "green"))
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def delivered(folder: Path) -> VideoTask:
    """A task with a video that is really there."""
    task = make_task()
    key = f"{task.user_id}/videos/vid_1"
    (folder / key).parent.mkdir(parents=True)
    film(folder / f"{key}.mp4")
    Image.new("RGB", (64, 36), "green").save(folder / f"{key}_thumb.jpg")
    VideoTask.objects.filter(pk=task.pk).update(
        status="success", stage="done", admit_at=None, progress=100, finished_at=task.created_at, video_id="vid_1",
        output_key=f"{key}.mp4", thumbnail_key=f"{key}_thumb.jpg",
    )  # fmt: skip
    return reload(task)


def until(page: Page, condition: str) -> None:
    """Waits in the page. (Playwright's own way evaluates text there, which the policy forbids.)"""
    page.evaluate(f"async () => {{ while (!({condition})) await new Promise((done) => setTimeout(done, 50)) }}")


def open_case() -> Generation:
    """An attempt of which nobody can tell whether its job exists."""
    task = make_task()
    generation = admitted(task)
    assert records.mark_sent(claimed(task), generation)
    records.record_unknown(generation.pk)
    return generation


def walk(page: Page, site: str) -> set[str]:
    """Opens one address of each view of the admin that a link leads to; the views' names."""
    seen: set[str] = set()
    waiting = ["/admin/"]
    while waiting:
        path = waiting.pop()
        view = resolve(path).view_name
        if view in seen or view in ("admin:logout", "admin:jsi18n") or path.endswith("/csv/"):  # a file, and no page
            continue
        seen.add(view)
        answer = page.goto(site + path, wait_until="load")
        assert answer is not None
        assert answer.status == 200, path
        waiting += page.evaluate(
            "[...document.links].map((a) => new URL(a.href)).filter((u) => u.origin === location.origin)"
            ".map((u) => decodeURI(u.pathname)).filter((p) => p.startsWith('/admin/'))"
        )
    return seen


def test_no_page_of_the_admin_needs_more_than_its_policy_allows(
    operator: Page, live_server: Any, complaints: list[str], stored: Path
) -> None:
    active = accepted(make_task()).task_id
    open_case()
    done = delivered(stored)
    ledger.grant(done.user_id, 5)
    views = walk(operator, live_server.url)
    assert {"admin:video_videotask_change", "admin:video_generation_open_case", "admin:video_account_grant"} <= views
    assert {"admin-queues", "admin:auth_user_change", "admin:auth_user_delete", "admin:password_change"} <= views
    operator.goto(f"{live_server.url}/admin/video/videotask/{done.pk.replace('_', '_5F')}/change/")
    until(operator, "document.querySelector('video').readyState >= 1")
    assert operator.evaluate("document.querySelector('.rw-under img').naturalWidth") == 64
    assert operator.evaluate("document.querySelector('.rw-bar rect').getBoundingClientRect().width") == 72
    operator.goto(f"{live_server.url}/admin/video/videotask/{active.replace('_', '_5F')}/change/")
    operator.get_by_role("button", name="Cancel …").click()
    assert operator.locator("form[data-once]").is_visible()
    operator.goto(live_server.url)
    assert operator.evaluate("getComputedStyle(document.body).maxWidth") != "none"  # its style was read
    operator.context.clear_cookies()
    operator.goto(f"{live_server.url}/admin/login/")
    assert not complaints


def test_a_form_is_sent_once_and_a_dangerous_one_after_a_question(
    operator: Page, live_server: Any, complaints: list[str]
) -> None:
    operator.goto(f"{live_server.url}/admin/video/account/grant/")
    disabled = operator.evaluate(
        """() => {
            const form = document.querySelector('form[data-once]');
            addEventListener('submit', (event) => event.preventDefault());
            form.noValidate = true;
            form.requestSubmit();
            return form.querySelector('[type=submit]').disabled;
        }"""
    )
    assert disabled is True
    generation = open_case()
    operator.goto(f"{live_server.url}/admin/video/generation/open-cases/{generation.pk}/")
    asked: list[str] = []
    operator.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    operator.get_by_role("button", name="Settle as lost").click()
    assert asked == ["Give this attempt up as lost?"]
    assert Generation.objects.get(pk=generation.pk).state == Generation.State.UNKNOWN
    assert not complaints


def test_the_page_of_an_active_task_follows_it_to_its_end(
    operator: Page, live_server: Any, complaints: list[str]
) -> None:
    task = make_task()
    operator.goto(f"{live_server.url}/admin/video/videotask/{task.pk.replace('_', '_5F')}/change/")
    operator.locator("summary").click()  # closes what is open while it waits
    VideoTask.objects.filter(pk=task.pk).update(status="cancelled", admit_at=None, finished_at=task.created_at)
    operator.wait_for_selector("#rw-task:not([data-follow])")
    assert operator.locator("details[open]").count() == 0
    assert not complaints


def test_a_stored_video_plays_opened_directly_and_in_a_page_of_another_site(
    page: Page, live_server: Any, complaints: list[str], stored: Path, other_site: Callable[[str, str], str]
) -> None:
    task = delivered(stored)
    video, picture = (live_server.url + media.signed_path(key) for key in (task.output_key, task.thumbnail_key))
    page.goto(video)
    until(page, "document.querySelector('video').readyState >= 2 && !document.querySelector('video').paused")
    page.goto(picture)
    until(page, "document.images[0].naturalWidth === 64")
    html = f"<!doctype html><link rel=icon href='data:,'><video src='{video}' muted></video><img src='{picture}'>"
    page.goto(other_site("127.0.0.1", html))
    until(page, "document.querySelector('video').readyState >= 1 && document.images[0].naturalWidth === 64")
    with page.expect_download() as download:
        page.evaluate("(address) => { location.href = address }", f"{video}&download=1")
    assert download.value.suggested_filename == "vid_1.mp4"
    assert not complaints
