"""The options of the simulator at its start. Most of them can be changed later through `/_sim/config`."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from providers.webhooks import webhook_key


class CannotListen(RuntimeError):
    """The port can't be had. The message is a sentence that says what to do."""


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
    link_life_s: float = 24 * 3600.0
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


_HELP = {
    "port": "0 takes a free port (default %(default)s)",
    "render_seconds": "from submit to success, unless the prompt says otherwise",
    "data_dir": "keep rendered clips here between starts; manage.py simulator does so in REELWORKS_HOME/simulator",
    "ffmpeg": "path of an ffmpeg binary",
    "keys": "comma-separated; without it every non-empty key is good",
    "fps": "of the files; 30 makes files that need no transcode",
    "canned": "one clip for all prompts: for load tests",
    "render_workers": "ffmpeg processes at once",
    "kling_webhook_secret": "whsec_…: sign Kling's call-backs with it",
    "tls": "https with a throw-away certificate; prints its CA file",
    "exit_with_stdin": "stop when stdin closes",
}
ALL = tuple(field.name for field in fields(SimulatorOptions))


def add_arguments(parser: argparse.ArgumentParser, names: Collection[str] = ALL) -> None:
    """The flags of these options: `--render-seconds` is `render_seconds`, with its default."""
    default = SimulatorOptions()
    for name in names:
        flag, value = f"--{name.replace('_', '-')}", getattr(default, name)
        if value is False:
            parser.add_argument(flag, action="store_true", help=_HELP.get(name))
        else:
            read = str if value is None else _comma_separated if name == "keys" else type(value)
            parser.add_argument(flag, type=read, default=value, help=_HELP.get(name))


def _comma_separated(text: str) -> tuple[str, ...]:
    return tuple(key.strip() for key in text.split(",") if key.strip())


def parse_options(argv: Sequence[str] | None = None) -> SimulatorOptions:
    """The command line as options; exits with a usage message when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m providers.simulator", description="A server that acts as the video providers."
    )
    add_arguments(parser)
    try:
        return SimulatorOptions(**vars(parser.parse_args(argv)))
    except ValueError as err:
        parser.error(str(err))
