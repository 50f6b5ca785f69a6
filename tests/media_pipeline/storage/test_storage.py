from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.base import ContentFile

from media_pipeline.disk import free_bytes, require_free
from media_pipeline.errors import DiskFull
from media_pipeline.storage import local as local_storage
from media_pipeline.storage.base import MediaStorage
from media_pipeline.storage.local import LocalStorage
from media_pipeline.storage.object_keys import check_key, sha256_of, thumbnail_key, video_key, work_key, work_prefix
from media_pipeline.storage.s3 import S3Storage
from tests.rclone import RcloneServer
from tests.s3 import KEYS, S3Server

if not settings.configured:
    # Django's storage classes look at settings even when everything is passed in.
    settings.configure()


@pytest.fixture
def store(tmp_path: Path) -> LocalStorage:
    return LocalStorage(location=tmp_path / "storage")


@pytest.fixture
def local(store: LocalStorage) -> MediaStorage:
    return MediaStorage(store, scratch_root=store.scratch_root)


@pytest.fixture(params=["local", "s3", "s3 in a folder", "rclone", "rclone in a folder"])
def media(request: pytest.FixtureRequest, tmp_path: Path) -> MediaStorage:
    """On a disk, and in buckets of two real S3 servers, which differ: the same promises."""
    if request.param == "local":
        found: MediaStorage = request.getfixturevalue("local")
        return found
    server: S3Server | RcloneServer = request.getfixturevalue(request.param.partition(" ")[0])
    address = server.bucket("reels/prod" if "folder" in request.param else "")
    return MediaStorage(S3Storage(address, KEYS), scratch_root=tmp_path / "scratch")


@pytest.fixture
def source(tmp_path: Path) -> Callable[[bytes], Path]:
    def make(content: bytes) -> Path:
        path = tmp_path / f"source-{len(list(tmp_path.iterdir()))}"
        path.write_bytes(content)
        return path

    return make


Source = Callable[[bytes], Path]


def test_keys() -> None:
    assert video_key(7, "vid_ab12") == "7/videos/vid_ab12.mp4"
    assert thumbnail_key(7, "vid_ab12") == "7/videos/vid_ab12_thumb.jpg"
    assert work_key("task_x", 3, "source.mp4") == "work/task_x/3-source.mp4"
    assert work_prefix("task_x") == "work/task_x/"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "a/./b",
        ".scratch/x",
        "a/.hidden",
        "a\\b",
        "a b",
        "a\n",
        "ä",
        "a\x00b",
        "a/" * 200 + "b",
        "x" * 101,
        "-rf",
        "C:/x",
        "a?b",
        "a%2e",
    ],
)
def test_odd_keys_are_refused(key: str, local: MediaStorage, source: Source) -> None:
    with pytest.raises(ValueError):
        check_key(key)
    for use in (local.open, local.exists, local.delete, local.size_bytes):
        with pytest.raises(ValueError):
            use(key)
    with pytest.raises(ValueError):
        local.put_file(source(b"x"), key)


@pytest.mark.parametrize("part", ["", "..", "a/b", ".x", "a b"])
def test_ids_cannot_leave_their_folder(part: str) -> None:
    for make in (lambda: video_key(part, "v"), lambda: video_key(1, part), lambda: work_key(part, 1, "n")):
        with pytest.raises(ValueError):
            make()


@pytest.mark.parametrize("move", [False, True])
def test_put_and_read_back(media: MediaStorage, source: Source, move: bool) -> None:
    path = source(b"video")
    media.put_file(path, "7/videos/v.mp4", move=move)
    assert path.exists() is not move
    assert media.exists("7/videos/v.mp4")
    assert media.size_bytes("7/videos/v.mp4") == 5
    with media.open("7/videos/v.mp4") as file:
        assert file.read() == b"video"
    with media.fetch_to("7/videos/v.mp4", media.scratch_root) as fetched:
        assert sha256_of(fetched) == sha256_of(path if path.exists() else fetched)
        assert fetched.read_bytes() == b"video"
    assert media.exists("7/videos/v.mp4")
    assert not _leftovers(media)


