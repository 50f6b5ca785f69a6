"""`.env.local` in every form that people write: read as it is meant, or the start stops by file and line.

Nothing that is said on the way may hold a word of the file: each form has a canary for a key.
"""

from __future__ import annotations

import codecs
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import env_file
from tests.config.starting import ROOT, Ended, run

KEY = "key_canary7f3a"
NAME = "RUNWAY_API_KEY"

#: form → (what is in the file, the value of RUNWAY_API_KEY)
READ: dict[str, tuple[str | bytes, str]] = {
    "plain": (f"{NAME}={KEY}\n", KEY),
    "without a line end": (f"{NAME}={KEY}", KEY),
    "blanks round the equals sign": (f"{NAME} = {KEY}\n", KEY),
    "tabs round the equals sign": (f"{NAME}\t=\t{KEY}\n", KEY),
    "a blank in front": (f"  {NAME}={KEY}\n", KEY),
    "a tab in front": (f"\t{NAME}={KEY}\n", KEY),
    "blanks behind": (f"{NAME}={KEY}   \t\n", KEY),
    "export": (f"export {NAME}={KEY}\n", KEY),
    "export and blanks": (f"  export \t {NAME} = {KEY}\n", KEY),
    "a comment behind": (f"{NAME}={KEY}  # of the studio\n", KEY),
    "a comment behind a tab": (f"{NAME}={KEY}\t#of the studio\n", KEY),
    "a comment with quotes": (f'{NAME}={KEY} # the team\'s "own"\n', KEY),
    "a comment with letters of any kind": (f"{NAME}={KEY} # Schlüssel für 视频 🎬\n", KEY),
    "lines of comments and empty ones": (f"# keys\n\n   # more\n \t \n{NAME}={KEY}\n\n", KEY),
    "a # within": (f"{NAME}={KEY}#1\n", f"{KEY}#1"),
    "a # at the start": (f"{NAME}=#{KEY}\n", f"#{KEY}"),
    "a comment for a value": (f"{NAME}= #{KEY}\n", ""),
    "double quotes": (f'{NAME}="{KEY}"\n', KEY),
    "single quotes": (f"{NAME}='{KEY}'\n", KEY),
    "quotes and blanks": (f'{NAME} = "{KEY}"  \n', KEY),
    "quotes and a comment": (f"{NAME}='{KEY}' # of the studio\n", KEY),
    "quotes and a comment after tabs": (f"{NAME}='{KEY}'\t\t# of the studio\n", KEY),
    "a # in quotes": (f'{NAME}="{KEY} # 1"\n', f"{KEY} # 1"),
    "blanks in quotes": (f"{NAME}=' {KEY} '\n", f" {KEY} "),
    "the other quotes in quotes": (f"{NAME}='\"{KEY}\"'\n", f'"{KEY}"'),
    "a quote within": (f"{NAME}={KEY}\"'x\n", f"{KEY}\"'x"),
    "empty": (f"{NAME}=\n", ""),
    "empty in quotes": (f'{NAME}=""\n', ""),
    "blanks only": (f"{NAME}=   \n", ""),
    "$ at the start": (f"{NAME}=${KEY}\n", f"${KEY}"),
    "$ at the start of a name that is set": (f"{NAME}=$PATH\n", "$PATH"),
    "${…}": (f"{NAME}=${{HOME}}{KEY}\n", f"${{HOME}}{KEY}"),
    "$ in double quotes": (f'{NAME}="${KEY}$HOME"\n', f"${KEY}$HOME"),
    "$(…)": (f"{NAME}=$(cat {KEY})\n", f"$(cat {KEY})"),
    "= at the start": (f"{NAME}=={KEY}\n", f"={KEY}"),
    "= at the end": (f"{NAME}={KEY}==\n", f"{KEY}=="),
    "backslashes": (f"{NAME}=a\\b\\n{KEY}\\\n", f"a\\b\\n{KEY}\\"),
    "backslashes in double quotes": (f'{NAME}="a\\b\\n\\\\{KEY}"\n', f"a\\b\\n\\\\{KEY}"),
    "a backslash at the end of quotes": (f'{NAME}="{KEY}\\"\n', f"{KEY}\\"),
    "all that Django makes secrets of": (f"{NAME}=a0!@#$%^&*(-_=+){KEY}\n", f"a0!@#$%^&*(-_=+){KEY}"),
    "%": (f"{NAME}=%(x)s%20{KEY}\n", f"%(x)s%20{KEY}"),
    "letters of any kind": (f"{NAME}=schlüssel-视频-{KEY}\n", f"schlüssel-视频-{KEY}"),
    "a list": (f"{NAME}={KEY}, {KEY}2\n", f"{KEY}, {KEY}2"),
    "a blank within": (f"{NAME}={KEY} and more\n", f"{KEY} and more"),
    "CRLF": (f"PORT=1\r\n{NAME}={KEY}\r\n", KEY),
    "CR": (f"PORT=1\r{NAME}={KEY}\r", KEY),
    "ends of all kinds": (f"PORT=1\r\n\rDEBUG=0\n{NAME}={KEY}\r", KEY),
    "CRLF behind quotes": (f'{NAME}="{KEY}"\r\n', KEY),
    "a byte-order mark": (codecs.BOM_UTF8 + f"{NAME}={KEY}\n".encode(), KEY),
    "a byte-order mark before a comment": (codecs.BOM_UTF8 + f"# keys\n{NAME}={KEY}\n".encode(), KEY),
    "the same line twice": (f"{NAME}={KEY}\n{NAME}='{KEY}'\n", KEY),
    "a name of another program": (f"SENTRY_DSN=https://{KEY}x\nAWS_PROFILE=x\nHTTPS_PROXY=x\n{NAME}={KEY}\n", KEY),
    "a name in small letters of another program": (f"no_proxy=x\n{NAME}={KEY}\n", KEY),
}

