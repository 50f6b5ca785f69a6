"""CELERY_BROKER_URL and DATABASE_URL in every documented form: taken as meant, or refused with one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.url import parse_url
from redis.connection import parse_url as redis_parses

from config import addresses
from tests.certificates import Certificates

T = TypeVar("T")
CANARY = "c4n4ry"

#: What is given → what kombu is told.
TAKEN = {
    "redis://localhost:6379/0": "redis://localhost:6379/0",
    "redis://localhost:6379": "redis://localhost:6379/0",
    "redis://localhost:6379/": "redis://localhost:6379/0",
    "redis://localhost:6379//": "redis://localhost:6379/0",
    "redis://localhost": "redis://localhost/0",
    "redis://localhost:": "redis://localhost/0",
    "redis://": "redis://localhost/0",
    "redis:///3": "redis://localhost/3",
    "redis://:6380/3": "redis://localhost:6380/3",
    "REDIS://localhost/1": "redis://localhost/1",
    "  redis://localhost/1\n": "redis://localhost/1",
    "redis://localhost/999": "redis://localhost/999",  # only the server knows how many it has
    "redis://localhost?db=4": "redis://localhost/4",
    "redis://localhost/4?db=4": "redis://localhost/4",
    "redis://localhost?virtual_host=4": "redis://localhost/4",
    "valkey://localhost:6379/2": "redis://localhost:6379/2",
    "redis://:secret@localhost/0": "redis://:secret@localhost/0",
    "redis://user:secret@localhost/0": "redis://user:secret@localhost/0",
    "redis://user@localhost/0": "redis://user@localhost/0",
    "redis://us%40er:p%3Aa%2Fs%3Fs%23%40%25@localhost/0": "redis://us%40er:p%3Aa%2Fs%3Fs%23%40%25@localhost/0",
    "redis://:p;a@localhost/0": "redis://:p%3Ba@localhost/0",  # kombu would cut there
    "redis://:p@ss@localhost/0": "redis://:p%40ss@localhost/0",
    "redis://:100%@localhost/0": "redis://:100%25@localhost/0",
    "redis://[::1]:6379/0": "redis://[::1]:6379/0",
    "redis://[2001:db8::1]/0": "redis://[2001:db8::1]/0",
    "redis://my_valkey-1.internal:6379/0": "redis://my_valkey-1.internal:6379/0",
    "rediss://h:6379/0": "rediss://h:6379/0?ssl_cert_reqs=required",
    "valkeys://:pw@h/0": "rediss://:pw@h/0?ssl_cert_reqs=required",
    "rediss://h/0?ssl_cert_reqs=required": "rediss://h/0?ssl_cert_reqs=required",
    "rediss://h/0?ssl_cert_reqs=CERT_REQUIRED": "rediss://h/0?ssl_cert_reqs=required",
    "rediss://h/0?ssl_cert_reqs=optional": "rediss://h/0?ssl_cert_reqs=optional",
    "rediss://h/0?ssl_cert_reqs=CERT_OPTIONAL": "rediss://h/0?ssl_cert_reqs=optional",
    "rediss://h/0?ssl_cert_reqs=none": "rediss://h/0?ssl_cert_reqs=none",
    "rediss://h/0?ssl_cert_reqs=CERT_NONE": "rediss://h/0?ssl_cert_reqs=none",
    "rediss://h/0?ssl_check_hostname=False": "rediss://h/0?ssl_cert_reqs=required&ssl_check_hostname=false",
    "rediss://h/0?ssl_check_hostname=true": "rediss://h/0?ssl_cert_reqs=required",
    "redis+socket:///tmp/v.sock": "redis+socket:///tmp/v.sock?virtual_host=0",
    "redis+socket:///tmp/v.sock?virtual_host=1": "redis+socket:///tmp/v.sock?virtual_host=1",
    "redis+socket:///tmp/v.sock?db=1": "redis+socket:///tmp/v.sock?virtual_host=1",
    "redis+socket:///tmp/my%20v.sock": "redis+socket:///tmp/my%20v.sock?virtual_host=0",
    "valkey+socket:///tmp/v.sock": "redis+socket:///tmp/v.sock?virtual_host=0",
    "socket:///tmp/v.sock?virtual_host=1": "redis+socket:///tmp/v.sock?virtual_host=1",
    "unix:///tmp/v.sock": "redis+socket:///tmp/v.sock?virtual_host=0",
    "unix:///tmp/v.sock?db=1": "redis+socket:///tmp/v.sock?virtual_host=1",
    "unix://user@/tmp/v.sock?db=1&password=a%20b": "redis+socket://user:a%20b@/tmp/v.sock?virtual_host=1",
    "unix://user:pw@/tmp/v.sock": "redis+socket://user:pw@/tmp/v.sock?virtual_host=0",
    "unix://:pw@/tmp/v.sock": "redis+socket://:pw@/tmp/v.sock?virtual_host=0",
}
SOMEBODY_ELSES = "must be the address of Redis or Valkey"
REFUSED = {
    "redis": "can't be read as an address",
    "localhost:6379": "can't be read as an address",
    f"redis:{CANARY}@localhost": "can't be read as an address",
    f"://{CANARY}": SOMEBODY_ELSES,
    f"{CANARY}://localhost": SOMEBODY_ELSES,
    f"amqp://guest:{CANARY}@localhost//": SOMEBODY_ELSES,
    f"amqps://guest:{CANARY}@localhost//": SOMEBODY_ELSES,
    f"pyamqp://guest:{CANARY}@localhost//": SOMEBODY_ELSES,
    f"sqs://key:{CANARY}@": SOMEBODY_ELSES,
    "memory://": SOMEBODY_ELSES,
    "memory://localhost/": SOMEBODY_ELSES,
    "filesystem://": SOMEBODY_ELSES,
    f"mongodb://u:{CANARY}@h/db": SOMEBODY_ELSES,
    f"sqla+postgresql://u:{CANARY}@h/db": SOMEBODY_ELSES,
    "confluentkafka://h": SOMEBODY_ELSES,
    "zookeeper://h": SOMEBODY_ELSES,
    "gcpubsub://projects/x": SOMEBODY_ELSES,
    f"azureservicebus://p:{CANARY}@ns": SOMEBODY_ELSES,
    f"https://u:{CANARY}@h.upstash.example": SOMEBODY_ELSES,
    f"rediscluster://:{CANARY}@h": SOMEBODY_ELSES,
    f"sentinel://:{CANARY}@h:26379": "Sentinel",
    "sentinel://h:26379;sentinel://i:26379": "one address",
    f"redis+sentinel://:{CANARY}@h:26379/0": "Sentinel",
    f"redis://:{CANARY}@a/0;redis://:{CANARY}@b/0": "one address",
    f"redis://:{CANARY}@a/0,redis://b/0": "one address",
    f"redis://:{CANARY}@a:6379,b:6379/0": "port",
    "redis://a,b/0": "host",
    "redis://a/0;b/0": "whole number",
    f"redis://:{CANARY}@localhost/abc": "whole number",
    "redis://localhost/-1": "whole number",
    "redis://localhost/+1": "whole number",
    "redis://localhost/1.5": "whole number",
    "redis://localhost/0/1": "whole number",
    "redis://localhost/%31%32x": "whole number",
    "redis://localhost?db=abc": "whole number",
    "redis://localhost/1?db=2": "two databases",
    "redis://localhost?db=1&virtual_host=2": "two databases",
    "redis://localhost?db=1&db=1": "twice",
    "redis://localhost?db": "parameter",
    "redis://localhost:0/0": "port",
    "redis://localhost:65536/0": "port",
    "redis://localhost:-1/0": "port",
    f"redis://localhost:{CANARY}/0": "port",
    f"redis://:{CANARY}/slash@localhost/0": "port",
    f"redis://user:{CANARY}?mark@localhost/0": "%3F",
    f"redis://user:{CANARY}#mark@localhost/0": "#",
    "redis://localhost/0#1": "#",
    "redis://[::1/0": "host",
    "redis://[::x]/0": "host",
    "redis://[v1.x]/0": "IPv6",
    "redis://::1/0": "port",
    "redis://lo cal/0": "blank",
    "redis://lo\tcal/0": "control",
    "redis://lo\ncal/0": "control",
    "redis://lo$cal/0": "host",
    "redis://${HOST}/0": "host",
    "redis://localhost/0?health_check_interval=10": "not known here",
    "redis://localhost/0?socket_timeout=1": "not known here",
    "redis://localhost/0?decode_responses=True": "not known here",
    f"redis://localhost/0?{CANARY}=1": "not known here",
    f"redis://localhost/0?password={CANARY}": "not known here",
    "redis://localhost/0?ssl_cert_reqs=none": "rediss://",
    "rediss://h/0?ssl_cert_reqs=maybe": "ssl_cert_reqs",
    "rediss://h/0?ssl_cert_reqs=": "ssl_cert_reqs",
    "rediss://h/0?ssl_check_hostname=perhaps": "ssl_check_hostname",
    f"rediss://h/0?ssl_ca_certs=/nowhere/{CANARY}.pem": "ssl_ca_certs",
    "rediss://h/0?ssl_ca_certs=/dev/null": "ssl_ca_certs",
    f"rediss://h/0?ssl_certfile=/nowhere/{CANARY}.pem": "ssl_certfile",
    "rediss://h/0?ssl_keyfile=/nowhere/key.pem": "ssl_keyfile",
    "rediss://h/0?ssl_ciphers=ALL": "not known here",
    "unix://tmp/v.sock": "three slashes",
    "unix://": "three slashes",
    "redis+socket://tmp/v.sock": "three slashes",
    "redis+socket:///": "three slashes",
    "redis+socket:///tmp/v.sock?virtual_host=abc": "whole number",
    "redis+socket:///tmp/v.sock?socket_timeout=1": "not known here",
}


def refusal_of_broker(address: str) -> str:
    with pytest.raises(ImproperlyConfigured) as refused:
        addresses.broker(address)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return str(refused.value)


def is_one_sentence_that_names(setting: str, said: str) -> bool:
    return said.startswith(f"{setting} ") and said.endswith(".") and "\n" not in said


def outcome(read: Callable[[], T]) -> tuple[T | None, str]:
    """What was read, or None and the refusal."""
    try:
        return read(), ""
    except ImproperlyConfigured as refused:
        return None, str(refused)


@pytest.mark.parametrize("given", TAKEN)
def test_a_broker_is_taken_as_it_is_meant_and_the_same_when_read_again(given: str) -> None:
    taken = addresses.broker(given)
    assert taken == TAKEN[given]
    assert addresses.broker(taken) == taken


@pytest.mark.parametrize("given", REFUSED)
def test_another_broker_stops_the_start_with_a_sentence_that_quotes_nothing(given: str) -> None:
    said = refusal_of_broker(given)
    assert is_one_sentence_that_names("CELERY_BROKER_URL", said)
    assert REFUSED[given] in said
    assert CANARY not in said


@pytest.mark.parametrize("name", ["CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"])
def test_celerys_other_variables_would_lead_past_the_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, f"redis://:{CANARY}@elsewhere/0")
    assert refusal_of_broker("redis://localhost/0") == (
        f"{name} is set, but Reelworks has one broker, which CELERY_BROKER_URL names."
    )


@given(name=st.text(max_size=8), password=st.text(min_size=1, max_size=12))
def test_any_name_and_password_that_are_quoted_reach_the_broker(name: str, password: str) -> None:
    try:
        given = f"redis://{quote(name, safe='')}:{quote(password, safe='')}@localhost/0"
    except UnicodeEncodeError:  # half a surrogate pair is in no address
        return
    kombu = parse_url(addresses.broker(given))
    assert (kombu["userid"] or "", kombu["password"]) == (name, password)
    theirs = redis_parses(given)
    assert (theirs.get("username", ""), theirs["password"]) == (name, password)


@given(st.text(max_size=40) | st.text(max_size=40).map(lambda text: f"redis://{text}"))
def test_whatever_is_given_is_taken_or_refused_in_words(given: str) -> None:
    taken, said = outcome(lambda: addresses.broker(given))
    assert taken is not None or is_one_sentence_that_names("CELERY_BROKER_URL", said)
    if taken is not None:
        assert addresses.broker(taken) == taken
        parse_url(taken)


def test_certificates_and_keys_are_tried_at_the_start(tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    given = f"rediss://h/0?ssl_ca_certs={made.authority}&ssl_certfile={made.certificate}&ssl_keyfile={made.key}"
    kombu = parse_url(addresses.broker(given))["ssl"]
    assert (kombu["ssl_ca_certs"], kombu["ssl_certfile"]) == (str(made.authority), str(made.certificate))
    wrong = f"rediss://h/0?ssl_ca_certs={made.authority}&ssl_certfile={made.certificate}&ssl_keyfile={made.authority}"
    assert "ssl_keyfile" in refusal_of_broker(wrong)
    made.key.chmod(0o600)
    made.lock_key("pass phrase")
    assert "without a password" in refusal_of_broker(given)  # and nobody is asked for it


# --- the database --------------------------------------------------------------------------------------------------

#: What is given → what Django is told: name, user, password, host, port, and parameters.
DATABASES: dict[str, tuple[str, str, str, str, str, dict[str, str]]] = {
    "postgres://u:p@h:5432/name": ("name", "u", "p", "h", "5432", {}),
    "postgresql://u:p@h/name": ("name", "u", "p", "h", "", {}),
    "psql://u:p@h/name": ("name", "u", "p", "h", "", {}),
    "pgsql://u:p@h/name": ("name", "u", "p", "h", "", {}),
    "POSTGRES://u:p@h/name": ("name", "u", "p", "h", "", {}),
    " postgres://u:p@h/name\n": ("name", "u", "p", "h", "", {}),
    "postgres://u@h/name": ("name", "u", "", "h", "", {}),
    "postgres:///name": ("name", "", "", "", "", {}),
    "postgres://u:p%40%2F%3A%23%3F%25+ss@h/na%20me": ("na me", "u", "p@/:#?%+ss", "h", "", {}),
    "postgres://u:p#hash?mark@h/name": ("name", "u", "p#hash?mark", "h", "", {}),
    "postgres://u:p@[::1]:5432/name": ("name", "u", "p", "::1", "5432", {}),
    "postgres://u:p@a:1,b:2/name?target_session_attrs=primary": (
        *("name", "u", "p", "a,b", "1,2"),
        {"target_session_attrs": "primary"},
    ),
    "postgres://%2Fvar%2Frun%2Fpostgresql/name": ("name", "", "", "/var/run/postgresql", "", {}),
    "postgres://u@/name?host=/var/run&port=6432": ("name", "u", "", "/var/run", "6432", {}),
    "postgres://h/name?user=u&password=p": ("name", "u", "p", "h", "", {}),
    "postgres://h?dbname=name": ("name", "", "", "h", "", {}),
    "postgres://u:p@h/name?sslmode=verify-full&sslrootcert=system": (
        *("name", "u", "p", "h", ""),
        {"sslmode": "verify-full", "sslrootcert": "system"},
    ),
    "postgres://u:p@h/name?connect_timeout=9&application_name=x": (
        *("name", "u", "p", "h", ""),
        {"connect_timeout": "9", "application_name": "x"},
    ),
    "postgres://?service=mine": ("", "", "", "", "", {"service": "mine"}),
}
REFUSED_DATABASES = {
    "postgres": "can't be read as an address",
    f"host=h password={CANARY}": "can't be read as an address",
    f"sqlite:///{CANARY}.db": "PostgreSQL only",
    f"mysql://u:{CANARY}@h/name": "PostgreSQL only",
    f"postgis://u:{CANARY}@h/name": "PostgreSQL only",
    f"postgresql+psycopg://u:{CANARY}@h/name": "PostgreSQL only",
    f"{CANARY}://h/name": "PostgreSQL only",
    f"postgres://u:{CANARY}@h": "names no database",
    "postgres://h/": "names no database",
    "postgres://": "names no database",
    f"postgres://u:{CANARY}@h:port/name": "port",
    "postgres://h:0/name": "port",
    "postgres://h:65536/name": "port",
    "postgres://h:-1/name": "port",
    "postgres://a:1,b:x/name": "port",
    f"postgres://u:{CANARY}/slash@h/name": "port",
    f"postgres://u:{CANARY}@at@h/name": "host",
    f"postgres://u:{CANARY}%zz@h/name": "does not know",
    f"postgres://u:{CANARY}%00@h/name": "does not know",
    "postgres://[::1/name": "does not know",
    f"postgres://h/name?{CANARY}=1": "does not know",
    "postgres://h/name?conn_max_age=60": "does not know",
    "postgres://h/name?pgbouncer=true": "does not know",
    "postgres://h/name?sslmode": "does not know",
    f"postgres://h/name?sslmode={CANARY}": "sslmode",
    f"postgres://h/name?sslrootcert=/nowhere/{CANARY}.pem": "sslrootcert that names no file",
    "postgres://h/name?target_session_attrs=best": "target_session_attrs",
    "postgres://h/name?connect_timeout=soon": "connect_timeout",
    "postgres:////var/run/name": "?host=/folder",
    "postgres://lo cal/name": "part or parameter",
}
OURS = {"connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "pool"}


@pytest.mark.parametrize("given", DATABASES)
def test_a_database_is_taken_as_postgresqls_library_means_it(given: str) -> None:
    name, user, password, host, port, options = DATABASES[given]
    taken = addresses.database(given, wait_s=10)
    told = (taken["NAME"], taken["USER"], taken["PASSWORD"], taken["HOST"], taken["PORT"])
    assert told == (name, user, password, host, port)
    own = {key: value for key, value in taken["OPTIONS"].items() if key not in OURS - set(options)}
    assert own == {**options, "options": own["options"]}


@pytest.mark.parametrize("given", REFUSED_DATABASES)
def test_another_database_stops_the_start_with_a_sentence_that_quotes_nothing(given: str) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        addresses.database(given, wait_s=10)
    said = str(refused.value)
    assert is_one_sentence_that_names("DATABASE_URL", said)
    assert REFUSED_DATABASES[given] in said
    assert CANARY not in said
    assert refused.value.__cause__ is None


@given(st.text(max_size=40) | st.text(max_size=40).map(lambda text: f"postgres://{text}"))
def test_whatever_database_is_given_is_taken_or_refused_in_words(given: str) -> None:
    taken, said = outcome(lambda: addresses.database(given, wait_s=10))
    if taken is None:
        assert is_one_sentence_that_names("DATABASE_URL", said)
    else:
        assert taken["NAME"] or "service" in taken["OPTIONS"]


def test_own_options_follow_ours_and_are_not_dropped() -> None:
    taken = addresses.database("postgres://h/name?options=-c%20search_path%3Dreels", wait_s=10)
    assert taken["OPTIONS"]["options"] == (
        "-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=10000 "
        "-c search_path=reels"
    )