def test_a_fetched_file_goes_and_a_stored_one_stays(media: MediaStorage, source: Source, tmp_path: Path) -> None:
    media.put_file(source(b"video"), "work/t/1-a")
    with media.fetch_to("work/t/1-a", media.scratch_root) as fetched:
        assert fetched.is_relative_to(tmp_path)
    assert fetched.exists() is ("storage" in fetched.relative_to(tmp_path).parts)
    assert media.size_bytes("work/t/1-a") == 5


def test_same_bytes_again_are_fine_and_others_are_not(media: MediaStorage, source: Source) -> None:
    media.put_file(source(b"one"), "work/t/1-a")
    media.put_file(source(b"one"), "work/t/1-a", move=True)
    other = source(b"two")
    with pytest.raises(FileExistsError):
        media.put_file(other, "work/t/1-a", move=True)
    assert other.exists()
    with media.open("work/t/1-a") as file:
        assert file.read() == b"one"
    assert list(media.list("work/t")) == ["work/t/1-a"]


def test_absent_key(media: MediaStorage) -> None:
    media.delete("work/t/none")
    assert not media.exists("work/t/none")
    with pytest.raises(FileNotFoundError):
        media.open("work/t/none").close()
    with pytest.raises(FileNotFoundError), media.fetch_to("work/t/none", media.scratch_root):
        pass
    with pytest.raises(FileNotFoundError):
        media.copy("work/t/none", "work/t/other")
    assert list(media.list("work/t")) == []
    assert media.delete_prefix("work/t/") == 0


def test_copy_outlives_its_source(media: MediaStorage, source: Source) -> None:
    media.put_file(source(b"bytes"), "work/t/1-out.mp4")
    media.copy("work/t/1-out.mp4", "7/videos/v.mp4")
    media.copy("work/t/1-out.mp4", "7/videos/v.mp4")
    media.delete("work/t/1-out.mp4")
    with media.open("7/videos/v.mp4") as file:
        assert file.read() == b"bytes"


def test_delete_prefix_takes_one_task_only(media: MediaStorage, source: Source) -> None:
    for key in ("work/t1/1-a", "work/t1/2-b", "work/t10/1-a", "7/videos/v.mp4"):
        media.put_file(source(key.encode()), key)
    assert media.delete_prefix("work/t1/") == 2
    assert sorted(media.list("")) == ["7/videos/v.mp4", "work/t10/1-a"]
    for root in ("", "/", "."):
        with pytest.raises(ValueError):
            media.delete_prefix(root)


def test_scratch_is_private_gone_and_not_listed(media: MediaStorage) -> None:
    with media.scratch_dir("transcode") as folder, media.scratch_dir("transcode") as other:
        (folder / "part").write_bytes(b"x")
        assert other != folder
        assert list(media.list("")) == []
    assert not folder.exists()


def test_scratch_goes_after_a_failure_too(media: MediaStorage) -> None:
    with pytest.raises(LookupError), media.scratch_dir("transcode"):
        raise LookupError
    assert not _leftovers(media)


def test_local_files_are_not_copied(local: MediaStorage, tmp_path: Path) -> None:
    with local.scratch_dir("work") as folder:
        path = folder / "out.mp4"
        path.write_bytes(b"x" * 1000)
        path.chmod(0o600)
        inode = path.stat().st_ino
        local.put_file(path, "work/t/1-out.mp4", move=True)
        local.copy("work/t/1-out.mp4", "7/videos/v.mp4")
    stored = tmp_path / "storage" / "7" / "videos" / "v.mp4"
    assert stored.stat().st_ino == inode
    assert stored.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("file_mode", "folder"), [(0o640, 0o750), (0o600, 0o700), (0o644, 0o755), (0o660, 0o770)])
