"""The table: each file, and what has to become of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import av

from tests.media_pipeline.table import recipes as r
from tests.media_pipeline.table.recipes import (
    AAC,
    FAST,
    READY,
    X264,
    again,
    box,
    changed,
    clip,
    content,
    cut,
    flipped,
    in_front,
    tagged,
    zeroed,
)


@dataclass(frozen=True)
class Case:
    """`outcome`: made at once; made once the damage is accepted; no video at all.

    Times are in seconds, of the output. `apart`: by how much the tone comes after the flash in the source. A time that
    is None is not looked at, since the damage may lie there.
    """

    recipe: r.Recipe
    outcome: Literal["made", "doubted", "refused"] = "made"
    kind: Literal["remux", "encode", ""] = "encode"
    warnings: tuple[str, ...] = ()
    seconds: float | None = 1.0
    flash_s: float | None = r.FLASH_S
    apart_s: float = 0.0
    sound: bool = True
    size: tuple[int, int] = (160, 90)
    fps: int = 30
    #: Of the source: a frame of it is the precision of everything.
    rate: float = 30.0
    why: str = ""
    keep_long_sound: bool = True


def good() -> dict[str, Case]:
    """What providers and encoders of all kinds write."""
    ready = clip("ready.mp4", *READY, *AAC, *FAST)
    silent = clip("silent.mp4", *READY, *FAST, tone=0)
    found = {
        "ready": Case(ready, kind="remux"),
        "ready, index last": Case(clip("a.mp4", *READY, *AAC), kind="remux"),
        "ready, silent": Case(silent, kind="remux", sound=False),
        "ready, stereo": Case(clip("a.mp4", *READY, *AAC, "-ac", "2", *FAST), kind="remux"),
        "ready, mov": Case(clip("a.mov", *READY, *AAC), kind="remux"),
        "ready, m4v": Case(clip("a.m4v", *READY, *AAC, "-f", "mp4"), kind="remux"),
        "B-frames": Case(clip("a.mp4", *READY, "-bf", "3", *AAC, *FAST), kind="remux"),
        "baseline": Case(clip("a.mp4", *X264, "-profile:v", "baseline", "-g", "30", *AAC), kind=""),
        "audio mp3": Case(clip("a.mp4", *READY, "-c:a", "libmp3lame")),
        "audio ac3": Case(clip("a.mp4", *READY, "-c:a", "ac3")),
        "audio opus": Case(clip("a.mp4", *READY, "-c:a", "libopus")),
        "audio flac": Case(clip("a.mp4", *READY, "-c:a", "flac", "-strict", "-2")),
        "audio pcm": Case(clip("a.mov", *READY, "-c:a", "pcm_s16le")),
        "audio 5.1": Case(clip("a.mp4", *READY, *AAC, "-ac", "6")),
        "audio 8 kHz": Case(clip("a.mp4", *READY, *AAC, "-ar", "8000"), kind=""),
        "hevc": Case(clip("a.mp4", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", *AAC)),
        "hevc 10 bit": Case(
            clip(
                *("a.mp4", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
                *("-pix_fmt", "yuv420p10le", "-tag:v", "hvc1", *AAC),
            )
        ),
        "h264 10 bit": Case(clip("a.mp4", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", *AAC)),
        "h264 4:4:4": Case(clip("a.mp4", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p", *AAC)),
        "h264 4:2:2": Case(clip("a.mp4", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv422p", *AAC)),
        "av1": Case(clip("a.mp4", "-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "lp=1", *AAC)),
        "vp9 mp4": Case(clip("a.mp4", "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", *AAC)),
        "mpeg4": Case(clip("a.mp4", "-c:v", "mpeg4", *AAC)),
        "mjpeg mov": Case(clip("a.mov", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", *AAC)),
        "prores": Case(clip("a.mov", "-c:v", "prores", "-profile:v", "0", *AAC)),
        "full range": Case(clip("a.mp4", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuvj420p", *AAC)),
        "interlaced": Case(
            clip(
                "a.mp4", *X264, "-vf", "setfield=tff", "-flags", "+ildct", "-x264-params", "tff=1", *AAC, size="160x96"
            ),
            size=(160, 96),
        ),
        "portrait": Case(clip("a.mp4", *READY, *AAC, size="90x160"), kind="remux", size=(90, 160)),
        "odd sides": Case(
            clip("a.mp4", "-vf", "scale=161:91,setsar=1", "-c:v", "libx264", "-pix_fmt", "yuv444p", *AAC),
            size=(160, 92),
        ),
        "wide pixels": Case(clip("a.mp4", *X264, "-vf", "setsar=2", *AAC, size="80x90"), size=(160, 90)),
        "a ribbon": Case(clip("a.mp4", *READY, *AAC, size="1024x32"), kind="remux", size=(1024, 32)),
        "a ribbon in vp9": Case(
            clip("a.webm", "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", size="32x1024"),
            size=(32, 1024),
        ),
        "tall pixels": Case(clip("a.mp4", *X264, "-vf", "setsar=1/2", *AAC, size="320x90"), size=(160, 90)),
    }
    for degrees, size in (("90", (90, 160)), ("180", (160, 90)), ("270", (90, 160))):
        turned = again("a.mp4", ready, "-c", "copy", before=("-display_rotation", degrees))
        # Upright, what was the upper half lies elsewhere.
        found[f"rotated by {degrees}"] = Case(turned, size=size, flash_s=None)
    for flip in ("-display_hflip", "-display_vflip"):
        found[f"mirrored, {flip}"] = Case(again("b.mp4", ready, "-c", "copy", before=(flip,)), flash_s=None)
    for rate in ("10", "12", "15", "24000/1001", "24", "25", "30000/1001", "50", "60"):
        number = eval(rate)
        made = clip("a.mp4", *READY, *AAC, *FAST, rate=rate)
        kind: Literal["remux", "encode"] = "remux" if abs(number - 30) < 0.1 else "encode"
        found[f"{rate} frames a second"] = Case(made, kind=kind, rate=number)
    return found


def containers() -> dict[str, Case]:
    """Other containers, and MP4 as it is written less often."""
    h264 = (*READY, "-bf", "2", *AAC)
    vp8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8")
    plain = clip("a.mp4", *READY, *AAC, *FAST)
    late = clip("a.mp4", *READY, *AAC)  # index last
    return {
        "mkv": Case(clip("a.mkv", *h264)),
        "mkv opus": Case(clip("a.mkv", *READY, "-c:a", "libopus")),
        "mkv pcm": Case(clip("a.mkv", "-c:v", "ffv1", "-c:a", "pcm_s16le")),
        "webm vp8": Case(clip("a.webm", *vp8, "-c:a", "libvorbis")),
        "webm vp9": Case(clip("a.webm", "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")),
        "webm written as a stream": Case(clip("a.webm", *vp8, "-c:a", "libopus", "-f", "webm", "-live", "1")),
        "mkv with a void first": Case(changed(clip("a.mkv", *h264), _with_void, "b.mkv")),
        "ts": Case(clip("a.ts", *h264)),
        "ts mpeg2": Case(clip("a.ts", "-c:v", "mpeg2video", "-c:a", "mp2")),
        "ts hevc": Case(
            clip("a.ts", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", *AAC)
        ),
        "m2ts": Case(clip("a.m2ts", *h264, "-mpegts_m2ts_mode", "1")),
        "ts joined within a packet": Case(changed(clip("a.ts", *h264), lambda data: data[100:], "b.ts")),
        "ts behind rubbish": Case(changed(clip("a.ts", *h264), lambda data: bytes(700) + data, "b.ts")),
        "m2ts joined within a packet": Case(
            changed(clip("a.m2ts", *h264, "-mpegts_m2ts_mode", "1"), lambda data: data[100:], "b.m2ts")
        ),
        "one picture, a tick long": Case(
            changed(
                clip("a.mp4", *READY, *FAST, "-frames:v", "1", "-video_track_timescale", "90000", tone=0), _tick_long
            ),
            seconds=0.0,
            flash_s=None,
            sound=False,
        ),
        "a hundred tracks": Case(clip("a.mp4", *READY, *AAC, "-map", "0:v", *["-map", "1:a"] * 99)),
        "ts called mp4": Case(changed(clip("a.ts", *h264), bytes, "b.mp4")),
        "avi mpeg4": Case(clip("a.avi", "-c:v", "mpeg4", "-c:a", "libmp3lame")),
        "avi h264": Case(clip("a.avi", *X264, "-bf", "0", "-c:a", "pcm_s16le")),
        "avi mjpeg": Case(clip("a.avi", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le")),
        "flv h264": Case(clip("a.flv", *h264)),
        "flv flv1": Case(clip("a.flv", "-c:v", "flv1", "-c:a", "libmp3lame", "-ar", "44100")),
        "gif": Case(clip("a.gif", tone=0, rate="10"), sound=False, rate=10),
        "gif, odd delays": Case(content(_gif([(10, 0), (50, 0), (20, 1), (20, 1)]), "a.gif"), sound=False, rate=10),
        "apng": Case(clip("a.png", "-f", "apng", tone=0, rate="10"), sound=False, rate=10),
        "webp": Case(clip("a.webp", "-c:v", "libwebp_anim", tone=0, rate="10"), sound=False, rate=10),
        "avif": Case(clip("a.avif", "-c:v", "libsvtav1", "-preset", "12", tone=0), sound=False),
        "fragmented": Case(clip("a.mp4", *READY, *AAC, "-g", "10", "-movflags", "+frag_keyframe+empty_moov")),
        "fragmented, B-frames": Case(
            clip("a.mp4", *h264, "-g", "15", "-movflags", "+frag_keyframe+empty_moov+default_base_moof", rate="24"),
            rate=24,
        ),
        "fragmented, late index": Case(clip("a.mp4", *h264, "-g", "10", "-movflags", "+frag_keyframe+delay_moov")),
        "fragmented, silent": Case(
            clip("a.mp4", *READY, "-bf", "3", "-g", "10", "-movflags", "+frag_keyframe+empty_moov", tone=0), sound=False
        ),
        "cmaf": Case(clip("a.mp4", *h264, "-g", "10", "-movflags", "+cmaf+frag_keyframe")),
        "dash segment with styp and sidx": Case(
            changed(clip("a.mp4", *h264, "-g", "10", "-movflags", "+dash+frag_keyframe+delay_moov+global_sidx"), _styp)
        ),
        # Its writer lost by how much the sound is to be heard later: players show it so.
        "a fragment each frame": Case(
            clip("a.mp4", *READY, *AAC, "-movflags", "+frag_every_frame+empty_moov"), apart_s=-0.05
        ),
        "no edit list": Case(clip("a.mp4", *h264, "-use_editlist", "0", *FAST)),
        "variable rate": Case(
            clip("a.mp4", *X264, "-vf", "select='not(eq(mod(n,4),2))'", "-fps_mode", "vfr", *AAC), rate=15
        ),
        "variable rate mkv": Case(
            clip("a.mkv", *X264, "-vf", "select='not(eq(mod(n,4),2))'", "-fps_mode", "vfr", *AAC), rate=15
        ),
        "no ftyp": Case(changed(plain, r.without_ftyp), kind="remux"),
        "wide first": Case(changed(changed(plain, r.without_ftyp), in_front(box(b"wide"))), kind="remux"),
        "free first": Case(changed(plain, in_front(box(b"free", bytes(5)))), kind="remux"),
        "skip first": Case(changed(plain, in_front(box(b"skip", b"x" * 77))), kind="remux"),
        "uuid first": Case(changed(plain, in_front(box(b"uuid", bytes(40)))), kind="remux"),
        "media first, no ftyp": Case(changed(late, r.without_ftyp), kind="remux"),
        "long media box": Case(changed(plain, r.large_media), kind="remux"),
        "endless media box": Case(changed(plain, r.endless_media), kind="remux"),
        "two free boxes between": Case(changed(plain, lambda data: data + box(b"free") * 2), kind="remux"),
        "a provenance box behind": Case(changed(plain, lambda data: data + box(b"uuid", bytes(60))), kind="remux"),
        **{
            f"rubbish behind: {name}": Case(changed(plain, lambda data, extra=extra: data + extra), kind="remux")
            for name, extra in {
                "one zero": b"\0",
                "four zeros": bytes(4),
                "eight zeros": bytes(8),
                "many zeros": bytes(1000),
                "text": b"uploaded by a server with love",
                "html": b"<html><body>thanks</body></html>",
                "half a header": b"\0\0\0",
                "a box that is cut": struct.pack(">I4s", 500, b"free") + bytes(20),
                "an unknown box that is cut": struct.pack(">I4s", 90000, b"abcd") + bytes(20),
                "a second index that is cut": struct.pack(">I4s", 9000, b"moov") + bytes(50),
                "noise": bytes(range(255, 128, -1)),
            }.items()
        },
        "rubbish behind a mkv": Case(changed(clip("a.mkv", *h264), lambda data: data + b"\0" * 99, "b.mkv")),
    }


def times() -> dict[str, Case]:
    """Where picture and sound begin and end."""
    ready, plain = (*READY, *AAC, *FAST), clip("ready.mp4", *READY, *AAC, *FAST)
    frames = (*READY, "-bf", "2", *AAC, *FAST)

    def apart(name: str, picture_s: float, sound_s: float, *more: str, source: r.Recipe = plain) -> r.Recipe:
        """Picture and sound of one file, each moved by so much."""

        def make(folder: r.Path) -> r.Path:
            one, path = source(folder), folder / f"apart-{name}"
            r.ffmpeg(
                *("-itsoffset", str(picture_s), "-i", one, "-itsoffset", str(sound_s), "-i", one),
                *("-map", "0:v", "-map", "1:a", "-c", "copy", *more, path),
            )
            return path

        return make

    b_frames = clip("b.mp4", *frames)
    return {
        "picture late": Case(apart("a.mp4", 0.5, 0), seconds=1.5, flash_s=1.0, apart_s=-0.5),
        "picture late, B-frames": Case(apart("a.mp4", 0.5, 0, source=b_frames), seconds=1.5, flash_s=1.0, apart_s=-0.5),
        "picture late by less than a frame": Case(apart("a.mp4", 0.02, 0), apart_s=-0.02),
        "sound late": Case(
            apart("a.mp4", 0, 0.5), seconds=1.5, apart_s=0.5, warnings=("last_frame_held",), kind="encode"
        ),
        "sound a little late": Case(apart("a.mp4", 0, 0.04), apart_s=0.04, kind="remux"),
        "both late": Case(apart("a.mp4", 3, 3), kind=""),
        "both late, B-frames": Case(apart("a.mp4", 3, 3, source=b_frames), kind=""),
        "picture late in mkv": Case(apart("a.mkv", 0.5, 0), seconds=1.5, flash_s=1.0, apart_s=-0.5),
        "both late in mkv": Case(apart("a.mkv", 10, 10)),
        "sound late in ts": Case(
            apart("a.ts", 0, 0.4), seconds=1.4, apart_s=0.4, warnings=("last_frame_held",), kind="encode"
        ),
        "picture late in ts": Case(apart("a.ts", 0.4, 0), seconds=1.42, flash_s=0.92, apart_s=-0.4),
        "ts from 1000 s on": Case(apart("a.ts", 1000, 1000)),
        "picture so late that nothing is left of the sound": Case(
            apart("a.mp4", 700, 0), sound=False, warnings=("sound_left_out",), kind=""
        ),
        "sound after the picture": Case(
            apart("a.mp4", 0, 2), seconds=3.0, apart_s=2.0, warnings=("last_frame_held",), kind="encode"
        ),
        "picture after the sound": Case(apart("a.mp4", 3, 0), seconds=4.0, flash_s=3.5, apart_s=-3.0),
        # What lies before 0 of a picture is not read: the first frame after it, white already, stands for it.
        "before 0 in mkv": Case(
            again("b.mkv", plain, "-c", "copy", "-output_ts_offset", "-0.5", "-avoid_negative_ts", "disabled"),
            flash_s=None,
        ),
        "before 0 in mp4, cut by its writer": Case(
            again("b.mp4", plain, "-c", "copy", "-output_ts_offset", "-0.3", "-avoid_negative_ts", "disabled"),
            seconds=0.7,
            flash_s=0.2,
        ),
        "fragments from 100 s on": Case(
            again(
                *("b.mp4", plain, "-c", "copy", "-output_ts_offset", "100"),
                *("-movflags", "+frag_keyframe+empty_moov+frag_discont"),
            )
        ),
        "cut by an edit list": Case(
            again("a.mp4", b_frames, "-c", "copy", before=("-ss", "0.2")), seconds=0.8, flash_s=0.3
        ),
        "sound longer": Case(clip("a.mp4", *ready, tone=2), seconds=2.0, warnings=("last_frame_held",), kind="encode"),
        "sound longer, to be cut": Case(
            clip("a.mp4", *ready, tone=2), warnings=("sound_cut",), kind="remux", keep_long_sound=False
        ),
        "sound longer in mkv": Case(clip("a.mkv", *READY, *AAC, tone=2), seconds=2.0, warnings=("last_frame_held",)),
        "sound longer in mkv, to be cut": Case(
            clip("a.mkv", *READY, *AAC, tone=2), warnings=("sound_cut",), keep_long_sound=False
        ),
        "sound longer by its padding": Case(clip("a.mp4", *ready, tone=1.05), kind="remux"),
        "sound shorter": Case(clip("a.mp4", *ready, tone=0.7), kind="remux"),
        "sound far shorter": Case(clip("a.mp4", *READY, "-c:a", "libopus", tone=0.6)),
        "one frame": Case(
            clip("a.mp4", *READY, "-frames:v", "1", *FAST, tone=0), seconds=0.04, flash_s=None, sound=False, kind=""
        ),
        "one frame with sound": Case(
            clip("a.mp4", *READY, "-vf", "trim=end_frame=1", *AAC), flash_s=None, warnings=("last_frame_held",)
        ),
        "a track without sound in it": Case(_with_empty_track("a.mp4"), sound=False, kind=""),
        "a cover picture first": Case(_with_cover, kind=""),
        "two sounds and a subtitle": Case(_with_subtitle, kind=""),
        "two pictures": Case(
            clip("a.mp4", "-map", "0:v", "-map", "0:v", "-map", "1:a", *READY, *AAC, *FAST), kind="remux"
        ),
        "a time code track": Case(clip("a.mov", *READY, *AAC, "-timecode", "01:00:00:00"), kind=""),
        "sound nobody knows": Case(
            changed(plain, lambda data: data.replace(b"mp4a", b"zzzz").replace(b"esds", b"zzzz")),
            sound=False,
            warnings=("sound_left_out",),
            kind="remux",
        ),
    }


def tags() -> dict[str, Case]:
    """Colour numbers, known and unknown."""
    found = {}
    for kind, numbers in {
        "matrix": (0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 200),
        "transfer": (0, 2, 3, 4, 8, 13, 22),
        "primaries": (0, 2, 3, 4, 9, 12, 23),
    }.items():
        for number in numbers:
            made = clip("a.mp4", *READY, *FAST, *tagged(**{kind: number}), tone=0, seconds=0.6)
            # HDR and what no player reads in a copy is for the plan to decide.
            found[f"{kind} {number}"] = Case(made, kind="", seconds=0.6, sound=False)
    return found


def damaged() -> dict[str, Case]:
    """What lost something on its way."""
    ready, hevc = clip("a.mp4", *READY, *AAC, *FAST), ("-c:v", "libx265", "-preset", "ultrafast")
    hevc = (*hevc, "-x265-params", "log-level=none", "-tag:v", "hvc1")
    silent = clip("s.mp4", *READY, *FAST, tone=0)
    frames = clip("f.mp4", *READY, "-bf", "2", *AAC, "-g", "10", "-movflags", "+frag_keyframe+empty_moov")

    def doubted(recipe: r.Recipe, *warnings: str, **more: object) -> Case:
        facts = {"seconds": None, "flash_s": None, "kind": "", **more}
        return Case(recipe, "doubted", warnings=warnings, **facts)  # type: ignore[arg-type]

    return {
        "zeros in the middle": doubted(changed(ready, zeroed(0.4, 0.6)), "damaged", seconds=1.0),
        "zeros in the middle, silent": doubted(changed(silent, zeroed(0.4, 0.5)), "damaged", seconds=1.0, sound=False),
        "zeros at the end": doubted(changed(silent, zeroed(0.9, 1)), "damaged", seconds=1.0, sound=False),
        "zeros after the first frame": doubted(changed(silent, zeroed(0.3, 0.9)), "damaged", seconds=1.0, sound=False),
        "bits flipped": doubted(changed(silent, flipped(0.3, 0.7)), "damaged", seconds=1.0, sound=False),
        "bits flipped in hevc": doubted(
            changed(clip("h.mp4", *hevc, *FAST, tone=0), flipped(0.3, 0.7, 41)), "damaged", seconds=1.0, sound=False
        ),
        "zeros in fragments": doubted(changed(frames, _in_last_fragment), "damaged", seconds=1.0),
        "dead sound": doubted(_with_dead_sound, "sound_left_out", seconds=1.0, flash_s=0.5, sound=False),
        "cut at nine tenths": doubted(changed(ready, cut(0.9)), "truncated"),
        "cut at half": doubted(changed(ready, cut(0.5)), "truncated"),
        "cut at half, hevc": doubted(changed(clip("h.mp4", *hevc, *FAST, tone=0), cut(0.5)), "truncated", sound=False),
        "cut at the end of its index": doubted(
            changed(clip("late.mp4", *READY, *AAC), lambda data: data[:-20]), "truncated", seconds=1.0
        ),
        "cut within a fragment": doubted(changed(frames, cut(0.6)), "truncated"),
        "cut between fragments": Case(
            changed(frames, lambda data: r.fragments(data, 1)), seconds=None, flash_s=None, kind=""
        ),
        "mkv cut at half": doubted(changed(clip("a.mkv", *READY, *AAC), cut(0.5), "b.mkv"), "truncated"),
        "webm cut at two thirds": doubted(
            changed(clip("a.webm", "-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"), cut(0.66), "b.webm"),
            "truncated",
        ),
        "avi cut at half": doubted(
            changed(clip("a.avi", "-c:v", "mpeg4", "-c:a", "pcm_s16le"), cut(0.5), "b.avi"), "truncated"
        ),
        "flv cut at half": doubted(changed(clip("a.flv", *READY, *AAC), cut(0.5), "b.flv"), "truncated"),
        "gif cut at half": doubted(
            changed(clip("a.gif", tone=0, rate="10"), cut(0.5), "b.gif"), "truncated", sound=False, rate=10
        ),
        "apng cut at half": doubted(
            changed(clip("a.png", "-f", "apng", tone=0, rate="10"), cut(0.5), "b.png"),
            "truncated",
            sound=False,
            rate=10,
        ),
        "webp cut at half": doubted(
            changed(clip("a.webp", "-c:v", "libwebp_anim", tone=0, rate="10"), cut(0.5), "b.webp"),
            "truncated",
            sound=False,
            rate=10,
        ),
        "ts cut at half": Case(
            changed(clip("a.ts", *READY, *AAC), cut(0.5), "b.ts"), "made", seconds=None, flash_s=None
        ),
    }


def _refused(recipe: r.Recipe, why: str) -> Case:
    return Case(recipe, "refused", why=why)


def hostile(listener: str, secret: str) -> dict[str, Case]:
    """What would lead elsewhere, to the listener or to a file of ours, or wear us out."""
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    ready = clip("a.mp4", *READY, *FAST, tone=0)
    mpd = f'<?xml version="1.0"?><MPD><Period><BaseURL>{listener}/a.mp4</BaseURL></Period></MPD>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{listener}/x.png"/></svg>'
    return {
        "nothing": _refused(content(b""), "empty"),
        "one byte": _refused(content(b"\0"), "unknown"),
        "a web page": _refused(content(b"<!DOCTYPE html><html>sorry</html>"), "web page"),
        "JSON": _refused(content(b'{"error": "gone"}'), "JSON"),
        "a playlist of a server": _refused(content(playlist.format(f"{listener}/a.ts").encode()), "playlist"),
        "a playlist of a file": _refused(content(playlist.format(f"file://{secret}").encode()), "playlist"),
        "a playlist called mkv": _refused(content(playlist.format(secret).encode(), "a.mkv"), "playlist"),
        "a concat script": _refused(content(f"ffconcat version 1.0\nfile {secret}\n".encode()), "unknown"),
        "a DASH manifest": _refused(content(mpd.encode()), "web page"),
        "an SVG": _refused(content(svg.encode(), "a.svg"), "unknown"),
        "an SDP": _refused(content(b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"), "unknown"),
        "metadata of ffmpeg's": _refused(content(b";FFMETADATA1\ntitle=x\n"), "unknown"),
        "a JPEG": _refused(clip("a.jpg", "-frames:v", "1", "-update", "1", tone=0), "still picture"),
        "a PNG": _refused(clip("a.png", "-frames:v", "1", "-update", "1", tone=0), "still picture"),
        "a WebP": _refused(clip("a.webp", "-frames:v", "1", tone=0), "still picture"),
        "sound alone": _refused(again("b.mp4", clip("a.mp4", *READY, *AAC), "-vn", "-c", "copy"), "no video stream"),
        "sound with a cover": _refused(_sound_with_cover, "no video stream"),
        "an index alone": _refused(changed(ready, lambda data: data[: data.index(b"mdat") - 4]), "index or its media"),
        "media alone": _refused(changed(clip("a.mp4", *READY, tone=0), cut(0.5)), "truncated"),
        "half an index": _refused(changed(ready, cut(0.01)), "truncated"),
        "no picture at all": _refused(changed(ready, zeroed(0, 1)), "no frame"),
        "too large": _refused(clip("a.mp4", *X264, "-frames:v", "1", size="5120x2880", tone=0), "pixels"),
        "ten hours": _refused(
            clip("a.mp4", *X264, "-vf", "setpts=N*36000/TB", "-fps_mode", "vfr", "-frames:v", "2", tone=0), "lasts"
        ),
        "boxes without end": _refused(content(box(b"ftyp", b"isom\0\0\0\0") + box(b"free") * 30_000), "too many"),
        "a table of four billion samples": _refused(changed(ready, _endless_table), ""),
        "an external reference": _refused(
            changed(clip("a.mov", *READY, tone=0), lambda data: _elsewhere(data, secret)), "no picture"
        ),
        "an AVI with a playlist as its subtitle": Case(
            changed(clip("a.avi", "-c:v", "mpeg4", tone=0), lambda data: _gab2(data, playlist, listener), "b.avi"),
            sound=False,
        ),
        "a playlist behind five sync bytes": _refused(
            content(b"".join(b"G" + playlist.format(listener).encode()[:187].ljust(187) for _ in range(5)), "a.ts"), ""
        ),
        "a GIF of four billion pixels": _refused(content(_gif([(50, 0)], side=65535), "a.gif"), "size"),
        "a WebP of many pixels": _refused(
            content(b"RIFF\x48\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xff\x3f\0" * 2 + bytes(50)), "pixels"
        ),
        "a GIF of nothing": _refused(content(b"GIF89a" + bytes(30) + b";"), ""),
        "a WebP of nothing": _refused(content(b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\x02" + bytes(17)), ""),
        "an APNG of nothing": _refused(content(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 8, b"acTL") + bytes(12)), ""),
        "an FLV of nothing": _refused(content(b"FLV\x01\x05\0\0\0\x09\0\0\0\0"), ""),
    }


# --- made by hand -----------------------------------------------------------------------------------------------------


def _with_void(data: bytes) -> bytes:
    """A void element between a Matroska file's header and its segment."""
    at = data.index(b"\x18\x53\x80\x67")
    return data[:at] + b"\xec\x84\0\0\0\0" + data[at:]


