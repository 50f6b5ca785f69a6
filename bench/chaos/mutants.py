"""Proof that the harness bites: with one guard taken out of a copy of the code, a run must find the breach.

`python -m bench.chaos.mutants` runs all; `--control` runs the same on code that nothing was taken out of, which must be
clean. An anchor that is not found exactly once stops everything: then a guard has moved, and its mutant must follow.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.chaos.report import RESULTS
from bench.tables import table

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("bench", "config", "media_pipeline", "providers", "video", "templates", "manage.py", "Procfile")


@dataclass(frozen=True)
class Edit:
    """One text in one file, replaced by another."""

    path: str
    old: str
    new: str

    def found(self, root: Path) -> int:
        """How often the text is there."""
        return (root / self.path).read_text().count(self.old)

    def apply(self, root: Path) -> None:
        """Raises LookupError unless the text is there exactly once."""
        if (count := self.found(root)) != 1:
            raise LookupError(f"{self.path} has this text {count} times, not once: {self.old!r}")
        path = root / self.path
        path.write_text(path.read_text().replace(self.old, self.new))


@dataclass(frozen=True)
class Mutant:
    """A guard that is taken out, the run that looks for the damage, and the kinds of breach that count as seeing it."""

    name: str
    guard: str
    edits: tuple[Edit, ...]
    run: str  # flags of bench.chaos
    breaks: frozenset[str]
    #: Made with the guard and without: a moment in which two must meet, made long enough for a short run to hit it.
    slower: tuple[Edit, ...] = ()


MUTANTS = (
    Mutant(
        "no fencing",
        "the token in the WHERE of a move",
        (
            Edit(
                "video/engine/transitions.py",
                "WHERE id = %(id)s AND fence = %(fence)s AND stage = %(stage)s",
                "WHERE id = %(id)s AND stage = %(stage)s",
            ),
            Edit(
                "video/engine/claims.py",
                "JOIN given ON given.id = t.id AND given.fence = t.fence",
                "JOIN given ON given.id = t.id",
            ),
            Edit("video/engine/claims.py", " WHERE t.id = g.id AND t.fence = g.fence", " WHERE t.id = g.id"),
        ),
        "--jobs 16 --rate 4 --lease 3 --render-seconds 8 --script poll_hang=3 --kinds 'freeze worker' --faults 5",
        frozenset({"wrong", "lost"}),
    ),
    Mutant(
        "no intent row",
        "the attempt is marked unknown before the submit is sent",
        (
            Edit(
                "video/pipeline/provider_stages.py",
                "    marked = (\n"
                "        records.mark_resent(claim, generation)\n"
                "        if again\n"
                "        else records.mark_sent(claim, generation, expects_call=submission.expects_call)\n"
                "    )\n"
                "    if not marked:  # the task is somebody else's by now, or a pause began since the claim\n"
                "        return _paused(generation) if not again and records.is_paused(generation.pk) else Dropped()\n",
                "",
            ),
            Edit(
                "video/pipeline/provider_stages.py",
                "                records.record_accepted(generation.pk, answer)\n",
                "                records.mark_sent(claim, generation, expects_call=False)\n"
                "                records.record_accepted(generation.pk, answer)\n",
            ),
        ),
        "--jobs 30 --rate 3 --lease 3 --script hang=3 --model gen4.5 --kinds 'kill worker' --faults 5",
        frozenset({"doubled"}),
    ),
    Mutant(
        "refund without its constraint",
        "a run is refunded once: the unique constraint and its ON CONFLICT",
        (
            Edit(
                "video/credits/ledger.py",
                "            ON CONFLICT (task_id, run, kind) WHERE task_id IS NOT NULL DO NOTHING\n",
                "",
            ),
            Edit(
                "video/migrations/0001_initial.py",
                "fields=('task', 'run', 'kind'), name='entry_once_a_run'",
                "fields=('task', 'run', 'kind', 'id'), name='entry_once_a_run'",
            ),
        ),
        "--jobs 12 --rate 4 --script 'lost_reply=1 callback=late:15 file=corrupt' --model pika-2.2 "
        "--kinds echo --faults 1",
        frozenset({"ledger"}),
    ),
    Mutant(
        "no lock in admission",
        "slots are given by one pass at a time, and counted under the lock of their account's row",
        (
            Edit("video/routing/slots.py", "{_ACCOUNT_ROWS} ORDER BY id FOR UPDATE", "{_ACCOUNT_ROWS} ORDER BY id"),
            Edit("video/scheduling/admission.py", "\n    AND pg_try_advisory_xact_lock(%(lock)s)\n", "\n"),
        ),
        # No submit of unknown outcome, which would keep one of few slots for an hour.
        "--jobs 60 --rate 20 --slots 3 --render-seconds 1 --script render=1 --model gen4.5 --kinds echo --faults 3",
        frozenset({"doubled"}),
        slower=(
            Edit(
                "video/scheduling/admission.py",
                "        _add_fallbacks(capacity, wanted)\n",
                '        database.fetch("SELECT pg_sleep(0.1)")\n        _add_fallbacks(capacity, wanted)\n',
            ),
        ),
    ),
    Mutant(
        "no check in the claim",
        "a stage is taken only if nobody holds it",
        (
            Edit(
                "video/engine/claims.py",
                "                AND {UNHELD}\n                AND (stage <> 'transcode'",
                "                AND (stage <> 'transcode'",
            ),
        ),
        "--jobs 30 --rate 4 --script hang=3 --kinds echo --faults 8",
        frozenset({"wrong", "doubled"}),
    ),
    Mutant(
        "acks as the only safety",
        "the sweeper rings again what was rung and not heard, and what a dead worker held",
        (
            Edit(
                "video/engine/due.py",
                "                AND {UNHELD}\n"
                "                AND (rung_at IS NULL OR rung_at < "
                "statement_timestamp() - %s * interval '1 second')",
                "                AND lease_until IS NULL\n                AND (rung_at IS NULL AND %s > 0)",
            ),
        ),
        "--jobs 40 --rate 4 --lease 3 --kinds 'kill worker,kill media,empty broker' --faults 9 --settle-seconds 60",
        frozenset({"lost"}),
    ),
    Mutant(
        "no idempotency key",
        "a create that is sent again finds the task that it made",
        (
            Edit(
                "video/actions/create.py",
                "        idempotency_key=idempotency_key,\n",
                "        idempotency_key=None,\n",
            ),
        ),
        "--jobs 60 --rate 8 --kinds 'kill web' --faults 2",
        frozenset({"doubled"}),
    ),
)


def copy_of_the_code(folder: Path) -> Path:
    """What a run needs, without the results and caches."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            shutil.copy2(source, folder / name)
    return folder


