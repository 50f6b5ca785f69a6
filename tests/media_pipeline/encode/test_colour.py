"""A known colour, written as files may hold it, is that colour in what is delivered; and no tag is a failure."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from media_pipeline.encode import colour
from media_pipeline.encode.boxes import Crop
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.plan import Target
from media_pipeline.encode.probe import Prober
from media_pipeline.encode.thumbnail import make_thumbnail
from media_pipeline.encode.transcode import transcode
from tests.media_pipeline.conftest import FFMPEG, run_ffmpeg
from tests.media_pipeline.encode.plays_everywhere import check, frames_of, with_clean_aperture
from tests.media_pipeline.encode.test_transcode import READY

ORANGE = (192, 96, 48)
_X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "8")
_X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:crf=8", "-tag:v", "hvc1")


def _plane(path: Path, filters: str, *options: str, size: str = "320x180") -> Path:
    """Half a second of ORANGE, as RGB until the filters make something else of it."""
    colour_hex = "".join(f"{part:02x}" for part in ORANGE)
    source = f"color=c=0x{colour_hex}:s={size}:r=10:d=0.5,format=gbrp,{filters}"
    run_ffmpeg("-f", "lavfi", "-i", source, *options, str(path))
    return path


def _deliver(source: Path, prober: Prober, ffmpeg: FFmpeg, resolution: str = "source") -> Path:
    dest = source.with_name("out.mp4")
    target = Target("high", resolution, 12)  # type: ignore[arg-type]
    info = prober.probe(source)
    done = transcode(source, dest, info=info, target=target, ffmpeg=ffmpeg, prober=prober, deadline_s=60)
    assert done.plan.kind == "encode"
    return dest


def _middle(path: Path, x: float = 0.5, y: float = 0.5) -> tuple[int, int, int]:
    """RGB at a share of the way across and down the first frame, read as BT.709 of limited range."""
    frame = frames_of(path)[0]
    assert (frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries) == (1, 1, 1, 1)
    (plane,) = frame.reformat(format="rgb24", src_colorspace="ITU709").planes
    at = int(frame.height * y) * plane.line_size + int(frame.width * x) * 3
    red, green, blue = bytes(plane)[at : at + 3]
    return red, green, blue


def _close(found: tuple[int, ...], wanted: tuple[int, ...], by: int = 6) -> bool:
    return all(abs(one - other) <= by for one, other in zip(found, wanted, strict=True))


#: name → filters, options. Each is ORANGE to whoever reads the tags.
SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "601": ("scale=out_color_matrix=bt601,format=yuv420p,setparams=colorspace=smpte170m", _X264),
    "untagged_small": ("scale=out_color_matrix=bt601,format=yuv420p,setparams=colorspace=unknown", _X264),
    "709_full": ("scale=out_color_matrix=bt709:out_range=pc,format=yuvj420p,setparams=colorspace=bt709", _X264),
    "709_10bit": ("scale=out_color_matrix=bt709,format=yuv420p10le,setparams=colorspace=bt709", _X264),
    "709_422_10bit": ("scale=out_color_matrix=bt709,format=yuv422p10le,setparams=colorspace=bt709", _X264),
    "709_444": ("scale=out_color_matrix=bt709,format=yuv444p,setparams=colorspace=bt709", _X264),
    "rgb": ("null", ("-c:v", "libx264rgb", "-preset", "ultrafast", "-qp", "8")),
    "p3": ("zscale=pin=bt709:tin=bt709:p=smpte432:t=bt709:m=bt709:r=tv,format=yuv420p10le", _X265),
    "p3_8bit": ("zscale=pin=bt709:tin=bt709:p=smpte432:t=bt709:m=bt709:r=tv,format=yuv420p", _X264),
    "170m": ("zscale=pin=bt709:tin=bt709:p=170m:t=bt709:m=170m:r=tv,format=yuv420p", _X264),
    "470bg": ("zscale=pin=bt709:tin=bt709:p=bt470bg:t=bt709:m=470bg:r=tv,format=yuv420p", _X264),
    "2020_sdr": ("zscale=pin=bt709:tin=bt709:p=2020:t=2020_10:m=2020_ncl:r=tv,format=yuv420p10le", _X265),
    "2020_cl": ("zscale=pin=bt709:tin=bt709:p=2020:t=2020_10:m=2020_cl:r=tv,format=yuv420p10le", _X265),
    "linear": (
        "zscale=pin=bt709:tin=bt709:p=bt709:t=linear:m=bt709:r=tv,format=yuv444p16le",
        ("-c:v", "ffv1", "-f", "matroska"),
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_colour_stays(name: str, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    filters, options = SOURCES[name]
    source = _plane(tmp_path / ("in.mkv" if "matroska" in options else "in.mp4"), filters, *options)
    assert _close(_middle(_deliver(source, prober, ffmpeg)), ORANGE)


#: Matrices that no encoder here writes: samples of that matrix, and the number put into the bitstream afterwards.
_MATRICES = {"ycgco": 8, "fcc": 4, "smpte240m": 7}


@pytest.mark.parametrize("name", _MATRICES)
def test_matrix_that_the_scaler_refuses_is_converted(name: str, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    filters = f"zscale=pin=bt709:tin=bt709:p=bt709:t=bt709:m={name}:r=tv,format=yuv420p,setparams=colorspace=bt709"
    tag = ("-bsf:v", f"h264_metadata=matrix_coefficients={_MATRICES[name]}")
    source = _plane(tmp_path / "in.mp4", filters, *_X264, *tag)
    assert prober.probe(source).color_space == _MATRICES[name]
    assert _close(_middle(_deliver(source, prober, ffmpeg)), ORANGE)


@pytest.mark.parametrize("number", [3, 11, 14, 15, 16, 19])
def test_matrix_that_means_nothing_here_is_read_as_the_likely_one(
    number: int, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path
) -> None:
    filters = "scale=out_color_matrix=bt601,format=yuv420p,setparams=colorspace=bt709"
    source = _plane(tmp_path / "in.mp4", filters, *_X264, "-bsf:v", f"h264_metadata=matrix_coefficients={number}")
    assert _close(_middle(_deliver(source, prober, ffmpeg)), ORANGE)


@pytest.mark.parametrize("name", ["76_ycgco.mp4", "79_ictcp.mp4"])
def test_shape_of_known_cases(name: str, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A test picture that was only tagged so, as an outside test had it."""
    number = int(name == "76_ycgco.mp4") * 8 or 14
    more = ":transfer_characteristics=16:colour_primaries=9" if number == 14 else ""
    source = tmp_path / "in.mp4"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=320x180:r=24:d=1", "-c:v", "libx264", "-preset", "ultrafast"),
        *("-pix_fmt", "yuv420p", "-bsf:v", f"h264_metadata=matrix_coefficients={number}{more}", str(source)),
    )
    info = prober.probe(source)
    dest = tmp_path / "out.mp4"
    transcode(source, dest, info=info, target=Target("medium", "source"), ffmpeg=ffmpeg, prober=prober, deadline_s=60)
    check(dest, size=(320, 180), fps=30, seconds=1)