#: form → (what is in the file, the line that is named, words of what is said)
REFUSED: dict[str, tuple[str | bytes, int, str]] = {
    "set": (f"set {NAME}={KEY}\n", 1, "expected NAME=value"),
    "setx": (f"\nsetx {NAME} {KEY}\n", 2, "no equals sign"),
    "$env:": (f'$env:{NAME}="{KEY}"\n', 1, "expected NAME=value"),
    "a colon": (f"# yaml\n{NAME}: {KEY}\n", 2, "no equals sign"),
    "a colon and an equals sign": (f"{NAME}: {KEY}=\n", 1, "expected NAME=value"),
    ":=": (f"{NAME}:={KEY}\n", 1, "expected NAME=value"),
    "+=": (f"{NAME}+={KEY}\n", 1, "expected NAME=value"),
    "JSON": (f'{{\n"{NAME}": "{KEY}"\n}}\n', 1, "no equals sign"),
    "a list of YAML": (f"- {NAME}={KEY}\n", 1, "expected NAME=value"),
    "a Dockerfile": (f"ENV {NAME}={KEY}\n", 1, "expected NAME=value"),
    "no equals sign": (f"PORT=8000\n{NAME} {KEY}\n", 2, "no equals sign"),
    "a key alone": (f"{KEY}\n", 1, "no equals sign"),
    "export alone": (f"export {NAME}\n", 1, "no equals sign"),
    "no name": (f"={KEY}\n", 1, "expected NAME=value"),
    "a digit at the start of the name": (f"1{NAME}={KEY}\n", 1, "expected NAME=value"),
    "a hyphen in the name": (f"RUNWAY-API-KEY={KEY}\n", 1, "expected NAME=value"),
    "a dot in the name": (f"RUNWAY.API.KEY={KEY}\n", 1, "expected NAME=value"),
    "a quoted name": (f'"{NAME}"={KEY}\n', 1, "expected NAME=value"),
    "a letter that is no ASCII in the name": (f"RUNWАY_API_KEY={KEY}\n", 1, "expected NAME=value"),
    "a name in small letters": (f"runway_api_key={KEY}\n", 1, "the setting is called RUNWAY_API_KEY"),
    "a name in mixed letters": (f"Runway_Api_Key={KEY}\n", 1, "the setting is called RUNWAY_API_KEY"),
    "a letter too many": (f"RUNWAY_API_KEYS={KEY}\n", 1, "the setting is called RUNWAY_API_KEY"),
    "a letter too few": (f"\n\nSECRT_KEY={KEY}\n", 3, "the setting is called SECRET_KEY"),
    "no underscore": (f"RUNWAY_APIKEY={KEY}\n", 1, "the setting is called RUNWAY_API_KEY"),
    "letters swapped": (f"PROT={KEY}\n", 1, "the setting is called PORT"),
    "a slip in a name without a prefix": (f"DATABASE_URI={KEY}\n", 1, "the setting is called DATABASE_URL"),
    "an unknown name of a provider": (f"KLING_ACCESS_KEY={KEY}\n", 1, "no setting of this name"),
    "an unknown name of ours": (f"REELWORKS_RUNWAY={KEY}\n", 1, "no setting of this name"),
    "a slip in a name of ours": (f"REELWORKS_SIMULAT={KEY}\n", 1, "the setting is called REELWORKS_SIMULATE"),
    "the file that is read": (f"REELWORKS_ENV_FILE={KEY}\n", 1, "can only be set outside of it"),
    "double quotes that stay open": (f'PORT=1\n{NAME}="{KEY}\nDEBUG=0\n', 2, "not closed in the same line"),
    "single quotes that stay open": (f"{NAME}='{KEY}\n", 1, "not closed in the same line"),
    "quotes of two kinds": (f"{NAME}='{KEY}\"\n", 1, "not closed in the same line"),
    "a value over two lines": (f'{NAME}="{KEY}\nmore"\n', 1, "not closed in the same line"),
    "text behind the quotes": (f'{NAME}="a"{KEY}\n', 1, "text behind the closing quotation mark"),
    "a comment right behind the quotes": (f'{NAME}="{KEY}"#c\n', 1, "text behind the closing quotation mark"),
    "two values in quotes": (f'{NAME}="{KEY}", "b"\n', 1, "text behind the closing quotation mark"),
    "an escaped quote": (f'{NAME}="{KEY}\\"b"\n', 1, "text behind the closing quotation mark"),
    "typographic quotes": (f"{NAME}=“{KEY}”\n", 1, "typographic quotation mark"),
    "backticks": (f"{NAME}=`{KEY}`\n", 1, "typographic quotation mark"),
    "NUL": (f"PORT=1\n{NAME}={KEY}\0\n", 2, "no UTF-8 text"),
    "an escape sequence": (f"PORT=1\n{NAME}={KEY}\x1b[0m\n", 2, "control character"),
    "a vertical tab": (f"{NAME}={KEY}\x0bDEBUG=1\n", 1, "control character"),
    "a next-line character": (f"{NAME}={KEY}\x85DEBUG=1\n", 1, "control character"),
    "a control character in a comment": (f"# \x08\n{NAME}={KEY}\n", 1, "control character"),
    "a line separator": (f"{NAME}={KEY}\u2028DEBUG=1\n", 1, "invisible character"),
    "a zero-width space": (f"{NAME}={KEY}\u200b\n", 1, "invisible character"),
    "a no-break space behind": (f"{NAME}={KEY}\u00a0\n", 1, "invisible character"),
    "a no-break space in front": (f"\u00a0{NAME}={KEY}\n", 1, "expected NAME=value"),
    "a tab within": (f"{NAME}={KEY}\t2\n", 1, "invisible character"),
    "two byte-order marks": (codecs.BOM_UTF8 * 2 + f"{NAME}={KEY}\n".encode(), 1, "expected NAME=value"),
    "a byte-order mark later": (f"PORT=1\n\ufeff{NAME}={KEY}\n", 2, "expected NAME=value"),
    "UTF-16": (f"{NAME}={KEY}\n".encode("utf-16"), 1, "save the file as UTF-8"),
    "UTF-16 the other way round": (codecs.BOM_UTF16_BE + f"{NAME}={KEY}\n".encode("utf-16-be"), 1, "UTF-8"),
    "UTF-16 without a mark": (f"{NAME}={KEY}\n".encode("utf-16-le"), 1, "save the file as UTF-8"),
    "UTF-32": (f"{NAME}={KEY}\n".encode("utf-32"), 1, "save the file as UTF-8"),
    "Latin-1": (f"PORT=1\r\n{NAME}={KEY}\r\n# für\r\n".encode("latin-1"), 3, "save the file as UTF-8"),
    "Windows' quotes": (f"\n{NAME}={KEY} # “x”\n".encode("cp1252"), 2, "save the file as UTF-8"),
    "half a letter": (f"{NAME}={KEY}".encode() + b"\xc3\n", 1, "save the file as UTF-8"),
    "an archive": (b"\x1f\x8b\x08\x08" + KEY.encode() + b"\xff\n", 1, "save the file as UTF-8"),
    "a name twice": (f"{NAME}={KEY}\n\n{NAME}={KEY}2\n", 3, "another value in line 1"),
    "a name twice, once empty": (f"{NAME}=\nPORT=1\r\nexport {NAME}='{KEY}'\n", 3, "another value in line 1"),
}


