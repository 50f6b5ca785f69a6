"""The ffmpeg that Reelworks would run, run by a shell: what all media work is compared with."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path

from bench.cpu import Span
from bench.system import BenchError
from media_pipeline.encode.command import command
from media_pipeline.encode.plan import QualityName, Target, plan
from media_pipeline.encode.probe import Prober
from media_pipeline.encode.timing import timing_of


def ffmpeg_command(
    source: Path, dest: Path, *, binary: str, threads: int, quality: QualityName = "medium"
) -> tuple[list[str], str]:
    """The very argv that a transcode to 30 frames a second runs for this source, and "encode" or "remux"."""
    prober = Prober()
    try:
        info = prober.probe(source)
    finally:
        prober.close()
    target = Target(quality=quality, resolution="source", fps=30)
    chosen = plan(info, target)
    length_s = timing_of(info, keep_long_sound=target.keep_long_sound).total_s
    argv = command(binary, source, dest, info=info, chosen=chosen, threads=threads, length_s=length_s)
    return argv, chosen.kind


def run_bare(argv: list[str], dest: Path, times: int, *, parallel: int) -> Span:
    """`argv` so many times by shells, as many at once as the media worker runs. CPU of the shells and ffmpegs."""
    dests = [dest.with_name(f"{number}-{dest.name}") for number in range(parallel)]
    shares = [times // parallel + (number < times % parallel) for number in range(parallel)]
    before, started = os.times(), time.monotonic()
    shells = []
    for path, share in zip(dests, shares, strict=True):
        words = [word.replace(str(dest.absolute()), str(path.absolute())) for word in argv]
        script = f"for i in $(seq {share}); do {shlex.join(words)} >/dev/null || exit 1; done"
        shells.append(subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.DEVNULL))
    codes = [shell.wait() for shell in shells]
    after = os.times()
    if any(codes):
        raise BenchError(f"bare ffmpeg ended with {codes}")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Span(time.monotonic() - started, {"bare": spent})
