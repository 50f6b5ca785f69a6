"""What objects say of themselves, and links through a CDN."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from media_pipeline.storage import s3 as s3_storage
from media_pipeline.storage import s3_links
from media_pipeline.storage.base import MediaStorage
from media_pipeline.storage.s3 import S3Storage
from media_pipeline.storage.s3_address import BadAddress, S3Address, S3Keys, cdn_of
from media_pipeline.storage.s3_object import ObjectOptions, sums_of
from tests.rclone import RcloneServer
from tests.s3 import KEYS, S3Server, parts_of

KEY = "7/videos/vid_1.mp4"
MIB = 1024**2
OPTIONS = ObjectOptions(
    encryption="aws:kms", kms_key_id="alias/reels", storage_class="STANDARD_IA", kept_s=900, in_shared_caches=True
)


def about(server: S3Server | RcloneServer, bucket: S3Address, key: str) -> Any:
    return server.client.head_object(Bucket=bucket.bucket, Key=bucket.object_name(key))


@pytest.mark.parametrize("size_bytes", [1000, 11 * MIB])
def test_uploads_and_copies_of_any_size_carry_their_headers(
    s3: S3Server, bucket: S3Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    monkeypatch.setattr(s3_storage, "PART_BYTES", 5 * MIB)
    monkeypatch.setattr(s3_storage, "MOST_COPIED_BYTES", 5 * MIB)
    media = MediaStorage(S3Storage(bucket, KEYS, options=OPTIONS), scratch_root=tmp_path)
    path = tmp_path / "source"
    path.write_bytes(b"x" * size_bytes)
    media.put_file(path, "work/t/1-out.mp4")
    media.copy("work/t/1-out.mp4", KEY)
    media.put_file(path, "7/videos/vid_1_thumb.jpg")
    work = about(s3, bucket, "work/t/1-out.mp4")
    assert (work["CacheControl"], work.get("StorageClass", "STANDARD")) == ("no-store", "STANDARD")
    for key, kind in ((KEY, "video/mp4"), ("7/videos/vid_1_thumb.jpg", "image/jpeg")):
        found = about(s3, bucket, key)
        assert found["ContentType"] == kind
        assert found["CacheControl"] == "public, max-age=900, immutable"
        assert found["ContentDisposition"] == f'inline; filename="{key.rpartition("/")[2]}"'
        assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", "alias/reels")
        assert found["StorageClass"] == "STANDARD_IA"
        assert found["Metadata"] == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        with media.fetch_to(key, tmp_path / "into") as fetched:
            assert fetched.stat().st_size == size_bytes


def test_without_options_the_bucket_decides(s3: S3Server, bucket: S3Address, tmp_path: Path) -> None:
    media = MediaStorage(S3Storage(bucket, KEYS), scratch_root=tmp_path)
    path = tmp_path / "source"
    path.write_bytes(b"x")
    media.put_file(path, KEY)
    media.put_file(path, "7/videos/vid_1.exe")
    found = about(s3, bucket, KEY)
    assert found["CacheControl"] == "private, max-age=3600, immutable"
    assert not {"ServerSideEncryption", "StorageClass"} & found.keys()
    other = about(s3, bucket, "7/videos/vid_1.exe")
    assert other["ContentType"] == "application/octet-stream"
    assert other["ContentDisposition"] == 'attachment; filename="vid_1.exe"'


def test_a_server_that_keeps_no_headers_is_told_them_and_works(rclone: RcloneServer, tmp_path: Path) -> None:
    """rclone names types by the ending of a key, forgets the headers of objects, and changes the case of metadata."""
    bucket = rclone.bucket()
    media = MediaStorage(S3Storage(bucket, KEYS, options=OPTIONS), scratch_root=tmp_path / "scratch")
    path = tmp_path / "source"
    path.write_bytes(b"video")
    media.put_file(path, "work/t/1-a")
    media.copy("work/t/1-a", KEY)
    media.copy("work/t/1-a", KEY)
    assert about(rclone, bucket, KEY)["ContentType"] == "video/mp4"
    # As if the server had forgotten all: nothing is known of it but its ETag.
    rclone.client.put_object(Bucket=bucket.bucket, Key="7/videos/vid_2.mp4", Body=b"video")
    assert not [name for name in about(rclone, bucket, "7/videos/vid_2.mp4")["Metadata"] if "sha" in name.lower()]
    media.put_file(path, "7/videos/vid_2.mp4")
    with media.fetch_to("7/videos/vid_2.mp4", tmp_path / "into") as fetched:
        assert fetched.read_bytes() == b"video"
    path.write_bytes(b"vudeo")
    with pytest.raises(FileExistsError):
        media.put_file(path, "7/videos/vid_2.mp4")


@pytest.mark.parametrize("size_bytes", [0, 1, 9, 10, 11, 20, 25])
def test_sums_are_those_that_servers_make(s3: S3Server, bucket: S3Address, tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "source"
    content = bytes(range(size_bytes))
    path.write_bytes(content)
    sums = sums_of(path, 10)
    parts = [content[begin : begin + 10] for begin in range(0, max(1, size_bytes), 10)]
    md5s = [hashlib.md5(part, usedforsecurity=False) for part in parts]
    joined = hashlib.md5(b"".join(each.digest() for each in md5s), usedforsecurity=False).hexdigest()
    etag = md5s[0].hexdigest() if len(md5s) == 1 else f"{joined}-{len(md5s)}"
    assert sums == (type(sums))(hashlib.sha256(content).hexdigest(), etag, size_bytes)


def no_keys() -> S3Keys:
    raise AssertionError("a plain link needs no key")


def sent_on_by_a_cdn(link: str, bucket: S3Address) -> requests.Response:
    """What the bucket answers to a CDN that hands on path and query, with the bucket's own host name."""
    parts = urlsplit(link)
    return requests.get(f"{bucket.endpoint}{parts.path}?{parts.query}", timeout=30)