def written(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


@pytest.fixture
def nothing_said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No line in a log, and nothing on the terminal."""
    caplog.set_level("DEBUG")
    yield
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_there_are_sixty_forms_at_least() -> None:
    assert len(READ) + len(REFUSED) >= 60


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize(("content", "value"), READ.values(), ids=READ.keys())
def test_a_line_is_read_as_it_is_meant(content: str | bytes, value: str) -> None:
    assert env_file.parse(written(content), ".env.local")[NAME] == value


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize(("content", "line", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_read_is_told_by_its_line_and_not_by_its_text(
    content: str | bytes, line: int, words: str
) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        env_file.parse(written(content), "/srv/.env.local")
    said = str(caught.value)
    assert said.startswith(f"/srv/.env.local, line {line}: ")
    assert words in said
    assert KEY not in said
    # Nothing chained to it is shown in a traceback either.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


PIECES = (
    KEY,
    NAME,
    "PORT",
    "=",
    ":",
    " ",
    "\t",
    "#",
    " # ",
    '"',
    "'",
    "\\",
    "$",
    "export ",
    "\n",
    "\r",
    "\r\n",
    "é",
    "\ufeff",
)
RAW = [*(piece.encode() for piece in PIECES), b"\0", b"\xff", b"\xfe", b"\xc3", b"\x1b", b"\x85"]


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_are_read_or_refused_by_a_line_that_is_there(seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(200):
        data = b"".join(chosen.choice(RAW) for _ in range(chosen.randrange(30)))
        try:
            found = env_file.parse(data, "file")
        except ImproperlyConfigured as err:
            said = str(err)
            told = re.fullmatch(r"file, line ([0-9]+): .+\.", said)
            assert told is not None, data
            assert 1 <= int(told[1]) <= len(re.split(rb"\r\n|\r|\n", data)), data
            assert KEY not in said
        else:
            assert all(value.isprintable() for value in found.values()), data


def check(tmp_path: Path, content: str | bytes, *argv: str, **variables: str) -> Ended:
    file = tmp_path / "local.env"
    file.write_bytes(written(content))
    return run(tmp_path, *(argv or ("manage.py", "check")), REELWORKS_ENV_FILE=str(file), **variables)


@pytest.mark.parametrize("form", ["set", "a colon", "UTF-16", "Latin-1", "a name in small letters", "a name twice"])
def test_the_start_stops_with_one_sentence(tmp_path: Path, form: str) -> None:
    content, line, words = REFUSED[form]
    ended = check(tmp_path, content)
    ended.is_one_sentence(f"{tmp_path / 'local.env'}, line {line}: ", words)
    assert KEY not in ended.said


@pytest.mark.parametrize("form", ["a comment behind", "blanks round the equals sign", "a byte-order mark", "export"])
def test_a_real_start_takes_the_key(tmp_path: Path, form: str) -> None:
    ended = check(tmp_path, READ[form][0])
    assert ended.returncode == 0, ended.said
    assert "video.W001" not in ended.said  # "no provider has a key"
    assert KEY not in ended.said


def test_a_secret_is_what_the_file_says_with_its_dollar_sign(tmp_path: Path) -> None:
    secret = "$ecret-$HOME-" + "x" * 32
    show = tmp_path / "show.py"
    show.write_text(
        "from config.start import read_settings\nread_settings()\nfrom django.conf import settings\n"
        "print(settings.SECRET_KEY, settings.SIMPLE_JWT['SIGNING_KEY'], settings.FFMPEG_BINARY)\n"
    )
    content = f'SECRET_KEY={secret}\nJWT_SIGNING_KEY="$1\\{secret}"\nFFMPEG_BINARY=$HOME\n'
    assert check(tmp_path, content, str(show)).said.split() == [secret, f"$1\\{secret}", "$HOME"]
    exported = {
        "SECRET_KEY": f"${secret}",
        "JWT_SIGNING_KEY": "$PATH-and-more-of-it-" + "x" * 12,
        "FFMPEG_BINARY": "$1",
    }
    assert check(tmp_path, content, str(show), **exported).said.split() == list(exported.values())


def test_what_is_exported_wins_also_when_it_is_empty(tmp_path: Path) -> None:
    assert "video.W001" in check(tmp_path, f"{NAME}={KEY}\n", **{NAME: ""}).said


def test_a_line_that_is_wrong_sets_none_of_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from config import env

    (tmp_path / ".env.local").write_text(f"SENTRY_DSN={KEY}\nwrong\n")
    monkeypatch.delenv("REELWORKS_ENV_FILE")
    with pytest.raises(ImproperlyConfigured):
        env.load(tmp_path)
    assert "SENTRY_DSN" not in os.environ


def test_a_folder_a_device_and_a_link_to_nothing_are_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * (env_file.MOST_BYTES + 1))
    for name, words in {
        "folder": "must be a text file",
        "link": "can't be read (No such file or directory)",
        "pipe": "must be a text file",
        "large": "larger than 1,000,000 bytes",
    }.items():
        with pytest.raises(ImproperlyConfigured, match=re.escape(str(tmp_path / name))) as caught:
            env_file.read(tmp_path / name)
        assert words in str(caught.value)
    ended = run(tmp_path, "manage.py", "check", REELWORKS_ENV_FILE=str(tmp_path / "link"))
    ended.is_one_sentence(str(tmp_path / "link"), "can't be read")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_this_user_may_not_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / ".env.local"
    file.write_text(f"{NAME}={KEY}\n")
    file.chmod(0o600)
    folders = [folder for folder in file.parents if folder.stat().st_mode & 0o111 != 0o111]
    modes = [folder.stat().st_mode for folder in folders]
    for folder in folders:
        folder.chmod(0o711)
    os.seteuid(65534)
    try:
        with pytest.raises(ImproperlyConfigured, match=r"can't be read \(Permission denied\)"):
            env_file.read(file)
    finally:
        os.seteuid(0)
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode)


@pytest.mark.parametrize(
    ("page", "before", "names"),
    [
        ("configuration.md", "## How `.env.local` is read\n", {"RUNWAY_API_KEY", "SECRET_KEY"}),
        (
            "scaling.md",
            "for instance in `.env.local`:\n",
            {"DATABASE_URL", "SECRET_KEY", "RUNWAY_API_KEY", "DRAIN_SECONDS"},
        ),
        ("scaling.md", "Of their own:\n", {"BEHIND_TLS_PROXY", "SCRATCH_PATH", "MEDIA_CONCURRENCY"}),
    ],
)
def test_the_blocks_of_other_pages_can_be_read(page: str, before: str, names: set[str]) -> None:
    after = (ROOT / "docs" / page).read_text().partition(before)[2]
    block = re.match(r"\n((?:    [^\n]*\n)+)", after)
    assert block is not None
    found = env_file.parse(block[1].encode(), page)
    assert found.keys() >= names
    assert not any("  #" in value for value in found.values())


def test_the_readmes_block_starts_as_it_stands(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"With a key in `\.env\.local`[^\n]*\n(?:[^ \n][^\n]*\n)*\n((?:    [^\n]*\n)+)", readme)
    assert block is not None
    content = block[1]
    assert set(env_file.parse(content.encode(), "README.md")) == {"RUNWAY_API_KEY", "PIKA_API_KEY", "KLING_API_KEY"}
    assert " # " in content
    show = tmp_path / "show.py"
    show.write_text(
        "from config.start import read_settings\nread_settings()\nfrom django.conf import settings\n"
        "print(settings.SIMULATE, [[key.value for key in keys] for keys in settings.PROVIDER_KEYS.values()])\n"
    )
    said = check(tmp_path, content, str(show)).said.strip()
    assert said == "False [['key1', 'key2'], ['key'], ['key']]"
    ended = check(tmp_path, content)
    assert ended.returncode == 0, ended.said
    assert "video.W001" not in ended.said
