"""Failure texts that no adapter knows: kept for an operator, and read as the operator decided.

A task whose job ended so asks no other vendor before that: the text may be a refusal, and asking one vendor after the
other for what is forbidden is what gets accounts suspended. Known failures cost no statement here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Case, QuerySet, When
from django.db.models.functions import Now

from providers import errors
from providers.errors import JobFailed
from providers.untrusted import safe_text, storable
from video.audit import records
from video.audit.actors import Actor
from video.infra import database
from video.infra.errors import Refusal
from video.models import FailureText, Generation

Meaning = FailureText.Meaning

#: A hostile provider, or one that puts the user's words into its texts, must not fill the table.
MOST_OF_A_PROVIDER = 500
#: The row that counts what came when a provider had so many; its texts differ, so nothing can be decided for it.
OTHER = "(other texts)"
#: The signature of a failure without a word.
NO_TEXT = "(no text)"
LONGEST_SIGNATURE = FailureText._meta.get_field("signature").max_length or 0
LONGEST_SAMPLE = FailureText._meta.get_field("sample").max_length or 0

#: What a task does, by what an operator said: our code, could another model do it, a sentence for the user.
_OUTCOMES: Mapping[str, errors.Outcome] = {
    Meaning.UNDECIDED: ("generation_failed", False, JobFailed.user_message),
    Meaning.MODERATION: ("moderation", False, errors.REFUSED_BY_SAFETY),
    Meaning.BAD_REQUEST: ("bad_request", False, errors.RequestRejected.user_message),
    Meaning.ANOTHER_MODEL: ("generation_failed", True, JobFailed.user_message),
    Meaning.FAILED: ("generation_failed", False, JobFailed.user_message),
}
MEANINGS = tuple(meaning.value for meaning in Meaning if meaning is not Meaning.UNDECIDED)


class DecisionRefused(Refusal):
    """There is no such text, or nothing can be decided for it."""

    code = "decision_refused"


# --- as jobs end ---------------------------------------------------------------------------------------------------


def understood(generation: Generation, error: JobFailed) -> JobFailed:
    """The same failure, with the code, the sentence and the fallback that an operator decided; one statement.

    Nothing decided: it stays unknown, the task ends as `generation_failed`, and no other model is asked.
    """
    row = database.fetch_one(
        "SELECT meaning FROM video_failuretext WHERE provider = %s AND signature = %s",
        [generation.provider, _signature(generation, error)],
    )
    meaning = row[0] if row else Meaning.UNDECIDED.value
    return JobFailed.of(
        _OUTCOMES[meaning],
        error.message,
        is_known=meaning != Meaning.UNDECIDED,
        signature=error.signature,
        provider_code=error.provider_code,
        http_status=error.http_status,
    )


def count(generation: Generation, error: JobFailed) -> None:
    """Write down that a job ended with a text that no adapter knows; one statement.

    Call it in the transaction that records the job's end, and after that was written, so that each job counts once.
    `generation.task` is read: nothing of its prompt is kept, and nothing at all once it is deleted, since its prompt is
    not known then. Ends at the same moment may exceed the limit by as many
    as they are.
    """
    if generation.task.is_deleted:
        return
    database.execute(
        """
        INSERT INTO video_failuretext AS f
            (provider, signature, sample, model, last_task, count, meaning, decided_by)
        SELECT %(provider)s, CASE WHEN so_far.has_it OR so_far.number < %(most)s THEN %(signature)s ELSE %(other)s END,
            CASE WHEN so_far.has_it OR so_far.number < %(most)s THEN %(sample)s ELSE '' END, %(model)s, %(task)s, 1,
            '', ''
        FROM (
            SELECT coalesce(bool_or(signature = %(signature)s), false) AS has_it, count(*) AS number
            FROM video_failuretext WHERE provider = %(provider)s
        ) so_far
        ON CONFLICT (provider, signature) DO UPDATE SET count = f.count + 1, last_seen = statement_timestamp(),
            model = excluded.model, last_task = excluded.last_task
        """,
        {
            "provider": generation.provider,
            "signature": _signature(generation, error),
            "sample": safe_text(_without_prompt(generation, error, error.message), LONGEST_SAMPLE),
            "model": generation.model,
            "task": generation.task_id,
            "most": MOST_OF_A_PROVIDER,
            "other": OTHER,
        },
    )


def _signature(generation: Generation, error: JobFailed) -> str:
    """What all failures of this kind have in common; never a word of the prompt, which would make each its own kind."""
    found = safe_text(_without_prompt(generation, error, error.signature), LONGEST_SIGNATURE)
    return NO_TEXT if found in {"", OTHER} else found


_CODE = re.compile(r"[\x21-\x7e]+")


def _without_prompt(generation: Generation, error: JobFailed, text: str) -> str:
    """One line, with what it repeats of the prompt hidden; the provider's code stays, if it is one word in ASCII."""
    code = error.provider_code if _CODE.fullmatch(error.provider_code) else ""
    for written in (generation.task.prompt, generation.task.negative_prompt):
        text = hide_echo(text, written, but=code)
    return text


