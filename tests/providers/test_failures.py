"""One line for all failures of a kind, with nothing of the one job or its prompt in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import JobFailed
from providers.failures import LONGEST_SIGNATURE, job_failed, signature
from providers.untrusted import safe_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Failure to pass the risk control system", "failure to pass the risk control system"),
        ("  Node\n17 is   gone. ", "node # is gone"),
        ("Task 893605946402811985 failed at 12:30:01", "task # failed at #:#:#"),
        ("Task 17f20503-6c24-4c16-946b-35dbbce2af2f failed", "task # failed"),
        ("Image 338x191 too small!", "image # too small"),
        ("Could not read https://user.example/a.png?sig=SECRET now", "could not read now"),
        ("Could not read data:image/png;base64,SECRET", "could not read"),
        ('The prompt "SECRET cat" was not understood', "the prompt was not understood"),
        ("The prompt 'SECRET cat's hat' was not understood", "the prompt was not understood"),
        ("The prompt “SECRET” and ‘SECRET’ and «SECRET» and `SECRET`", "the prompt and and and"),
        ("词语「SECRET」和《SECRET》不可用", "词语 和 不可用"),
        ('cut off "SECRET cat', "cut off"),
        ("bad prompt: SECRET cat", "bad"),
        ("提示词：SECRET", "no words of its own"),
        ('"SECRET"', "no words of its own"),
        ("图片尺寸300像素不足", "图片尺寸#像素不足"),
        ("We can't read the user's file", "we can't read the user's file"),
        ("", "no reason given"),
        (" \n", "no reason given"),
    ],
)
def test_what_differs_from_job_to_job_is_taken_out(text: str, expected: str) -> None:
    assert signature("kling", "", text) == f"kling: {expected}"


def test_a_code_counts_before_the_text() -> None:
    assert signature("Runway", "BRAND.NEW.CODE01", "Some text") == "runway: brand.new.code01"
    assert signature("runway", "X.17f20503-6c24-4c16-946b-35dbbce2af2f.Y.1234567", "") == "runway: x.#.y.#"


@given(st.text(max_size=400), st.text(max_size=400))
def test_any_failure_has_one_short_line(code: str, text: str) -> None:
    line = signature("kling", code, text)
    assert line == signature("kling", code, text)
    assert 0 < len(line) <= LONGEST_SIGNATURE
    assert line == safe_text(line, LONGEST_SIGNATURE)  # any row and any log takes it
    assert line == line.lower()


def test_a_failure_in_no_table_goes_to_no_other_model() -> None:
    unseen = job_failed("kling", None, title="Kling", text="Something")
    assert (unseen.code, unseen.is_known, unseen.another_model_could) == ("unknown_failure", False, False)
    assert unseen.message == "Kling: Something"
    known = job_failed("kling", ("generation_failed", True, "Sorry."), title="Kling", text="", codeless="no code")
    assert (known.is_known, known.another_model_could, known.user_message) == (True, True, "Sorry.")
    assert known.message == "Kling: no reason given (no code)"
    assert JobFailed("made by hand", another_model_could=True).is_known
