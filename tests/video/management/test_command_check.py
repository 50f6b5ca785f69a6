"""System checks: each mistake is found, and a good installation is quiet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.checks import CheckMessage

from config.embedded import postgres
from config.names import KNOWN
from media_pipeline.encode.isolation import Isolation
from providers.api_keys import parse_keys
from tests.config.starting import Ended, run
from tests.system.system import database_url
from video import checks


def ids(found: list[CheckMessage]) -> list[str | None]:
    return [message.id for message in found]


@pytest.fixture
def real_keys(settings: Any) -> None:
    settings.SIMULATE = False
    settings.PROVIDER_KEYS = {
        "runway": parse_keys("key-for-a-test", variable="RUNWAY_API_KEY"),
        "pika": (),
        "kling": (),
    }


def test_a_storage_folder_that_can_be_made_is_fine(settings: Any, tmp_path: Path) -> None:
    settings.STORAGE_LOCAL_PATH = tmp_path / "not" / "there" / "yet"
    assert checks.storage_is_writable(None) == []
    assert not settings.STORAGE_LOCAL_PATH.exists()


def test_a_file_in_the_way_of_the_storage_folder_is_an_error(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings.STORAGE_LOCAL_PATH = tmp_path / "file" / "storage"
    assert ids(checks.storage_is_writable(None)) == ["video.E001"]


def test_the_included_ffmpeg_is_found(settings: Any) -> None:
    settings.FFMPEG_BINARY = ""
    assert checks.ffmpeg_is_runnable(None) == []


def test_an_ffmpeg_that_is_not_there_is_an_error_that_names_the_setting(settings: Any, tmp_path: Path) -> None:
    settings.FFMPEG_BINARY = str(tmp_path / "ffmpeg")
    [message] = checks.ffmpeg_is_runnable(None)
    assert message.id == "video.E002"
    assert "FFMPEG_BINARY" in str(message.hint)


@pytest.mark.parametrize(
    ("mode", "complete", "found"),
    [
        *(("require", False, ["video.E004"]), ("auto", False, ["video.W013"]), ("off", False, ["video.W013"])),
        *(("require", True, []), ("auto", True, [])),
    ],
)
def test_isolation_that_is_not_complete_is_said_and_an_error_where_it_is_required(
    settings: Any, monkeypatch: pytest.MonkeyPatch, mode: str, complete: bool, found: list[str]
) -> None:
    settings.MEDIA_ISOLATION = mode
    here = Isolation(landlock=7, seccomp=True) if complete else Isolation(missing="no such kernel")
    monkeypatch.setattr(checks.toolkit().ffmpeg, "isolation", here)
    messages = checks.media_is_isolated_where_required(None) + checks.media_is_isolated(None)
    assert ids(messages) == found
    assert all("no such kernel" in message.msg for message in messages)


def test_simulating_without_keys_is_quiet() -> None:
    assert checks.keys_and_simulation(None) == []


def test_simulating_while_keys_are_configured_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWAY_API_KEY", "a-secret-key")
    [message] = checks.keys_and_simulation(None)
    assert message.id == "video.W002"
    assert "RUNWAY_API_KEY" in message.msg
    assert "a-secret-key" not in str(message)


def test_neither_keys_nor_simulation_is_a_warning(settings: Any) -> None:
    settings.SIMULATE = False
    settings.PROVIDER_KEYS = {"runway": (), "pika": (), "kling": ()}
    assert ids(checks.keys_and_simulation(None)) == ["video.W001"]


@pytest.mark.usefixtures("real_keys")
def test_debug_with_real_keys_is_a_warning(settings: Any) -> None:
    settings.DEBUG = False
    assert checks.keys_and_simulation(None) == []
    settings.DEBUG = True
    assert ids(checks.keys_and_simulation(None)) == ["video.W003"]


def test_a_server_for_others_has_an_address_and_real_videos(settings: Any) -> None:
    settings.PUBLIC_BASE_URL = ""
    assert ids(checks.ready_for_others(None)) == ["video.W004", "video.W005"]
    settings.PUBLIC_BASE_URL, settings.SIMULATE = "https://video.example.com", False
    assert checks.ready_for_others(None) == []


@pytest.fixture
def private(settings: Any, tmp_path: Path) -> Any:
    """Settings of a good installation, all in a folder of their own."""
    settings.ENV_FILE = tmp_path / ".env.local"
    settings.ENV_FILE.write_text("RUNWAY_API_KEY=canary")
    settings.ENV_FILE.chmod(0o600)
    settings.REELWORKS_HOME = tmp_path / "home"
    settings.REELWORKS_HOME.mkdir(mode=0o700)
    settings.SIMULATE, settings.HOST, settings.PUBLIC_BASE_URL = False, "127.0.0.1", "https://video.example.com"
    settings.COOKIE_SECURE = settings.BEHIND_TLS_PROXY = settings.HTTPS_REDIRECT = True
    settings.HSTS_SECONDS = 86400
    return settings


def of_all(private: Any) -> list[str | None]:
    found = [*checks.secrets_are_private(None), *checks.safe_on_the_net(None)]
    assert all(message.hint for message in found)
    assert "canary" not in str(found)
    return ids(found)


def test_a_private_installation_is_quiet(private: Any) -> None:
    assert of_all(private) == []
    private.ENV_FILE = None
    assert of_all(private) == []


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o666])
def test_a_file_of_keys_that_others_can_read_is_a_warning(private: Any, mode: int) -> None:
    private.ENV_FILE.chmod(mode)
    assert of_all(private) == ["video.W006"]


def test_a_home_that_others_can_read_is_a_warning(private: Any) -> None:
    private.REELWORKS_HOME.chmod(0o755)
    assert of_all(private) == ["video.W007"]
    private.REELWORKS_HOME.chmod(0o711)
    assert of_all(private) == []
    (private.REELWORKS_HOME / "log").mkdir()
    (private.REELWORKS_HOME / "log").chmod(0o755)
    assert of_all(private) == ["video.W007"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_the_demo_user_on_the_net_is_a_warning(private: Any, host: str) -> None:
    private.HOST = host
    assert of_all(private) == []
    private.SIMULATE = True
    assert of_all(private) == ["video.W009"]


def test_what_is_not_encrypted_is_a_warning(private: Any) -> None:
    private.PUBLIC_BASE_URL = "http://video.example.com"
    assert of_all(private) == ["video.W010"]
    private.PUBLIC_BASE_URL = "https://video.example.com"
    private.COOKIE_SECURE, private.HSTS_SECONDS, private.HTTPS_REDIRECT = False, 0, False
    assert of_all(private) == ["video.W011", "video.W011", "video.W011"]
    private.BEHIND_TLS_PROXY = False  # then there is nothing to redirect by
    assert of_all(private) == ["video.W011", "video.W011", "video.W011"]


def test_an_embedded_postgresql_that_is_behind_is_a_warning(settings: Any) -> None:
    for version, found in (("18.4", ["video.W012"]), ("18.6", []), ("18.10", []), ("", [])):
        settings.EMBEDDED_POSTGRES_VERSION = version
        assert ids(checks.embedded_postgres_is_mended(None)) == found


DEPLOYED = """
from config.start import read_settings; read_settings()
import django; django.setup()
from django.core.checks import run_checks
found = sorted(run_checks(include_deployment_checks=True), key=lambda one: one.id)
print([one.id for one in found], [one.id for one in found if not one.is_silenced()])
for one in found:
    if not one.is_silenced():
        print(one.msg, one.hint)
