"""What the stages work with, built once a process from the settings: adapters, senders, keys, storage, ffmpeg.

The only place where settings meet `providers` and `media_pipeline`, which read none themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings

from media_pipeline.encode.binary import included_ffmpeg
from media_pipeline.encode.ffmpeg import FFmpeg
from media_pipeline.encode.isolation import NO_ISOLATION, of_this_kernel
from media_pipeline.encode.probe import Prober
from media_pipeline.storage.base import MediaStorage
from media_pipeline.storage.folders import folder_mode
from media_pipeline.storage.local import LocalStorage
from media_pipeline.storage.s3_address import S3Keys
from providers.api_keys import ApiKey
from providers.contract import Provider
from providers.http import Sender
from providers.registry import PROVIDERS
from video.infra import metrics, tracing

if TYPE_CHECKING:
    from providers.http_batch import BatchReader

ADAPTERS: tuple[type[Provider], ...] = tuple(provider.adapter for provider in PROVIDERS)


class _MeasuredFFmpeg(FFmpeg):
    """Each run is counted and traced."""

    def run(self, argv: Sequence[str], **how: Any) -> str:
        with metrics.timed(metrics.FFMPEG), tracing.step("ffmpeg"):
            return super().run(argv, **how)


class Toolkit:
    """Everything that a stage may touch outside the database. Safe between threads."""

    def __init__(self) -> None:
        self._providers = {adapter.name: adapter(settings.PROVIDER_BASE_URLS[adapter.name]) for adapter in ADAPTERS}
        self._keys: dict[str, dict[str, ApiKey]] = {
            name: {key.fingerprint: key for key in settings.PROVIDER_KEYS[name]} for name in self._providers
        }
        self._senders = {name: Sender(provider.base_url) for name, provider in self._providers.items()}

    def provider(self, name: str) -> Provider:
        """The adapter of that name. Raises KeyError."""
        return self._providers[name]

    def sender(self, name: str) -> Sender:
        """The HTTP client bound to that provider's origin."""
        return self._senders[name]

    def batch_reader(self, name: str) -> BatchReader:
        """The client for many polls at once, bound to that provider's origin."""
        return self._readers[name]

    @cached_property
    def _readers(self) -> dict[str, BatchReader]:
        # Imported late: aiohttp is a quarter of a start, and only workers poll in batches.
        from providers.http_batch import BatchReader

        return {name: BatchReader(provider.base_url) for name, provider in self._providers.items()}

    def key(self, provider: str, fingerprint: str) -> ApiKey | None:
        """The key that a generation was submitted with; None when it is no longer configured."""
        return self._keys[provider].get(fingerprint)

    @property
    def trusted_origins(self) -> frozenset[str]:
        """Origins that a result may come from though they are not public https: exactly the configured base URLs."""
        return frozenset(origin(provider.base_url) for provider in self._providers.values())

    @cached_property
    def ffmpeg(self) -> FFmpeg:
        """The ffmpeg binary: FFMPEG_BINARY, else the static one that came with the packages."""
        return _MeasuredFFmpeg(ffmpeg_binary(), isolation=NO_ISOLATION if settings.MEDIA_ISOLATION == "off" else None)

    @cached_property
    def prober(self) -> Prober:
        """Reads videos of unknown origin in a limited child process."""
        return self._new_prober()

    @cached_property
    def picture_reader(self) -> Prober:
        """The same for pictures, in children of its own: pictures that take long keep no video waiting."""
        return self._new_prober()

    def _new_prober(self) -> Prober:
        """Raises RuntimeError where MEDIA_ISOLATION requires more than this host has: a web process is not checked at
        its start."""
        isolation = NO_ISOLATION if settings.MEDIA_ISOLATION == "off" else of_this_kernel()
        if settings.MEDIA_ISOLATION == "require" and not isolation.is_complete:
            raise RuntimeError(f"MEDIA_ISOLATION is require, but this host has: {isolation}")
        return Prober(isolation=isolation)

    @cached_property
    def storage(self) -> MediaStorage:
        """Where videos and work files live: the bucket of STORAGE_URL, else STORAGE_LOCAL_PATH."""
        if settings.OBJECT_STORAGE is None:
            mode = settings.STORAGE_FILE_MODE
            store = LocalStorage(location=settings.STORAGE_LOCAL_PATH, file_mode=mode)
            return MediaStorage(store, scratch_root=settings.SCRATCH_PATH, folder_mode=folder_mode(mode))
        from media_pipeline.storage.s3 import S3Storage  # lazily: AWS's library is 50 MB and 0.7 s

        store = S3Storage(
            settings.OBJECT_STORAGE, settings.OBJECT_STORAGE_KEYS, options=settings.OBJECT_STORAGE_OPTIONS
        )
        return MediaStorage(store, scratch_root=settings.SCRATCH_PATH)


def bucket_keys() -> S3Keys:
    """What links into the bucket are signed with. Without keys of our own: AWS's library is asked, each time, since
    a role's keys change. Raises StorageRefused.
    """
    configured: S3Keys | None = settings.OBJECT_STORAGE_KEYS
    if configured is not None:
        return configured
    from media_pipeline.storage.s3_client import found_keys

    return found_keys()


def ffmpeg_binary() -> Path:
    """Path of ffmpeg. A plain "ffmpeg" if none is configured or included: `FFmpeg` looks for it in PATH."""
    return Path(settings.FFMPEG_BINARY or included_ffmpeg() or "ffmpeg")


def origin(url: str) -> str:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@cache
def toolkit() -> Toolkit:
    """The toolkit of this process."""
    return Toolkit()
