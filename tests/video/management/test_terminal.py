"""What a terminal would obey does not reach it, whatever rows of older versions hold."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from rich.table import Table
from rich.text import Text

from providers.untrusted import printable
from tests.factories import accepted, admitted, claimed, make_task, park_one
from tests.video.presence import everybody
from video.attempts import configured_keys, task_moves
from video.management.commands import check_providers, generate
from video.management.terminal import TerminalConsole
from video.models import Circuit, FailureText, ProviderAccount, ProviderKey, Stage, TaskEvent, VideoTask
from video.monitoring import providers
from video.processes import key_check

#: A cleared screen, a new title, a link, another colour in two ways, a carriage return, a reversed line; then markup of
#: the library that prints, with a tag that closes nothing.
HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\x1b]8;;https://evil.example\x1b\\x\x1b]8;;\x1b\\ \x9b31m\r\x08\u202e "
    "[red]marked[/] [/nothing] [link=https://evil.example]y[/link] :bomb:"
)
#: All that is left to see of it, wherever a line of it ends.
SEEN = ("[2J", "]0;owned", "[red]marked[/]", "[/nothing]", "[link=https://evil.example]y[/link]", ":bomb:")
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
#: What the printing library itself writes: colours, cursor moves, and nothing else.
OWN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen(io.StringIO):
    """A terminal as far as programs ask."""

    def isatty(self) -> bool:
        return True


def shown(text: str, *, parts: tuple[str, ...] = SEEN) -> None:
    assert not OBEYED.search(text), text
    for part in parts:
        assert part in text, part


def run(name: str, *args: str) -> str:
    """Everything that was printed, to a file."""
    out = io.StringIO()
    try:
        call_command(name, *args, stdout=out, stderr=out)
    except SystemExit:
        return out.getvalue()
    except CommandError as err:
        return f"{out.getvalue()}{err}"
    return out.getvalue()


@pytest.mark.parametrize("wrap", [str, Text, lambda text: Text(text, style="red")], ids=["plain", "text", "styled"])
def test_a_cell_and_a_line_are_printed_as_they_are(wrap: Any) -> None:
    out = io.StringIO()
    console = TerminalConsole(out, width=300)
    rows = Table()
    rows.add_row(wrap(HOSTILE))
    console.print(rows)
    shown(out.getvalue())
    console.print(wrap(HOSTILE))
    shown(out.getvalue())


def test_on_a_terminal_only_the_programs_own_styles_act(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Screen()
    TerminalConsole(out, width=300).print(Text(HOSTILE, style="red"), "\x1b[2Jplain")
    said = out.getvalue()
    assert "\x1b[31m" in said
    assert "\x1b[2J" not in said
    shown(OWN.sub("", said))


def test_lines_and_tabs_stay_and_all_letters() -> None:
    text = "a\tb\nc é 猫 👩\u200d🚀"
    assert printable(text) == text


@pytest.mark.django_db
class TestCommands:
    def test_queue_status(self) -> None:
        configured_keys.sync()
        everybody()
        assert park_one(claimed(admitted(make_task()).task), delay_s=60, reason=HOSTILE)
        ProviderKey.objects.update(last_error=HOSTILE, state="quarantined")
        ProviderAccount.objects.update(last_error=HOSTILE, closed_reason="out_of_credits", balance_unit="\x1b[2J[red]")
        Circuit.objects.create(model="gen4.5", provider="runway", faults=9, last_error=HOSTILE)
        shown(run("queue_status"))

    def test_check_providers(self) -> None:
        configured_keys.sync()
        ProviderKey.objects.update(last_error=HOSTILE)
        keys = providers.keys()
        out = io.StringIO()
        rows = [key_check.Row(key, "refused", None, providers.accounts(keys)) for key in keys]
        check_providers.Command(stdout=out)._show(rows)
        shown(out.getvalue())

    def test_failure_texts(self) -> None:
        row = FailureText.objects.create(
            provider="pika", signature=HOSTILE, sample=HOSTILE, model="\x1b[2J[red]", last_task="task_1"
        )
        shown(run("failure_texts"))
        shown(run("failure_texts", "decide", str(row.pk), "failed", "--by", "olga"))
        FailureText.objects.update(decided_by="\x1b[2Jolga")
        shown(run("failure_texts", "--all"), parts=(*SEEN, "by [2Jolga"))
        shown(run("failure_texts", "forget", str(row.pk)))

    @pytest.mark.parametrize("is_terminal", [False, True])
    def test_generate(self, monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
        def play(seconds: float) -> None:
            task = VideoTask.objects.get()
            if task.stage == Stage.GENERATE:
                accepted(task)
                TaskEvent.objects.update(detail=HOSTILE)
                return
            assert task_moves.fail(claimed(task, Stage.POLL), code="provider_failed", message="x")
            VideoTask.objects.update(error_message=HOSTILE)

        monkeypatch.setattr(generate.time, "sleep", play)
        monkeypatch.setenv("COLUMNS", "400")
        out = Screen() if is_terminal else io.StringIO()
        if is_terminal:
            monkeypatch.setattr(generate.sys, "stdout", out)
        with pytest.raises(CommandError) as failed:
            call_command("generate", "A cat", "--wait", stdout=out, stderr=io.StringIO())
        shown(str(failed.value))
        shown(OWN.sub("", out.getvalue()).replace("\r", ""))
