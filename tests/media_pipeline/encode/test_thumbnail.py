from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from media_pipeline.encode.probe import Prober
from media_pipeline.encode.thumbnail import make_thumbnail
from media_pipeline.errors import DiskFull, NotAVideo
from tests.media_pipeline.conftest import run_ffmpeg

Clip = Callable[[str], Path]

BLACK = (0, 0, 0)


def _near(pixel: object, colour: tuple[int, int, int], slack: int = 6) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(a - b) <= slack for a, b in zip(pixel, colour, strict=True))


@pytest.mark.parametrize(
    "name", ["ready.mp4", "portrait.mp4", "rotated.mp4", "anamorphic.mp4", "vp9.webm", "hevc10.mp4"]
)
def test_size_and_quality(clip: Clip, prober: Prober, tmp_path: Path, name: str) -> None:
    make_thumbnail(clip(name), tmp_path / "cover.jpg", prober=prober)
    with Image.open(tmp_path / "cover.jpg") as picture:
        assert isinstance(picture, JpegImageFile)
        assert picture.size == (1280, 720)
        tables = picture.quantization
    reference = tmp_path / "reference.jpg"
    Image.new("RGB", (8, 8)).save(reference, "JPEG", quality=85)
    with Image.open(reference) as picture:
        assert isinstance(picture, JpegImageFile)
        assert picture.quantization == tables


def test_portrait_stands_on_black_unstretched(clip: Clip, prober: Prober, tmp_path: Path) -> None:
    # White on top, red below, turned upright by its display matrix: 120 x 240 as seen.
    upright, turned = tmp_path / "upright.mp4", tmp_path / "turned.mp4"
    run_ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "color=white:s=240x120:d=0.2",
        "-vf",
        "drawbox=x=120:w=120:h=120:c=red:t=fill",
        str(upright),
    )
    run_ffmpeg("-display_rotation", "-90", "-i", str(upright), "-c", "copy", str(turned))
    make_thumbnail(turned, tmp_path / "cover.jpg", prober=prober)
    with Image.open(tmp_path / "cover.jpg") as picture:
        pixels = picture.convert("RGB")
    assert _near(pixels.getpixel((10, 360)), BLACK)
    assert _near(pixels.getpixel((1270, 360)), BLACK)
    # 360 wide, in the middle: from 460 to 820.
    assert _near(pixels.getpixel((450, 360)), BLACK)
    assert not _near(pixels.getpixel((470, 100)), BLACK, 60)
    top, bottom = pixels.getpixel((640, 100)), pixels.getpixel((640, 620))
    assert _near(top, (255, 255, 255), 12)
    assert _near(bottom, (254, 0, 0), 24)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
def test_colours_follow_the_tags(prober: Prober, tmp_path: Path, matrix: str) -> None:
    path = tmp_path / "green.mp4"
    convert = f"scale=out_color_matrix={'bt709' if matrix == 'bt709' else 'bt601'}:out_range=tv,format=yuv420p"
    run_ffmpeg(
        *(
            "-f",
            "lavfi",
            "-i",
            "color=0x20c040:s=1280x720:d=0.1,format=rgb24",
            "-vf",
            f"{convert},setparams=colorspace={matrix}",
        ),
        *("-c:v", "libx264", "-qp", "1", str(path)),
    )
    make_thumbnail(path, tmp_path / "cover.jpg", prober=prober)
    with Image.open(tmp_path / "cover.jpg") as picture:
        assert _near(picture.convert("RGB").getpixel((640, 360)), (0x20, 0xC0, 0x40))


def test_it_is_the_first_frame(prober: Prober, tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "color=blue:s=320x180:r=30:d=1"),
        *("-vf", "drawbox=enable='gte(n,1)':c=white:t=fill:w=iw:h=ih", "-c:v", "libx264", "-bf", "3", str(path)),
    )
    make_thumbnail(path, tmp_path / "cover.jpg", prober=prober)
    with Image.open(tmp_path / "cover.jpg") as picture:
        assert _near(picture.convert("RGB").getpixel((640, 360)), (0, 0, 254), 16)


def test_nothing_is_left_after_failure(
    clip: Clip, prober: Prober, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"<html>")
    with pytest.raises(NotAVideo):
        make_thumbnail(bad, tmp_path / "cover.jpg", prober=prober)
    bad.unlink()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(DiskFull):
        make_thumbnail(clip("ready.mp4"), tmp_path / "cover.jpg", prober=prober)
    assert not list(tmp_path.iterdir())
