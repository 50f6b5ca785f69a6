"""What strangers send, made safe to keep."""

from __future__ import annotations

import pytest

from providers.untrusted import LONGEST_ID, dotted, find_id, safe_id, safe_origin, safe_text, safe_url
from video.models import Generation


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("17f20503-6c24", "17f20503-6c24"),
        (" 893605946402811985\n", "893605946402811985"),
        (893605946402811985, "893605946402811985"),
        ("x" * LONGEST_ID, "x" * LONGEST_ID),
        ("x" * (LONGEST_ID + 1), ""),
        (10**LONGEST_ID, ""),
        pytest.param(10**5000, "", id="huge"),
        (0, ""),
        (-1, ""),
        (True, ""),
        (1.0, ""),
        (None, ""),
        ("", ""),
        ("a b", ""),
        ("a\nb", ""),
        ("a\x00b", ""),
        ("a\ud800", ""),
        ("a\u200b", ""),
        (["a"], ""),
        ({"id": "a"}, ""),
    ],
)
def test_an_id_is_one_word_that_fits_its_column(value: object, expected: str) -> None:
    assert safe_id(value) == expected


def test_the_longest_id_is_what_the_column_holds() -> None:
    assert Generation._meta.get_field("job_id").max_length == LONGEST_ID


def test_the_documented_place_goes_before_every_envelope() -> None:
    body = {"data": {"id": "", "task": {"id": "inner"}}, "output": {"id": "outer"}, "id": "top"}
    assert find_id(body, "id") == "top"
    assert find_id(body, "id", envelope="data") == "inner"
    assert find_id({"result": [], "output": {"task_id": 7}}, "id", "task_id") == "7"
    assert find_id({"request_id": "call"}, "id", "task_id", envelope="data") == ""


def test_a_text_can_be_kept_in_a_database() -> None:
    assert safe_text("a\x00b\ud800c\x1b[0m\nd") == "a b c [0m d"
    assert safe_url("https://x/\x00") is None
    assert safe_url("https://x/\ud800") is None


def test_a_path_is_names_and_numbers_only() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    assert dotted(["body", 0, deep, {"a": 1}, "duration"]) == "body.0.duration"
    assert dotted("body") == ""


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://api.example.com/v1/x?token=secret#f", "https://api.example.com"),
        ("HTTPS://API.example.com:443/v1", "https://api.example.com"),
        ("http://gateway.local:8080/login", "http://gateway.local:8080"),
        ("https://user:secret@example.com/", "https://example.com"),
        ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443"),
        ("  https://example.com ", "https://example.com"),
        ("/v1/elsewhere", ""),
        ("//example.com/x", ""),
        ("", ""),
        ("ftp://example.com/", ""),
        ("javascript:alert(1)", ""),
        ("https://", ""),
        ("https://example.com:99999/", ""),
        ("https://[bad/", ""),
        ("https://exa mple.com/", ""),
        ("https://exa\nmple.com/", ""),
        ("https://bücher.example/", ""),
        ("https://a\\@b.example/", ""),
        ("https://key_0123456789abcdef01.example/", ""),
        ("https://" + "a" * 300 + "/", ""),
    ],
)
def test_a_redirect_shows_its_origin_and_no_more(location: str, shown: str) -> None:
    assert safe_origin(location) == shown