@pytest.mark.parametrize("umask", [0, 0o077])
def test_who_may_read_is_said_by_the_mode_and_not_by_the_umask(
    tmp_path: Path, file_mode: int, folder: int, umask: int
) -> None:
    store = LocalStorage(location=tmp_path / "new" / "storage", file_mode=file_mode)
    media = MediaStorage(store, scratch_root=store.scratch_root, folder_mode=folder)
    before = os.umask(umask)
    try:
        with media.scratch_dir("work") as scratch:
            assert scratch.stat().st_mode & 0o777 == 0o700
            (scratch / "one").write_bytes(b"one")
            media.put_file(scratch / "one", "7/videos/v.mp4")
        store.save("7/thumbnails/t.jpg", ContentFile(b"two"))
    finally:
        os.umask(before)
    for path in (tmp_path / "new").rglob("*"):
        assert path.stat().st_mode & 0o777 == (folder if path.is_dir() else file_mode), path


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM])
def test_other_filesystem_is_copied_once(
    local: MediaStorage, source: Source, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = source(b"far away")
    real = os.link

    def link(src: Path, dst: Path) -> None:
        if Path(src) == path:
            raise OSError(code, "no link")
        real(src, dst)

    monkeypatch.setattr(local_storage.os, "link", link)
    local.put_file(path, "work/t/1-a", move=True)
    assert local.size_bytes("work/t/1-a") == 8
    assert not path.exists()
    assert not _leftovers(local)


def test_djangos_own_save_is_create_only(local: MediaStorage, store: LocalStorage) -> None:
    assert store.save("a/b.txt", ContentFile(b"one")) == "a/b.txt"
    with pytest.raises(FileExistsError):
        store.save("a/b.txt", ContentFile(b"two"))
    assert store.open("a/b.txt").read() == b"one"
    assert not _leftovers(local)


@pytest.mark.parametrize("where", ["fsync", "link"])
def test_full_disk_leaves_nothing_under_the_key(
    local: MediaStorage, store: LocalStorage, source: Source, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = source(b"x")
    with monkeypatch.context() as patched:
        patched.setattr(local_storage.os, where, no_space)
        with pytest.raises(DiskFull):
            local.put_file(path, "work/t/1-a", move=True)
        with pytest.raises(DiskFull):
            store.save("work/t/1-b", ContentFile(b"x"))
    assert path.exists()
    assert not list(local.list(""))
    assert not _leftovers(local)


def test_race_for_one_key_has_one_winner(local: MediaStorage, source: Source) -> None:
    for number in range(20):
        paths = [source(bytes([n]) * 100) for n in range(4)]
        barrier = threading.Barrier(4)
        won: list[int] = []
        key = f"7/videos/v{number}.mp4"

        def put(
            n: int, paths: list[Path] = paths, key: str = key, won: list[int] = won, gate: threading.Barrier = barrier
        ) -> None:
            gate.wait(5)
            try:
                local.put_file(paths[n], key)
                won.append(n)
            except FileExistsError:
                pass

        threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(won) == 1
        with local.open(key) as file:
            assert file.read() == bytes([won[0]]) * 100


def test_put_against_delete_prefix(local: MediaStorage, source: Source) -> None:
    """A folder that is removed whenever it is empty is put there again, with the file in it."""
    path = source(b"x")
    stop = threading.Event()

    def clean() -> None:
        while not stop.is_set():
            local.delete_prefix("work/t/")

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for number in range(300):
            local.put_file(path, f"work/t/{number}-a")
    finally:
        stop.set()
        cleaner.join()
    local.delete_prefix("work/t/")
    assert not list(local.scratch_root.iterdir())


def test_sweep_takes_only_what_is_old(local: MediaStorage) -> None:
    root = local.scratch_root
    assert local.sweep_scratch(older_than_s=10, now=1e9) == 0
    (root / "old-1").mkdir(parents=True)
    (root / "old-1" / "part").write_bytes(b"x")
    (root / "busy-1").mkdir()
    (root / "busy-1" / "part").write_bytes(b"x")
    (root / "save-1").write_bytes(b"x")
    for old in ("old-1/part", "old-1", "busy-1", "save-1"):
        os.utime(root / old, (1000, 1000))
    os.utime(root / "busy-1" / "part", (5000, 5000))
    assert local.sweep_scratch(older_than_s=600, now=5010) == 2
    assert [entry.name for entry in root.iterdir()] == ["busy-1"]


def test_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(tmp_path / "not" / "yet" / "there") > 0
    monkeypatch.setattr("media_pipeline.disk.free_bytes", lambda path: 1000)
    require_free(tmp_path, expected_bytes=200, reserve_bytes=500)
    with pytest.raises(DiskFull):
        require_free(tmp_path, expected_bytes=201, reserve_bytes=500)


def _leftovers(media: MediaStorage) -> list[Path]:
    return list(media.scratch_root.iterdir()) if media.scratch_root.exists() else []
