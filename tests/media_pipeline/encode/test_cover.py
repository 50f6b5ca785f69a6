"""The frame that becomes the cover: at a second, or the best of some."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from media_pipeline.encode.cover import Cover, cover_from, spelled
from media_pipeline.encode.probe import Prober
from tests.media_pipeline.conftest import X264, run_ffmpeg

AUTO = Cover(is_auto=True)


def made(path: Path, *scenes: str, gop: int = 60) -> Path:
    """A clip of these scenes of 1 s each, at 96x54 and 10 frames a second."""
    inputs = [part for scene in scenes for part in ("-f", "lavfi", "-t", "1", "-i", f"{scene}s=96x54:r=10")]
    joined = f"{''.join(f'[{at}]' for at in range(len(scenes)))}concat=n={len(scenes)},format=yuv420p"
    run_ffmpeg(*inputs, "-filter_complex", joined, *X264, "-g", str(gop), "-sc_threshold", "0", str(path))
    return path


def colour_of(prober: Prober, path: Path, cover: Cover) -> tuple[int, ...]:
    """The mean colour of the cover."""
    jpeg = prober.cover_jpeg(path, cover, width_px=96, height_px=54, quality=85)
    with Image.open(io.BytesIO(jpeg)) as picture:
        return tuple(round(one) for one in ImageStat.Stat(picture).mean)


def main_colour(mean: tuple[int, ...]) -> str:
    return ("red", "green", "blue")[mean.index(max(mean))] if max(mean) > 60 else "black"


@pytest.mark.parametrize("gop", [60, 10], ids=["one key frame", "some"])
def test_the_frame_of_a_second_is_the_one_that_is_shown_then(prober: Prober, tmp_path: Path, gop: int) -> None:
    path = made(tmp_path / "v.mp4", "color=red:", "color=lime:", "color=blue:", gop=gop)
    seconds = {0: "red", 0.999: "red", 1: "green", 1.95: "green", 2.5: "blue", 600: "blue"}
    for at_s, expected in seconds.items():
        assert main_colour(colour_of(prober, path, Cover(at_s=at_s))) == expected, at_s
    assert main_colour(colour_of(prober, path, Cover())) == "red"


def test_auto_takes_neither_black_nor_blank_frames(prober: Prober, tmp_path: Path) -> None:
    path = made(tmp_path / "v.mp4", "color=black:", "color=lime:", "testsrc2=", "color=black:")
    black, blank = colour_of(prober, path, Cover()), colour_of(prober, path, Cover(at_s=1.5))
    scene = colour_of(prober, path, Cover(at_s=2.5))
    found = colour_of(prober, path, AUTO)
    assert main_colour(black) == "black"
    assert found not in (black, blank)
    assert sum(abs(a - b) for a, b in zip(found, scene, strict=True)) < 30


def test_auto_takes_the_sharper_of_two(prober: Prober, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    blurred = "[0]split[a][b];[a]gblur=6,hue=s=0[c];[c][b]concat=n=2,format=yuv420p"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x54:r=10:d=1", "-filter_complex", blurred, *X264, str(path))
    jpeg = prober.cover_jpeg(path, AUTO, width_px=96, height_px=54, quality=85)
    with Image.open(io.BytesIO(jpeg)) as picture:
        saturation = ImageStat.Stat(picture.convert("HSV")).mean[1]
    assert saturation > 40, "the blurred half is grey"


def test_auto_leaves_the_start_picture_alone_where_there_is_another(prober: Prober, tmp_path: Path) -> None:
    path = made(tmp_path / "v.mp4", "smptebars=", "smptebars=", "testsrc2=")
    unlike = Cover(is_auto=True, unlike_first=True)
    third = colour_of(prober, path, Cover(at_s=2.5))
    found = colour_of(prober, path, unlike)
    assert sum(abs(a - b) for a, b in zip(found, third, strict=True)) < 30
    still = made(tmp_path / "still.mp4", "smptebars=")
    assert colour_of(prober, still, unlike) == colour_of(prober, still, Cover())


def test_a_video_without_any_good_frame_has_a_cover_all_the_same(prober: Prober, tmp_path: Path) -> None:
    assert main_colour(colour_of(prober, made(tmp_path / "v.mp4", "color=black:"), AUTO)) == "black"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("first", "first"), ("auto", "auto"), (0, "0"), (2, "2"), (2.5, "2.5"), ("02.50", "2.5"), (1 / 3, "0.333")],
)
def test_a_choice_has_one_spelling(given: str | float, expected: str) -> None:
    assert spelled(given) == expected
    assert spelled(expected) == expected


@pytest.mark.parametrize("given", ["", "First", "-1", "1e2", "1,5", "０", "601", -0.1, 601, float("nan"), float("inf")])
def test_what_is_no_choice_is_refused(given: str | float) -> None:
    with pytest.raises(ValueError):
        spelled(given)


def test_only_a_video_that_began_with_a_picture_avoids_its_first_frame() -> None:
    assert cover_from("auto", begins_with_picture=True) == Cover(is_auto=True, unlike_first=True)
    assert cover_from("auto", begins_with_picture=False) == AUTO
    assert cover_from("first", begins_with_picture=True) == Cover()
    assert cover_from("2.5", begins_with_picture=True) == Cover(at_s=2.5)
