"""Start everything: the embedded servers, the web server, the workers, the sweeper and, if need be, the simulator."""

import argparse
import contextlib
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import psycopg
from django.conf import settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from config import embedded, key_names
from config.embedded.places import server_environment
from config.running import Running, System
from config.servers import hold_embedded, require_fit_database
from config.supervisor import Child, Supervisor, read_procfile
from config.web_addresses import is_loopback
from providers.registry import PROVIDERS
from video.infra import timeouts

#: Some processes need seconds of CPU to start, and a machine may be busy.
READY_SECONDS = 90.0
#: Two hosts may start against one database at once; any constant will do as the name of their lock.
MIGRATION_LOCK = 7_233_641

#: What logins and call-backs are checked with. Workers check neither.
WEB_ONLY = frozenset({"JWT_SIGNING_KEY", "SECRET_KEY_FALLBACKS"}) | {
    provider.callbacks.setting.name
    for provider in PROVIDERS
    if provider.callbacks is not None and not provider.callbacks.setting.is_address
}
_SIMULATOR_NEEDS = ("HOME", "TMPDIR", "IMAGEIO_FFMPEG_EXE", "PYTHONPATH", "PYTHONUNBUFFERED", "SIMULATOR_PORT")

SIMULATED = "ALL VIDEOS ARE SIMULATED: no provider is called, and nothing costs money."

EXPOSED = "HOST lets other machines in: everybody there can sign in as demo, with the password demo."


class Command(BaseCommand):
    help = __doc__
    requires_system_checks = ()  # ours are made in `handle`, the others cost start-up time and are for developers

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--then",
            nargs=argparse.REMAINDER,
            metavar="COMMAND",
            help="start everything quietly, run this management command against it, stop, exit with its code",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        then: list[str] | None = options["then"]
        if then == []:
            raise CommandError("--then needs a command, for example: up --then generate 'A cat' --wait")
        if not settings.SIMULATE and not any(settings.PROVIDER_KEYS.values()):
            _refuse_to_simulate_for_others()
            _start_again_simulated()
        _check_installation()
        running = Running(settings.REELWORKS_HOME)
        if not running.claim():
            self._join(running, then)
        try:
            code = self._run(running, then)
        except embedded.EmbeddedError as error:
            raise CommandError(str(error)) from error
        finally:
            running.release()
        sys.exit(code)

    def _run(self, running: Running, then: list[str] | None) -> int:
        port = _port(then is not None)
        host = settings.HOST
        url = f"http://{'127.0.0.1' if host in {'0.0.0.0', '::'} else host}:{port}"  # noqa: S104
        simulator_port = 0
        if settings.SIMULATE:
            simulator_port = _usable_port("127.0.0.1", settings.SIMULATOR_PORT, "SIMULATOR_PORT")
        env = _environment(port, simulator_port)
        system = System(os.getpid(), url, settings.SIMULATE, env.get("REELWORKS_SIMULATOR_URL", ""), ready=False)
        running.tell(system)
        servers = Servers()
        commands = read_procfile(settings.BASE_DIR / "Procfile")
        commands.pop("release")  # for platforms that run it before a new version; see `_prepare_database`
        if not settings.SIMULATE:
            commands.pop("simulator", None)
        log_dir = settings.REELWORKS_HOME / "log" if then is not None else None
        if log_dir:
            log_dir.mkdir(mode=0o700, exist_ok=True)
        try:
            with Supervisor(
                commands,
                env=lambda name: _environment_of(name, env),
                cwd=settings.BASE_DIR,
                log_dir=log_dir,
                tick=servers.check,
                stop_s=settings.DRAIN_SECONDS + 1,
                as_json=settings.LOG_FORMAT == "json",
            ) as supervisor:
                servers.say = supervisor.say
                if settings.SIMULATE:
                    supervisor.start("simulator")  # needs no database: it starts while the servers do
                    self._announce(supervisor, then)
                servers.start()
                _prepare_database()
                supervisor.start()
                deadline = time.monotonic() + READY_SECONDS
                came_up = supervisor.run_until(lambda: _answers(host, port) or time.monotonic() > deadline)
                if came_up and time.monotonic() > deadline:
                    where = f"see {log_dir / 'web.log'}" if log_dir else "see the lines above"
                    raise CommandError(f"The web server did not answer within {READY_SECONDS:.0f} s; {where}.")
                if came_up:
                    running.tell(System(system.pid, url, system.simulate, system.simulator_url, ready=True))
                    if then is not None:
                        code = self._foreground(supervisor, then, env)
                        supervisor.run_until(running.guests_gone)
                        return code
                    supervisor.say(
                        f"Reelworks is ready: {url}" + ("  (sign in as demo, demo)" if system.simulate else "")
                    )
                    supervisor.run()
                supervisor.say("stopping …")
                return 128 + supervisor.signals[0] if then is not None else 0
        finally:
            servers.release()

    def _announce(self, supervisor: Supervisor, then: list[str] | None) -> None:
        if then is not None:
            self.stderr.write(SIMULATED)
            return
        stars = "*" * len(SIMULATED)
        for line in (stars, SIMULATED, *([] if is_loopback(settings.HOST) else [EXPOSED]), stars):
            supervisor.say(line)

    def _foreground(self, supervisor: Supervisor, then: list[str], env: dict[str, str]) -> int:
        """Run the command on this terminal; a signal to us ends it."""
        argv = [sys.executable, str(settings.BASE_DIR / "manage.py"), *then]
        stop = ((signal.SIGINT, 3.0), (signal.SIGTERM, 2.0))
        child = Child(argv, env=env, cwd=Path.cwd(), stop=stop)
        if supervisor.run_until(lambda: child.poll() is not None):
            return child.poll() or 0
        child.end()
        child.wait(6)
        return 128 + supervisor.signals[0]

    def _join(self, running: Running, then: list[str] | None) -> NoReturn:
        """A system of this home runs already, or is starting."""
        if then is not None:
            running.visit()
        system = running.find(READY_SECONDS if then is not None else 2.0)
        if system is None or (then is not None and not system.ready):
            raise CommandError(
                f"Another `up` for {settings.REELWORKS_HOME} holds its lock but does not get ready. Stop that one."
            )
        if then is None:
            raise CommandError(f"Reelworks is already running (pid {system.pid}), at {system.url}")
        if system.simulate != settings.SIMULATE:
            kinds = ("with simulated videos", "with real providers")
            raise CommandError(
                f"Reelworks is already running (pid {system.pid}) {kinds[not system.simulate]}, and this command is to "
                f"run {kinds[not settings.SIMULATE]}. Stop that one, or use another REELWORKS_HOME."
            )
        env = {**os.environ, "PORT": system.url.rpartition(":")[2]}
        if system.simulate:
            self.stderr.write(SIMULATED)
            env["REELWORKS_SIMULATOR_URL"] = system.simulator_url
        with Supervisor({}, env=lambda _name: env, cwd=settings.BASE_DIR) as supervisor:
            sys.exit(self._foreground(supervisor, then, env))


