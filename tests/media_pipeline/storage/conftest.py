"""A bucket at moto, media in it, and a file to store: what tests of object storage begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from media_pipeline.storage.base import MediaStorage
from media_pipeline.storage.s3 import S3Storage
from media_pipeline.storage.s3_address import S3Address
from tests.s3 import KEYS, S3Server


@pytest.fixture
def bucket(s3: S3Server) -> S3Address:
    return s3.bucket("reels")


@pytest.fixture
def media(bucket: S3Address, tmp_path: Path) -> MediaStorage:
    return MediaStorage(S3Storage(bucket, KEYS), scratch_root=tmp_path / "scratch")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"video bytes")
    return path
