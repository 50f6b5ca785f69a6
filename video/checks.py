"""Checks of the installation, run by `manage.py check` and at the start of every command.

video.E001  the storage or scratch folder can't be written
video.E002  ffmpeg can't be run
video.E003  the bucket of STORAGE_URL can't be used (only with --deploy)
video.E004  MEDIA_ISOLATION=require, and this host can't isolate what reads foreign media
video.E008  LABEL_MARK or LABEL_PRODUCER can't be used
video.W001  no provider has a key, and nothing is simulated: no video can be made
video.W002  everything is simulated although keys are configured
video.W003  DEBUG is on while real keys are in use
video.W004  PUBLIC_BASE_URL is not set (only with --deploy)
video.W005  everything is simulated (only with --deploy)
video.W006  others can read the file with the keys (only with --deploy)
video.W007  others can read REELWORKS_HOME (only with --deploy)
video.W009  the demo user, whose password everybody knows, can be reached from other machines (only with --deploy)
video.W010  PUBLIC_BASE_URL is not https (only with --deploy)
video.W011  PUBLIC_BASE_URL is https, and a setting that belongs to it is off (only with --deploy)
video.W012  the embedded PostgreSQL lacks a release that mends security faults (only with --deploy)
video.W013  what reads foreign media can reach other files or the network (only with --deploy)
video.W014  the role of DATABASE_URL is a superuser (only with --deploy)
video.W015  the bucket's server overwrites where it was told not to (only with --deploy)

All are cheap: no process is started and nothing is written, but for the files that E003 and W015 put into the bucket
and take away again, and the ffmpeg that E004 and W013 try. W014 asks the database one question.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import OperationalError, connection

from media_pipeline.encode.binary import included_ffmpeg
from media_pipeline.encode.provenance import Label, what_is_wrong_with_mark
from media_pipeline.errors import MediaError
from video.infra.toolkit import toolkit

Apps = Sequence[AppConfig] | None

#: PostgreSQL's newest release when this was written (https://www.postgresql.org/support/versioning/, 2026-11-28).
MENDED_POSTGRES = (18, 6)
#: What must be private in REELWORKS_HOME.
_PRIVATE = ("secret_key", "log", "run")
_OWN_MACHINE = {"127.0.0.1", "::1", "localhost"}


@register("video")
def storage_is_writable(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """E001. A folder that isn't there yet is fine if it can be made."""
    found: list[CheckMessage] = []
    folders = {"SCRATCH_PATH": settings.SCRATCH_PATH}
    if settings.OBJECT_STORAGE is None:
        folders = {"STORAGE_LOCAL_PATH": settings.STORAGE_LOCAL_PATH, **folders}
    for name, path in folders.items():
        there = Path(path)
        while not there.exists() and there != there.parent:
            there = there.parent
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            hint = f"Make {there} a folder that this user may write to, or set {name} to another one."
            found.append(Error(f"{name} ({path}) can't be written.", hint=hint, id="video.E001"))
    return found


