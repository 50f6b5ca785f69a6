"""manage.py generate: one video from a prompt, and its way to the end."""

from __future__ import annotations

import json
import re
import sys
import time
import webbrowser
from argparse import BooleanOptionalAction
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_type_hints

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.management.base import CommandError, CommandParser
from django.db import InterfaceError, OperationalError, connection
from rest_framework.exceptions import ValidationError

from media_pipeline.errors import MediaError, PictureRefused
from providers.untrusted import printable
from video.actions import create
from video.actions.order_input import CreateSerializer, OrderRefused, flatten
from video.credits import ledger
from video.infra.errors import Refusal
from video.management import order_words
from video.management.base import INTERRUPTED, PlainCommand, user_named
from video.management.task_progress import Lines, Live, Progress, Quiet
from video.models import CreditEntry, Status, VideoTask
from video.models.order import ABOUT, Order
from video.web import demo_login, media, uploads

FAILED, BAD_INPUT, WAITED_IN_VAIN = 1, 2, 3
LOOK_EVERY_S = 0.25
SAID_AGAIN_S = 60.0
# The API's name of each option that is a field of the order.
FIELDS = {re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", about.api): about.api for about in ABOUT.values()}


class Command(PlainCommand):
    help = "Makes a video from a prompt. Exit codes: 0 done, 1 failed, 2 bad input, 3 waited in vain, 130 Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        for option, asked in zip(FIELDS, fields(Order), strict=True):
            _add_order_argument(parser, option, asked)
        parser.add_argument(
            "--image", metavar="FILE", type=Path, help="a picture on this machine to begin with; it becomes an upload"
        )
        parser.add_argument(
            "--priority",
            type=int,
            default=0,
            metavar="N",
            help="-100 to 100: the highest of its user's waiting tasks goes first (default 0)",
        )
        parser.add_argument("--user", help="whose task it is (default: demo when simulating, else the only superuser)")
        parser.add_argument("--wait", action="store_true", help="follow the task to its end")
        parser.add_argument(
            "--timeout", type=float, metavar="S", help="stop waiting after S seconds (the task goes on)"
        )
        parser.add_argument("--open", action="store_true", help="show the finished video; implies --wait")
        parser.add_argument("--json", action="store_true", help="print one JSON object and no progress")

    def handle(self, *args: Any, **options: Any) -> None:
        user = self._user(options["user"])
        task = self._create(user, options)
        if not (options["wait"] or options["open"]):
            self._show_created(task, as_json=options["json"])
            return
        progress = Progress(task)
        try:
            ended = self._follow(progress, timeout_s=options["timeout"], quiet=options["json"])
        except KeyboardInterrupt:
            self.stderr.write(f"Stopped waiting. The task goes on wherever workers run. {self._where_to_look(task.pk)}")
            sys.exit(INTERRUPTED)
        if not ended:
            self._show_result(progress.task, as_json=options["json"])
            raise CommandError(
                f"{task.pk} is not done after {options['timeout']:g} s and goes on. {self._where_to_look(task.pk)}",
                returncode=WAITED_IN_VAIN,
            )
        self._show_result(progress.task, as_json=options["json"])
        if progress.task.status != Status.SUCCESS:
            raise CommandError(_failure(progress.task), returncode=FAILED)
        if options["open"]:
            webbrowser.open(_address(progress.task.output_key))

    def _user(self, name: str | None) -> AbstractBaseUser:
        users = get_user_model()
        if name is None and settings.SIMULATE:
            demo_login.ensure_demo_user()
            name = demo_login.NAME
        if name is not None:
            user = user_named(name)
            if not user.is_active:
                raise CommandError(f"{name} is switched off: no slot would be given.", returncode=BAD_INPUT)
            return user
        only = list(users._default_manager.filter(is_superuser=True, is_active=True)[:2])
        if len(only) != 1:
            raise CommandError("Say whose video this is: --user NAME.", returncode=BAD_INPUT)
        return only[0]

    def _create(self, user: AbstractBaseUser, options: dict[str, Any]) -> VideoTask:
        if not -100 <= options["priority"] <= 100:
            raise CommandError("--priority: must be from -100 to 100", returncode=BAD_INPUT)
        asked = {ours: options[name] for name, ours in FIELDS.items() if options.get(name) is not None}
        if options["image"] is not None:
            asked["imageUrl"] = _sent(user.pk, options["image"], beside=asked)
        checked = CreateSerializer(data=asked)
        try:
            checked.is_valid(raise_exception=True)
        except PictureRefused as err:
            raise CommandError(f"--image-url: {err.user_message}", returncode=BAD_INPUT) from err
        except ValidationError as err:
            raise CommandError("\n".join(_spoken(one) for one in flatten(err.detail)), returncode=BAD_INPUT) from err
        except OrderRefused as err:
            hint = "" if settings.SIMULATE else " To try without keys, set REELWORKS_SIMULATE=1."
            raise CommandError(f"{err}{hint}", returncode=BAD_INPUT) from err
        try:
            wanted = checked.validated_data
            return create.create(user.pk, **wanted, priority=options["priority"])[0]
        except ledger.InsufficientCredits as err:
            raise CommandError(
                f"{user.get_username()} has {err.balance} credits, a video costs {err.needed}. Nothing was made. "
                f"Give some with: manage.py grant_credits {user.get_username()} {max(100, err.needed)}",
                returncode=BAD_INPUT,
            ) from err
        except MediaError as err:
            raise CommandError(f"Nothing was made. {err.user_message}", returncode=BAD_INPUT) from err
        except Refusal as err:
            raise CommandError(f"Nothing was made. {err}", returncode=BAD_INPUT) from err

    def _follow(self, progress: Progress, *, timeout_s: float | None, quiet: bool) -> bool:
        """Until the task is over (True) or the time is up (False)."""
        if quiet:
            return self._watch(progress, Quiet(), timeout_s)
        if self.stdout.isatty() and sys.stdout.isatty():
            with Live() as live:
                return self._watch(progress, live, timeout_s)
        lines = Lines(self.stdout)
        lines.message(f"{progress.task.pk} is in line")
        return self._watch(progress, lines, timeout_s)

    def _watch(self, progress: Progress, printer: Quiet, timeout_s: float | None) -> bool:
        ends_at = time.monotonic() + timeout_s if timeout_s is not None else None
        shown, again_at = "", 0.0
        while True:
            try:
                progress.refresh()
                stuck = progress.stuck_because()
            except (OperationalError, InterfaceError):
                # The database is restarting, perhaps; the task waits there just as well.
                connection.close()
                stuck = "The database can't be reached; asking again."
            if stuck and (stuck != shown or time.monotonic() >= again_at):
                printer.message(stuck)
                shown, again_at = stuck, time.monotonic() + SAID_AGAIN_S
            printer.show(progress)
            if progress.is_over:
                return True
            if ends_at is not None and time.monotonic() >= ends_at:
                return False
            time.sleep(LOOK_EVERY_S)

    def _show_created(self, task: VideoTask, *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps({"taskId": task.pk, "status": task.status}))
        else:
            self.stdout.write(f"{task.pk} is in line. {self._where_to_look(task.pk)}")

    def _show_result(self, task: VideoTask, *, as_json: bool) -> None:
        """The result. Without --json a video's two paths are the last two lines."""
        done = task.status == Status.SUCCESS
        paths = {"video": _place(task.output_key), "thumbnail": _place(task.thumbnail_key)} if done else {}
        if as_json:
            result: dict[str, Any] = {"taskId": task.pk, "status": task.status, "stage": task.stage, **paths}
            if task.error_code:
                result |= {"error": task.error_message, "errorCode": task.error_code, "refunded": _refunded(task)}
            self.stdout.write(json.dumps(result))
        for name, path in () if as_json else paths.items():
            self.stdout.write(f"{name}: {path}")
        self.stdout.flush()

    def _where_to_look(self, task_id: str) -> str:
        base = settings.PUBLIC_BASE_URL or f"http://127.0.0.1:{settings.PORT}"
        return f"Look at it at {base}/admin/video/videotask/?q={task_id}"


def _add_order_argument(parser: CommandParser, option: str, asked: Field[Any]) -> None:
    """The argument for one field of the order: what must be given has no dashes, a flag is to be switched off."""
    dashed, says = option.replace("_", "-"), ABOUT[asked.name].help
    kind = get_type_hints(Order)[asked.name]
    if asked.name == "prompt":
        parser.add_argument(option, help=says)
    elif kind is bool:
        parser.add_argument(f"--no-{dashed}", dest=option, action="store_false", default=None, help=says)
    elif kind == bool | None:
        parser.add_argument(f"--{dashed}", action=BooleanOptionalAction, default=None, help=says)
    else:
        words = getattr(VideoTask._meta.get_field(asked.name), "choices", None)
        choices = [value for value, _ in words] if words else None
        reads = str if kind is str else _READS.get(asked.name, int)
        parser.add_argument(f"--{dashed}", type=reads, choices=choices, help=says)


def _sent(user_id: int, path: Path, *, beside: dict[str, Any]) -> str:
    """The address of the upload that a file becomes. Raises CommandError."""
    if "imageUrl" in beside:
        raise CommandError("--image: can't be given beside --image-url", returncode=BAD_INPUT)
    try:
        if path.stat().st_size > settings.UPLOAD_MAX_BYTES:
            limit = f"{settings.UPLOAD_MAX_BYTES:,} bytes (UPLOAD_MAX_BYTES)"
            raise CommandError(f"--image: {path} has more than {limit}", returncode=BAD_INPUT)
        return uploads.keep(user_id, path.read_bytes()).address
    except OSError as err:
        raise CommandError(f"--image: {path} can't be read: {err.strerror}", returncode=BAD_INPUT) from err
    except MediaError as err:
        raise CommandError(f"--image: {err.user_message}", returncode=BAD_INPUT) from err
    except Refusal as err:
        raise CommandError(f"--image: {err}", returncode=BAD_INPUT) from err


def _frame_rate(text: str) -> int | str:
    """A number, or a word that is judged with the rest of the order."""
    return int(text) if text.isascii() and text.isdigit() else text


#: What reads an argument that is neither text nor a whole number.
_READS: dict[str, Callable[[str], Any]] = {
    "fps": _frame_rate,
    "cover": order_words.seconds_or_word,
    "extras": order_words.words,
}


def _spoken(wrong: dict[str, str]) -> str:
    """A field's error, by the name of its option."""
    names = {ours: name for name, ours in FIELDS.items()}
    option = names.get(wrong["field"])
    label = "prompt" if option == "prompt" else f"--{option.replace('_', '-')}" if option else wrong["field"]
    return f"{label}: {wrong['message']}"


def _place(key: str) -> str:
    """Where a stored file is: in the bucket, or its path, as short as it can be shown from here."""
    if settings.OBJECT_STORAGE is not None:
        return f"{settings.OBJECT_STORAGE}/{key}"
    path = Path(settings.STORAGE_LOCAL_PATH) / key
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _address(key: str) -> str:
    """What a browser on this machine opens."""
    if settings.OBJECT_STORAGE is not None:
        return media.link(key)
    return (Path(settings.STORAGE_LOCAL_PATH) / key).absolute().as_uri()


def _refunded(task: VideoTask) -> bool:
    return CreditEntry.objects.filter(task_id=task.pk, run=task.run, kind=CreditEntry.Kind.REFUND).exists()


def _failure(task: VideoTask) -> str:
    if task.status == Status.CANCELLED:
        return f"{task.pk} was cancelled."
    money = " Its credits were given back." if _refunded(task) else ""
    return f"{task.pk} failed in {task.stage}: {printable(task.error_message)} ({task.error_code}){money}"
