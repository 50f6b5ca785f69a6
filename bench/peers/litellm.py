"""LiteLLM's proxy: from PyPI, in a virtual environment of its own, with one worker and no database.

Set up as its page on production asks (https://docs.litellm.ai/docs/proxy/prod): production mode, errors only in the
log, a master key. It runs without a database then, which is its quickest way: a key is compared, none is looked up.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import requests

from bench.runs import say
from bench.system import BenchError, Reelworks, free_port

VERSION = "1.108.7"
MASTER_KEY = "sk-bench-bench-bench-bench"
ORDER = {"model": "sora-2", "prompt": "A cat walking in a garden", "seconds": "8", "size": "1280x720"}
_CONFIG = """\
model_list:
  - model_name: sora-2
    litellm_params:
      model: openai/sora-2
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: sk-upstream
litellm_settings:
  set_verbose: false
  request_timeout: 600
  telemetry: false
general_settings:
  master_key: {key}
"""


def installed() -> Path:
    """The program, kept in the user's cache folder for the next run. Raises BenchError where PyPI can't be reached."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "reelworks-bench" / f"litellm-{VERSION}"
    whole = folder / "whole"
    if not whole.exists():
        say(f"installing LiteLLM {VERSION} into {folder}")
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", f"litellm[proxy]=={VERSION}"]
        for argv in ([sys.executable, "-m", "venv", "--clear", str(folder)], pip):
            if subprocess.run(argv, stdout=sys.stderr, check=False).returncode:
                raise BenchError(f"LiteLLM could not be installed: {shlex.join(argv)}")
        whole.touch()
    return folder / "bin" / "litellm"


def start(product: Reelworks, program: Path) -> int:
    """Start it as `litellm`, and its provider as `upstream`; returns its port once it answers."""
    upstream, port = free_port(), free_port()
    product.start("upstream", f"{sys.executable} -m bench.peers.upstream {upstream}")
    product.wait_http("upstream", f"http://127.0.0.1:{upstream}/healthz")
    config = product.home.folder / "litellm.yaml"
    config.write_text(_CONFIG.format(upstream=upstream, key=MASTER_KEY))
    # Nothing of our environment: it would use our DATABASE_URL. The last asks for no list of prices from the net.
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(product.home.folder),
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
    line = f"{shlex.quote(str(program))} --config {config} --host 127.0.0.1 --port {port} --num_workers 1"
    product.start("litellm", f"env -i {given} {line}")
    product.wait_http("litellm", f"http://127.0.0.1:{port}/health/liveliness")
    return port


def video(port: int) -> str:
    """Make a video; its id. Raises BenchError."""
    made = requests.post(
        f"http://127.0.0.1:{port}/v1/videos",
        json=ORDER,
        headers={"Authorization": f"Bearer {MASTER_KEY}"},
        timeout=60,
    )
    if made.status_code != 200:
        raise BenchError(f"LiteLLM answered {made.status_code}: {made.text[:500]}")
    return str(made.json()["id"])