def run(mutant: Mutant, *, control: bool) -> dict[str, object]:
    """One run on a copy; what it broke, and whether that is what was to be seen."""
    with tempfile.TemporaryDirectory(prefix="reelworks-mutant-") as name:
        root = copy_of_the_code(Path(name))
        root.chmod(0o755)  # PostgreSQL may run as another user
        for edit in mutant.slower if control else mutant.slower + mutant.edits:
            edit.apply(root)
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "bench.chaos", "--seed", "1", "--recovery-limit", "0", *shlex.split(mutant.run)],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        kept = sorted((root / "bench" / "results").glob("*.json"))
        broke = json.loads(kept[-1].read_text())["breaches"] if kept else {}
    seen = {kind: count for kind, count in broke.items() if count}
    good = done.returncode == 0 if control else done.returncode == 1 and bool(mutant.breaks & set(seen))
    if not good:
        print(done.stderr[-1500:] + done.stdout[-6000:], file=sys.stderr)
    return {"broke": seen, "good": good, "code": done.returncode, "seconds": round(time.monotonic() - started)}


def main() -> int:
    """Run them, print the table; exit code 1 if one was not seen."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos.mutants", description=__doc__)
    parser.add_argument("--only", action="append", choices=[mutant.name for mutant in MUTANTS])
    parser.add_argument("--control", action="store_true", help="the same runs with every guard in place")
    flags = parser.parse_args()
    lines, good, raw = [], True, {}
    for mutant in MUTANTS:
        if flags.only and mutant.name not in flags.only:
            continue
        found = raw[mutant.name] = run(mutant, control=flags.control)
        good = good and bool(found["good"])
        broke = ", ".join(f"{count} {kind}" for kind, count in found["broke"].items()) or "none"  # type: ignore[attr-defined]
        verdict = ("clean" if found["good"] else "BROKEN") if flags.control else "seen" if found["good"] else "NOT SEEN"
        lines.append([mutant.name, mutant.guard, broke, found["seconds"], verdict])
        print(f"chaos: {mutant.name}: {verdict}, breaches: {broke}", file=sys.stderr, flush=True)
    title = "The same runs with every guard in place" if flags.control else "One guard taken out at a time"
    print(table(title, ["without", "the guard", "breaches found", "s", "verdict"], lines))
    RESULTS.mkdir(exist_ok=True)
    name = time.strftime(f"{'controls' if flags.control else 'mutants'}-%Y-%m-%dT%H%M%SZ.json", time.gmtime())
    (RESULTS / name).write_text(json.dumps(raw, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
