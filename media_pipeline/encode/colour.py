"""From whatever a picture is to 8-bit 4:2:0 BT.709 of limited range: ffmpeg's filters for colour, size, alpha and crop.

Two converters. libswscale, when only matrix, range, depth and size differ. libzimg (`zscale`), when the light itself
must change: HDR (PQ, HLG), other primaries, a linear or logarithmic curve, and matrices that libswscale refuses.

HDR is mapped by `tonemap=mobius` with a nominal peak of ten times the reference white, whatever the file's own
metadata say, so that pictures of one provider are alike. REFERENCE_WHITE_NITS is that of ITU-R BT.2408: diffuse white
of 203 cd/m² becomes code 214 of limited range. With 100 it would be 230, and highlights flat. Costs 7 ms of CPU more a
frame of 1280x720, about half as much again as the encode.

Numbers of matrix, transfer and primaries are those of ITU-T H.273, which both libraries take as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from media_pipeline.encode.boxes import NO_CROP, Crop
from media_pipeline.encode.probe import MediaInfo

REFERENCE_WHITE_NITS = 203

BT709, UNSPECIFIED, BT601, BT2020, RGB = 1, 2, 5, 9, 0
PQ, HLG = 16, 18
ICTCP = 14

_HDR = frozenset({PQ, HLG})
#: Linear and logarithmic. All other curves of SDR are shown alike by players, so they are left as they are.
_UNUSUAL_CURVES = frozenset({8, 9, 10})
_KNOWN_PRIMARIES = frozenset({1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22})
_SWSCALE_MATRICES = frozenset({RGB, 1, 4, 5, 6, 7, 9})
_CONSTANT_LUMINANCE = frozenset({10, 13})
_ZSCALE_MATRICES = _SWSCALE_MATRICES | _CONSTANT_LUMINANCE | {8, 12, ICTCP}


@dataclass(frozen=True)
class Colour:
    """How the samples of a frame are to be understood: tags, with what is missing or makes no sense made good."""

    matrix: int
    transfer: int
    primaries: int
    full_range: bool

    @property
    def is_hdr(self) -> bool:
        return self.transfer in _HDR

    @property
    def needs_zscale(self) -> bool:
        return (
            self.is_hdr
            or self.primaries != BT709
            or self.transfer in _UNUSUAL_CURVES
            or self.matrix not in _SWSCALE_MATRICES
        )


def colour_of(info: MediaInfo) -> Colour:
    """The likely meaning of a file's tags, as players guess it."""
    picture = info.picture
    transfer = picture.transfer if picture.transfer in _HDR | _UNUSUAL_CURVES else BT709
    primaries = picture.primaries
    if primaries not in _KNOWN_PRIMARIES:
        wide = transfer in _HDR or info.color_space in {BT2020, 10}
        primaries = BT2020 if wide else BT709
    full = info.color_range == 2 or picture.is_rgb or info.pix_fmt.startswith(("yuvj", "gray", "pal"))
    if picture.is_rgb:
        return Colour(RGB, transfer, primaries, full)
    matrix = info.color_space
    # ICtCp and constant luminance are defined by their curve; a file that lacks it has the plain matrix more likely.
    lacks_curve = (matrix == ICTCP and transfer not in _HDR) or (matrix in _CONSTANT_LUMINANCE and transfer != BT709)
    if matrix not in _ZSCALE_MATRICES or matrix == RGB or lacks_curve:
        # Untagged: players take large pictures for BT.709 and small ones for BT.601.
        large = BT709 if min(info.width_px, info.height_px) >= 720 else BT601
        matrix = BT2020 if primaries == BT2020 else large
    if matrix == ICTCP:
        primaries = BT2020
    return Colour(matrix, transfer, primaries, full)


def input_args(info: MediaInfo) -> tuple[str, ...]:
    """Options of ffmpeg's input: the decoder that knows alpha, and no crop but that of our own filter."""
    decoders = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
    alpha = ("-c:v", decoders[info.video_codec]) if info.picture.has_alpha and info.video_codec in decoders else ()
    return (*alpha, *(("-apply_cropping", "codec") if info.picture.crop != NO_CROP else ()))


