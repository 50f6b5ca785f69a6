"""Every setting with every kind of garbage: it stops the start with a sentence that names it, or it means what it says.

The settings are those of `config.names`, which tests/test_docs.py holds equal to what is read and documented: a new one
is tried here without another line.
"""

from __future__ import annotations

import ast
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config.names import KNOWN
from tests.config.starting import ROOT, bare

CANARY = "canary7f3a"
BLANKS = (" ", "\t \n")
GARBAGE = (
    *(CANARY, f"${CANARY}", "${PATH}", f"'{CANARY}'", f"<{CANARY}>", f"Bearer {CANARY}", f"{CANARY};{CANARY}"),
    *("nan", "inf", "-inf", "-1", "1e400", "1_000", "１６", "0x10", "8000.5", "1e-400", "1,5", ","),
    *(f"{CANARY}\x1b[31m", f"1\n{CANARY}", f"\u200b{CANARY}", f"\udcff{CANARY}", CANARY * 300, CANARY * 5000),
    *(f"https://{CANARY}:{CANARY}@h/?q#f", "https://[::1", "https://h:99999", f"//{CANARY}@h/x"),
    *(f"~{CANARY}/x", "/dev/null/x", "*", "--help"),
    *(f"postgres://u:{CANARY}@h:x/db", f"redis://:{CANARY}@h:x/0", f"s3://{CANARY}"),
)