ECHO = "[prompt]"
_ECHO_LENGTH = 12  # characters in a row that are no accident
_ECHO_LENGTH_DENSE = 5  # of writings without ASCII, which say more with fewer
_SHORTEST_PROMPT = 4


def hide_echo(text: str, prompt: str, *, but: str = "") -> str:
    """The text with `[prompt]` in place of what it repeats of the prompt, in whatever case and spacing.

    `but` is shown wherever it stands. Costs time in proportion to the lengths, whatever the texts hold.
    """
    line, said = " ".join(text.split()), _same_case(" ".join(prompt.split()))
    lower = _same_case(line)
    hidden = bytearray(len(line))
    for length, dense in ((_ECHO_LENGTH, False), (_ECHO_LENGTH_DENSE, True)):
        pieces = {said[at : at + length] for at in range(len(said) - length + 1)}
        if not dense and _SHORTEST_PROMPT <= len(said) < length:
            pieces, length = {said}, len(said)  # a prompt that is shorter than a piece is one
        for at in range(len(lower) - length + 1):
            piece = lower[at : at + length]
            if piece in pieces and not (dense and any(c.isascii() for c in piece)):
                hidden[at : at + length] = b"\1" * length
    for found in re.finditer(re.escape(_same_case(but)), lower) if but else ():
        hidden[found.start() : found.end()] = bytes(len(found[0]))
    shown: list[str] = []
    for at, character in enumerate(line):
        if not hidden[at]:
            shown.append(character)
        elif at == 0 or not hidden[at - 1]:
            shown.append(ECHO)
    return "".join(shown)


def _same_case(text: str) -> str:
    """In lower case and of the same length: some letters become two."""
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


# --- for operators -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Undecided:
    """What waits for a decision at one provider."""

    texts: int
    jobs: int  # that ended so


def listed() -> QuerySet[FailureText]:
    """All texts: what is not decided first, then those that were seen last."""
    undecided_first = Case(When(meaning=Meaning.UNDECIDED, then=0), default=1)
    return FailureText.objects.order_by(undecided_first, "-last_seen", "pk")


def undecided() -> dict[str, Undecided]:
    """What waits for a decision, by provider; one statement over at most a few hundred rows a provider."""
    rows = database.fetch(
        "SELECT provider, count(*), sum(count) FROM video_failuretext WHERE meaning = '' GROUP BY provider"
        " ORDER BY provider"
    )
    return {row[0]: Undecided(row[1], int(row[2])) for row in rows}


def decide(text_id: int, meaning: str, *, by: Actor) -> FailureText:
    """What tasks do from now on when a job ends so; empty: nobody has decided it. Tasks that have ended stay ended.

    `by` names the operator. Raises DecisionRefused.
    """
    if meaning not in _OUTCOMES:
        raise DecisionRefused(f"A failure text means one of {', '.join(MEANINGS)}.")
    with transaction.atomic():
        found = FailureText.objects.select_for_update().filter(pk=text_id).first()
        if found is None:
            raise DecisionRefused(f"There is no failure text {text_id}.")
        if found.signature == OTHER:
            raise DecisionRefused(
                f"{found} stands for many texts, so nothing can be decided for it. Forget texts that are of no use: "
                "then the next ones are listed by themselves."
            )
        who = (storable(by.name, 150) or "somebody") if meaning else ""
        FailureText.objects.filter(pk=text_id).update(
            meaning=meaning, decided_by=who, decided_at=Now() if meaning else None
        )
        records.record(by, "decide", "failuretext", text_id, detail=f"means {meaning or 'nothing: undecided'}")
    return FailureText.objects.get(pk=text_id)


def forget(text_id: int, *, by: Actor) -> FailureText:
    """Drop a text with its decision: seen again, it is listed anew. Raises DecisionRefused if there is none."""
    with transaction.atomic():
        found = FailureText.objects.select_for_update().filter(pk=text_id).first()
        if found is None:
            raise DecisionRefused(f"There is no failure text {text_id}.")
        FailureText.objects.filter(pk=text_id).delete()
        records.record(by, "forget", "failuretext", text_id, detail=f"of {found.provider}")
    return found