def _refuse_to_simulate_for_others() -> None:
    """A server for others that lost its keys must not become one that everybody may sign in to. Raises CommandError."""
    if not is_loopback(settings.HOST):
        raise CommandError(
            f"HOST is {settings.HOST}, and no provider has a key: everything would be simulated, and everybody who "
            "reaches this machine could sign in as demo, with the password demo. Set a provider's key, "
            "HOST=127.0.0.1, or REELWORKS_SIMULATE=1 if this is meant."
        )


class Servers:
    """The embedded servers, if they are wanted; started again should they die."""

    def __init__(self) -> None:
        #: the supervisor's log, once there is one
        self.say: Callable[[str], None] = lambda _text: None
        self._held: embedded.Held | None = None
        self._again_at = 0.0
        self._wait_s = 1.0

    def start(self) -> None:
        self._held = hold_embedded()
        if self._held:
            kind = "started" if self._held.started else "found running"
            self.say(f"embedded servers {kind}, data in {settings.REELWORKS_HOME}")

    def check(self) -> None:
        if self._held is None or not (lost := self._held.lost()) or time.monotonic() < self._again_at:
            return
        self._again_at = time.monotonic() + self._wait_s
        self._wait_s = min(self._wait_s * 2, 30.0)
        self.say(f"the embedded {' and '.join(lost)} ended; starting it again")
        old = self._held
        try:
            self.start()
            old.release()
        except embedded.EmbeddedError as error:
            for line in str(error).splitlines():
                self.say(line)

    def release(self) -> None:
        if self._held:
            self._held.release()


def _start_again_simulated() -> NoReturn:
    """Settings are read once, at the start: with no key at all, start over as a simulation."""
    os.environ["REELWORKS_SIMULATE"] = "1"
    sys.stderr.write("No provider key is set (RUNWAY_API_KEY, PIKA_API_KEY, KLING_API_KEY), so this is a simulation.\n")
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _check_installation() -> None:
    """What `manage.py check` says of folders and programs, once; else each process would end with it, again and again.

    Raises CommandError.
    """
    for message in run_checks(tags=["video"]):
        if message.is_serious():
            raise CommandError(f"{message.msg} {message.hint}")