@pytest.mark.parametrize("server", ["s3", "rclone"])
def test_a_signed_link_holds_through_a_cdn(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bucket = request.getfixturevalue(server).bucket("reels")
    path = tmp_path / "source"
    path.write_bytes(b"0123456789")
    MediaStorage(S3Storage(bucket, KEYS), scratch_root=tmp_path).put_file(path, KEY)
    clients = bucket.through("https://cdn.example.com", plain=False)
    assert clients.client_origin == "https://cdn.example.com"
    now = time.time()
    link = s3_links.link(clients, KEY, lambda: KEYS, now=now, lifetime_s=3600)
    assert link.startswith(f"https://cdn.example.com/{bucket.bucket}/reels/{KEY}?")
    assert sent_on_by_a_cdn(link, bucket).content == b"0123456789"
    assert sent_on_by_a_cdn(link.replace("vid_1", "vid_2"), bucket).status_code == 403
    saved = s3_links.link(clients, KEY, lambda: KEYS, now=now, lifetime_s=3600, to_save=True)
    answer = sent_on_by_a_cdn(saved, bucket)
    assert (answer.content, answer.headers["Content-Disposition"]) == (
        b"0123456789",
        'attachment; filename="vid_1.mp4"',
    )
    assert sent_on_by_a_cdn(saved.replace("attachment", "inline"), bucket).status_code == 403


def test_a_plain_link_of_a_cdn_needs_no_key_and_one_to_save_is_signed(s3: S3Server, bucket: S3Address) -> None:
    s3.client.put_object(Bucket=bucket.bucket, Key=f"reels/{KEY}", Body=b"0123456789")
    clients = bucket.through("https://cdn.example.com/v", plain=True)
    assert s3_links.link(clients, KEY, no_keys, now=1.0, lifetime_s=3600) == f"https://cdn.example.com/v/reels/{KEY}"
    saved = s3_links.link(clients, KEY, lambda: KEYS, now=time.time(), lifetime_s=3600, to_save=True)
    place, query = parts_of(saved)
    assert place == f"{bucket.endpoint}/{bucket.bucket}/reels/{KEY}"
    assert query["response-content-disposition"] == 'attachment; filename="vid_1.mp4"'
    assert requests.get(saved, timeout=30).headers["Content-Disposition"] == 'attachment; filename="vid_1.mp4"'


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("https://CDN.example.com", "https://cdn.example.com"),
        ("https://cdn.example.com:8443/", "https://cdn.example.com:8443"),
        ("https://cdn.example.com/a/b/", "https://cdn.example.com/a/b"),
    ],
)
def test_base_urls_of_a_cdn(text: str, meant: str) -> None:
    assert cdn_of(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("cdn.example.com", "ftp://h", "https://", "https://u:secret@h", "https://h?a=b", "https://h#a", "https://h:"),
        *("https://h/../x", "https://h/a//b", "https://h/a b", "https://h:99999", "https://[::1", "https://h:0"),
        *("https://h;script-src", "https://h *", "https://h,x", "https://'self'", "https://ä.example"),
    ],
)
def test_what_is_no_base_url_is_told_and_not_repeated(text: str) -> None:
    with pytest.raises(BadAddress, match="such as https://cdn") as caught:
        cdn_of(text)
    assert "secret" not in str(caught.value)