#: What a setting needs beside it to be read at all.
BUCKET = {"STORAGE_URL": "s3://reels?endpoint=https://h", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
OF_A_BUCKET = {"STORAGE_PUBLIC_ENDPOINT", "STORAGE_CDN_URL", "STORAGE_ENCRYPTION", "STORAGE_CLASS"}
BESIDE = {name: BUCKET for name in KNOWN if name.startswith("AWS_") or name in OF_A_BUCKET}
BESIDE["STORAGE_CDN_LINKS"] = {**BUCKET, "STORAGE_CDN_URL": "https://h"}
BESIDE["EMAIL_URL"] = {"PUBLIC_BASE_URL": "https://h", "EMAIL_FROM": "a@example.com"}
BESIDE["STORAGE_KMS_KEY"] = {**BUCKET, "STORAGE_ENCRYPTION": "aws:kms"}

#: Nothing of it is read by the settings: a convention of others, and a switch of the tests.
NOT_READ = {"NO_COLOR", "REELWORKS_REQUIRE_BROWSER"}
#: Any text may be the right one.
TEXTS = {
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "JWT_SIGNING_KEY",
    "JWT_AUDIENCE",
    "JWT_ISSUERS",
    "FFMPEG_BINARY",
    "LABEL_PRODUCER",
    "LABEL_MARK",
    "LABEL_FONT",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
}
TEXTS |= {"METRICS_TOKEN", "SENTRY_ENVIRONMENT", "OTEL_SERVICE_NAME"}
TEXTS |= {"AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "STORAGE_KMS_KEY"}
FOLDERS = {"REELWORKS_HOME", "STORAGE_LOCAL_PATH", "SCRATCH_PATH"}
KEYS = {name for name in KNOWN if name.endswith("_API_KEY")}
HOSTS = {"ALLOWED_HOSTS", "HOST", "PRIVATE_HOSTS_ALLOWED", "WEBHOOK_PRIVATE_HOSTS"}


def start_all(tmp_path: Path, environments: list[dict[str, str]]) -> list[dict[str, Any]]:
    """How the settings end in each, all read by one process."""
    wanted, got = tmp_path / "wanted.json", tmp_path / "got.json"
    wanted.write_text(json.dumps(environments))
    command = [sys.executable, "-m", "tests.config.many_starts", str(wanted), str(got)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(got.read_text())
    return answers


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """(setting, value) → how the start ended. With "" the setting is not there at all."""
    folder = tmp_path_factory.mktemp("settings")
    fixed = {
        **bare(folder, SECRET_KEY="tests-" * 8, DATABASE_URL="postgres://h/db", CELERY_BROKER_URL="redis://h/0"),
        "HOME": str(folder),
    }
    cases = [(name, value) for name in sorted(KNOWN) for value in ("", *BLANKS, *GARBAGE)]
    environments = [{**fixed, **BESIDE.get(name, {}), name: value} for name, value in cases]
    for (name, value), environment in zip(cases, environments, strict=True):
        if not value and name != "REELWORKS_ENV_FILE":  # without that name the developer's own file would be read
            del environment[name]
    answers = start_all(folder, environments)
    return dict(zip(cases, answers, strict=True))


def of(tried: dict[tuple[str, str], dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Value → how the start ended, of one setting."""
    return {value: answer for (one, value), answer in tried.items() if one == name}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_garbage_is_refused_by_the_settings_name_without_a_word_of_it(
    tried: dict[tuple[str, str], dict[str, Any]], name: str
) -> None:
    for value, answer in of(tried, name).items():
        case = f"{name}={value[:60]!r}"
        assert "broken" not in answer, f"{case}: {answer['broken']}"
        assert answer["said"] == "", f"{case}: {answer['said']}"
        if (refused := answer.get("refused")) is not None:
            assert name in refused, f"{case}: {refused}"
            assert refused.endswith((".", "?")), refused
            assert "\n" not in refused
            # The path of a file that is not there has to be told.
            assert CANARY not in refused or name == "REELWORKS_ENV_FILE", f"{case}: {refused}"


@pytest.mark.parametrize("name", sorted(KNOWN - NOT_READ - {"REELWORKS_ENV_FILE"}))
def test_what_is_not_refused_means_what_it_says(tried: dict[tuple[str, str], dict[str, Any]], name: str) -> None:
    for value, answer in of(tried, name).items():
        if not value or value in BLANKS or "values" not in answer:
            continue
        assert means(name, value, answer["values"].get(name)), (
            f"{name}={value!r} was taken as {answer['values'].get(name)}"
        )


def means(name: str, value: str, shown: str | None) -> bool:
    """Whether a setting that prints so can be what somebody wanted who wrote this value."""
    if not value.isprintable():
        return False
    if name in TEXTS:
        return True
    if name in FOLDERS:
        return not value.startswith(("~", "/dev/null"))
    if name in KEYS:
        return re.fullmatch(r"[A-Za-z0-9._~+/:=,-]+", value) is not None
    if name in HOSTS:
        return re.fullmatch(r"[A-Za-z0-9._,*-]+", value) is not None and (value != "*" or name == "ALLOWED_HOSTS")
    if value == ",":  # an empty list
        return True
    if shown is None:  # one provider's number
        return re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", value) is not None and math.isfinite(float(value))
    found = ast.literal_eval(re.sub(r"Decimal\('([0-9.]+)'\)", r"\1", shown))
    several = list(found.values()) if isinstance(found, dict) else list(found) if isinstance(found, tuple) else [found]
    try:
        meant = [float(word) for word in value.split(",")]
    except ValueError:
        return False
    return all(type(one) in {int, float} and math.isfinite(one) and one in meant for one in several)


@pytest.mark.parametrize("name", sorted(KNOWN - {"SECRET_KEY", "JWT_SIGNING_KEY"} - BESIDE.keys()))
def test_nothing_but_blanks_is_the_same_as_nothing(tried: dict[tuple[str, str], dict[str, Any]], name: str) -> None:
    answers = of(tried, name)
    assert all(answers[blank] == answers[""] for blank in BLANKS)


@pytest.mark.parametrize("name", ["SECRET_KEY", "JWT_SIGNING_KEY"])
def test_a_secret_of_blanks_is_refused_since_the_default_is_another_on_each_host(
    tried: dict[tuple[str, str], dict[str, Any]], name: str
) -> None:
    assert all(name in of(tried, name)[blank]["refused"] for blank in BLANKS)


def test_no_value_fills_in_another_variable(tmp_path: Path) -> None:
    """In django-environ a value that begins with $ names another variable."""
    fixed = bare(tmp_path, MEANT="5", URL="postgres://h/db")
    texts = {"SECRET_KEY": "$MEANT" + "x" * 32, "FFMPEG_BINARY": "$MEANT"}
    numbers = {"PORT": "$MEANT", "DATABASE_URL": "$URL", "RUNWAY_API_KEY": "$MEANT"}
    first, *others = start_all(
        tmp_path, [{**fixed, **texts}, *({**fixed, **texts, name: value} for name, value in numbers.items())]
    )
    assert first["values"]["SECRET_KEY"] == repr(texts["SECRET_KEY"])
    assert first["values"]["FFMPEG_BINARY"] == "'$MEANT'"
    for name, answer in zip(numbers, others, strict=True):
        assert name in answer["refused"]


PLAIN = "https://api.example.com"
ADDRESSES = {
    PLAIN: PLAIN,
    f"{PLAIN}/": PLAIN,
    f"{PLAIN}/v1": PLAIN,
    f"{PLAIN}/v1/": PLAIN,
    f"{PLAIN}/v1/v1": f"{PLAIN}/v1",
    f"{PLAIN}/gateway/v1": f"{PLAIN}/gateway",
    f"{PLAIN}/v10": f"{PLAIN}/v10",
    "HTTPS://API.Example.com:443/": PLAIN,
    f"{PLAIN}:8443": f"{PLAIN}:8443",
    "https://my_service": "https://my_service",
    "https://10.0.0.5:8080": "https://10.0.0.5:8080",
    "https://[2001:db8::1]:8080": "https://[2001:db8::1]:8080",
    "http://localhost:8900": "http://localhost:8900",
    "http://LOCALHOST:8900/v1": "http://localhost:8900",
    "http://127.0.0.1:8900": "http://127.0.0.1:8900",
    "http://127.8.9.1": "http://127.8.9.1",
    "http://[::1]:8900": "http://[::1]:8900",
}
BAD_ADDRESSES = (
    *("http://api.example.com", "http://10.0.0.5:8080", "http://0.0.0.0", "http://localhost.example.com"),
    *("http://127.0.0.1.example.com", "http://127.1", "http://2130706433", "http://0x7f000001", "http://[::2]"),
    *("api.example.com", "//api.example.com", "ftp://api.example.com", "https:/api.example.com", "https://"),
    *("https://user@api.example.com", "https://user:pass@api.example.com", "https://@api.example.com"),
    *(f"{PLAIN}?x=1", f"{PLAIN}/?", f"{PLAIN}#x", f"{PLAIN}/#", f"{PLAIN}:", f"{PLAIN}:0", f"{PLAIN}:65536"),
    *(f"{PLAIN}:x", f"{PLAIN}:-1", f"{PLAIN}:１", "https://api..example.com", "https://-api.example.com"),
    *("https://api.example.com.", "https://.example.com", "https://exa mple.com", "https://münchen.example"),
    *(f"{PLAIN}\\v1", f"{PLAIN}/a b", f"{PLAIN}/\x07", "https://[::1", "https://[fe80::1%eth0]", "https://[x]"),
    *("https://" + "a" * 64, "https://" + "a." * 200 + "com", PLAIN + "/" + "a" * 3000, f"{PLAIN},{PLAIN}"),
)


def test_a_providers_address_is_https_or_on_this_machine_and_written_in_one_way(tmp_path: Path) -> None:
    fixed = bare(tmp_path, SECRET_KEY="tests-" * 8)
    names = sorted(name for name in KNOWN if re.fullmatch(r"[A-Z]+_BASE_URL", name) and name != "PUBLIC_BASE_URL")
    assert len(names) == 3
    good = start_all(tmp_path, [{**fixed, **dict.fromkeys(names, address)} for address in ADDRESSES])
    for address, answer in zip(ADDRESSES, good, strict=True):
        assert "values" in answer, f"{address}: {answer}"
        assert set(ast.literal_eval(answer["values"]["PROVIDER_BASE_URLS"]).values()) == {ADDRESSES[address]}
    bad = start_all(tmp_path, [{**fixed, names[0]: address} for address in BAD_ADDRESSES])
    for address, answer in zip(BAD_ADDRESSES, bad, strict=True):
        assert names[0] in answer.get("refused", ""), f"{address}: {answer}"