def _environment(port: int, simulator_port: int) -> dict[str, str]:
    """What the processes of the Procfile get: all that was read here, so that none reads another state of the file."""
    env = dict(os.environ)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    env["PYTHONUNBUFFERED"] = "1"
    env["PORT"] = str(port)
    env["REELWORKS_ENV_FILE"] = ""
    # As they were understood: the shell that runs the Procfile takes what it gets.
    env.update(HOST=settings.HOST, WEB_THREADS=str(settings.WEB_THREADS))
    env["VIDEO_CONCURRENCY"] = str(settings.VIDEO_CONCURRENCY)
    if not env.get("MEDIA_CONCURRENCY", "").strip():
        env["MEDIA_CONCURRENCY"] = str(os.cpu_count() or 2)
    env.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if settings.EMBEDDED_DATABASE:
        env["DATABASE_URL"] = embedded.urls(settings.REELWORKS_HOME)[0]
    if settings.EMBEDDED_BROKER:
        env["CELERY_BROKER_URL"] = embedded.urls(settings.REELWORKS_HOME)[1]
    if simulator_port:
        env["REELWORKS_SIMULATE"] = "1"
        env["SIMULATOR_PORT"] = str(simulator_port)
        env["REELWORKS_SIMULATOR_URL"] = f"http://127.0.0.1:{simulator_port}"
    return env


def _environment_of(name: str, everything: Mapping[str, str]) -> dict[str, str]:
    """What one process of the Procfile gets of it."""
    if name == "simulator":  # it reads no settings
        needed = {**server_environment(), **dict.fromkeys(_SIMULATOR_NEEDS, "")}
        return {each: everything[each] for each in needed if each in everything}
    if name == "web":
        return key_names.without_values(everything)
    if name == "webhooks":  # calls no provider, and reads secrets that were stored under a former SECRET_KEY
        others = WEB_ONLY - {"SECRET_KEY_FALLBACKS"}
        return {each: value for each, value in key_names.without_values(everything).items() if each not in others}
    return {each: value for each, value in everything.items() if each not in WEB_ONLY}


def _prepare_database() -> None:
    """Bring the schema up to date, and the demo user when simulating; then let go of the database."""
    require_fit_database()
    try:
        connection.ensure_connection()  # it may still be starting
        with _no_hurry(), _one_at_a_time():
            executor = MigrationExecutor(connection)
            if executor.migration_plan(executor.loader.graph.leaf_nodes()):
                call_command("migrate", interactive=False, verbosity=0)
            if settings.SIMULATE:
                from video.web.demo_login import ensure_demo_user

                ensure_demo_user()
    except timeouts.NotInForce as unfit:
        raise CommandError(str(unfit)) from None
    except (OperationalError, psycopg.OperationalError) as error:
        raise CommandError(f"The database cannot be reached: {error}") from error
    finally:
        _let_go()


@contextlib.contextmanager
def _no_hurry() -> Iterator[None]:
    """A migration may take its time. Asked for with the connection: what a statement sets would, behind a pooler in
    transaction mode, stay with whoever gets that session next. There the role's time-outs hold for migrations, too."""
    options = connection.settings_dict["OPTIONS"]
    limited = options["options"]
    _let_go()
    options["options"] = f"{limited} -c statement_timeout=0 -c lock_timeout=0"
    try:
        yield
    finally:
        options["options"] = limited


def _let_go() -> None:
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait until no other host migrates. The lock is of a transaction on a connection of its own: one of a session may,
    behind a pooler, outlive this process."""
    with psycopg.connect(**connection.get_connection_params()) as own, own.transaction():
        own.execute("SET LOCAL statement_timeout = 0")
        own.execute("SET LOCAL lock_timeout = 0")
        own.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        # Asked again and again: a statement that waits keeps its snapshot, and an index that the other host builds
        # concurrently waits for all older snapshots, so neither of the two would ever end.
        while own.execute("SELECT pg_try_advisory_xact_lock(%s)", [MIGRATION_LOCK]).fetchone() != (True,):
            time.sleep(0.2)
        yield


def _port(any_free: bool) -> int:
    """PORT; with `any_free` and no PORT in the environment, one that the system picks. Raises CommandError if taken."""
    if any_free and not os.environ.get("PORT"):
        return _usable_port("127.0.0.1", 0)
    return _usable_port(settings.HOST, settings.PORT)


def _usable_port(host: str, port: int, setting: str = "PORT") -> int:
    """This port, or for 0 one that the system picks. Raises CommandError, which names the setting, if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} on {host} cannot be used ({error.strerror}): another program may have it. "
                f"Choose another one: {setting}={port + 1} make up"
            ) from error
        return int(probe.getsockname()[1])


def _answers(host: str, port: int) -> bool:
    asked = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, port, timeout=2)  # noqa: S104
    try:
        asked.request("GET", "/healthz", headers={"Host": f"127.0.0.1:{port}"})
        return asked.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()
