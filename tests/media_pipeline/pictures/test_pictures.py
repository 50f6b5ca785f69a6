"""Pictures of strangers: what is taken, what becomes of it, and what is refused without harm."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from media_pipeline.encode import _av_child
from media_pipeline.encode.probe import Prober
from media_pipeline.errors import MediaTimeout, PictureRefused
from media_pipeline.pictures import data_uri
from media_pipeline.pictures.headers import Kind, size_of
from media_pipeline.pictures.prepare import Picture, prepare
from tests.pictures import SECRET, bomb, chunk, exif, opened, picture, turned

MOST = 10_000_000
Prepare = Callable[..., Picture]


@pytest.fixture
def prepared(prober: Prober, tmp_path: Path) -> Prepare:
    def run(data: bytes, **options: Any) -> Picture:
        path = tmp_path / "sent"
        path.write_bytes(data)
        return prepare(path, **{"prober": prober, "max_bytes": MOST, **options})

    return run


def pixels(data: bytes) -> bytes:
    return opened(data).convert("RGBA").tobytes()


def noise(width: int, height: int, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_metadata_goes_and_not_one_pixel_changes(prepared: Prepare, kind: str, mode: str) -> None:
    if (kind, mode) == ("JPEG", "RGBA"):
        return
    sent = picture(640, 360, kind, mode=mode, color=200 if mode == "L" else "teal", exif=exif(), xmp=b"<x>" + SECRET)
    assert SECRET in sent
    kept = prepared(sent)
    assert (kept.width_px, kept.height_px) == (640, 360)
    assert pixels(kept.data) == pixels(sent)
    assert kept.kind == {"JPEG": Kind.JPEG, "PNG": Kind.PNG, "WEBP": Kind.WEBP}[kind]
    assert SECRET not in kept.data
    assert not opened(kept.data).getexif()
    assert len(kept.data) < len(sent)


def test_colour_profiles_stay(prepared: Prepare) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG", "WEBP"):
        assert opened(prepared(picture(64, 36, kind, icc_profile=profile)).data).info["icc_profile"] == profile
    assert opened(prepared(turned(icc_profile=profile)).data).info["icc_profile"] == profile


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_picture_is_set_upright(prepared: Prepare, kind: str, orientation: int) -> None:
    sent = turned(kind, orientation)
    kept = prepared(sent)
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(opened(sent))
    assert (kept.width_px, kept.height_px) == upright.size == size_of(kept.data)
    found, right = opened(kept.data).convert("RGB"), upright.convert("RGB")
    for at in ((5, 5), (upright.width - 6, 5), (5, upright.height - 6)):
        assert all(abs(a - b) < 12 for a, b in zip(found.getpixel(at), right.getpixel(at), strict=True))  # type: ignore[arg-type]
    assert SECRET not in kept.data
    assert not opened(kept.data).getexif()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_turns_nothing(prepared: Prepare, orientation: int) -> None:
    sent = turned(orientation=orientation)
    assert pixels(prepared(sent).data) == pixels(sent)


@pytest.mark.parametrize("tail", [b"<script>alert(1)</script>", b"PK\x03\x04" + b"\x00" * 100, picture(8, 8, "JPEG")])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_second_file_behind_the_picture_is_left_out(prepared: Prepare, kind: str, tail: bytes) -> None:
    sent = picture(64, 36, kind)
    kept = prepared(sent + tail)
    assert tail not in kept.data
    assert pixels(kept.data) == pixels(sent)


@pytest.mark.parametrize("marker", [0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE])
def test_segments_that_are_for_programs_are_left_out(prepared: Prepare, marker: int) -> None:
    whole = picture(64, 36, "JPEG")
    segment = bytes((0xFF, marker)) + struct.pack(">H", 2 + len(SECRET)) + SECRET
    kept = prepared(whole[:2] + segment + whole[2:])
    assert SECRET not in kept.data
    assert pixels(kept.data) == pixels(whole)


def test_a_comment_that_is_a_page_is_left_out(prepared: Prepare) -> None:
    page = b"*/=1;alert(1);/*<html>"
    assert page not in prepared(picture(64, 36, "JPEG", comment=page)).data
    assert page not in prepared(picture(64, 36, "GIF", comment=page)).data


@pytest.mark.parametrize(
    ("kind", "becomes", "options"),
    [
        ("GIF", Kind.PNG, {}),
        ("AVIF", Kind.JPEG, {}),
        ("JPEG", Kind.JPEG, {"mode": "CMYK", "color": (0, 255, 255, 0)}),
    ],
)
def test_other_kinds_become_one_that_is_kept(
    prepared: Prepare, kind: str, becomes: Kind, options: dict[str, Any]
) -> None:
    kept = prepared(picture(64, 36, kind, **options))
    assert (kept.kind, kept.width_px, kept.height_px) == (becomes, 64, 36)
    assert opened(kept.data).mode == "RGB"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_a_moving_picture_the_first_frame_is_taken(prepared: Prepare, kind: str) -> None:
    frames = [Image.new("RGB", (64, 36), colour) for colour in ("red", "green", "blue")]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=100)
    kept = opened(prepared(out.getvalue()).data)
    assert getattr(kept, "n_frames", 1) == 1
    red, green, blue = kept.convert("RGB").getpixel((30, 20))  # type: ignore[misc]
    assert red > 240
    assert green < 15
    assert blue < 15


def test_what_a_model_does_not_take_becomes_what_it_takes(prepared: Prepare) -> None:
    only = (Kind.JPEG, Kind.PNG)
    assert prepared(picture(64, 36, "WEBP"), types=only).kind is Kind.JPEG
    assert prepared(picture(64, 36, "WEBP", lossless=True), types=only).kind is Kind.PNG
    see_through = picture(64, 36, "WEBP", mode="RGBA", color=(255, 0, 0, 0))
    assert opened(prepared(see_through, types=only).data).getpixel((5, 5))[3] == 0  # type: ignore[index]
    on_white = opened(prepared(see_through, types=(Kind.JPEG,)).data).getpixel((5, 5))
    assert on_white == (255, 255, 255)


@pytest.mark.parametrize("most", [400_000, 100_000, 20_000])
def test_what_is_too_large_is_made_to_fit_and_no_smaller_than_needed(prepared: Prepare, most: int) -> None:
    kept = prepared(noise(800, 600, quality=95), max_bytes=most)
    assert most / 3 < len(kept.data) <= most
    assert kept.width_px / kept.height_px == pytest.approx(4 / 3, rel=0.02)
    if most == 400_000:
        assert (kept.width_px, kept.height_px) == (800, 600)  # its quality was enough


def test_a_picture_that_fits_is_handed_on_byte_for_byte(prepared: Prepare) -> None:
    bare = prepared(noise(300, 200)).data
    assert prepared(bare).data == bare


REFUSED: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "bomb": (lambda: bomb(50_000, 50_000), "image_too_large", "50000x50000"),
    "long": (lambda: bomb(1_000_000, 100), "image_too_large", "1000000x100"),
    "gif": (
        lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + picture(4, 4, "GIF")[10:],
        "image_too_large",
        "6553",
    ),
    "empty": (lambda: b"", "image_unreadable", "empty"),
    "head": (lambda: picture(64, 36, "JPEG")[:3], "image_unreadable", "damaged"),
    "cut": (lambda: noise(64, 64)[:-900], "image_unreadable", "cut off"),
    "cut PNG": (lambda: noise(64, 64, "PNG")[:-900], "image_unreadable", "cut off"),
    "cut WebP": (lambda: noise(64, 64, "WEBP")[:-900], "image_unreadable", "cut off"),
    "cut AVIF": (lambda: picture(64, 64, "AVIF")[:-40], "image_unreadable", "cut off"),
    "checksum": (
        lambda: picture(64, 36).replace(b"IDAT", b"IDAT\xff", 1),
        "image_unreadable",
        "damaged",
    ),
    "text bomb": (
        lambda: picture(8, 8)[:33] + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0)),
        "image_unreadable",
        "damaged",
    ),
    "SVG": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "image_unreadable", "an SVG"),
    "HTML": (lambda: b"\n<!DOCTYPE html><p>not found", "image_unreadable", "a page of text"),
    "ICO": (lambda: picture(32, 32, "ICO"), "image_unreadable", "an icon"),
    "TIFF": (lambda: picture(32, 32, "TIFF"), "image_unreadable", "a TIFF picture"),
    "BMP": (lambda: picture(32, 32, "BMP"), "image_unreadable", "a BMP picture"),
    "PDF": (lambda: picture(32, 32, "PDF"), "image_unreadable", "a PDF document"),
    "EPS": (lambda: picture(32, 32, "EPS"), "image_unreadable", "not a picture"),
    "HEIC": (lambda: b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "image_unreadable", "a HEIC picture"),
    "video": (lambda: b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomavc1", "image_unreadable", "a video"),
    "JSON": (lambda: b'{"error": "not found"}', "image_unreadable", "not a picture"),
    "wrong head": (lambda: b"\x89PNG\r\n\x1a\n" + picture(8, 8, "JPEG"), "image_unreadable", "damaged"),
    "JPEG of PostScript": (lambda: b"\xff\xd8\xff%!PS-Adobe-3.0 EPSF-3.0", "image_unreadable", "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(prepared: Prepare, name: str) -> None:
    made, code, says = REFUSED[name]
    with pytest.raises(PictureRefused) as err:
        prepared(made())
    assert err.value.code == code
    assert says in err.value.user_message


def test_a_bomb_costs_no_memory(prepared: Prepare, prober: Prober) -> None:
    prepared(picture())
    child = list(prober._children.queue)[-1]  # type: ignore[attr-defined]  # the last one in is the next one out
    process = child._process
    with pytest.raises(PictureRefused):
        prepared(bomb(50_000, 50_000))
    assert child._process is process  # not even the child was ended by it
    peak = Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
    assert int(peak) < 1_200_000  # kB: the largest picture of these tests needs less


@pytest.mark.parametrize("size", [70_000, 3_000_000])
def test_a_huge_exif_is_left_out(prepared: Prepare, size: int) -> None:
    sent = picture(64, 36, "PNG", exif=exif(6, more=size))
    assert len(prepared(sent).data) < 2_000


@pytest.mark.parametrize("orientation", [1, 6])
def test_megabytes_of_text_in_a_png_are_left_out(prepared: Prepare, orientation: int) -> None:
    """As programs that make pictures write their work into them."""
    packed = b"workflow\x00\x00" + zlib.compress(b"x" * 5_000_000)
    whole = picture(64, 36, exif=exif(orientation))
    sent = (
        whole[:33] + chunk(b"zTXt", packed) + whole[33:-12] + chunk(b"tEXt", b"a\x00" + b"y" * 3_000_000) + whole[-12:]
    )
    kept = prepared(sent)
    assert len(kept.data) < 2_000
    assert (kept.width_px, kept.height_px) == ((64, 36) if orientation == 1 else (36, 64))


def test_of_several_pictures_in_a_jpeg_the_first_is_taken(prepared: Prepare) -> None:
    """As phones write them: the picture, and what its depth or its light is."""
    one, other = Image.new("RGB", (64, 36), "red"), Image.new("RGB", (32, 18), "blue")
    out = io.BytesIO()
    one.save(out, "MPO", save_all=True, append_images=[other])
    kept = prepared(out.getvalue())
    assert (kept.kind, kept.width_px, kept.height_px) == (Kind.JPEG, 64, 36)
    assert kept.data.count(b"\xff\xd8\xff") == 1


def test_the_largest_picture_fits_into_the_childs_memory(prepared: Prepare) -> None:
    sent = turned(width=8192, height=8192)
    kept = prepared(sent)
    assert (kept.width_px, kept.height_px) == (8192, 8192)
    with pytest.raises(PictureRefused, match="pixels"):
        prepared(bomb(8193, 8192))


def test_a_sixteen_bit_picture_that_is_turned_keeps_its_brightness(prepared: Prepare) -> None:
    sent = io.BytesIO()
    Image.new("I;16", (64, 36), 0x8000).save(sent, "PNG", exif=exif(6))
    assert opened(prepared(sent.getvalue()).data).getpixel((5, 5)) == pytest.approx(128, abs=1)


class _Told:
    """A decoder that says what it is told to: as one that a picture has taken over would."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def ask_about_picture(self, path: Path, details: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"problem": ["x"], "why": 5},
        {"problem": "pixels", "width_px": "<b>"},
        {"data": None},
        {"data": "!"},
        {"data": base64.b64encode(b"<html>").decode()},
        {"data": base64.b64encode(picture(64, 36, "GIF")).decode()},
        {"data": base64.b64encode(picture(8, 8) + b"\x00" * MOST).decode()},
        MediaTimeout("20 s"),
    ],
)
def test_the_childs_answer_is_checked(tmp_path: Path, answer: Any) -> None:
    path = tmp_path / "sent"
    path.write_bytes(picture())
    with pytest.raises(PictureRefused) as err:
        prepare(path, prober=_Told(answer), max_bytes=MOST)
    assert "<b>" not in err.value.user_message


