from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from media_pipeline.encode import probe as probe_module
from media_pipeline.encode.probe import ProbeLimits, Prober
from media_pipeline.errors import MediaTimeout, NotAVideo
from tests.media_pipeline.encode.test_ffmpeg import wait_gone

Clip = Callable[[str], Path]


def test_plain_h264(clip: Clip, prober: Prober) -> None:
    info = prober.probe(clip("h264_24.mp4"))
    assert (info.container, info.video_codec, info.pix_fmt) == ("mp4", "h264", "yuv420p")
    assert (info.width_px, info.height_px, info.sar, info.rotation) == (320, 192, 1, 0)
    assert info.fps == 24
    assert info.is_constant_fps
    assert not info.interlaced
    assert info.duration_s == pytest.approx(1.0, abs=0.05)
    assert info.audio_codec is None
    assert info.streams == 1
    assert info.size_bytes == clip("h264_24.mp4").stat().st_size
    assert info.bit_rate == pytest.approx(info.size_bytes * 8, rel=0.1)
    assert not info.faststart


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("ready.mp4", {"faststart": True, "fps": 30}),
        ("sound.mp4", {"audio_codec": "aac", "audio_channels": 1, "streams": 2}),
        ("sound_mp3.mp4", {"audio_codec": "mp3float"}),
        ("mpeg4.mp4", {"video_codec": "mpeg4", "fps": 25}),
        ("hevc10.mp4", {"video_codec": "hevc", "pix_fmt": "yuv420p10le"}),
        ("vp9.webm", {"container": "matroska", "video_codec": "vp9", "audio_codec": "opus", "fps": 30}),
        ("odd.mp4", {"width_px": 321, "height_px": 193, "pix_fmt": "yuv444p"}),
        ("portrait.mp4", {"display_width_px": 270, "display_height_px": 480}),
        ("rotated.mp4", {"width_px": 854, "display_width_px": 480, "display_height_px": 854}),
        ("anamorphic.mp4", {"sar": Fraction(16, 11), "display_width_px": 524, "display_height_px": 288}),
        ("wide_range.mp4", {"color_range": 2}),
        ("variable.mp4", {"is_constant_fps": False}),
        ("fragmented.mp4", {"is_constant_fps": False, "video_codec": "h264"}),
    ],
)
def test_facts(clip: Clip, prober: Prober, name: str, facts: dict[str, object]) -> None:
    info = prober.probe(clip(name))
    found = {fact: getattr(info, fact) for fact in facts}
    if "audio_codec" in facts and facts["audio_codec"] == "mp3float":
        found["audio_codec"] = "mp3float" if str(found["audio_codec"]).startswith("mp3") else found["audio_codec"]
    assert found == facts


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>sorry</html>", "web page"),
        (PLAYLIST, "playlist"),
        (b'{"error": "gone"}', "JSON"),
        (b"\x00\x01\x02\x03" * 5000, "unknown bytes"),
        (b"\x00\x00", "unknown bytes"),
        (b"\x00\x00\x00\x18ftypisom" + b"\x00" * 4, "truncated"),
        (b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00", "without its index"),
        (b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00\x00\x00\x00\x04moov", "shorter than its own header"),
        # The magic is right and the rest is not a video.
        (b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00\x00\x00\x00\x08moov\x00\x00\x00\x10mdat" + PLAYLIST[:8], "refused"),
        (b"\x1a\x45\xdf\xa3", "within a header"),
        (b"\x1a\x45\xdf\xa3\x81\x00" + b"\x00" * 40, "without a segment"),
    ],
)
def test_what_is_not_a_video(tmp_path: Path, prober: Prober, content: bytes, why: str) -> None:
    path = tmp_path / "looks_like.mp4"
    path.write_bytes(content)
    with pytest.raises(NotAVideo, match=why) as caught:
        prober.probe(path)
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("name", ["h264_24.mp4", "ready.mp4", "vp9.webm"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_file(clip: Clip, prober: Prober, tmp_path: Path, name: str, share: float) -> None:
    whole = clip(name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * share)])
    if name == "h264_24.mp4":  # whose index comes last
        with pytest.raises(NotAVideo, match="truncated"):
            prober.probe(path)
        return
    info = prober.probe(path)
    assert "ends" in info.truncated
    assert info.duration_s == pytest.approx(share, abs=0.15)


def test_header_without_pictures_behind_it(clip: Clip, prober: Prober, tmp_path: Path) -> None:
    whole = clip("ready.mp4").read_bytes()
    start = whole.index(b"mdat") + 4
    path = tmp_path / "hollow.mp4"
    path.write_bytes(whole[:start] + bytes(len(whole) - start))
    with pytest.raises(NotAVideo):
        prober.probe(path)


def test_limits(clip: Clip, prober: Prober) -> None:
    with pytest.raises(NotAVideo, match="5120x2880"):
        prober.probe(clip("huge.mp4"))
    assert prober.probe(clip("streams.mp4")).streams == 10
    strict = Prober(limits=ProbeLimits(max_duration_s=0.5))
    try:
        with pytest.raises(NotAVideo, match=r"at most 0\.5 s"):
            strict.probe(clip("ready.mp4"))
    finally:
        strict.close()


def test_sound_alone_is_not_a_video(tmp_path: Path, prober: Prober, clip: Clip) -> None:
    from tests.media_pipeline.conftest import run_ffmpeg

    path = tmp_path / "sound.mp4"
    run_ffmpeg("-i", str(clip("sound.mp4")), "-vn", "-c", "copy", str(path))
    with pytest.raises(NotAVideo, match="no video stream"):
        prober.probe(path)


def test_child_killed_from_outside_is_replaced(clip: Clip) -> None:
    prober = Prober(workers=1)
    try:
        prober.probe(clip("ready.mp4"))
        os.kill(_child_pids(prober)[0], signal.SIGKILL)
        assert prober.probe(clip("ready.mp4")).video_codec == "h264"
    finally:
        prober.close()


def test_a_child_is_replaced_after_so_many_answers(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("media_pipeline.encode.probe._ANSWERS_OF_A_CHILD", 2)
    prober = Prober(workers=1)
    try:
        path, pids = clip("ready.mp4"), []
        for _ in range(5):
            assert prober.probe(path).video_codec == "h264"
            pids += _child_pids(prober)
        assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
        wait_gone(pids[0])
    finally:
        prober.close()


def test_hanging_child_is_killed_and_replaced(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    prober = Prober(workers=1, timeout_s=0.1)
    try:
        prober.probe(clip("ready.mp4"))
        pid = _child_pids(prober)[0]
        os.kill(pid, signal.SIGSTOP)
        # The reader's patience includes the child's start-up; here the child is up.
        child = prober._children.queue[0]
        real = child._read_line
        monkeypatch.setattr(child, "_read_line", lambda process, deadline: real(process, deadline - 10))
        with pytest.raises(MediaTimeout):
            prober.probe(clip("ready.mp4"))
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        monkeypatch.undo()
        assert prober.probe(clip("ready.mp4")).fps == 30
    finally:
        prober.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_decoder_has_nothing_of_our_environment(
    clip: Clip, prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNWAY_API_KEY", "canary")
    prober.probe(clip("h264_24.mp4"))
    pids = _child_pids(prober)
    assert pids
    for pid in pids:
        assert Path(f"/proc/{pid}/environ").read_text().split("\0") == [f"PATH={os.defpath}", "LANG=C.UTF-8", ""]


def test_many_threads_share_the_children(clip: Clip, prober: Prober) -> None:
    results: list[int] = []

    def work() -> None:
        results.extend(prober.probe(clip("ready.mp4")).width_px for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == [854] * 30
    assert len(_child_pids(prober)) <= 2


def test_child_ends_with_its_parent(clip: Clip) -> None:
    script = (
        "import sys; from pathlib import Path; from media_pipeline.encode.probe import Prober; p = Prober(workers=1);"
        "p.probe(Path(sys.argv[1])); print(p._children.queue[0]._process.pid, flush=True); sys.stdin.read()"
    )
    root = Path(probe_module.__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(clip("ready.mp4"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate(timeout=60)
    wait_gone(pid)


def _child_pids(prober: Prober) -> list[int]:
    return [child._process.pid for child in prober._children.queue if child._process is not None]