"""
SET_UP = {
    "RUNWAY_API_KEY": "key_aaaaaaaa",
    "SECRET_KEY": "tests of check, deploy 0123456789 abcdefghijklmnopqrstuvwxyz",
}


def deployed(tmp_path: Path, **variables: str) -> Ended:
    """The ids of all findings, of those that are not silenced, and a line with the text of each of these."""
    script = tmp_path / "deployed.py"
    script.write_text(DEPLOYED)
    return run(tmp_path, str(script), **variables)


def test_an_installation_behind_tls_has_no_finding_at_all(tmp_path: Path) -> None:
    by_https = {"PUBLIC_BASE_URL": "https://video.example.com", "BEHIND_TLS_PROXY": "1"}
    done = run(tmp_path, "manage.py", "check", "--deploy", **SET_UP, **by_https)
    assert (done.returncode, done.said) == (0, "System check identified no issues (2 silenced).\n")
    done = deployed(tmp_path, **SET_UP, **by_https)
    assert done.said == "['security.W001', 'security.W002'] []\n"  # the cookies' checks have nothing to say either


def test_without_tls_each_finding_names_what_to_set(tmp_path: Path) -> None:
    for variables, found in (
        ({"DATABASE_URL": ""}, "['video.W004', 'video.W012']"),
        ({"PUBLIC_BASE_URL": "http://video.example.com"}, "['video.W010']"),
        ({"PUBLIC_BASE_URL": "https://video.example.com", "HSTS_SECONDS": "0"}, "['video.W011', 'video.W011']"),
    ):
        done = deployed(tmp_path, **SET_UP, **variables)
        told, *findings = done.said.splitlines()
        assert told.endswith(found), done.said
        assert all(any(name in finding for name in KNOWN) for finding in findings)


@pytest.mark.django_db
def test_a_role_that_is_a_superuser_is_a_warning(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.EMBEDDED_DATABASE = False
    assert checks.role_is_no_superuser(None) == []
    with psycopg.connect(database_url(), user=postgres.ADMIN) as superuser:
        monkeypatch.setattr(checks, "connection", superuser)
        assert ids(checks.role_is_no_superuser(None)) == ["video.W014"]


def test_the_docstring_lists_every_id() -> None:
    source = Path(checks.__file__).read_text()
    used = {part.split('"')[0] for part in source.split('id="')[1:]}
    assert all(f"{one}  " in (checks.__doc__ or "") for one in used)


def test_they_run_with_every_command(tmp_path: Path) -> None:
    """In a process of its own: here, importing the module has registered them already."""
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=Path(checks.__file__).parent.parent,
        env={**os.environ, "FFMPEG_BINARY": str(tmp_path / "ffmpeg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "video.E002" in done.stderr