def filters(info: MediaInfo, width: int, height: int, rate: str, *, rate_first: bool) -> list[str]:
    """The whole chain, from a decoded frame that ffmpeg has turned upright. `rate` is the filter that sets the rate;
    `rate_first` when it drops frames.
    """
    colour = colour_of(info)
    # libswscale unpacks what libzimg can't read, and refuses a matrix that it doesn't know: `zscale` is told below.
    matrix = colour.matrix if colour.matrix in _SWSCALE_MATRICES else BT709
    tags = f"colorspace={matrix}:color_trc={colour.transfer}:color_primaries={colour.primaries}"
    known_range = "" if colour.matrix == RGB or info.pix_fmt.startswith("gray") else f":range={_range(colour)}"
    convert = _by_zscale(info, colour, width, height) if colour.needs_zscale else _by_swscale(width, height)
    return [
        # What the frames say themselves may be missing, nonsense, or change in the middle.
        f"setparams={tags}{known_range}",
        *(["bwdif=mode=send_frame"] if info.interlaced else []),
        *_crop(info),
        *(_on_black(info) if info.picture.has_alpha else []),
        *([rate, *convert] if rate_first else [*convert, rate]),
        "setsar=1",
        "format=yuv420p",
        "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709",
    ]


def _range(colour: Colour) -> str:
    return "pc" if colour.full_range else "tv"


def _by_swscale(width: int, height: int) -> list[str]:
    return [f"scale=w={width}:h={height}:flags=bicubic:out_color_matrix=bt709:out_range=tv"]


def _by_zscale(info: MediaInfo, colour: Colour, width: int, height: int) -> list[str]:
    source = f"min={colour.matrix}:tin={colour.transfer}:pin={colour.primaries}:rin={_range(colour)}"
    size = f"w={width}:h={height}:f=bicubic"
    final = "m=bt709:t=bt709:p=bt709:r=tv"
    # libzimg takes no half of a pixel of colour.
    even = ["crop=w=trunc(iw/2)*2:h=trunc(ih/2)*2:exact=1"] if info.width_px % 2 or info.height_px % 2 else []
    if not colour.is_hdr:
        return [*even, f"zscale={source}:{final}:{size}"]
    linear = f"zscale={source}:m=gbr:t=linear:p=bt709:r=pc:npl={REFERENCE_WHITE_NITS}"
    shrinks = width * height < info.display_width_px * info.display_height_px
    return [
        *even,
        f"{linear}:{size}" if shrinks else linear,
        "format=gbrpf32le",
        "tonemap=mobius:peak=10",
        f"zscale={final}" if shrinks else f"zscale={final}:{size}",
    ]


def _crop(info: MediaInfo) -> list[str]:
    """The container's crop. It is of the frame as coded; the filter sees that turned."""
    crop = info.picture.crop
    if crop == NO_CROP:
        return []
    left, top, right, bottom = turned(crop, info.rotation)
    return [f"crop=w=iw-{left + right}:h=ih-{top + bottom}:x={left}:y={top}"]


def turned(crop: Crop, rotation: int) -> Crop:
    """The crop of a frame after a turn by so many degrees against the clock."""
    left, top, right, bottom = crop
    match rotation:
        case 90:
            return Crop(top, right, bottom, left)
        case 180:
            return Crop(right, bottom, left, top)
        case 270:
            return Crop(bottom, left, top, right)
        case _:
            return crop


def _on_black(info: MediaInfo) -> list[str]:
    """Colour times alpha, which is the picture on black."""
    depth = "10le" if info.picture.bit_depth > 8 else ""
    with_alpha = f"gbrap{depth}" if info.picture.is_rgb else f"yuva444p{depth}"
    return [f"format={with_alpha}", "premultiply=inplace=1", f"format={with_alpha.replace('a', '', 1)}"]
