"""More than 200 files, each copied where that may be and encoded where not, and looked at by other means than ours."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest

from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.plan import Target
from media_pipeline.encode.probe import Prober
from media_pipeline.encode.transcode import Transcoded, transcode
from media_pipeline.errors import DamagedMedia, NotAVideo
from tests.media_pipeline.encode.plays_everywhere import LEVEL_LIMITS
from tests.media_pipeline.encode.test_ffmpeg import running_with
from tests.media_pipeline.table import cases
from tests.media_pipeline.table.cases import Case
from tests.media_pipeline.table.looking import Seen, look
from tests.media_pipeline.table.recipes import ffmpeg as run_ffmpeg

SYNC_S = 0.05
#: An AAC frame of 1024 samples at 48 kHz, and the priming that a decoder adds.
AAC_FRAME_S = 1024 / 48_000
GROUPS = {
    "good": cases.good(),
    "containers": cases.containers(),
    "times": cases.times(),
    "tags": cases.tags(),
    "damaged": cases.damaged(),
}
ALL = {f"{group}: {name}": case for group, found in GROUPS.items() for name, case in found.items()}
HOSTILE = tuple(cases.hostile("http://127.0.0.1:9", "/nowhere"))
#: A copy keeps what may be kept; another rate leaves nothing but to encode.
WAYS = ("remux", "encode")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Case], Path]:
    """Each file once, in a folder of its own."""
    found: dict[str, Path] = {}

    def make(name: str, case: Case) -> Path:
        if name not in found:
            found[name] = case.recipe(tmp_path_factory.mktemp("case"))
        return found[name]

    return make


def target_of(case: Case, way: str) -> Target:
    if way == "remux":
        return Target("high", "source", case.fps, case.keep_long_sound)
    return Target("low", "source", 24 if case.rate == 25 else 25, case.keep_long_sound)


def run(source: Path, dest: Path, target: Target, ffmpeg: FFmpeg, prober: Prober, *, accept: bool) -> Transcoded:
    return transcode(
        source,
        dest,
        info=prober.probe(source),
        target=target,
        ffmpeg=ffmpeg,
        prober=prober,
        deadline_s=60,
        threads=1,
        accept_damage=accept,
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ALL)
def test_what_becomes_of_a_file(
    made: Callable[[str, Case], Path], name: str, way: str, ffmpeg: FFmpeg, prober: Prober, tmp_path: Path
) -> None:
    case, dest = ALL[name], tmp_path / "out.mp4"
    source, target = made(name, case), target_of(ALL[name], way)
    if case.outcome == "doubted":
        with pytest.raises(DamagedMedia):
            run(source, dest, target, ffmpeg, prober, accept=False)
        assert not list(tmp_path.iterdir())
    done = run(source, dest, target, ffmpeg, prober, accept=case.outcome == "doubted")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert done.warnings == case.warnings
    if case.kind or way == "encode":
        assert done.plan.kind == (case.kind if way == "remux" else "encode"), done.plan.reason
    seen = look(dest)
    form(seen, case, target, done.plan.kind)
    place(seen, case, target)


def form(seen: Seen, case: Case, target: Target, kind: str) -> None:
    """What every player takes, in whatever way it was made."""
    assert (seen.codec, seen.pix_fmt, seen.tag, seen.lost) == ("h264", "yuv420p", "avc1", 0)
    assert seen.profile in ("High", "Main", "Constrained Baseline", "Baseline")
    per_second, per_frame = LEVEL_LIMITS[seen.level]
    blocks = -(-seen.size[0] // 16) * -(-seen.size[1] // 16)
    assert blocks <= per_frame
    assert blocks * target.fps <= per_second * 1.002
    assert (seen.size, seen.sar) == (case.size, 1)
    assert seen.order.index("moov") < seen.order.index("mdat")
    assert "moof" not in seen.order
    assert seen.sound == ("aac" if case.sound else None)
    assert seen.keys[0] == seen.start_s
    # A copy keeps what players take for the same colours.
    assert kind == "remux" or seen.colours == (1, 1, 1, 1)
    primaries, transfer, matrix, full = seen.colours
    assert primaries in (1, 2)
    assert transfer in (1, 2, 6)
    assert matrix in (1, 2, 5, 6)
    assert full in (0, 1)
    # 29.97 is 30 to a viewer.
    assert len(seen.stamps) < 3 or abs(seen.rate / Fraction(target.fps) - 1) <= Fraction(1, 1000)
    gaps = [after - before for before, after in zip(seen.keys, [*seen.keys[1:], seen.end_s], strict=True)]
    assert max(gaps) <= 2.0 + 1 / target.fps


def place(seen: Seen, case: Case, target: Target) -> None:
    """Everything where it was in the source, on a timeline that begins at 0."""
    frame_s = max(1 / target.fps, 1 / case.rate) + 0.002
    assert abs(seen.start_s) < 0.001
    steps = [after - before for before, after in zip(sorted(seen.stamps), sorted(seen.stamps)[1:], strict=False)]
    assert not steps or max(steps) - min(steps) < 0.002
    if case.seconds is not None:
        assert seen.end_s == pytest.approx(case.seconds, abs=frame_s)
    if case.flash_s is not None:
        assert seen.flash_s == pytest.approx(case.flash_s, abs=frame_s)
    if not case.sound:
        return
    # The sound ends with the picture, within one frame of its own.
    assert seen.sound_end_s <= seen.end_s + 2 * AAC_FRAME_S + frame_s
    assert seen.sound_start_s <= AAC_FRAME_S + 0.001
    if case.flash_s is not None:
        assert seen.tone_s is not None
        assert seen.flash_s is not None
        assert seen.tone_s - seen.flash_s == pytest.approx(case.apart_s, abs=SYNC_S)


def test_the_table_is_long_enough() -> None:
    assert len(ALL) + len(HOSTILE) >= 200


# --- hostile ----------------------------------------------------------------------------------------------------------


class Listener:
    """A server that notes who knocks."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.knocked = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                self._server.accept()[0].close()
            except OSError:
                return
            self.knocked.set()

    def close(self) -> None:
        self._server.close()


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Listener, Path, dict[str, Case]]]:
    """A listener, a video of ours that nobody may have, and the files that lead to both."""
    listener, secret = Listener(), tmp_path_factory.mktemp("ours") / "secret.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=160x90:r=30:d=1", "-pix_fmt", "yuv420p", secret)
    yield listener, secret, cases.hostile(listener.url, str(secret))
    listener.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_leads_nowhere(
    trap: tuple[Listener, Path, dict[str, Case]],
    made: Callable[[str, Case], Path],
    name: str,
    ffmpeg: FFmpeg,
    prober: Prober,
    tmp_path: Path,
) -> None:
    listener, _, found = trap
    case, dest = found[name], tmp_path / "work" / "out.mp4"
    dest.parent.mkdir()
    source = tmp_path / made(name, case).name
    shutil.copyfile(made(name, case), source)
    for way in WAYS:
        if case.outcome == "refused":
            with pytest.raises(NotAVideo, match=case.why or None) as refused:
                run(source, dest, target_of(case, way), ffmpeg, prober, accept=True)
            assert str(tmp_path) not in str(refused.value)
        else:
            run(source, dest, target_of(case, way), ffmpeg, prober, accept=True)
            # Its own picture, and nothing of ours.
            assert look(dest).flash_s == pytest.approx(0.5, abs=0.05)
            dest.unlink()
        assert not list(dest.parent.iterdir())
    assert not running_with(str(tmp_path))
    assert not listener.knocked.is_set()


def test_the_trap_springs(trap: tuple[Listener, Path, dict[str, Case]], made: Callable[[str, Case], Path]) -> None:
    """A reader without our limits follows the same files to the listener, and to our file."""
    listener, secret, found = trap
    listener.knocked.clear()
    playlist = made("a playlist of a server", found["a playlist of a server"])
    with pytest.raises(av.FFmpegError):
        av.open(str(playlist), format="hls", options={"protocol_whitelist": "file,http,tcp", "extension_picky": "0"})
    assert listener.knocked.wait(10)
    alias = made("an external reference", found["an external reference"])
    with av.open(str(alias), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        packet = next(container.demux(video=0))
        ours = secret.read_bytes()[packet.pos : packet.pos + packet.size]
        assert bytes(packet) == ours != b""
    listener.knocked.clear()
