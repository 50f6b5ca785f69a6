"""`python -m bench.media`: what a transcode costs beside bare ffmpeg, its memory by size, and the qualities in figures.

No server runs: this is `media_pipeline` alone, in this process, its decoder child and its ffmpegs. Ours and bare take
turns, so that noise of the machine hits both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from bench import cpu, runs
from bench.bare_ffmpeg import ffmpeg_command, run_bare
from bench.runs import say
from bench.system import BenchError
from bench.tables import ms, table, verdict
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.plan import Target
from media_pipeline.encode.probe import Prober
from media_pipeline.encode.rates import QUALITIES, QualityName
from media_pipeline.encode.transcode import transcode

AT_MOST = 1.03
#: Memory may grow by so much from the smallest file to the largest: noise of the allocator.
FLAT_BYTES = 16 << 20
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
_X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")

#: name → lavfi source of 5 s: a picture that takes few bits, one that takes many, and one with grain.
PICTURES = {
    "easy": "gradients=s=1280x720:r=24:d=5:n=4:speed=0.02:seed=1",
    "detail": "mandelbrot=s=1280x720:r=24:end_scale=0.001:maxiter=400,trim=duration=5",
    "grain": "testsrc2=s=1280x720:r=24:d=5,noise=alls=12:allf=t+u",
}


def make(path: Path, source: str, *options: str) -> Path:
    """A file by ffmpeg's own sources."""
    argv = [FFMPEG, "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", source, *options, str(path)]
    if subprocess.run(argv, check=False, timeout=600).returncode:
        raise BenchError(f"ffmpeg could not make {path.name}")
    return path


