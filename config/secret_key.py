"""SECRET_KEY, or one that is made once and kept in REELWORKS_HOME, so that links and logins outlive a restart."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from config.embedded import home

LEAST = 32  # characters


def kept_in(folder: Path) -> str:
    """The key of this home, made if there is none. Raises ImproperlyConfigured where it can't be had."""
    path = folder / "secret_key"
    try:
        if not path.is_file():
            _make(path)
        made = path.read_text(encoding="ascii").strip()
    except OSError as err:
        raise ImproperlyConfigured(f"REELWORKS_HOME must be a folder that can be written ({err.strerror}).") from None
    except UnicodeDecodeError:
        made = ""
    if len(made) < LEAST:
        raise ImproperlyConfigured(f"{path} is damaged: delete it, and links and logins begin anew, or set SECRET_KEY.")
    return made


def _make(path: Path) -> None:
    home.make(path.parent)
    mine = path.with_name(f"secret_key.{os.getpid()}")
    mine.touch(mode=0o600)
    mine.write_text(secrets.token_urlsafe(48))
    try:
        os.link(mine, path)  # the first of two starts at once wins; both then read the same
    except FileExistsError:
        pass
    finally:
        mine.unlink()
