"""Real H.264 files: each clip is made at most once at a time, by few ffmpeg processes, and kept on disk.

Threads do it, not the event loop: drawing takes tens of milliseconds. A clip that a download waits for overtakes one
that is due later. A file that the cache has dropped is simply made again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path

from providers.dialect.jobs import ClipSpec
from providers.simulator.options import SimulatorOptions
from providers.simulator.world.picture import draw_glow, draw_text, palette

RENDER_TIMEOUT_S = 120


class RenderFailed(Exception):
    """ffmpeg made no file; the message is for the operator of the simulator."""


class Renderer:
    """The clip cache and the threads that fill it."""

    def __init__(self, options: SimulatorOptions) -> None:
        self._ffmpeg = options.ffmpeg
        self._workers = options.render_workers
        self._cache_bytes = options.cache_mb * 1024 * 1024
        self._private = options.data_dir is None
        self.folder = Path(options.data_dir or tempfile.mkdtemp(prefix="reelworks-sim-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob("tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._queue: queue.PriorityQueue[tuple[float, int, ClipSpec | None]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._wanted: dict[str, Future[Path]] = {}
        self._claimed: set[str] = set()
        self._ready: set[str] = set()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._cached_bytes = sum(path.stat().st_size for path in self.folder.glob("*.mp4"))
        self.rendered = 0

    def prepare(self, spec: ClipSpec, due_at: float) -> None:
        """Make the clip in the background, in the order of `due_at`."""
        if spec.key not in self._ready:
            self._enqueue(spec, due_at)

    def clip(self, spec: ClipSpec) -> Future[Path]:
        """The file, now or soon, before those that are merely prepared. Fails with RenderFailed."""
        path = self.folder / f"{spec.key}.mp4"
        if path.exists():
            done: Future[Path] = Future()
            done.set_result(path)
            return done
        self._ready.discard(spec.key)
        return self._enqueue(spec, 0.0)

    def close(self) -> None:
        """Kill what renders and drop the rest; returns at once."""
        self._closing = True
        with self._lock:
            running = list(self._running)
        for process in running:
            process.kill()
        for _ in self._threads:
            self._queue.put((-1.0, next(self._order), None))
        for thread in self._threads:
            thread.join(0.5)
        if self._private:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _enqueue(self, spec: ClipSpec, priority: float) -> Future[Path]:
        with self._lock:
            future = self._wanted.get(spec.key)
            known = future is not None
            if future is None:
                future = self._wanted[spec.key] = Future()
            if not known or priority == 0.0:
                self._queue.put((priority, next(self._order), spec))
            if len(self._threads) < self._workers and not self._closing:
                thread = threading.Thread(target=self._work, name=f"render-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def _work(self) -> None:
        while not self._closing:
            _, _, spec = self._queue.get()
            if spec is None:
                return
            with self._lock:
                future = self._wanted.get(spec.key)
                if future is None or spec.key in self._claimed:
                    continue  # made already, or being made: an entry that was overtaken
                self._claimed.add(spec.key)
            try:
                path = self._render(spec)
            except Exception as err:
                if not self._closing:
                    print(f"simulator: a clip could not be made: {err}", file=sys.stderr, flush=True)
                self._release(spec)
                future.set_exception(RenderFailed(str(err)))
            else:
                self.rendered += 1
                self._ready.add(spec.key)
                self._release(spec)
                future.set_result(path)
                self._trim(path)

    def _release(self, spec: ClipSpec) -> None:
        with self._lock:
            self._wanted.pop(spec.key, None)
            self._claimed.discard(spec.key)

    def _render(self, spec: ClipSpec) -> Path:
        final = self.folder / f"{spec.key}.mp4"
        if final.exists():
            return final
        work = Path(tempfile.mkdtemp(prefix="tmp-", dir=self.folder))
        try:
            draw_text(spec, work / "text.png")
            draw_glow(spec, work / "glow.png")
            self._run_ffmpeg(_argv(self._binary(), spec, work))
            (work / "clip.mp4").replace(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return final

    def _binary(self) -> str:
        if self._ffmpeg is None:
            import imageio_ffmpeg  # late: its import is not free

            self._ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        return self._ffmpeg

    def _run_ffmpeg(self, argv: list[str]) -> None:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath},  # started by hand, the simulator may have keys in its own
        )
        with self._lock:
            self._running.add(process)
        try:
            if self._closing:
                process.kill()
            _, stderr = process.communicate(timeout=RENDER_TIMEOUT_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            with self._lock:
                self._running.discard(process)
        if process.returncode:
            raise RenderFailed(f"ffmpeg ended with {process.returncode}: {stderr.decode(errors='replace')[-400:]}")

    def _trim(self, newest: Path) -> None:
        """Keep the cache below its bound, oldest out first; reads the folder only when it has grown too large."""
        with self._lock:
            self._cached_bytes += newest.stat().st_size
            if self._cached_bytes <= self._cache_bytes:
                return
        files = []
        for path in self.folder.glob("*.mp4"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files, key=lambda item: item[0]):
            if total <= self._cache_bytes * 0.9:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                self._ready.discard(path.stem)
                total -= size
        with self._lock:
            self._cached_bytes = total


def _argv(ffmpeg: str, spec: ClipSpec, work: Path) -> list[str]:
    """A small moving gradient scaled up (thirty times cheaper than a large one), a wandering disc, the text."""
    colours = ":".join(f"c{number}={colour}" for number, colour in enumerate(palette(spec)))
    width, height = max(spec.width_px // 8, 16), max(spec.height_px // 8, 16)
    span = (
        f"x0=0:y0={spec.seed % height}:x1={width - 1}:y1={height - 1 - spec.seed % height}"  # its ends, before it turns
    )
    source = f"gradients=s={width}x{height}:r={spec.fps}:d={spec.duration_s}:n=4:{colours}:{span}:speed=0.012"
    graph = (
        f"[0:v]format=yuv420p,scale={spec.width_px}:{spec.height_px}:flags=bilinear[base];"
        "[2:v]format=yuva420p[glow];[1:v]format=yuva420p[text];"
        "[base][glow]overlay=x='(W-w)*(0.5+0.48*sin(t*1.1))':y='(H-h)*(0.5+0.45*cos(t*1.7))'[lit];"
        "[lit][text]overlay,setsar=1[out]"
    )
    argv = [ffmpeg, "-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-filter_threads", "1"]
    argv += ["-f", "lavfi", "-i", source, "-i", str(work / "text.png"), "-i", str(work / "glow.png")]
    if spec.audio:
        pitch = 220 + spec.seed % 220
        argv += ["-f", "lavfi", "-i", f"sine=frequency={pitch}:sample_rate=44100:duration={spec.duration_s}"]
    argv += ["-filter_complex_threads", "1", "-filter_complex", graph, "-map", "[out]"]
    if spec.audio:
        argv += ["-map", "3:a", "-c:a", "aac", "-b:a", "64k"]
    argv += ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "28", "-pix_fmt", "yuv420p", "-threads", "1"]
    argv += ["-g", str(2 * spec.fps)]  # with x264's own ten seconds a player could not jump, and we would encode
    return [*argv, "-t", str(spec.duration_s), "-movflags", "+faststart", str(work / "clip.mp4")]
