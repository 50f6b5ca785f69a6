"""Parses CELERY_BROKER_URL and DATABASE_URL at the start, so that no job meets a bad one.

kombu parses an address with the first message, and takes much as something else: a name it does not know is a KeyError,
`rediss://` alone verifies no certificate. No message here quotes what was given, since it may hold a password.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

from video.infra import timeouts

# --- the broker ----------------------------------------------------------------------------------------------------

_BROKER = "CELERY_BROKER_URL"
_BROKER_FORMS = (
    "redis://user:password@host:6379/0, rediss:// (or valkey://, valkeys://) likewise, or "
    "redis+socket:///path/to/socket?virtual_host=0"
)
#: What is given → what kombu calls it.
_OVER_TCP = {"redis": "redis", "valkey": "redis", "rediss": "rediss", "valkeys": "rediss"}
_OVER_A_SOCKET = {"redis+socket", "valkey+socket", "unix", "socket"}
#: kombu's and redis-py's names of the parameters with the database's number.
_NUMBER = ("db", "virtual_host")
_TLS = ("ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_CERT_REQS = {"none", "optional", "required"}
_ESCAPE = "in a name or password, characters such as : / ? # @ % ; must be written as %3A %2F %3F %23 %40 %25 %3B"


def broker(address: str) -> str:
    """The address of Redis or Valkey, as kombu takes it: the same one if given again.

    Documented forms: kombu's transport `redis`, `redis.connection.parse_url`, and valkey-py's names of the schemes.
    Raises ImproperlyConfigured with one sentence that names CELERY_BROKER_URL.
    """
    for name in ("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        if os.environ.get(name):
            raise ImproperlyConfigured(f"{name} is set, but Reelworks has one broker, which {_BROKER} names.")
    address = address.strip()
    scheme, there, _ = address.partition("://")
    scheme = scheme.lower()
    if not there:
        raise _bad_broker(f"can't be read as an address: it must be {_BROKER_FORMS}")
    if re.search(r"[;,]\s*[A-Za-z+]+://", address):
        raise _bad_broker("must be one address: of several, each process might choose another")
    if "sentinel" in scheme:
        raise _bad_broker("names a Sentinel, which is not supported: give the address of the server it watches")
    if scheme not in _OVER_TCP and scheme not in _OVER_A_SOCKET:
        raise _bad_broker(f"must be the address of Redis or Valkey, which Reelworks needs: {_BROKER_FORMS}")
    if re.search(r"[\s\x00-\x1f\x7f]", address):
        raise _bad_broker("holds a blank or a control character: it must be written as %20 or the like")
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises for what is no port
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _bad_broker(f"has a host, port or parameter that can't be read; {_ESCAPE}") from None
    if parts.fragment or "#" in address:
        raise _bad_broker(f"holds a #; {_ESCAPE}")
    given = dict(query)
    if len(given) < len(query):
        raise _bad_broker("has a parameter twice")
    return _over_a_socket(parts, given) if scheme in _OVER_A_SOCKET else _over_tcp(_OVER_TCP[scheme], parts, given)


def _over_tcp(scheme: str, parts: SplitResult, given: dict[str, str]) -> str:
    number = _number(parts.path.strip("/"), given)
    if scheme == "redis" and any(name in _TLS for name in given):
        raise _bad_broker("has parameters of TLS (ssl_…): they belong to rediss://")
    _refuse_unknown(given, _TLS if scheme == "rediss" else ())
    if parts.port == 0:
        raise _bad_broker("has the port 0: a port is between 1 and 65535")
    port = f":{parts.port}" if parts.port else ""
    query = f"?{urlencode(_tls(given))}" if scheme == "rediss" else ""
    login = _login(unquote(parts.username or ""), unquote(parts.password or ""))
    return f"{scheme}://{login}{_host(parts)}{port}/{number}{query}"


def _over_a_socket(parts: SplitResult, given: dict[str, str]) -> str:
    """redis-py's `unix://` and kombu's `redis+socket://`, which differ in names only."""
    if parts.hostname or len(parts.path) < 2:
        raise _bad_broker("must have three slashes before the path of a socket: redis+socket:///path/to/socket")
    password = given.pop("password", None) or unquote(parts.password or "")
    number = _number("", given)
    _refuse_unknown(given, ())
    login = _login(unquote(parts.username or ""), password)
    return f"redis+socket://{login}{quote(unquote(parts.path))}?virtual_host={number}"


def _login(name: str, password: str) -> str:
    """`name:password@` with both quoted, so that kombu cuts at no character of theirs; "" without them."""
    if not (name or password):
        return ""
    return f"{quote(name, safe='')}{':' if password else ''}{quote(password, safe='')}@"


def _host(parts: SplitResult) -> str:
    host = unquote(parts.hostname or "") or "localhost"
    if "[" in parts.netloc:
        try:
            return f"[{IPv6Address(host)}]"
        except ValueError:
            raise _bad_broker("has an IPv6 address that can't be read") from None
    if not re.fullmatch(r"[\w.-]+", host):
        raise _bad_broker(f"has a host that can't be one; {_ESCAPE}")
    return host


def _number(path: str, given: dict[str, str]) -> int:
    """The database's number, from the path or a parameter. Whether the server has so many only it can tell."""
    said = {value for value in (path, *(given.pop(name, "") for name in _NUMBER)) if value}
    if len(said) > 1:
        raise _bad_broker("names two databases, in its path and in a parameter, or in two parameters")
    number = said.pop() if said else "0"
    if not re.fullmatch(r"[0-9]{1,9}", number):
        raise _bad_broker("must name its database by a whole number such as /0, which Redis counts from 0")
    return int(number)