def test_pictures_are_decoded_by_the_isolated_child_alone() -> None:
    """The module that decodes is loaded by the child's own function, before it gives up its rights."""
    source = Path(_av_child.__file__).read_text()
    assert source.index("import decode") < source.index("isolation.give_up(")
    for path in Path("media_pipeline/pictures").glob("*.py"):
        assert ("PIL" in path.read_text()) is (path.name == "decode.py"), path


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64,iVBORw0KGgo=",
        "  data:image/png;base64,iVBORw0KGgo=\n",
        "DATA:IMAGE/PNG;BASE64,iVBORw0KGgo=",
        "data:;base64,iVBORw0KGgo",
        "data:image/png;charset=utf-8;base64,iVBO\r\nRw0K Ggo=",
        "data:image/png;base64,iVBORw0KGgo%3D",
    ],
)
def test_a_data_uri_is_read_as_browsers_do(text: str) -> None:
    assert data_uri.is_data_uri(text)
    assert data_uri.decoded(text) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data:image/svg+xml,<svg/>", "must begin as"),
        ("data:text/html;base64,AAAA", "must begin as"),
        ("data:image/png;base64", "must begin as"),
        ("data:image/png;base64,!!!!", "not base64"),
        ("data:image/png;base64,AAAAA", "not base64"),
        ("data:image/png;base64,ÄÄÄÄ", "not base64"),
        ("data:image/png;base64," + "A" * data_uri.MAX_CHARACTERS, "has more than"),
    ],
)
def test_a_data_uri_that_is_none(text: str, says: str) -> None:
    with pytest.raises(data_uri.BadDataUri, match=says) as err:
        data_uri.decoded(text)
    assert "AAAA" not in str(err.value)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBP", picture(8, 8, "GIF"), b"<svg>"])
def test_no_size_is_made_up(data: bytes) -> None:
    with pytest.raises(ValueError, match="picture"):
        size_of(data)