@register("video", deploy=True)
def bucket_is_usable(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """E003 and W015. Everything that the pipeline does with a bucket, once, with a file of a few bytes."""
    if settings.OBJECT_STORAGE is None:
        return []
    storage, folder = toolkit().storage, f"work/check-{secrets.token_hex(6)}"
    hint = "Look at STORAGE_URL and AWS_*, at the network, and at what the key may do: docs/scaling.md lists it."
    doing = "written"
    try:
        with storage.scratch_dir("check") as scratch:
            path = scratch / "file"
            path.write_bytes(b"reelworks")
            storage.put_file(path, f"{folder}/one")
            doing = "copied in"
            storage.copy(f"{folder}/one", f"{folder}/two")
            doing = "read"
            with storage.fetch_to(f"{folder}/two", scratch) as fetched:
                fetched.read_bytes()
        doing = "asked about a file"
        if storage.exists(f"{folder}/none"):
            raise FileExistsError
        doing = "cleaned up"
        storage.delete_prefix(folder)
        doing = "tried out"
        lacking = storage.shortcomings()
    except (MediaError, OSError) as err:
        message = f"The bucket {settings.OBJECT_STORAGE} can't be {doing}: {err}."
        return [Error(message, hint=hint, id="video.E003")]
    hint = (
        "Files are safe: each key is looked at first, and belongs to one task. docs/scaling.md lists what servers lack."
    )
    return [
        Warning(f"The server of {settings.OBJECT_STORAGE} lacks a guard: {what}.", hint=hint, id="video.W015")
        for what in lacking
    ]


@register("video")
def ffmpeg_is_runnable(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """E002."""
    if settings.FFMPEG_BINARY:
        found = shutil.which(settings.FFMPEG_BINARY)
        hint = f"FFMPEG_BINARY is {settings.FFMPEG_BINARY}: name an ffmpeg, or leave it out to use the included one."
    else:
        hint = "Install the requirements again: they bring an ffmpeg. Or set FFMPEG_BINARY."
        found = included_ffmpeg()
    return [] if found else [Error("ffmpeg can't be run, so no video can be finished.", hint=hint, id="video.E002")]


@register("video")
def label_can_be_made(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """E008."""
    label = Label(settings.LABEL_PRODUCER, mark=settings.LABEL_MARK, font=settings.LABEL_FONT)
    wrong = {
        "LABEL_PRODUCER": "it has more than 200 characters" if len(label.producer) > 200 else "",
        "LABEL_MARK": "it has more than 60 characters" if len(label.mark) > 60 else what_is_wrong_with_mark(label),
    }
    hint = "Correct it, name a font that has these letters in LABEL_FONT, or leave the label out."
    return [Error(f"{name} can't be used: {why}.", hint=hint, id="video.E008") for name, why in wrong.items() if why]


@register("video")
def media_is_isolated_where_required(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """E004, before any command and any worker starts."""
    if settings.MEDIA_ISOLATION != "require" or toolkit().ffmpeg.isolation.is_complete:
        return []
    message = f"MEDIA_ISOLATION is require, but ffmpeg has here: {toolkit().ffmpeg.isolation}."
    hint = "It takes Linux 5.13 or later with Landlock and seccomp. With MEDIA_ISOLATION=auto it does without."
    return [Error(message, hint=hint, id="video.E004")]


@register("video", deploy=True)
def media_is_isolated(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """W013."""
    here = toolkit().ffmpeg.isolation
    if settings.MEDIA_ISOLATION == "require" or here.is_complete:
        return []
    message = f"A hostile video that takes over ffmpeg can reach more than itself; its isolation here: {here}."
    hint = "docs/operations.md#hostile-videos says what it takes; else run media workers on a host of their own."
    return [Warning(message, hint=hint, id="video.W013")]


@register("video")
def keys_and_simulation(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """W001 to W003."""
    if settings.SIMULATE:
        names = [f"{provider.upper()}_API_KEY" for provider in settings.PROVIDER_KEYS]
        ignored = [name for name in names if os.environ.get(name)]
        if not ignored:
            return []
        message = (
            f"REELWORKS_SIMULATE is on, so {', '.join(ignored)} {'is' if len(ignored) == 1 else 'are'} ignored "
            "and every video is simulated."
        )
        return [Warning(message, hint="Unset REELWORKS_SIMULATE to use the real providers.", id="video.W002")]
    if not any(settings.PROVIDER_KEYS.values()):
        hint = "Set RUNWAY_API_KEY in .env.local, or REELWORKS_SIMULATE=1 to try without."
        return [Warning("No provider has a key, so no video can be made.", hint=hint, id="video.W001")]
    if settings.DEBUG:
        message = "DEBUG is on while real keys are in use: error pages show how the system is built."
        return [Warning(message, hint="Unset DEBUG wherever others can reach this server.", id="video.W003")]
    return []


@register("video", deploy=True)
def ready_for_others(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """W004 and W005, for `manage.py check --deploy`."""
    found: list[CheckMessage] = []
    if not settings.PUBLIC_BASE_URL:
        message = "PUBLIC_BASE_URL is not set: links to videos are built from each request's Host header."
        hint = "Set it to the address that clients use, such as https://video.example.com."
        found.append(Warning(message, hint=hint, id="video.W004"))
    if settings.SIMULATE:
        hint = "Unset REELWORKS_SIMULATE on a server for others."
        found.append(Warning("Every video is simulated.", hint=hint, id="video.W005"))
    return found


@register("video", deploy=True)
def secrets_are_private(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """W006 and W007."""
    found: list[CheckMessage] = []
    if settings.ENV_FILE is not None and _open_to_others(settings.ENV_FILE):
        message = f"Every user of this machine can read {settings.ENV_FILE}, which holds keys."
        found.append(Warning(message, hint=f"Run: chmod 600 {settings.ENV_FILE}", id="video.W006"))
    home = settings.REELWORKS_HOME
    readable = [path for path in (home, *(home / name for name in _PRIVATE)) if _open_to_others(path)]
    if readable:
        message = f"Other users of this machine can read {', '.join(map(str, readable))}."
        hint = f"Give REELWORKS_HOME a folder of its own, owned by the user of Reelworks, and run: chmod 700 {home}"
        found.append(Warning(message, hint=hint, id="video.W007"))
    return found


@register("video", deploy=True)
def safe_on_the_net(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """W009 to W011."""
    found: list[CheckMessage] = []
    if settings.SIMULATE and settings.HOST not in _OWN_MACHINE:
        message = f"HOST is {settings.HOST}: everybody who reaches it can sign in as demo, with the password demo."
        hint = "Set HOST=127.0.0.1 while simulating, or set a provider's key and unset REELWORKS_SIMULATE."
        found.append(Warning(message, hint=hint, id="video.W009"))
    if not settings.PUBLIC_BASE_URL:
        return found  # W004 says so
    if not settings.PUBLIC_BASE_URL.startswith("https://"):
        message = "PUBLIC_BASE_URL is not https: passwords, tokens and videos can be read on their way."
        hint = "Put a proxy with a certificate before Reelworks, and set PUBLIC_BASE_URL to its https address."
        return [*found, Warning(message, hint=hint, id="video.W010")]
    for name, is_on, why in (
        ("BEHIND_TLS_PROXY=1", settings.BEHIND_TLS_PROXY, "no request counts as one that came by https"),
        ("COOKIE_SECURE=1", settings.COOKIE_SECURE, "browsers send the cookies of a login over http, too"),
        ("HSTS_SECONDS=86400", settings.HSTS_SECONDS, "browsers may be led to plain http"),
        # Without BEHIND_TLS_PROXY it can't be on.
        ("HTTPS_REDIRECT=1", settings.HTTPS_REDIRECT or not settings.BEHIND_TLS_PROXY, "plain http is answered"),
    ):
        if not is_on:
            condition = ", if the proxy sets X-Forwarded-Proto itself" if name == "BEHIND_TLS_PROXY=1" else ""
            hint = f"Set {name}{condition}."
            message = f"PUBLIC_BASE_URL is https, but {name.partition('=')[0]} is off: {why}."
            found.append(Warning(message, hint=hint, id="video.W011"))
    return found


@register("video", deploy=True)
def embedded_postgres_is_mended(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """W012. The package with its binaries follows PostgreSQL's own releases late."""
    has = settings.EMBEDDED_POSTGRES_VERSION
    if not has or tuple(int(part) for part in has.split(".")) >= MENDED_POSTGRES:
        return []
    newest = ".".join(map(str, MENDED_POSTGRES))
    message = f"The embedded PostgreSQL is {has}; {newest} mends faults of it, security faults among them."
    hint = f"Set DATABASE_URL to a PostgreSQL of your own that is kept up to date, {newest} or newer."
    return [Warning(message, hint=hint, id="video.W012")]


@register("video", deploy=True)
def role_is_no_superuser(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """W014. Without an answer of the database nothing can be said, and other commands tell why. The embedded one makes
    the role itself."""
    if settings.EMBEDDED_DATABASE:
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            is_superuser = bool(cursor.fetchone()[0])
    except OperationalError:
        return []
    if not is_superuser:
        return []
    message = "The role of DATABASE_URL is a superuser: a hole in the application would be one in the database's host."
    hint = "Make a role that owns the database and may nothing else: CREATE ROLE … LOGIN; ALTER DATABASE … OWNER TO …"
    return [Warning(message, hint=hint, id="video.W014")]


def _open_to_others(path: Path) -> bool:
    """Whether others may read that file or list that folder; False for what is not there."""
    try:
        return bool(path.stat().st_mode & 0o006)
    except OSError:
        return False
