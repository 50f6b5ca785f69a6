"""Browsers that show galleries keep no other browser from its video."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import imageio_ffmpeg
import pytest
from playwright.sync_api import Browser, Page

from tests.video.web.test_front import unsent
from tests.web_server import WebServer, web_server
from video.web import media

KEY = "7/videos/vid_1.mp4"
PLAYS_WITHIN_S = 3.0
PLAYERS = 6  # of one gallery: as many connections to one host as a browser opens
#: Three minutes of noise, 150 MB: more than a browser reads ahead of a player that is not watched, and the kernel for
#: it (33 MB where `tcp_rmem` is large).
NOISE = "-f lavfi -i testsrc2=s=256x144:r=30:d=5,noise=alls=40:allf=t"
CODEC = "-c:v libx264 -preset ultrafast -crf 16 -pix_fmt yuv420p -g 60"
REPEATED = "-c copy -movflags +faststart"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("galleries")
    with web_server(folder) as server:
        once, path = folder / "once.mp4", server.store(KEY, b"")
        ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error"]
        subprocess.run([*ffmpeg, *NOISE.split(), *CODEC.split(), str(once)], check=True)
        subprocess.run([*ffmpeg, "-stream_loop", "35", "-i", str(once), *REPEATED.split(), str(path)], check=True)
        assert path.stat().st_size > 120_000_000
        yield server


def opened(browser: Browser, server: WebServer, players: int) -> Page:
    """A page with so many players of one video, in a browser of somebody else's."""
    page = browser.new_context().new_page()
    page.set_default_timeout(60_000)
    # Each with an address of its own: a cache would send a video once.
    links = [f"{server.url}{media.signed_path(KEY)}&n={number}" for number in range(players)]
    page.set_content("".join(f'<video muted preload="auto" src="{link}"></video>' for link in links))
    page.wait_for_function("() => [...document.querySelectorAll('video')].every(one => one.readyState >= 3)")
    return page


def test_two_galleries_and_a_third_viewer(chromium: Browser, served: WebServer) -> None:
    alone = min(seconds_until_it_plays(chromium, served) for _ in range(2))
    galleries = [opened(chromium, served, PLAYERS) for _ in range(2)]
    deadline = time.monotonic() + 60
    while len(unsent(served.port)) < 2 * PLAYERS and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(unsent(served.port)) >= 2 * PLAYERS  # all have read ahead, and hold a connection that they do not read
    took = min(seconds_until_it_plays(chromium, served) for _ in range(2))
    for page in galleries:
        page.context.close()
    assert took < max(PLAYS_WITHIN_S, 2 * alone)  # the machine may be busy with others


def seconds_until_it_plays(browser: Browser, server: WebServer) -> float:
    """From the opening of a browser of somebody else's to a picture that moves."""
    begun = time.monotonic()
    viewer = opened(browser, server, 1)
    viewer.evaluate("() => document.querySelector('video').play()")
    viewer.wait_for_function("() => document.querySelector('video').currentTime > 0.2")
    took = time.monotonic() - begun
    viewer.context.close()
    return took