class Transcoder:
    """What a worker has: one ffmpeg, one prober."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.ffmpeg = FFmpeg(FFMPEG)
        self.prober = Prober(workers=1)

    def deliver(self, source: Path, dest: Path, quality: QualityName = "medium") -> str:
        """As the transcode stage does it: read the facts, carry out, check. "encode" or "remux"."""
        done = transcode(
            *(source, dest),
            info=self.prober.probe(source),
            target=Target(quality, "source"),
            ffmpeg=self.ffmpeg,
            prober=self.prober,
            deadline_s=3600,
            threads=self.threads,
        )
        return done.plan.kind


def beside_bare(ours: Transcoder, source: Path, bare: list[str], *, times: int, rounds: int) -> list[dict[str, float]]:
    """CPU and wall seconds of `times` transcodes, ours and bare, in each round."""
    folder = source.parent
    dest = folder / "ours.mp4"
    ours.deliver(source, dest)  # its start is not part of a job
    found = []
    for number in range(rounds):
        say(f"{source.stem}: round {number + 1} of {rounds}")
        own = cpu.measure({"ours": os.getpid()}, lambda: [ours.deliver(source, dest) for _ in range(times)])
        plain = run_bare(bare, folder / "bare.mp4", times, parallel=1)
        found.append(
            {
                "cpu": own.total / times,
                "wall": own.seconds / times,
                "bare_cpu": plain.total / times,
                "bare_wall": plain.seconds / times,
            }
        )
    return found


def ratio(rounds: list[dict[str, float]], name: str) -> float:
    """Ours over bare, the median of the rounds."""
    return statistics.median(one[name] / one[f"bare_{name}"] for one in rounds)


def show_beside(title: str, rounds: list[dict[str, float]], *, target: float | None) -> str:
    """CPU and wall, ours and bare."""
    rows: list[list[object]] = []
    for name in ("cpu", "wall"):
        middle = [statistics.median(one[key] for one in rounds) for key in (name, f"bare_{name}")]
        rows.append([f"{name} ms", ms(middle[0]), ms(middle[1]), f"{ratio(rounds, name):.3f}"])
    text = table(title, ["each", "Reelworks", "bare ffmpeg", "ratio"], rows)
    if target is not None:
        text += f"\n\nCPU target {verdict(ratio(rounds, 'cpu'), at_most=target)}; rounds: "
        text += " ".join(f"{one['cpu'] / one['bare_cpu']:.3f}" for one in rounds) + "."
    return text


def peak_bytes(work: Callable[[], Any]) -> dict[str, int]:
    """The most memory (resident) that this process had during `work`, and the largest ffmpeg beside it."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    largest, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for pid in cpu.tree(cpu.all_processes(), [os.getpid()]):
                with contextlib.suppress(OSError):
                    if pid != os.getpid() and Path(f"/proc/{pid}/comm").read_text().startswith("ffmpeg"):
                        largest[0] = max(largest[0], _status(pid, "VmHWM"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return {"own": _status(os.getpid(), "VmHWM"), "ffmpeg": largest[0]}


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def memory(ours: Transcoder, folder: Path, sizes_mb: list[int]) -> list[dict[str, float]]:
    """Peaks for remuxes of files of about these sizes: one clip of 26 Mbit/s, over and over."""
    options = (*_X264, "-preset", "ultrafast", "-b:v", "26M", "-minrate", "26M", "-maxrate", "26M", "-bufsize", "13M")
    clip = make(folder / "clip.mp4", f"{PICTURES['grain'].replace('r=24', 'r=30')}", *options, "-g", "60")
    found = []
    for size in sizes_mb:
        say(f"memory: {size} MB")
        source = folder / "large.mp4"
        loops = max(0, round(size * 1e6 / clip.stat().st_size) - 1)
        again = ["-stream_loop", str(loops), "-i", str(clip), "-c", "copy", "-movflags", "+faststart", str(source)]
        subprocess.run([FFMPEG, "-nostdin", "-v", "error", "-y", *again], check=True, timeout=600)
        kinds: list[str] = []
        peaks = peak_bytes(lambda: kinds.append(ours.deliver(source, folder / "out.mp4", "high")))  # noqa: B023
        found.append({"mb": source.stat().st_size / 1e6, "remux": kinds == ["remux"], **peaks})
        source.unlink()
    return found


def show_memory(found: list[dict[str, float]]) -> str:
    """A row for each size."""
    rows = [
        [
            f"{one['mb']:.0f}",
            "remux" if one["remux"] else "encode",
            f"{one['own'] / 1e6:.0f}",
            f"{one['ffmpeg'] / 1e6:.0f}",
        ]
        for one in found
    ]
    growth = max(one["own"] for one in found) - found[0]["own"]
    head = ["source MB", "way", "our process MB", "ffmpeg MB"]
    return table("Peak memory by size", head, rows) + (
        f"\n\nOur process grows by {growth / 1e6:.0f} MB, target {verdict(growth / 1e6, at_most=FLAT_BYTES / 1e6)}."
    )


def profiles(ours: Transcoder, folder: Path) -> list[dict[str, Any]]:
    """Each quality of each picture: bytes, CPU, and VMAF against what was encoded."""
    found = []
    for name, source in PICTURES.items():
        # At the rate of the output, since a frame that is shown twice has no one counterpart.
        original = make(
            folder / f"{name}.mkv", source.replace("r=24", "r=30"), *_X264, "-preset", "ultrafast", "-qp", "4"
        )
        for quality in QUALITIES:
            say(f"{name}, {quality}")
            dest = folder / f"{name}-{quality}.mp4"
            spent = cpu.measure({"ours": os.getpid()}, lambda: ours.deliver(original, dest, quality))  # noqa: B023
            megabits = dest.stat().st_size * 8 / 5e6
            found.append(
                {
                    "picture": name,
                    "quality": quality,
                    "mbit_s": megabits,
                    "cpu": spent.total,
                    "vmaf": vmaf(original, dest),
                }
            )
    return found


def vmaf(original: Path, made: Path) -> float:
    """VMAF (0 to 100; most viewers see a difference of 6) of what was made, frame beside frame."""
    # One tag for both: ffmpeg would convert an untagged picture before it compares.
    same = "setparams=range=tv:colorspace=bt709:color_trc=bt709:color_primaries=bt709,setpts=N/30/TB"
    graph = f"[0:v]{same}[made];[1:v]{same}[original];"
    graph += "[made][original]libvmaf=log_fmt=json:log_path=/dev/stdout:n_threads=2:shortest=1"
    argv = [FFMPEG, "-nostdin", "-v", "error", "-i", str(made), "-i", str(original), "-lavfi", graph, "-f", "null", "-"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise BenchError("this ffmpeg has no libvmaf")
    return float(json.loads(done.stdout)["pooled_metrics"]["vmaf"]["mean"])


def show_profiles(found: list[dict[str, Any]]) -> str:
    """A row for each picture and quality."""
    rows = [
        [f"{one['picture']}, {one['quality']}", f"{one['mbit_s']:.2f}", f"{one['cpu']:.2f}", f"{one['vmaf']:.1f}"]
        for one in found
    ]
    return table("Qualities: 5 s of 1280x720 at 30 fps", ["picture", "Mbit/s", "CPU s", "VMAF"], rows)


def run(folder: Path, flags: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """All parts; prints each table as soon as it is known. False: a target was missed."""
    ours = Transcoder(flags.threads)
    good = True
    found: dict[str, Any] = {}
    try:
        if "cost" in flags.parts:
            source = make(folder / "encode.mp4", PICTURES["grain"], *_X264)
            argv, kind = ffmpeg_command(source, folder / "bare.mp4", binary=FFMPEG, threads=flags.threads)
            if kind != "encode":
                raise BenchError("the source needs no encode")
            found["encode"] = beside_bare(ours, source, argv, times=flags.times, rounds=flags.rounds)
            print(show_beside("One encode (5 s, 1280x720, 24 → 30 fps)", found["encode"], target=AT_MOST), flush=True)
            good &= ratio(found["encode"], "cpu") <= AT_MOST
            ready = make(folder / "remux.mp4", PICTURES["easy"].replace("r=24", "r=30"), *_X264, "-g", "60")
            dest = str((folder / "bare.mp4").absolute())
            copy = [FFMPEG, "-v", "error", "-y", "-i", str(ready), "-c", "copy", "-movflags", "+faststart", dest]
            if ours.deliver(ready, folder / "warm.mp4") != "remux":
                raise BenchError("the source can't be repacked")
            found["remux"] = beside_bare(ours, ready, copy, times=10 * flags.times, rounds=flags.rounds)
            print(show_beside("One remux, beside `ffmpeg -c copy`", found["remux"], target=None), flush=True)
        if "memory" in flags.parts:
            found["memory"] = memory(ours, folder, flags.sizes)
            print(show_memory(found["memory"]), flush=True)
            good &= max(one["own"] for one in found["memory"]) - found["memory"][0]["own"] <= FLAT_BYTES
            good &= all(one["remux"] for one in found["memory"])
        if "profiles" in flags.parts:
            found["profiles"] = profiles(ours, folder)
            print(show_profiles(found["profiles"]), flush=True)
    finally:
        ours.prober.close()
    return found, good


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags."""
    parser = argparse.ArgumentParser(prog="python -m bench.media", description=__doc__)
    parser.add_argument("--times", type=int, default=4, help="transcodes of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of each ffmpeg")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 50, 500, 1900], help="MB of the files for memory")
    parser.add_argument("--parts", nargs="+", choices=("cost", "memory", "profiles"), help="leave the others out")
    flags = parser.parse_args(argv)
    flags.parts = flags.parts or ["cost", "memory", "profiles"]
    return flags


def main() -> int:
    """Run, print, keep the raw figures; 1 when a target is missed."""
    flags = parse()
    with tempfile.TemporaryDirectory(prefix="reelworks-bench-") as folder:
        found, good = run(Path(folder), flags)
    print(f"\n{runs.machine()}; {runs.keep(found, 'media-')}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(runs.exit_code(main))
