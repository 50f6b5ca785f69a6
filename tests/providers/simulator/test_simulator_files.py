"""Finished videos: real H.264, behind links that expire."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import pytest
import requests

from providers.simulator.world.picture import drawable, wrap
from tests.providers.simulator.client import RunwayClient, start

WILD = [
    "plain words",
    '\'; rm -rf / %{pts} \\: [in][out] ,;= "quoted" $HOME `x`',
    "line\nbreak\r\n\ttab \x00 null \x1b[31m escape \x7f",
    "emoji 🦊👩‍👩‍👧‍👦 狐が走る שלום עולם مرحبا \u202e reversed \ufeff \ud83d",
    "x" * 1000,
    "[[sim render=0.1]]",
    "not a directive [[sim]] [[simulate]] [sim status=500] [[sim ",
]


@pytest.fixture(scope="module")
def artist() -> Iterator[RunwayClient]:
    """A simulator that draws prompts, at 30 fps."""
    process, base = start("--render-seconds", "0.1", "--fps", "30")
    yield RunwayClient(base)
    process.terminate()
    assert process.wait(60) == 0


def probe(data: bytes) -> dict[str, object]:
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        frames = [
            bytes(frame.reformat(format="gray").planes[0])
            for number, frame in enumerate(container.decode(stream))
            if number % 20 == 0
        ]
        context = stream.codec_context
        found: dict[str, object] = {
            "codec": context.name, "size": (context.width, context.height), "format": context.pix_fmt,
            "fps": float(stream.average_rate or 0), "seconds": float((stream.duration or 0) * (stream.time_base or 0)),
            "sound": [one.codec_context.name for one in container.streams.audio],
        }  # fmt: skip
    pairs = list(zip(frames[0][::97], frames[-1][::97], strict=True))
    assert sum(abs(one - other) for one, other in pairs) / len(pairs) > 1  # it moves
    return found


@pytest.mark.parametrize("prompt", WILD)
def test_any_prompt_becomes_a_video(artist: RunwayClient, prompt: str) -> None:
    found = probe(artist.download(artist.link(prompt)).content)
    assert found["codec"] == "h264"
    assert found["size"] == (1280, 720)


@pytest.mark.parametrize(
    ("body", "size", "seconds", "sound"),
    [
        ({"ratio": "720:1280", "duration": 3}, (720, 1280), 3, []),
        ({"model": "veo3.1_fast", "duration": 4}, (1280, 720), 4, ["aac"]),
        ({"model": "veo3.1_fast", "duration": 4, "audio": False}, (1280, 720), 4, []),
        ({"path": "/v1/image_to_video", "promptImage": "runway://a", "ratio": "1584:672"}, (1584, 672), 2, []),
    ],
)
def test_the_file_is_what_was_asked_for(
    artist: RunwayClient, body: dict[str, object], size: tuple[int, int], seconds: int, sound: list[str]
) -> None:
    reply = artist.download(artist.link("shape", **body))
    assert reply.headers["Content-Type"] == "video/mp4"
    assert int(reply.headers["Content-Length"]) == len(reply.content)
    found = probe(reply.content)
    assert found["size"] == size
    assert found["sound"] == sound
    assert found["format"] == "yuv420p"
    assert found["fps"] == 30
    assert found["seconds"] == pytest.approx(seconds, abs=0.05)


def test_frames_come_as_fast_as_the_real_ones_by_default(client: RunwayClient) -> None:
    found = probe(client.download(client.link("24 a second")).content)
    assert found["fps"] == 24
    assert found["seconds"] == pytest.approx(2, abs=0.05)


def test_the_same_clip_is_rendered_once(artist: RunwayClient) -> None:
    before = artist.sim("stats")["rendered"]
    links = [artist.link("rendered once") for _ in range(4)]
    assert len({artist.download(link).content for link in links}) == 1
    assert artist.sim("stats")["rendered"] == before + 1


def test_each_look_gives_a_fresh_link_and_old_ones_expire(client: RunwayClient) -> None:
    client.sim("config", link_life_s=60)
    job_id = client.job("expiring")
    old = client.wait(job_id, "SUCCEEDED")["output"][0]
    assert client.download(old).status_code == 200
    client.sim("config", advance_s=61)
    assert client.download(old).status_code == 403
    fresh = client.view(job_id)["output"][0]
    assert fresh != old
    assert client.download(fresh).status_code == 200
    client.sim("config", link_life_s=86400)


def test_a_tampered_link_is_refused(client: RunwayClient) -> None:
    url = client.link("tampered")
    name, _, token = url.partition("?_jwt=")
    other = client.link("tampered too").partition("?")[0]
    stamp, _, mac = token.rpartition(".")
    for bad in (name, f"{name}?_jwt=", f"{other}?_jwt={token}", f"{name}?_jwt={float(stamp) + 9}.{mac}", f"{url}0"):
        assert client.download(bad).status_code == 403
    assert client.http.head(url, timeout=30).status_code == 200


def test_a_job_that_failed_has_no_file(client: RunwayClient) -> None:
    job_id = client.job("forced to fail [[sim render=60]]")
    client.sim(f"jobs/{job_id}", state="succeeded")
    url = client.view(job_id)["output"][0]
    assert client.download(url).status_code == 200
    client.call("DELETE", f"/v1/tasks/{job_id}")
    assert client.download(url).status_code == 404


def test_bad_files(client: RunwayClient) -> None:
    good = client.download(client.link("file")).content

    def get(kind: str, **more: object) -> requests.Response:
        return client.download(client.link(f"file [[sim file={kind}]]"), **more)

    corrupt = get("corrupt").content
    assert len(corrupt) == len(good)
    assert corrupt != good
    assert get("short").content == good[: len(good) // 2]
    assert get("empty").content == b""
    assert get("html").headers["Content-Type"] == "text/html"
    assert get("hls").content.startswith(b"#EXTM3U")
    assert get("redirect_private", allow_redirects=False).headers["Location"].startswith("http://169.254.169.254/")
    assert get("redirect", allow_redirects=False).status_code == 302
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        get("truncated")
    with get("oversized", stream=True) as reply:
        assert int(reply.headers["Content-Length"]) > 5e9
        assert len(reply.raw.read(3_000_000)) == 3_000_000
    with get("endless", stream=True) as reply:
        assert "Content-Length" not in reply.headers
        assert next(reply.iter_content(1_000_000))
    with get("drip", stream=True) as reply:
        assert int(reply.headers["Content-Length"]) == len(good)
        assert 0 < len(reply.raw.read(300)) <= 300


def test_download_faults_end_after_their_count(client: RunwayClient) -> None:
    url = client.link("twice [[sim link_expired=2]]")
    assert [client.download(url).status_code for _ in range(3)] == [403, 403, 200]
    url = client.link("once [[sim file=emptyx1 file_status=503x1]]")
    assert [client.download(url).status_code for _ in range(2)] == [503, 200]


def test_a_file_is_gone_on_with_while_it_is_the_same(client: RunwayClient) -> None:
    url = client.link("ranges")
    whole = client.download(url)
    size, etag = len(whole.content), whole.headers["ETag"]

    def rest(**headers: str) -> requests.Response:
        return client.http.get(
            url, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=30
        )

    for headers in ({"Range": "bytes=1000-"}, {"Range": "bytes=1000-", "If_Range": etag}):
        reply = rest(**headers)
        assert (reply.status_code, reply.content) == (206, whole.content[1000:])
        assert reply.headers["Content-Range"] == f"bytes 1000-{size - 1}/{size}"
        assert reply.headers["ETag"] == etag
    assert rest(Range="bytes=1000-", If_Range='"another"').status_code == 200
    assert rest(Range=f"bytes={size}-").status_code == 416


def test_a_file_that_is_cut_off_after_each_tenth(client: RunwayClient) -> None:
    url = client.link("tenths [[sim file=cut]]")
    size, came = int(client.http.head(url, timeout=30).headers["Content-Length"]), [b""]
    while sum(map(len, came)) < size:
        rest = {"Range": f"bytes={sum(map(len, came))}-"}
        with client.http.get(url, headers=rest, stream=True, timeout=30) as reply:
            came.append(reply.raw.read(size // 10))
    assert len(came) == 12
    assert probe(b"".join(came))["codec"] == "h264"


def test_a_file_host_in_trouble_for_some_seconds(client: RunwayClient) -> None:
    url = client.link("down [[sim file_status=429 retry_after=7 file=html file_for=60]]")
    reply = client.download(url)
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "7")
    client.sim("config", advance_s=59)
    assert client.download(url).status_code == 429
    client.sim("config", advance_s=1)
    assert client.download(url).headers["Content-Type"] == "video/mp4"
    zipped = client.http.get(client.link("zipped [[sim file=gzip]]"), stream=True, timeout=30)
    assert (zipped.headers["Content-Encoding"], zipped.raw.read(2)) == ("gzip", b"\x1f\x8b")


def test_nothing_listens_while_it_refuses() -> None:
    process, base = start("--render-seconds", "0", "--canned")
    try:
        client = RunwayClient(base)
        url = client.link("refused [[sim file=refusedx1 file_for=0.3]]")
        with pytest.raises(requests.ConnectionError):
            client.download(url)
        seen: set[str] = set()
        while True:
            try:
                reply = requests.get(url, timeout=30)
                break
            except requests.ConnectionError as err:
                seen.add("refused" if "refused" in str(err).lower() else str(err))
        assert seen == {"refused"}
        assert reply.headers["Content-Type"] == "video/mp4"
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_text_for_the_picture_has_nothing_undrawable() -> None:
    assert drawable("a\x00b\n\n c\u202e\ud83d") == "ab c"
    assert wrap("aaa bb cccccccc", 4, len) == ["aaa", "bb", "cccc", "cccc"]
    assert wrap("", 4, len) == []
