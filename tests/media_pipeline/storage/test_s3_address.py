"""STORAGE_URL, and links that S3 honours."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest
import requests
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from media_pipeline.storage import links, s3_links
from media_pipeline.storage.s3_address import BadAddress, S3Address, S3Keys, parse
from tests.s3 import KEYS, S3Server, parts_of

KEY = "7/videos/vid_1.mp4"
HOUR = 3600


@pytest.mark.parametrize(
    ("url", "region", "wanted"),
    [
        (
            "s3://reels?region=eu-central-1",
            "",
            S3Address("reels", "", "https://s3.eu-central-1.amazonaws.com", "eu-central-1", "virtual"),
        ),
        (
            "s3://reels/",
            "us-west-2",
            S3Address("reels", "", "https://s3.us-west-2.amazonaws.com", "us-west-2", "virtual"),
        ),
        (
            "s3://reels/prod/a?endpoint=http://10.0.0.5:9000",
            "",
            S3Address("reels", "prod/a", "http://10.0.0.5:9000", "us-east-1", "path"),
        ),
        (
            "s3://reels?endpoint=https://X.example.com/&region=auto&addressing=virtual",
            "ignored",
            S3Address("reels", "", "https://x.example.com", "auto", "virtual"),
        ),
        (
            "s3://my.reels?region=eu-west-1",
            "",
            S3Address("my.reels", "", "https://s3.eu-west-1.amazonaws.com", "eu-west-1", "path"),
        ),
    ],
)
def test_good_addresses(url: str, region: str, wanted: S3Address) -> None:
    assert parse(url, region=region) == wanted


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("reels", "form s3://"),
        ("https://reels.s3.amazonaws.com", "form s3://"),
        ("s3:///prefix?region=x1", "bucket"),
        ("s3://Reels?region=x1", "small letters"),
        ("s3://a..b?region=x1", "small letters"),
        ("s3://id:secret-secret@reels?region=x1", "AWS_SECRET_ACCESS_KEY"),
        ("s3://reels:9000?region=x1", "form s3://"),
        ("s3://reels:port?region=x1", "form s3://"),
        ("s3://reels?regoin=eu-central-1", "addressing, endpoint, region"),
        ("s3://reels?region", "form s3://"),
        ("s3://reels?region=", "one value"),
        ("s3://reels?region=a1&region=b1", "one value"),
        ("s3://reels", "needs a region"),
        ("s3://reels?region=eu central", "region such as"),
        ("s3://reels?endpoint=minio:9000", "endpoint such as"),
        ("s3://reels?endpoint=https://x.example.com/path", "endpoint such as"),
        ("s3://reels?endpoint=https://id:secret-secret@x.example.com", "endpoint such as"),
        ("s3://reels?endpoint=https://x.example.com:99999", "endpoint such as"),
        ("s3://reels?region=x1&addressing=dns", "addressing=path"),
        ("s3://reels/../x?region=x1", "prefix of"),
        ("s3://reels/a//b?region=x1", "prefix of"),
        ("s3://reels/ä?region=x1", "prefix of"),
        ("s3://reels?region=x1#part", "form s3://"),
    ],
)
def test_bad_addresses_are_told_and_not_repeated(url: str, said: str) -> None:
    with pytest.raises(BadAddress) as caught:
        parse(url)
    assert said in str(caught.value)
    assert "secret-secret" not in str(caught.value)


def test_secrets_are_in_no_repr() -> None:
    keys = S3Keys("id", "very-secret", "very-secret-token")
    assert "very-secret" not in f"{keys} {keys!r}"


# The example of AWS's own documentation, "Authenticating Requests: Using Query Parameters".
AWS_EXAMPLE = S3Address("examplebucket", "", "https://s3.amazonaws.com", "us-east-1", "virtual")
AWS_EXAMPLE_KEYS = S3Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def test_the_signature_is_that_of_awss_example() -> None:
    link = s3_links.sign(AWS_EXAMPLE, "test.txt", AWS_EXAMPLE_KEYS, at=1_369_353_600, lifetime_s=86_400)
    place, query = parts_of(link)
    assert place == "https://examplebucket.s3.amazonaws.com/test.txt"
    assert query["X-Amz-Date"] == "20130524T000000Z"
    assert query["X-Amz-Signature"] == "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"


@pytest.mark.parametrize("addressing", ["path", "virtual"])
@pytest.mark.parametrize("token", ["", "a+token/with=signs"])
@pytest.mark.parametrize("endpoint", ["https://s3.eu-central-1.amazonaws.com", "http://10.0.0.5:9000"])
def test_links_are_those_of_awss_library(addressing: str, token: str, endpoint: str) -> None:
    address = S3Address("reels", "a.b_c-d", endpoint, "eu-central-1", addressing)  # type: ignore[arg-type]
    link = s3_links.sign(address, KEY, replace(KEYS, session_token=token), at=1_800_000_000, lifetime_s=4500)
    place, query = parts_of(link)
    signer = S3SigV4QueryAuth(
        Credentials(KEYS.access_key_id, KEYS.secret_access_key, token or None), "s3", "eu-central-1", expires=4500
    )
    request = AWSRequest("GET", place)
    request.context["timestamp"] = "20270115T080000Z"
    signer._modify_request_before_signing(request)
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    assert query.pop("X-Amz-Signature") == signer.signature(to_sign, request)
    assert parts_of(request.url) == (place, query)


def test_a_link_is_the_same_for_a_quarter_of_its_life_and_never_dies_early() -> None:
    made = [
        s3_links.presign(AWS_EXAMPLE, KEY, KEYS, now=now, lifetime_s=HOUR)
        for now in range(1_800_000_001, 1_800_000_001 + HOUR, 60)
    ]
    assert len(set(made)) == 4
    assert made == sorted(made, key=made.index)
    for number, link in enumerate(made):
        now = 1_800_000_001 + number * 60
        _, query = parts_of(link)
        begin = links.expiry(now, HOUR) - int(query["X-Amz-Expires"])
        assert begin <= now
        assert now + HOUR <= begin + int(query["X-Amz-Expires"]) <= now + 1.25 * HOUR


def test_a_life_longer_than_s3_grants_is_refused() -> None:
    with pytest.raises(ValueError, match="604800"):
        s3_links.presign(AWS_EXAMPLE, KEY, KEYS, now=1.0, lifetime_s=604_800)


def test_s3_serves_a_link_with_ranges_and_refuses_any_other(s3: S3Server) -> None:
    address = s3.bucket("reels")
    s3.client.put_object(
        Bucket=address.bucket, Key=f"reels/{KEY}", Body=b"0123456789", ContentType="video/mp4", ACL="private"
    )
    now = time.time()
    link = s3_links.presign(address, KEY, KEYS, now=now, lifetime_s=HOUR)
    whole = requests.get(link, timeout=30)
    assert (whole.status_code, whole.content, whole.headers["Content-Type"]) == (200, b"0123456789", "video/mp4")
    part = requests.get(link, headers={"Range": "bytes=2-4"}, timeout=30)
    assert (part.status_code, part.content) == (206, b"234")
    place, query = parts_of(link)
    stranger = replace(KEYS, secret_access_key="another")
    for bad in (
        place,
        link.replace("vid_1", "vid_2"),
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        link.replace(f"X-Amz-Expires={query['X-Amz-Expires']}", "X-Amz-Expires=604800"),
        s3_links.presign(address, KEY, stranger, now=now, lifetime_s=HOUR),
        s3_links.presign(address, KEY, KEYS, now=now - 2 * HOUR, lifetime_s=HOUR),
        s3_links.presign(address, KEY, KEYS, now=now + 2 * HOUR, lifetime_s=HOUR),
    ):
        assert requests.get(bad, timeout=30).status_code == 403


def test_signing_needs_nothing_of_aws() -> None:
    """Nor does anything else that local storage uses."""
    program = (
        "import sys, media_pipeline.storage.s3_links, media_pipeline.storage.base, media_pipeline.storage.local;"
        "print([name for name in sys.modules if name.startswith(('boto', 'storages', 's3transfer'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
