"""Where a video comes from stays said: the AIGC tag, C2PA, and an own label."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest

from media_pipeline.encode.boxes import C2PA_UUID
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.plan import Target
from media_pipeline.encode.probe import Prober
from media_pipeline.encode.provenance import LONGEST_TAG, Label, Provenance, aigc_tag, what_is_wrong_with_mark
from media_pipeline.encode.transcode import Transcoded, transcode
from tests.media_pipeline.conftest import run_ffmpeg
from tests.media_pipeline.encode.plays_everywhere import check, frames_of

TAG = '{"AIGC":{"Label":"1","ContentProducer":"kling","ProduceID":"a=b;c","Ä":"生成"}}'


def _video(path: Path, *options: str, colour: str = "gray", rate: int = 30) -> Path:
    source = f"color=c={colour}:s=320x180:r={rate}:d=0.5"
    encoder = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "30")
    webm = ("-c:v", "libvpx", "-b:v", "1M")
    run_ffmpeg("-f", "lavfi", "-i", source, *(webm if path.suffix == ".webm" else encoder), *options, str(path))
    return path


def _deliver(source: Path, prober: Prober, ffmpeg: FFmpeg, label: Label = Label()) -> tuple[Transcoded, Path]:  # noqa: B008
    dest = source.with_name("out.mp4")
    target = Target("high", "source", label=label)
    info = prober.probe(source)
    done = transcode(source, dest, info=info, target=target, ffmpeg=ffmpeg, prober=prober, deadline_s=60)
    check(dest, size=(320, 180), fps=Fraction(30), seconds=0.5)
    return done, dest


def _tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


@pytest.mark.parametrize(
    ("name", "rate", "options", "kind"),
    [
        ("in.mp4", 30, ("-metadata", f"AIGC={TAG}", "-movflags", "+use_metadata_tags"), "remux"),
        ("in.mp4", 24, ("-metadata", f"AIGC={TAG}", "-movflags", "+use_metadata_tags"), "encode"),
        ("in.mp4", 30, ("-metadata", f"comment={TAG}"), "remux"),
        ("in.webm", 30, ("-metadata", f"aigc={TAG}"), "encode"),
        ("in.webm", 30, ("-metadata:s:v", f"AIGC={TAG}"), "encode"),
    ],
)
def test_tag_is_kept_as_it_came(
    name: str, rate: int, options: tuple[str, ...], kind: str, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path
) -> None:
    source = _video(tmp_path / name, "-metadata", "title=secret prompt", *options, rate=rate)
    assert prober.probe(source).provenance == Provenance(TAG, has_c2pa=False)
    done, dest = _deliver(source, prober, ffmpeg)
    assert done.plan.kind == kind
    assert _tags(dest)["AIGC"] == TAG
    assert b"secret prompt" not in dest.read_bytes()


def test_without_a_tag_there_is_none(prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    _, dest = _deliver(_video(tmp_path / "in.mp4", "-metadata", "comment=an AIGC comment"), prober, ffmpeg)
    assert "AIGC" not in _tags(dest)
    assert b"AIGC" not in dest.read_bytes()


@pytest.mark.parametrize(
    "box",
    [
        struct.pack(">I4s", 8 + 16 + 20, b"uuid") + C2PA_UUID + b"\0\0\0\0manifest\0" + b"j" * 7,
        struct.pack(">I4s", 8 + 8, b"jumb") + b"c2pa-box",
    ],
)
def test_manifest_is_seen_and_not_kept(box: bytes, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    source = _video(tmp_path / "in.mp4")
    other = struct.pack(">I4s", 8 + 16, b"uuid") + bytes(16)
    source.write_bytes(source.read_bytes() + other)
    assert not prober.probe(source).provenance.has_c2pa
    source.write_bytes(source.read_bytes() + box)
    assert prober.probe(source).provenance.has_c2pa
    _, dest = _deliver(source, prober, ffmpeg)
    assert not prober.probe(dest).provenance.has_c2pa


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ([{"AIGC": "plain words"}], "plain words"),
        ([{"com.example.aigc": "x"}], "x"),
        ([{"title": "AIGC"}], ""),
        ([{"comment": '{"AIGC": 1}'}], ""),
        ([{"comment": '{"AIGC": {'}], ""),
        ([{"comment": "[" * 4000}], ""),
        ([{}, {"description": '{"AIGC":{"Label":"2"}}'}], '{"AIGC":{"Label":"2"}}'),
        ([{"AIGC": "a\x00b\n\ud800c"}], "abc"),
        ([{"AIGC": "x" * 9000}], "x" * LONGEST_TAG),
        ([{"AIGC": "  "}], ""),
    ],
)
def test_what_counts_as_the_tag(tags: list[dict[str, str]], found: str) -> None:
    assert aigc_tag(tags) == found


def test_own_label_names_who_made_it_where_the_file_does_not(prober: Prober, ffmpeg: FFmpeg, tmp_path: Path) -> None:
    label = Label(producer='Reel "Works" 视频', produce_id="task_1")
    done, dest = _deliver(_video(tmp_path / "in.mp4"), prober, ffmpeg, label)
    assert done.plan.kind == "remux"
    fields = {"Label": "1", "ContentProducer": 'Reel "Works" 视频', "ProduceID": "task_1"}
    assert json.loads(_tags(dest)["AIGC"]) == {"AIGC": fields}
    tagged = _video(tmp_path / "in.webm", "-metadata", f"AIGC={TAG}")
    _, dest = _deliver(tagged, prober, ffmpeg, label)
    assert _tags(dest)["AIGC"] == TAG


@pytest.mark.parametrize("text", ["AI-generated", "100%: it's [AI], \\n; {x}", "A" * 24])
def test_visible_mark_is_in_the_corner_of_every_frame(
    text: str, prober: Prober, ffmpeg: FFmpeg, tmp_path: Path
) -> None:
    done, dest = _deliver(_video(tmp_path / "in.mp4"), prober, ffmpeg, Label(mark=text))
    assert (done.plan.kind, done.plan.reason) == ("encode", "gets a visible mark")
    for frame in (frames_of(dest)[0], frames_of(dest)[-1]):
        luma = frame.planes[0]
        rows = [bytes(luma)[y * luma.line_size : y * luma.line_size + 320] for y in range(180)]
        assert all(abs(value - rows[0][0]) < 8 for row in rows[:140] for value in row)
        corner = [value for row in rows[150:] for value in row[200:]]
        assert min(corner) < rows[0][0] - 30
        assert max(corner) > rows[0][0] + 30
        assert (frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries) == (1, 1, 1, 1)


def test_mark_that_can_not_be_drawn_is_told() -> None:
    assert what_is_wrong_with_mark(Label(mark="AI-generated")) == ""
    assert what_is_wrong_with_mark(Label(mark="AI生成")) == "its font has no '生'"
    assert what_is_wrong_with_mark(Label(mark="AI", font="/no/font.ttf")) == "its font can't be read"
    assert what_is_wrong_with_mark(Label()) == ""
