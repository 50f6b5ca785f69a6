"""Files that refer to other files beside them: WebVTT tracks of sprite sheets, and playlists of HLS.

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

_REFERS = re.compile(r"(?P<stem>[0-9]+/videos/[A-Za-z0-9_]+)_(?:sprites\.vtt|hls(?:_[0-9]{1,5})?\.m3u8)", re.ASCII)
_NAME = re.compile(r"\b(?:sprites\.jpg|hls_[0-9]{1,5}\.(?:m3u8|mp4))\b", re.ASCII)


def refers(key: str) -> bool:
    """Whether the file of that key refers to others."""
    return _REFERS.fullmatch(key) is not None


def linked(text: str, key: str, link: Callable[[str], str]) -> str:
    """The content of such a file, with what `link` makes of each key that it refers to."""
    found = _REFERS.fullmatch(key)
    if found is None:
        raise ValueError("not a file that refers to others")
    made: dict[str, str] = {}  # a playlist names the same file at each of its pieces

    def of(name: re.Match[str]) -> str:
        if name[0] not in made:
            made[name[0]] = link(check_key(f"{found['stem']}_{name[0]}"))
        return made[name[0]]

    return _NAME.sub(of, text)