def _hdr(path: Path, transfer: str, nits: float, size: str = "320x180") -> Path:
    """A grey plane of that light, 203 being diffuse white."""
    light = f"color=c=white:s={size}:r=10:d=0.5,format=gbrpf32le"
    # libzimg counts 1.0 as `npl` nits on either side.
    tags = f"colorspace=bt2020nc:color_trc={transfer}:color_primaries=bt2020:range=tv"
    convert = f"zscale=tin=linear:pin=bt709:rin=pc:npl={nits}:t={transfer}:p=2020:m=2020_ncl:r=tv"
    run_ffmpeg("-f", "lavfi", "-i", f"{light},{convert},format=yuv420p10le,setparams={tags}", *_X265, str(path))
    return path


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
@pytest.mark.parametrize("resolution", ["source", "480p"])
def test_diffuse_white_of_hdr_is_bright_and_leaves_room_for_more(
    transfer: str, resolution: str, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path
) -> None:
    found = {}
    for nits in (50, 203, 800):
        dest = _deliver(_hdr(tmp_path / f"{nits}.mp4", transfer, nits), prober, ffmpeg, resolution)
        luma = frames_of(dest)[0].planes[0]
        found[nits] = bytes(luma)[luma.line_size * luma.height // 2 + luma.width // 2]
        red, green, blue = _middle(dest)
        assert max(red, green, blue) - min(red, green, blue) <= 2
    assert found[203] == pytest.approx(214, abs=3)
    assert 100 < found[50] < found[203] - 40
    assert found[203] + 15 < found[800] <= 235


def test_colour_of_hdr_is_kept(prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    """A dim orange in PQ stays that hue: below the knee of the curve nothing is bent."""
    light = "zscale=tin=bt709:pin=bt709:rin=pc:npl=50:t=smpte2084:p=2020:m=2020_ncl:r=tv"
    tags = "setparams=colorspace=bt2020nc:color_trc=smpte2084:color_primaries=bt2020:range=tv"
    source = _plane(tmp_path / "in.mp4", f"{light},format=yuv420p10le,{tags}", *_X265)
    red, green, blue = _middle(_deliver(source, prober, ffmpeg))
    assert red > green > blue
    assert red / green == pytest.approx(ORANGE[0] / ORANGE[1], rel=0.15)


def test_thumbnail_of_hdr_is_as_bright_as_the_video(prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    from PIL import Image

    dest = _deliver(_hdr(tmp_path / "in.mp4", "smpte2084", 203, "1280x720"), prober, ffmpeg)
    make_thumbnail(dest, tmp_path / "cover.jpg", prober=prober)
    with Image.open(tmp_path / "cover.jpg") as picture:
        assert _close(picture.getpixel((640, 360)), (231, 231, 231))  # type: ignore[arg-type]


_HALF = "format=rgba,colorchannelmixer=aa=0.5"
#: Half transparent ORANGE.
ALPHA: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "vp9": ("in.webm", "format=yuva420p", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-b:v", "2M")),
    "vp8": ("in.webm", "format=yuva420p", ("-c:v", "libvpx", "-b:v", "2M", "-auto-alt-ref", "0")),
    "prores": ("in.mov", "format=yuva444p10le", ("-c:v", "prores_ks", "-profile:v", "4444")),
    "qtrle": ("in.mov", "format=argb", ("-c:v", "qtrle")),
    "ffv1": ("in.mkv", "format=yuva420p", ("-c:v", "ffv1")),
}


@pytest.mark.parametrize("name", ALPHA)
def test_alpha_is_laid_on_black(name: str, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    file, pixels, options = ALPHA[name]
    matrix = "scale=out_color_matrix=bt601:out_range=tv," if "yuva" in pixels else ""
    source = _plane(tmp_path / file, f"{_HALF},{matrix}{pixels}", *options)
    assert prober.probe(source).picture.has_alpha
    assert _close(_middle(_deliver(source, prober, ffmpeg)), tuple(part // 2 for part in ORANGE), by=8)


@pytest.mark.parametrize("name", ["in.gif", "in.webp"])
def test_transparent_pictures_in_a_row_are_laid_on_black(name: str, tmp_path: Path) -> None:
    """The filters alone: what a palette or an animated WebP leaves open is black."""
    codec = ("-c:v", "libwebp_anim", "-lossless", "1", "-loop", "0") if name == "in.webp" else ()
    palette = "" if codec else ",split[a][b];[a]palettegen=reserve_transparent=1[p];[b][p]paletteuse"
    hole = "format=rgba,geq=r=192:g=96:b=48:a='if(lt(X,W/2),0,255)'"
    source = _plane(tmp_path / name, f"{hole}{palette}", *codec, size="64x36")
    picture = dataclasses.replace(READY.picture, transfer=2, primaries=2, is_rgb=True, has_alpha=True)
    info = dataclasses.replace(READY, width_px=64, height_px=36, pix_fmt="pal8", color_space=2, picture=picture)
    chain = ",".join(colour.filters(info, 64, 36, "fps=30", rate_first=False))
    dest = tmp_path / "out.mp4"
    run_ffmpeg("-i", str(source), "-vf", chain, *_X264, str(dest))
    assert _close(_middle(dest, 0.1), (0, 0, 0))
    assert _close(_middle(dest, 0.9), ORANGE)


def _striped(path: Path, *options: str) -> Path:
    """ORANGE with a white frame of 40 pixels left, 20 above, 80 right, 60 below, which is what is cropped."""
    boxes = "drawbox=x=0:w=40:h=ih:c=white:t=fill,drawbox=x=iw-80:w=80:h=ih:c=white:t=fill"
    boxes += ",drawbox=w=iw:h=20:c=white:t=fill,drawbox=y=ih-60:w=iw:h=60:c=white:t=fill"
    filters = f"{boxes},scale=out_color_matrix=bt709,format=yuv420p,setparams=colorspace=bt709"
    return _plane(path, filters, *_X264, *options)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_cropped_away_stays_away(rotation: int, container: str, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    _striped(tmp_path / "whole.mp4")
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", str(rotation), "-i", str(tmp_path / "whole.mp4"), "-c", "copy", str(turned))
    with_clean_aperture(turned, tmp_path / "in.mp4", size=(200, 100), offset=(-20, -20))
    source = tmp_path / "in.mp4"
    if container == "mkv":
        source = tmp_path / "in.mkv"
        run_ffmpeg("-apply_cropping", "none", "-i", str(tmp_path / "in.mp4"), "-c", "copy", str(source))
    info = prober.probe(source)
    assert info.picture.crop == Crop(40, 20, 80, 60)
    dest = _deliver(source, prober, ffmpeg)
    frame = frames_of(dest)[0]
    assert (frame.width, frame.height) == ((200, 100) if rotation % 180 == 0 else (100, 200))
    for x, y in ((0.01, 0.5), (0.99, 0.5), (0.5, 0.01), (0.5, 0.99)):
        assert _close(_middle(dest, x, y), ORANGE, by=12)


def test_codec_crop_shows_no_line_of_the_padding(prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    source = _plane(tmp_path / "in.mp4", "scale=out_color_matrix=bt601,format=yuv420p", *_X264, size="322x182")
    dest = _deliver(source, prober, ffmpeg)
    for x, y in ((0.5, 0.0), (0.5, 0.999), (0.0, 0.5), (0.999, 0.5)):
        assert _close(_middle(dest, x, y), ORANGE)


@pytest.mark.parametrize("matrix", range(20))
@pytest.mark.parametrize("light", [(1, 1), (16, 9), (9, 30)])
def test_no_tag_is_refused(matrix: int, light: tuple[int, int]) -> None:
    """The filters alone, on frames of odd sides."""
    transfer, primaries = light
    picture = dataclasses.replace(READY.picture, transfer=transfer, primaries=primaries)
    info = dataclasses.replace(READY, width_px=33, height_px=17, color_space=matrix, picture=picture)
    chain = ",".join(colour.filters(info, 32, 16, "fps=30", rate_first=False))
    source = "color=c=gray:s=33x17:r=30:d=0.1,format=yuv420p"
    argv = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", source, "-vf", chain, "-frames:v", "1", "-f", "null", "-"]
    assert subprocess.run(argv, check=False, capture_output=True, timeout=30).returncode == 0
