from __future__ import annotations

import pytest

from media_pipeline.storage.links import expiry, sign, verify

KEY = "7/videos/vid_1.mp4"
SECRET = "a secret of the server"
NOW = 1_790_000_000.5


def test_link_is_good_until_it_ends() -> None:
    expires, signature = sign(KEY, secret=SECRET, now=NOW)
    assert NOW + 3600 <= expires <= NOW + 4500
    assert verify(KEY, expires, signature, secret=SECRET, now=NOW)
    assert verify(KEY, str(expires), signature, secret=SECRET, now=expires - 1)
    assert not verify(KEY, expires, signature, secret=SECRET, now=expires)


def test_link_stays_the_same_for_a_quarter_of_its_life() -> None:
    made = [sign(KEY, secret=SECRET, now=NOW + second) for second in range(0, 3600, 5)]
    assert len(set(made)) in (4, 5)
    assert made == sorted(made, key=lambda link: link[0])


@pytest.mark.parametrize("lifetime_s", [1, 2, 59, 3600, 86400])
def test_never_shorter_than_asked_for(lifetime_s: int) -> None:
    for second in range(0, 5000, 7):
        assert lifetime_s <= expiry(NOW + second, lifetime_s) - (NOW + second) <= lifetime_s * 1.25 + 1


def test_signature_holds_for_one_key_one_time_one_secret() -> None:
    expires, signature = sign(KEY, secret=SECRET, now=NOW)
    assert not verify("7/videos/vid_2.mp4", expires, signature, secret=SECRET, now=NOW)
    assert not verify(KEY, expires + 1, signature, secret=SECRET, now=NOW)
    assert not verify(KEY, expires, signature, secret="another", now=NOW)
    assert verify(KEY, expires, signature, secret=SECRET.encode(), now=NOW)


@pytest.mark.parametrize("expires", ["", "abc", "-1", "+1", " 1", "1.5", "1_0", "٣", "²", "9" * 5000, "01"])
def test_odd_expiry_is_simply_wrong(expires: str) -> None:
    assert not verify(KEY, expires, sign(KEY, secret=SECRET, now=NOW)[1], secret=SECRET, now=NOW)


@pytest.mark.parametrize("signature", ["", "0" * 64, "ä" * 64, "x"])
def test_odd_signature_is_simply_wrong(signature: str) -> None:
    assert not verify(KEY, sign(KEY, secret=SECRET, now=NOW)[0], signature, secret=SECRET, now=NOW)


def test_misuse_is_loud() -> None:
    with pytest.raises(ValueError):
        sign(KEY, secret="", now=NOW)
    with pytest.raises(ValueError):
        sign(KEY, secret=SECRET, now=NOW, lifetime_s=0)
