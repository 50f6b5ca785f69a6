"""What is said to the server in front of us, which sends a stored file in our place."""

from __future__ import annotations

from pathlib import Path

import pytest

from media_pipeline.storage.offload import BadOffload, parse

KEY = "7/videos/vid_1.mp4"


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("x-accel-redirect", {"X-Accel-Redirect": "/reelworks-files/7/videos/vid_1.mp4"}),
        ("X-Accel-Redirect:/files", {"X-Accel-Redirect": "/files/7/videos/vid_1.mp4"}),
        ("x-accel-redirect:/a b/%2e?#é/", {"X-Accel-Redirect": "/a%20b/%252e%3F%23%C3%A9/7/videos/vid_1.mp4"}),
        ("x-sendfile", {"X-Sendfile": "/srv/our%20videos/7/videos/vid_1.mp4"}),
        ("x-sendfile:/mnt/c:/videos", {"X-Sendfile": "/mnt/c%3A/videos/7/videos/vid_1.mp4"}),
    ],
)
def test_header(text: str, headers: dict[str, str]) -> None:
    found = parse(text, folder=Path("/srv/x/../our videos"))
    assert found is not None
    assert found.headers(KEY) == headers


def test_off() -> None:
    assert parse("off", folder=Path("/srv")) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "on", "1", "nginx", "off:/x", "x-accel-redirect:files", "x-sendfile:..", "x-sendfile:/a/../b"),
        *("x-sendfile:/", "x-accel-redirect://", "x-accel-redirect:/a//b", "x-sendfile:/./a"),
        "x-accel-redirect:https://h/x",
    ],
)
def test_what_names_no_way_is_refused(text: str) -> None:
    with pytest.raises(BadOffload, match=r"must (be off|have an absolute path)"):
        parse(text, folder=Path("/srv"))


@pytest.mark.parametrize(
    "key",
    ["../secret_key", "/etc/passwd", "7/videos/x\r\nX-Sendfile: /etc/passwd", "7//x", "7/é", "7/%2e%2e/x", "", "7/."],
)
def test_no_odd_key_gets_into_a_header(key: str) -> None:
    found = parse("x-sendfile", folder=Path("/srv"))
    assert found is not None
    with pytest.raises(ValueError, match="not a storage key"):
        found.headers(key)
