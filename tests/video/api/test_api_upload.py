"""Pictures that users send: uploads, and data URIs in an order."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from pytest_django.fixtures import Settings

from media_pipeline.errors import StorageDown
from tests.factories import make_user
from tests.pictures import SECRET, bomb, opened, picture, turned
from video.credits import ledger
from video.infra.toolkit import toolkit
from video.models import Status, Upload, VideoTask
from video.processes import storage_sweep
from video.web import uploads

ADDRESS = "/api/video/upload"
Post = Callable[[Client, dict[str, Any]], Any]


def send(client: Client, data: bytes, name: str = "cat.jpg", field: str = "file", **more: Any) -> Any:
    return client.post(ADDRESS, {field: SimpleUploadedFile(name, data), **more})


def create(client: Client, order: dict[str, Any], **headers: Any) -> Any:
    return client.post("/api/video/create", json.dumps(order), content_type="application/json", **headers)


def uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def refusal(reply: Any, status: int = 400) -> dict[str, Any]:
    assert reply.status_code == status, reply.content
    return dict(reply.json()["error"])


def stored() -> list[str]:
    return [key for key in toolkit().storage.list("") if "/uploads/" in key]


@pytest.fixture(autouse=True)
def _no_files() -> None:
    """The database forgets each test, also those of other files; the storage does not."""
    for key in stored():
        toolkit().storage.delete(key)


def test_an_upload_is_kept_upright_and_without_metadata(api: Client, user: AbstractBaseUser) -> None:
    reply = send(api, turned())
    assert reply.status_code == 201
    told = reply.json()["data"]
    assert (told["type"], told["width"], told["height"]) == ("image/jpeg", 360, 640)
    life = datetime.fromisoformat(told["expiresAt"]) - datetime.now(UTC)
    assert timedelta(hours=23) < life <= timedelta(hours=24)
    row = Upload.objects.get(user=user)
    with toolkit().storage.open(row.key) as file:
        kept = file.read()
    assert row.key.startswith(f"{user.pk}/uploads/")
    assert (len(kept), told["bytes"]) == (row.size_bytes, row.size_bytes)
    assert SECRET not in kept
    assert opened(kept).size == (360, 640)


def test_its_address_is_taken_as_image_url(api: Client, order: dict[str, Any]) -> None:
    url = send(api, picture()).json()["data"]["url"]
    assert create(api, {**order, "imageUrl": url}).status_code == 201
    assert VideoTask.objects.get().image_url == url
    quote = api.post("/api/video/quote", json.dumps({**order, "imageUrl": url}), content_type="application/json")
    assert quote.status_code == 200
    shown = api.get(f"/api/queues/tasks/{VideoTask.objects.get().pk}").json()["data"]["request"]["imageUrl"]
    assert shown == url


def test_an_address_is_its_owners_alone(
    api: Client, stranger: AbstractBaseUser, client_for: Callable[..., Client], order: dict[str, Any]
) -> None:
    url = send(api, picture()).json()["data"]["url"]
    other = client_for(stranger)
    for address in ("create", "quote"):
        reply = other.post(
            f"/api/video/{address}", json.dumps({**order, "imageUrl": url}), content_type="application/json"
        )
        error = refusal(reply)
        assert error["code"] == "no_such_upload"
        assert error["details"][0]["field"] == "imageUrl"
    assert not VideoTask.objects.exists()
    assert ledger.balance(stranger.pk) == 1000


@pytest.mark.parametrize(
    "url",
    ["upload://", "upload://" + "0" * 40, "upload:abc", "upload://../../etc/passwd", "upload://" + "0" * 39 + "'"],
)
def test_an_address_that_nobody_has(api: Client, order: dict[str, Any], url: str) -> None:
    assert refusal(create(api, {**order, "imageUrl": url}))["code"] == "no_such_upload"


def test_an_address_is_good_until_its_time_is_over(api: Client, order: dict[str, Any]) -> None:
    url = send(api, picture()).json()["data"]["url"]
    Upload.objects.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert refusal(create(api, {**order, "imageUrl": url}))["code"] == "no_such_upload"
    assert send(api, picture()).json()["data"]["url"] == url  # sent again, its time begins anew
    assert create(api, {**order, "imageUrl": url}).status_code == 201


def test_the_same_picture_twice_is_one_upload(api: Client, user: AbstractBaseUser) -> None:
    first, second = (send(api, picture()).json()["data"] for _ in range(2))
    assert first["url"] == second["url"]
    assert first["expiresAt"] <= second["expiresAt"]
    assert Upload.objects.count() == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "image_unreadable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_unreadable"),
        (picture(32, 32, "ICO"), "image_unreadable"),
        (turned()[:-300], "image_unreadable"),
        (bomb(20_000, 20_000), "image_too_large"),
    ],
    ids=["empty", "SVG", "ICO", "cut", "bomb"],
)
def test_what_is_no_picture(api: Client, data: bytes, code: str) -> None:
    error = refusal(send(api, data, name="cat.png"))
    assert error["code"] == code
    assert error["details"][0]["field"] == "file"
    assert not Upload.objects.exists()


def test_neither_name_nor_type_is_believed(api: Client) -> None:
    file = SimpleUploadedFile("../../etc/passwd.svg", picture(64, 36, "JPEG"), content_type="image/svg+xml")
    told = api.post(ADDRESS, {"file": file}).json()["data"]
    assert told["type"] == "image/jpeg"
    assert "passwd" not in Upload.objects.get().key


def test_what_is_no_form_with_one_file(api: Client) -> None:
    png = picture(64, 36)
    for kind in ("application/json", "text/plain", "image/png", "application/x-www-form-urlencoded"):
        error = refusal(api.generic("POST", ADDRESS, png, content_type=kind), 415)
        assert (error["code"], "multipart/form-data" in error["message"]) == ("unsupported_media_type", True)
    for reply in (
        send(api, png, field="picture"),
        send(api, png, prompt="A cat"),
        api.post(ADDRESS, {"file": [SimpleUploadedFile("a", png), SimpleUploadedFile("b", png)]}),
        api.post(ADDRESS, {"file": "a text"}),
        api.post(ADDRESS, {}),
    ):
        assert refusal(reply)["details"][0]["field"] == "file"
    whole = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    for body, kind in ((whole, "multipart/form-data"), (b"", "multipart/form-data; boundary=x")):
        assert api.generic("POST", ADDRESS, body, content_type=kind).status_code == 400
    assert not Upload.objects.exists()


def test_more_bytes_than_may_be(api: Client, settings: Settings) -> None:
    settings.UPLOAD_MAX_BYTES = 65_536
    settings.MAX_BODY_BYTES_OF = {**settings.MAX_BODY_BYTES_OF, ADDRESS: 65_536 + 65_536}
    error = refusal(send(api, b"\xff\xd8\xff" + bytes(70_000)), 413)
    assert (error["code"], error["details"][0]["field"]) == ("image_too_large", "file")
    assert refusal(send(api, b"\xff\xd8\xff" + bytes(140_000)), 413)["code"] == "body_too_large"


def test_the_uploads_of_one_user_have_a_bound(
    api: Client, stranger: AbstractBaseUser, client_for: Callable[..., Client], settings: Settings
) -> None:
    settings.UPLOAD_QUOTA_BYTES = 3 * 64 * 1024
    for number in range(3):
        assert send(api, picture(64 + number, 36)).status_code == 201
    reply = send(api, picture(99, 36))
    assert refusal(reply, 429)["code"] == "too_many_uploads"
    assert int(reply["Retry-After"]) > 3600
    assert send(api, picture(64, 36)).status_code == 201  # one that is there
    assert send(client_for(stranger), picture(99, 36)).status_code == 201
    assert len(stored()) == 4


def test_pictures_that_are_read_at_once_have_a_bound(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = uploads._AT_ONCE + uploads._MOST_WAITING
    for _ in range(taken):
        assert uploads._under_way.acquire(blocking=False)
    reply = send(api, picture(70, 36))
    for _ in range(taken):
        uploads._under_way.release()
    assert (refusal(reply, 503)["code"], reply["Retry-After"]) == ("overloaded", "2")
    assert send(api, picture(70, 36)).status_code == 201


def test_storage_that_is_away_is_told(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def put_file(*_: Any, **__: Any) -> None:
        raise StorageDown("no route to the secret bucket")

    monkeypatch.setattr(toolkit().storage, "put_file", put_file)
    error = refusal(send(api, picture(71, 36)), 503)
    assert (error["code"], "bucket" in error["message"]) == ("unavailable", False)
    assert not Upload.objects.exists()


# --- the end of an upload --------------------------------------------------------------------------------------------


def test_what_is_over_is_swept_and_what_a_task_needs_stays(
    api: Client, user: AbstractBaseUser, order: dict[str, Any]
) -> None:
    over, needed, good = (send(api, picture(80 + number, 36)).json()["data"]["url"] for number in range(3))
    assert create(api, {**order, "imageUrl": needed}).status_code == 201
    past = datetime.now(UTC) - timedelta(hours=1)
    Upload.objects.exclude(name=good.removeprefix("upload://")).update(expires_at=past)
    assert uploads.sweep() == 1
    left = {upload.address for upload in Upload.objects.all()}
    assert left == {needed, good}
    assert set(stored()) == set(Upload.objects.values_list("key", flat=True))
    VideoTask.objects.update(status=Status.CANCELLED, finished_at=datetime.now(UTC), admit_at=None, next_run_at=None)
    assert uploads.sweep() == 1
    assert uploads.erase_of(user.pk) == 1
    assert not stored()
    assert over not in left


def test_erasing_a_user_deletes_files_and_rows(
    api: Client, user: AbstractBaseUser, stranger: AbstractBaseUser, client_for: Callable[..., Client]
) -> None:
    for number in range(3):
        send(api, picture(90 + number, 36))
    send(client_for(stranger), picture(90, 36))
    assert uploads.used_bytes(user.pk) == 3 * 64 * 1024
    assert uploads.erase_of(user.pk) == 3
    assert uploads.erase_of(user.pk) == 0
    assert [key.split("/")[0] for key in stored()] == [str(stranger.pk)]
    assert uploads.used_bytes(user.pk) == 0


def test_a_death_between_the_mark_and_the_file_is_mended(
    api: Client, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = send(api, picture(97, 36)).json()["data"]["url"]

    def delete(key: str) -> None:
        raise StorageDown("away")

    with monkeypatch.context() as away:
        away.setattr(toolkit().storage, "delete", delete)
        with pytest.raises(StorageDown):
            uploads.erase_of(user.pk)
        assert uploads.sweep() == 0
    with pytest.raises(uploads.NoSuchUpload):
        uploads.hold(user.pk, url)
    assert stored()
    assert send(api, picture(97, 36)).json()["data"]["url"] == url  # ends the old row first
    uploads.hold(user.pk, url)
    assert stored() == [Upload.objects.get().key]


def test_a_file_without_its_row_is_found(api: Client, user: AbstractBaseUser) -> None:
    send(api, picture(98, 36))
    key = Upload.objects.get().key
    later = datetime.now(UTC).timestamp() + 2 * storage_sweep.LEAST_AGE_S
    seen = storage_sweep.Seen()
    assert key not in {orphan.key for orphan in storage_sweep.find(toolkit().storage, seen, now=later)}
    Upload.objects.all().delete()
    assert key in {orphan.key for orphan in storage_sweep.find(toolkit().storage, seen, now=later)}
    assert not seen.foreign


# --- a picture inside the order --------------------------------------------------------------------------------------


def test_a_data_uri_becomes_an_upload(
    api: Client, user: AbstractBaseUser, order: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    text = uri(picture())
    assert create(api, {**order, "imageUrl": text}).status_code == 201
    task = VideoTask.objects.get()
    assert task.image_url == Upload.objects.get(user=user).address
    assert text[40:80] not in caplog.text
    assert not any(text[40:80] in str(value) for value in vars(task).values())


def noisy(size: int) -> bytes:
    """A PNG of about so many bytes."""
    import io
    import os

    from PIL import Image

    side = int((size / 3) ** 0.5)
    out = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(out, "PNG", compress_level=0)
    return out.getvalue()


@pytest.mark.parametrize("escape", [("/", "\\/"), ("+", "\\u002B"), ("", "")], ids=["PHP", ".NET", "plain"])
def test_a_large_data_uri_is_read_as_any_json(
    api: Client, user: AbstractBaseUser, order: dict[str, Any], escape: tuple[str, str]
) -> None:
    data = noisy(300_000)
    body = json.dumps({**order, "imageUrl": "HERE"}).replace(
        "HERE", uri(data).replace(*escape) if escape[0] else uri(data)
    )
    reply = api.generic("POST", "/api/video/create", body, content_type="application/json")
    assert reply.status_code == 201, reply.content
    assert VideoTask.objects.get().image_url == uploads.address_of(data)


def test_an_order_that_is_sent_again_with_its_picture_is_the_same_order(
    api: Client, user: AbstractBaseUser, order: dict[str, Any], settings: Settings
) -> None:
    body = {**order, "imageUrl": uri(picture())}
    first = create(api, body, HTTP_IDEMPOTENCY_KEY="one")
    again = create(api, body, HTTP_IDEMPOTENCY_KEY="one")
    assert (first.status_code, again.status_code) == (201, 200)
    uploads.erase_of(user.pk)
    settings.UPLOAD_QUOTA_BYTES = 1
    much_later = create(api, body, HTTP_IDEMPOTENCY_KEY="one")
    assert much_later.json()["data"]["taskId"] == first.json()["data"]["taskId"]
    by_address = create(api, {**order, "imageUrl": uploads.address_of(picture())}, HTTP_IDEMPOTENCY_KEY="one")
    assert by_address.status_code == 200
    other = create(api, {**order, "imageUrl": uri(picture(64, 36))}, HTTP_IDEMPOTENCY_KEY="one")
    assert other.status_code == 409


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("data:image/png;base64,", "image_unreadable", "empty"),
        ("data:image/png;base64,AAAA", "image_unreadable", "not a picture"),
        ("data:image/png;base64,!!!!", "invalid_request", "is not base64"),
        (
            "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(),
            "image_unreadable",
            "an SVG drawing",
        ),
        ("data:text/html,<p>", "invalid_request", "must begin as"),
        (uri(turned()[:-300], "jpeg"), "image_unreadable", "damaged"),
        (uri(bomb(20_000, 20_000)), "image_too_large", "20000x20000"),
        (" DATA:image/png;base64,AAAA", "image_unreadable", "not a picture"),
    ],
)
def test_a_data_uri_that_is_no_picture(api: Client, order: dict[str, Any], text: str, code: str, says: str) -> None:
    error = refusal(create(api, {**order, "imageUrl": text}))
    assert error["code"] == code
    (only,) = error["details"]
    assert only["field"] == "imageUrl"
    assert says in only["message"]
    assert not VideoTask.objects.exists()
    assert not Upload.objects.exists()


def test_what_is_large_and_no_picture_is_refused_before_it_is_read(
    api: Client, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from video.api import parsing

    loaded: list[int] = []
    load = parsing.load

    def counted(raw: bytes) -> dict[str, Any]:
        loaded.append(len(raw))
        return load(raw)

    monkeypatch.setattr(parsing, "load", counted)
    large = uri(noisy(90_000))
    lists = "[" * 100_000
    for body in (
        json.dumps({**order, "prompt": "x" * 100_000}),
        json.dumps({**order, "prompt": large}),
        json.dumps({**order, "imageUrl": large, "negativePrompt": "x" * 70_000}),
        json.dumps({**order, "imageUrl": large, "negativePrompt": large}),
        '{"imageUrl": "' + large + '", "a": ' + lists,
        lists,
        '"data:' + "a" * 100_000,
        '"data:' * 20_000,
    ):
        reply = api.generic("POST", "/api/video/create", body, content_type="application/json")
        assert refusal(reply, 413)["code"] == "body_too_large"
    assert all(length <= 65_536 for length in loaded)
    assert not VideoTask.objects.exists()


def test_a_data_uri_over_its_limit_names_the_field(api: Client, order: dict[str, Any], settings: Settings) -> None:
    settings.UPLOAD_MAX_BYTES = 65_536
    error = refusal(create(api, {**order, "imageUrl": uri(noisy(90_000))}))
    assert "more than 65,536 bytes" in error["details"][0]["message"]
    assert len(json.dumps(error)) < 1000


def test_a_quote_keeps_no_picture(api: Client, order: dict[str, Any]) -> None:
    body = json.dumps({**order, "imageUrl": uri(picture())})
    assert api.post("/api/video/quote", body, content_type="application/json").status_code == 200
    assert not Upload.objects.exists()


def test_another_site_cannot_upload_with_the_users_cookie(api: Client) -> None:
    """A form needs no leave to be sent across sites."""
    reply = api.post(ADDRESS, {"file": SimpleUploadedFile("a", picture())}, HTTP_ORIGIN="https://evil.example")
    assert refusal(reply, 403)["code"] == "csrf"


@pytest.mark.django_db(transaction=True)
def test_the_same_picture_sent_several_times_at_once_is_one_row_and_one_file() -> None:
    user = make_user()

    def keep(_: int) -> str:
        try:
            return uploads.keep(user.pk, picture(333, 36)).key
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        keys = set(threads.map(keep, range(4)))
    assert keys == set(stored()) == {Upload.objects.get().key}
