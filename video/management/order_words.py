"""How fields of an order that are neither plain text nor whole numbers are typed on the command line."""

from __future__ import annotations


def seconds_or_word(text: str) -> float | str:
    """Seconds as the API takes them, or a word that is judged with the rest of the order."""
    try:
        return float(text)
    except ValueError:
        return text


def words(text: str) -> list[str]:
    """Words between commas; none for an empty text."""
    return [word.strip() for word in text.split(",") if word.strip()]