def _tls(given: dict[str, str]) -> dict[str, str]:
    """What kombu is told of certificates. Named always: without it kombu verifies none."""
    reqs = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if reqs not in _CERT_REQS:
        raise _bad_broker("has an ssl_cert_reqs that must be required, optional or none")
    if given.get("ssl_check_hostname", "true").lower() not in {"true", "false"}:
        raise _bad_broker("has an ssl_check_hostname that must be true or false")
    files = {name: given[name] for name in _TLS[2:] if given.get(name)}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with _readable("ssl_ca_certs or ssl_ca_path"):
        if "ssl_ca_certs" in files or "ssl_ca_path" in files:
            context.load_verify_locations(files.get("ssl_ca_certs"), files.get("ssl_ca_path"))
    with _readable("ssl_certfile or ssl_keyfile"):
        if "ssl_certfile" in files or "ssl_keyfile" in files:
            context.load_cert_chain(files.get("ssl_certfile", ""), files.get("ssl_keyfile"), password="")
    checked = {"ssl_check_hostname": "false"} if given.get("ssl_check_hostname", "").lower() == "false" else {}
    return {"ssl_cert_reqs": reqs, **checked, **files}


@contextmanager
def _readable(names: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError):  # SSLError is an OSError
        raise _bad_broker(f"has {names} that can't be read: PEM files, and a key without a password") from None


def _refuse_unknown(given: dict[str, str], known: tuple[str, ...]) -> None:
    if any(name not in known for name in given):
        also = f" and {', '.join(known)}" if known else ""
        raise _bad_broker(f"has a parameter that is not known here: it may have db{also}")


def _bad_broker(why: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{_BROKER} {why}.")


# --- the database --------------------------------------------------------------------------------------------------

_POSTGRES = {"postgres", "postgresql", "psql", "pgsql"}
_DATABASE_FORM = "postgres://user:password@host:5432/name"
_ONE_OF = {
    "sslmode": {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
    "channel_binding": {"disable", "prefer", "require"},
    "gssencmode": {"disable", "prefer", "require"},
    "target_session_attrs": {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
    "load_balance_hosts": {"disable", "random"},
}
_NUMBERS = ("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count")


def database(address: str, *, wait_s: float) -> dict[str, Any]:
    """Django's settings for this database. A thread waits for a connection for `wait_s` at most.

    PostgreSQL's own library reads the address, so every form and parameter of its documentation is meant as it says
    (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING). Raises ImproperlyConfigured with one
    sentence that names DATABASE_URL.
    """
    scheme, there, rest = address.strip().partition("://")
    if not there:
        raise _bad_database(f"can't be read as an address: it must be {_DATABASE_FORM}")
    if scheme.lower() not in _POSTGRES:
        raise _bad_database(f"must be an address such as {_DATABASE_FORM}: Reelworks runs on PostgreSQL only")
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(f"postgresql://{rest}").items()}
    except (psycopg.Error, ValueError):  # the cause may hold what was typed
        raise _bad_database(f"has a part or parameter that PostgreSQL's library does not know; {_ESCAPE}") from None
    _refuse_bad_parts(given)
    login = {name.upper(): given.pop(name, "") for name in ("user", "password", "host", "port")}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given.pop("dbname", ""),
        **login,
        # A pooler in transaction mode gives the next statement to another session, which has no such cursor.
        "DISABLE_SERVER_SIDE_CURSORS": True,
        "OPTIONS": {
            # A host that has gone silent is noticed. On a socket file these mean nothing.
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            **given,
            # Threads of one process share few connections; nothing is opened before it is needed. Connecting is tried
            # again after pauses that double until `reconnect_timeout`: with the default of 300 s, a database that was
            # away for a minute was asked again only after another.
            "pool": {
                "min_size": 0,
                "max_size": 24,
                "timeout": wait_s,
                "num_workers": 1,
                "max_idle": 60,
                "reconnect_timeout": 5,
            },
            # Of a parameter that comes twice the last counts, so an own time-out is taken; it is read back like ours.
            "options": f"{timeouts.OPTIONS} {given.get('options', '')}".strip(),
        },
    }


def _refuse_bad_parts(given: dict[str, str]) -> None:
    """What the library would notice with the first connection only."""
    if not given.get("dbname") and "service" not in given:
        raise _bad_database(f"names no database: it must be {_DATABASE_FORM}")
    if given.get("dbname", "").startswith("/"):
        raise _bad_database("must name the folder of a socket as a parameter: postgres:///name?host=/folder")
    if re.search(r"[\s@\\]", given.get("host", "")):
        raise _bad_database(f"has a host that can't be one; {_ESCAPE}")
    for port in filter(None, given.get("port", "").split(",")):
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise _bad_database(f"has a port that is not between 1 and 65535; {_ESCAPE}")
    for name, values in _ONE_OF.items():
        if name in given and given[name] not in values:
            raise _bad_database(f"has a {name} that must be one of {', '.join(sorted(values))}")
    for name in _NUMBERS:
        if name in given and not re.fullmatch(r"-?[0-9]{1,9}", given[name]):
            raise _bad_database(f"has a {name} that must be a whole number")
    for name in ("sslrootcert", "sslcert", "sslkey"):
        if given.get(name, "system") != "system" and not Path(given[name]).expanduser().is_file():
            raise _bad_database(f"has a parameter {name} that names no file")


def _bad_database(why: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"DATABASE_URL {why}.")
