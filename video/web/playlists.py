"""Files that refer to other files beside them: WebVTT tracks of sprite sheets.

In storage they have plain names, `sprites.jpg` for the file `vid_1_sprites.jpg` beside `vid_1_sprites.vtt`. Each reader
gets them with a signed link in place of each name. Such a link ends when the reader's own one does, so nobody can go
from link to link and read on for ever. The names are ours alone: nothing of a provider is in these files.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from media_pipeline.storage.object_keys import check_key

#: Longer than any that is made.
MOST_BYTES = 1 << 20

_REFERS = re.compile(r"(?P<stem>[0-9]+/videos/[A-Za-z0-9_]+)_sprites\.vtt", re.ASCII)
_NAME = re.compile(r"\bsprites\.jpg\b", re.ASCII)


def refers(key: str) -> bool:
    """Whether the file of that key refers to others."""
    return _REFERS.fullmatch(key) is not None


def linked(text: str, key: str, link: Callable[[str], str]) -> str:
    """The content of such a file, with what `link` makes of each key that it refers to."""
    found = _REFERS.fullmatch(key)
    if found is None:
        raise ValueError("not a file that refers to others")
    stem = found["stem"]
    return _NAME.sub(lambda name: link(check_key(f"{stem}_{name[0]}")), text)
