"""The options of the simulator at its start. Most of them can be changed later through `/_sim/config`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from providers.dialect.signing import webhook_key


@dataclass(frozen=True)
class SimulatorOptions:
    """Defaults suit a demo: a video after two seconds, any key, no limit."""

    host: str = "127.0.0.1"
    port: int = 8900  # 0 takes a free one and prints it
    render_seconds: float = 2.0  # from submit to success, unless the prompt says otherwise
    data_dir: str | None = None  # cache of rendered clips; without one a private folder, removed at the end
    ffmpeg: str | None = None  # None: the binary of the imageio-ffmpeg wheel
    keys: tuple[str, ...] = ()  # none: every non-empty key is good; access:secret lets Kling's signatures be checked
    fps: int = 24  # what the real ones deliver; 30 makes files that need no transcode
    canned: bool = False  # one clip for each size, length and sound, without the prompt: costs next to nothing
    render_workers: int = 2  # ffmpeg processes at once
    link_life_s: float = 24 * 3600
    credit_balance: float = 1e9  # of each key, in the provider's unit; a load test spends millions
    keep_ended: int = 20_000  # ended jobs that are remembered; the counters never forget
    cache_mb: int = 2048
    kling_webhook_secret: str = ""  # whsec_…: Kling's call-backs are signed with it; without one they are not
    tls: bool = False  # https with a throw-away certificate for localhost
    exit_with_stdin: bool = False  # stop at end of file on stdin: dies with its parent, also after kill -9

    def __post_init__(self) -> None:
        if self.fps not in range(1, 121):
            raise ValueError("fps must be 1..120")
        if self.render_seconds < 0 or self.render_workers < 1 or self.link_life_s <= 0:
            raise ValueError("render_seconds must be 0 or more, render_workers 1 or more, link_life_s above 0")
        if self.kling_webhook_secret:
            webhook_key(self.kling_webhook_secret)


def parse_options(argv: Sequence[str] | None = None) -> SimulatorOptions:
    """The command line as options; exits with a usage message when it is wrong."""
    default = SimulatorOptions()
    parser = argparse.ArgumentParser(
        prog="python -m providers.simulator", description="A server that acts as the video providers."
    )
    parser.add_argument("--host", default=default.host)
    parser.add_argument("--port", type=int, default=default.port, help="0 takes a free port")
    parser.add_argument("--render-seconds", type=float, default=default.render_seconds)
    parser.add_argument("--data-dir", default=None, help="keep rendered clips here between starts")
    parser.add_argument("--ffmpeg", default=None, help="path of an ffmpeg binary")
    parser.add_argument("--keys", default="", help="comma-separated; without it every non-empty key is good")
    parser.add_argument("--fps", type=int, default=default.fps)
    parser.add_argument("--canned", action="store_true", help="one clip for all prompts: for load tests")
    parser.add_argument("--render-workers", type=int, default=default.render_workers)
    parser.add_argument("--link-life-s", type=float, default=default.link_life_s)
    parser.add_argument("--credit-balance", type=float, default=default.credit_balance)
    parser.add_argument("--keep-ended", type=int, default=default.keep_ended)
    parser.add_argument("--cache-mb", type=int, default=default.cache_mb)
    parser.add_argument("--kling-webhook-secret", default="", help="whsec_…: sign Kling's call-backs with it")
    parser.add_argument("--tls", action="store_true", help="https with a throw-away certificate; prints its CA file")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when stdin closes")
    values = vars(parser.parse_args(argv))
    values["keys"] = tuple(key.strip() for key in values["keys"].split(",") if key.strip())
    try:
        return SimulatorOptions(**values)
    except ValueError as err:
        parser.error(str(err))
