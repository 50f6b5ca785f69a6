"""Makes the pictures of docs/images from a running system: demo.png, a demo video's first frame beside its page in the
admin, and console.png, the admin's home.

    make up                                        # in another terminal, without any provider key
    .venv/bin/python manage.py seed_demo           # a month to look at
    .venv/bin/python docs/make_pictures.py         # --url, --prompt, --folder, --chromium choose

It goes the way of any client: sign in as demo, create, ask for the status, fetch the thumbnail. Then a headless
Chromium opens the admin as a guest operator, who exists only for that.
"""

from __future__ import annotations

import argparse
import io
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "A beautiful sunset over the ocean"
WAIT_S = 120
WIDTH_PX, HEIGHT_PX = 1600, 900
MARGIN_PX = 40
TASK_SIZE = {"width": 1280, "height": 1250}
HOME_SIZE = {"width": 1440, "height": 1400}


def make_video(url: str, prompt: str) -> tuple[str, bytes]:
    """(task id, thumbnail) of a new demo video."""
    import requests

    with requests.Session() as client:
        login = client.post(f"{url}/api/auth/login", json={"username": "demo", "password": "demo"}, timeout=20)
        if login.status_code != 200:
            sys.exit(f"Can't sign in as demo at {url} ({login.status_code}): start `make up` without any provider key.")
        made = client.post(
            f"{url}/api/video/create", json={"prompt": prompt, "duration": 5, "aspectRatio": "16:9"}, timeout=20
        )
        made.raise_for_status()
        task_id = made.json()["data"]["taskId"]
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            data = client.get(f"{url}/api/video/status", params={"taskId": task_id}, timeout=20).json()["data"]
            if data["status"] == "success":
                return task_id, client.get(data["result"]["thumbnailUrl"], timeout=20).content
            if data["status"] == "failed":
                sys.exit(f"{task_id} failed: {data['error']}")
            time.sleep(0.5)
    sys.exit(f"{task_id} was not done within {WAIT_S} s.")


@contextmanager
def guest_operator() -> Iterator[str]:
    """The session key of a superuser that exists inside the block only."""
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ["REELWORKS_SIMULATE"] = "1"
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.test import Client

    from config.servers import hold_embedded

    held = hold_embedded()
    operator = get_user_model().objects.create_superuser(f"operator-{secrets.token_hex(3)}", first_name="operator")
    try:
        browser = Client()
        browser.force_login(operator)
        yield browser.cookies["sessionid"].value
        browser.logout()
    finally:
        operator.delete()
        if held:
            held.release()


def picture_of_page(url: str, path: str, session: str, chromium: str, size: dict[str, int], scale: float) -> bytes:
    """A page of the admin; `size` in CSS pixels, each `scale` pixels of the picture."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium or None, args=["--no-sandbox"])
        context = browser.new_context(
            viewport=size,  # type: ignore[arg-type]
            device_scale_factor=scale,
            color_scheme="light",
        )
        context.add_cookies([{"name": "sessionid", "value": session, "url": url}])
        page = context.new_page()
        page.goto(f"{url}{path}", wait_until="load")
        page.wait_for_function("!document.querySelector('video') || document.querySelector('video').readyState >= 2")
        page.wait_for_timeout(1000)  # until the player has put its spinner away
        shot = page.screenshot()
        browser.close()
        return shot


def compose(thumbnail: bytes, page: bytes, prompt: str) -> Any:
    """Both side by side, with the prompt under the frame."""
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "#16202b")
    draw = ImageDraw.Draw(canvas)
    left_px = 640
    frame = Image.open(io.BytesIO(thumbnail)).convert("RGB")
    frame.thumbnail((left_px, left_px))
    top = (HEIGHT_PX - frame.height) // 2 - 40
    canvas.paste(frame, (MARGIN_PX, top))
    large, small = ImageFont.load_default(30), ImageFont.load_default(20)
    below = top + frame.height
    draw.text((MARGIN_PX, below + 20), f"“{prompt}”", "#ffffff", large)
    draw.text((MARGIN_PX, below + 66), "one prompt, one stored video (here by the simulator)", "#9fb3c8", small)
    story = Image.open(io.BytesIO(page)).convert("RGB")
    room = (WIDTH_PX - left_px - 3 * MARGIN_PX, HEIGHT_PX - 2 * MARGIN_PX)
    story.thumbnail(room)
    canvas.paste(story, (left_px + 2 * MARGIN_PX, (HEIGHT_PX - story.height) // 2))
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=f"http://127.0.0.1:{os.environ.get('PORT', '8000')}")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome") or "")
    chosen = parser.parse_args()
    url = chosen.url.rstrip("/")
    task_id, thumbnail = make_video(url, chosen.prompt)
    task = f"/admin/video/videotask/{task_id.replace('_', '_5F')}/change/"
    with guest_operator() as session:
        page = picture_of_page(url, task, session, chosen.chromium, TASK_SIZE, 1.5)
        home = picture_of_page(url, "/admin/", session, chosen.chromium, HOME_SIZE, 1)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    demo, console = chosen.folder / "demo.png", chosen.folder / "console.png"
    compose(thumbnail, page, chosen.prompt).save(demo, optimize=True)
    console.write_bytes(home)
    for one in (demo, console):
        print(f"{one} ({one.stat().st_size // 1024} kB)")


if __name__ == "__main__":
    main()