def _tick_long(data: bytes) -> bytes:
    """The first entry of the table of durations is 1 tick of the track's clock."""
    at = data.index(b"stts") + 16
    return data[:at] + struct.pack(">I", 1) + data[at + 4 :]


def _styp(data: bytes) -> bytes:
    return r.box(b"styp", b"msdh\0\0\0\0msdh") + r.without_ftyp(data)


def _gif(frames: list[tuple[int, int]], *, side: int = 0) -> bytes:
    """Frames of (hundredths of a second, whether the upper half is white), two colours, uncompressed.

    160x90; with `side` it claims to be a square of so many pixels.
    """
    out = b"GIF89a" + struct.pack("<HHBBB", side or 160, side or 90, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    for wait, white in frames:
        out += b"\x21\xf9\x04\0" + struct.pack("<HB", wait, 0) + b"\0,"
        out += struct.pack("<HHHHB", 0, 0, 160, 90, 0) + b"\x02"
        bits, count, width = 0, 0, 3
        data = bytearray()
        for number in range(160 * 90):
            # A clear code before every second pixel keeps the codes three bits long.
            codes = ([4] if number % 2 == 0 else []) + [white if number < 160 * 45 else 0]
            for code in codes:
                bits |= code << count
                count += width
                while count >= 8:
                    data.append(bits & 255)
                    bits, count = bits >> 8, count - 8
        bits |= 5 << count
        data += struct.pack("<H", bits)[: (count + width + 7) // 8]
        for at in range(0, len(data), 255):
            part = bytes(data[at : at + 255])
            out += bytes([len(part)]) + part
        out += b"\0"
    return out + b";"


def _with_empty_track(name: str) -> r.Recipe:
    """A file whose sound has a track and no sample."""

    def make(folder: r.Path) -> r.Path:
        path = folder / name
        r.ffmpeg(*r.scene(tone=1), *READY, *AAC, "-af", "atrim=end_sample=0", *FAST, path)
        return path

    return make


def _with_cover(folder: r.Path) -> r.Path:
    cover, path = folder / "cover.jpg", folder / "cover.mp4"
    r.ffmpeg(*r.scene(size="64x64", tone=0), "-frames:v", "1", "-update", "1", cover)
    r.ffmpeg(
        *("-i", cover, *r.scene(), "-map", "0:v", "-map", "1:v", "-map", "2:a", "-c:v:0", "copy"),
        *("-c:v:1", "libx264", "-pix_fmt:v:1", "yuv420p", *AAC, "-disposition:v:0", "attached_pic", path),
    )
    return path


def _sound_with_cover(folder: r.Path) -> r.Path:
    cover, path = folder / "cover.jpg", folder / "cover.mp4"
    r.ffmpeg(*r.scene(size="64x64", tone=0), "-frames:v", "1", "-update", "1", cover)
    options = ("-c:v", "copy", *AAC, "-disposition:v", "attached_pic")
    r.ffmpeg("-i", cover, *r.scene(), "-map", "0", "-map", "2:a", *options, path)
    return path


def _with_subtitle(folder: r.Path) -> r.Path:
    text, path = folder / "a.srt", folder / "many.mp4"
    text.write_text("1\n00:00:00,000 --> 00:00:00,900\nHello\n")
    r.ffmpeg(
        *(*r.scene(), "-i", text, "-map", "0:v", "-map", "1:a", "-map", "1:a", "-map", "2:s"),
        *(*READY, *AAC, "-c:s", "mov_text", *FAST, path),
    )
    return path


def _with_dead_sound(folder: r.Path) -> r.Path:
    """Sound of which every byte is overwritten."""
    path = clip("dead.mp4", *READY, *AAC, *FAST)(folder)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio[0]):
            if packet.pos is not None and packet.size:
                data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    return path


def _in_last_fragment(data: bytes) -> bytes:
    at = data.rindex(b"mdat") + 4
    length = int.from_bytes(data[at - 8 : at - 4], "big") - 8
    first, last = at + length // 3, at + length // 3 * 2
    return data[:first] + bytes(last - first) + data[last:]


def _endless_table(data: bytes) -> bytes:
    at = data.index(b"stsz") + 4
    return data[: at + 8] + b"\xff\xff\xff\xff" + data[at + 12 :]


def _elsewhere(data: bytes, path: str) -> bytes:
    """The media of a QuickTime file in another file, by an alias: what ffmpeg follows with `enable_drefs`."""
    at = data.index(b"dref") - 4
    name = path.encode()
    # QuickTime File Format, "Data references"; the fields are those that ffmpeg's mov.c reads of an alias.
    record = bytes(150) + struct.pack(">hh", 2, len(name)) + name
    record += bytes(len(name) & 1) + struct.pack(">hh", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    grown = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    old = int.from_bytes(data[at : at + 4], "big")
    out = bytearray(data[:at] + grown + data[at + old :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = out.rindex(kind, 0, at) - 4
        (length,) = struct.unpack(">I", out[place : place + 4])
        struct.pack_into(">I", out, place, length + len(grown) - old)
    return bytes(out)


def _gab2(data: bytes, playlist: str, listener: str) -> bytes:
    """A text stream's chunk that holds a playlist, before the first picture."""
    at = data.index(b"movi") + 4
    body = b"GAB2\0" + struct.pack("<HI", 2, 2) + b"a\0" + struct.pack("<HI", 4, 200)
    body += playlist.format(f"{listener}/a.ts").encode().ljust(200)
    chunk = b"02tx" + struct.pack("<I", len(body)) + body + bytes(len(body) & 1)
    return data[:at] + chunk + data[at:]
