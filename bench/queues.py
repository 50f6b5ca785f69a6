"""What the queue views and the console's pages cost with a million finished tasks in the tables, over the same with a
thousand.

Judged by the quickest of some calls. The table also has the pages that the database touches, which no busy neighbour
changes; but a table of a thousand rows is read whole in a few pages where a million needs one way down a tree for each
active task, so they grow with the load and the height of the trees, and their ratio says little.

The console's pages (home, costs, failures, the list of tasks) are judged by their time itself: at most 200 ms each with
a million tasks. What they tell of a month grows with the month.

`python -m bench.queues` runs it alone; the default run of all measurements leaves it out, since filling the tables
takes some minutes. The load of active tasks is the same both times.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bench import fill, runs
from bench.runs import say
from bench.system import BenchError, home
from bench.tables import ms, table, verdict

FEW, MANY = 1_000, 1_000_000
CALLS = 40
TASK_SHOWN = 500
HOST = "127.0.0.1"
MOST_RATIO = 1.5
MOST_OF_A_PAGE_S = 0.2
PAGE = "page: "  # what the names of the console's pages begin with
#: The console's pages: name, address.
CONSOLE = {
    "home": "/admin/",
    "home, 30 days": "/admin/?range=month",
    "costs, 30 days": "/admin/costs/",
    "costs by user and day": "/admin/costs/?by=user,day",
    "failures": "/admin/failures/",
    "failures, 7 days": "/admin/failures/?in=7d",
    "tasks": "/admin/video/videotask/",
    "tasks that failed with timeout": "/admin/video/videotask/?error=timeout",
}
#: Tables that grow with finished tasks: none of these calls may read one whole.
GROWING = {"video_videotask", "video_generation", "video_taskevent", "video_creditentry"}


def cost(*, few: int = FEW, many: int = MANY, calls: int = CALLS) -> dict[str, Any]:
    """Each call at both sizes: seconds, statements with their indexes, and pages that the database touched."""
    from video.attempts import configured_keys

    configured_keys.sync()
    calls_of = asks()
    fill.finished(1, few)
    active, made_at = fill.active(), time.monotonic()
    fill.settle()
    _summed()
    say(f"{few} finished tasks, {active} active ones")
    at_few = {name: _measured(ask, calls) for name, ask in calls_of.items()}
    say(f"filling up to {many}")
    fill.finished(few + 1, many)
    fill.freshen(time.monotonic() - made_at)
    fill.settle()
    _summed()
    say(f"{many} finished tasks")
    at_many = {name: _measured(ask, calls) for name, ask in calls_of.items()}
    return {"few": few, "many": many, "active": active, "at_few": at_few, "at_many": at_many, "ledger": _ledger()}


def show(found: dict[str, Any]) -> str:
    """Two tables: what a call costs, and what serves it."""
    rows, used, whole = [], dict[str, set[str]](), set[str]()
    for name, many in found["at_many"].items():
        few = found["at_few"][name]
        ratio = many["seconds"] / few["seconds"]
        rows.append(
            [
                name,
                len(many["plans"]),
                f"{ms(few['seconds'])} → {ms(many['seconds'])}",
                f"{ratio:.2f}",
                verdict(many["seconds"], at_most=MOST_OF_A_PAGE_S)
                if name.startswith(PAGE)
                else verdict(ratio, at_most=MOST_RATIO),
                f"{few['pages']:,} → {many['pages']:,}",
            ]
        )
        for plan in many["plans"]:
            whole |= set(plan["whole"])
            for index in plan["indexes"]:
                used.setdefault(index, set()).add(name)
    title = f"Views of the queues, {found['active']:,} tasks active, {found['few']:,} → {found['many']:,} finished"
    head = ["call", "statements", "ms, the quickest", "ratio", "target", "pages"]
    indexes = [[index, ", ".join(sorted(names))] for index, names in sorted(used.items())]
    indexes.append(["tables that grow, read whole", ", ".join(sorted(whole)) or "none"])
    ledger = found["ledger"]
    said = (
        f"check_ledger: {ledger['entries']:,} entries in {ledger['seconds']:.1f} s, {ledger['differences']} differences"
    )
    return f"{table(title, head, rows)}\n{table('What serves them', ['index', 'call'], indexes)}\n\n{said}"


def _summed() -> None:
    """What the sweeper sums of the days and hours that are over; all of it, since filling the tables told nobody."""
    from video.costs import roll_up
    from video.models import HourFigures
    from video.monitoring import trends

    roll_up.rebuild()
    HourFigures.objects.all().delete()
    while trends.keep_hours():
        pass


def _measured(ask: Callable[[], object], calls: int) -> dict[str, Any]:
    """The quickest of some calls (others may want the machine too), and what the database does for one."""
    ask()
    took = []
    for _ in range(calls):
        started = time.perf_counter()
        ask()
        took.append(time.perf_counter() - started)
    found = plans(ask)
    return {"seconds": min(took), "pages": sum(one["pages"] for one in found), "plans": found}


def plans(ask: Callable[[], object]) -> list[dict[str, Any]]:
    """Each statement of a call: the indexes that it uses, the growing tables that it reads whole, pages touched."""
    from django.db import connection

    asked: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        asked.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        ask()
    found = []
    with connection.cursor() as cursor:
        for sql, params in asked:
            if not sql.lstrip().upper().startswith(("SELECT", "WITH")):
                raise BenchError(f"a view wrote: {sql[:200]}")
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params)
            plan = cursor.fetchone()[0][0]["Plan"]
            nodes = list(_nodes(plan))
            read_whole = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
            found.append(
                {
                    "sql": " ".join(sql.split())[:200],
                    "indexes": sorted({node["Index Name"] for node in nodes if "Index Name" in node}),
                    "whole": sorted(read_whole & GROWING),
                    "pages": plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
                    "ms": plan["Actual Total Time"],
                }
            )
    return found


def _nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for below in plan.get("Plans", []):
        yield from _nodes(below)


def asks() -> dict[str, Callable[[], object]]:
    """The calls, through Django's own client: the view, its statements and its JSON, no web server."""
    from django.contrib.auth import get_user_model
    from django.test import Client
    from rest_framework_simplejwt.tokens import AccessToken

    users = get_user_model()
    operator = users.objects.create_superuser("bench-operator")
    owner = users.objects.get(pk=fill.users()[1])
    page = Client(SERVER_NAME=HOST)
    page.force_login(operator)

    def api(user: Any, address: str) -> Callable[[], object]:
        client = Client(SERVER_NAME=HOST, headers={"Authorization": f"Bearer {AccessToken.for_user(user)}"})
        return lambda: _get(client, address)

    details = f"/api/queues/tasks/{fill.task_id(TASK_SHOWN)}"
    return {
        "queue status, staff": api(operator, "/api/queues/status"),
        "queue status, a user": api(owner, "/api/queues/status"),
        "task details, staff": api(operator, details),
        "own tasks": api(owner, "/api/video/tasks"),
        "own credits": api(owner, "/api/credits"),
        "task details, its owner": api(users.objects.get(pk=fill.users()[TASK_SHOWN % fill.USERS]), details),
        "the admin's page": lambda: _get(page, "/admin/queues/"),
        **{f"{PAGE}{name}": partial(_get, page, address) for name, address in CONSOLE.items()},
    }


def _ledger() -> dict[str, float]:
    """The whole ledger, added up once: what the command `check_ledger` does."""
    from video.credits import audit

    started = time.perf_counter()
    differences = len(audit.find())
    return {
        "entries": audit.extent().entries,
        "differences": differences,
        "seconds": time.perf_counter() - started,
    }


def _get(client: Any, address: str) -> None:
    answer = client.get(address)
    if answer.status_code != 200:
        raise BenchError(f"{address} answered {answer.status_code}: {answer.content[:300]!r}")


def main() -> int:
    """Run alone."""
    parser = argparse.ArgumentParser(prog="python -m bench.queues", description=__doc__)
    parser.add_argument("--tasks", type=int, default=MANY, help="finished tasks, a million by default")
    parser.add_argument("--calls", type=int, default=CALLS, help="of each kind")
    parser.add_argument("--json", action="store_true", help="print the raw figures, with each statement's indexes")
    flags = parser.parse_args()
    with home():
        found = cost(many=flags.tasks, calls=flags.calls)
    print(json.dumps(found, indent=1) if flags.json else show(found))
    return 0


if __name__ == "__main__":
    sys.exit(runs.exit_code(main))
