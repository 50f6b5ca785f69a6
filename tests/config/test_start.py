"""A wrong setting ends each of our programs with its one sentence: no traceback, no second copy, a code that fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from django.conf import LazySettings

from config.management.commands import up
from providers.api_keys import fingerprint
from tests.config.starting import bare, run, servers

KEY = "key_canary7f3a"
WORKER = ("-m", "celery", "-A", "config", "worker", "--pool", "threads", "-c", "1", "-Q", "videoQueue")
PROGRAMS = {
    "check": ("manage.py", "check"),
    "migrate": ("manage.py", "migrate"),
    "help": ("manage.py", "help"),
    "version": ("manage.py", "--version"),
    "no command": ("manage.py",),
    "queue_status": ("manage.py", "queue_status"),
    "sweeper": ("manage.py", "sweeper"),
    "simulator": ("manage.py", "simulator"),
    "up": ("manage.py", "up"),
    "demo": ("manage.py", "up", "--then", "generate", "A cat walking in a garden", "--wait"),
    "worker": WORKER,
    "inspect": ("-m", "celery", "-A", "config", "inspect", "ping"),
    "report": ("-m", "celery", "-A", "config", "report"),
}


@pytest.mark.parametrize("argv", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_line_that_cannot_be_read_ends_every_program_with_one_sentence(tmp_path: Path, argv: tuple[str, ...]) -> None:
    file = tmp_path / "local.env"
    file.write_text(f"# keys\nRUNWAY_API_KEY: {KEY}\n")
    ended = run(tmp_path, *argv, REELWORKS_ENV_FILE=str(file))
    ended.is_one_sentence(f"{file}, line 2: expected NAME=value")
    assert KEY not in ended.said
    assert ended.returncode == 1


@pytest.mark.parametrize("program", ["check", "up", "worker"])
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LOG_LEVEL": "verbose"}, "LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL."),
        ({"KLING_API_KEY": f"{KEY}|secret"}, "accessKey:secretKey"),
        ({"RUNWAY_BASE_URL": f"http://{KEY}.example.com"}, "RUNWAY_BASE_URL must begin with https://"),
        ({"REELWORKS_HOME": "/dev/null/home"}, "REELWORKS_HOME must be a folder"),
        ({"VIDEO_CONCURRENCY": "many"}, "VIDEO_CONCURRENCY must be a whole number"),
        ({"HOST": "http://0.0.0.0"}, "HOST must be an address or name of this machine"),
        ({"REELWORKS_FAILPOINT": "poll.claimed"}, "REELWORKS_FAILPOINT must be a point"),
        ({"SECRET_KEY": " " * 40}, "SECRET_KEY is nothing but blanks."),
        ({"DJANGO_SETTINGS_MODULE": "mysite.settings"}, "DJANGO_SETTINGS_MODULE names settings that are not here"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_value_ends_it_too(tmp_path: Path, program: str, variables: dict[str, str], message: str) -> None:
    ended = run(tmp_path, *PROGRAMS[program], **variables)
    ended.is_one_sentence(message)
    assert KEY not in ended.said


def test_the_web_server_says_it_once_and_ends(tmp_path: Path) -> None:
    argv = ("-m", "granian", "--interface", "rsgi", "--port", "0", "--workers", "1", "--log-level", "error")
    ended = run(tmp_path, *argv, "config.front:application", PORT="http")
    assert ended.returncode != 0
    assert ended.said.count("PORT must be a whole number from 1 to 65,535.") == 1
    assert "Traceback" not in ended.said


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FFMPEG_BINARY": "/no/ffmpeg"}, "FFMPEG_BINARY is /no/ffmpeg"),
        ({"FFMPEG_BINARY": "no-such-ffmpeg"}, "FFMPEG_BINARY is no-such-ffmpeg"),
    ],
)
def test_up_checks_programs_and_folders_once_before_it_starts_what_would_end_again_and_again(
    tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    run(tmp_path, *PROGRAMS["up"], REELWORKS_SIMULATE="1", **variables).is_one_sentence(message)


def test_what_up_starts_gets_what_up_has_read(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELWORKS_ENV_FILE", "local.env")
    monkeypatch.setenv("WEB_THREADS", " ")
    monkeypatch.setenv("MEDIA_CONCURRENCY", "")
    settings.HOST, settings.WEB_THREADS, settings.VIDEO_CONCURRENCY = "::1", 9, 7
    env = up._environment(8001, 0)
    assert env["REELWORKS_ENV_FILE"] == ""
    assert (env["PORT"], env["HOST"], env["WEB_THREADS"], env["VIDEO_CONCURRENCY"]) == ("8001", "::1", "9", "7")
    assert env["MEDIA_CONCURRENCY"] == str(os.cpu_count())


def test_embedded_servers_that_will_not_start_are_told_as_plainly(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "run").write_text("no folder")
    ended = run(tmp_path, *PROGRAMS["migrate"], **dict.fromkeys(servers(), ""))
    assert ended.returncode == 1
    assert "Traceback" not in ended.said


def test_web_waits_less_for_the_database_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    show = tmp_path / "show.py"
    show.write_text(
        "import json, config.front\nfrom django.conf import settings\n"
        "print(json.dumps(settings.DATABASES['default']['OPTIONS']['pool']['timeout']))\n"
    )
    file = tmp_path / "local.env"
    file.write_text("DATABASE_WAIT_SECONDS=7 # seconds\n")
    assert json.loads(run(tmp_path, str(show)).said) == 2
    assert json.loads(run(tmp_path, str(show), REELWORKS_ENV_FILE=str(file)).said) == 7
    assert "DATABASE_WAIT_SECONDS" not in bare(tmp_path)


def test_web_keeps_no_value_of_a_key_that_it_was_started_with(tmp_path: Path) -> None:
    show = tmp_path / "show.py"
    show.write_text(
        "import json, os, config.front\nfrom django.conf import settings\n"
        "keys = [(name, key.fingerprint, key.shape) for name in settings.PROVIDER_KEYS "
        "for key in settings.PROVIDER_KEYS[name]]\n"
        "values = [key._value for several in settings.PROVIDER_KEYS.values() for key in several]\n"
        "named = {name: getattr(settings, name) for name in dir(settings) if name.isupper()}\n"
        "print(json.dumps([keys, repr((values, named, dict(os.environ)))]))\n"
    )
    file = tmp_path / "local.env"
    file.write_text(f"RUNWAY_API_KEY={KEY}_1,{KEY}_2\nKEY_ACCOUNTS=runway:one={fingerprint(KEY + '_1')}\n")
    ended = run(tmp_path, str(show), REELWORKS_ENV_FILE=str(file), KLING_API_KEY=f"access:{KEY}")
    keys, everything = json.loads(ended.said)
    assert keys == [
        ["runway", fingerprint(f"{KEY}_1"), "x"],
        ["runway", fingerprint(f"{KEY}_2"), "x"],
        ["kling", fingerprint(f"access:{KEY}"), "x:x"],
    ]
    assert KEY not in everything
    wrong = run(tmp_path, str(show), RUNWAY_API_KEY=f"{KEY} x")
    wrong.is_one_sentence("RUNWAY_API_KEY: key 1 of the list has white space inside.")
