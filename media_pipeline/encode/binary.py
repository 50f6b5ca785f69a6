"""Where the ffmpeg is that the requirements bring."""

from __future__ import annotations

import shutil
from pathlib import Path


def included_ffmpeg() -> str | None:
    """Absolute path of the ffmpeg in the package `imageio-ffmpeg`. None if it has no binary for this platform.

    The package's own `get_ffmpeg_exe` starts each binary once to see whether it runs. That child would get all of our
    environment, keys and passwords too, and a process that is no more than started would cost 30 ms. So the file is
    only looked for here; whether it runs is said by the first video.
    """
    import imageio_ffmpeg.binaries  # late: its import is not free

    folders = [Path(folder) for folder in imageio_ffmpeg.binaries.__path__]
    # Executables only: the folder holds a README and Python files too.
    found = [file for folder in folders for file in sorted(folder.glob("ffmpeg-*")) if shutil.which(file)]
    return str(found[-1]) if found else None
