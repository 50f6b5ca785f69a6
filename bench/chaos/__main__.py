"""`python -m bench.chaos --jobs 200 --seed 1`: exit code 0 when every promise held, 1 when one was broken."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

from bench.chaos import checker, fleet, monitor, plan, report
from bench.chaos.checker import Breach
from bench.chaos.faults import Harm
from bench.chaos.load import Api, Load
from bench.chaos.monitor import Monitor
from bench.runs import say
from bench.system import BenchError, Home, home
from config.embedded import EmbeddedError
from config.supervisor import STOP_SECONDS

USERS = 5


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument(
        "--mode", choices=("chaos", "rolling"), default="chaos", help="rolling: SIGTERM, no misbehaviour"
    )
    parser.add_argument("--seed", default="", help="of jobs and faults; without one a random one, which is printed")
    parser.add_argument("--faults", type=int, default=None, help="how many; default one for 16 jobs, each kind once")
    parser.add_argument("--kinds", default="", help=f"only these, separated by commas: {', '.join(plan.KINDS)}")
    parser.add_argument("--script", default=None, help="this misbehaviour for every job instead of the mix")
    parser.add_argument("--model", default=None, help="this model for every job")
    parser.add_argument(
        "--rate",
        type=float,
        default=None,
        help="jobs offered a second; default 4, rolling: until the last restart",
    )
    parser.add_argument("--most-open", type=int, default=200, help="jobs that are under way at once")
    parser.add_argument("--render-seconds", type=float, default=2.0)
    parser.add_argument("--lease", type=float, default=20.0, help="STAGE_LEASE_SECONDS")
    parser.add_argument("--slots", type=int, default=40, help="live jobs allowed to each model")
    parser.add_argument("--transcode", action="store_true", help="sources that must be encoded")
    parser.add_argument("--settle-seconds", type=float, default=300.0, help="for all to end after the last fault")
    parser.add_argument("--recovery-limit", type=float, default=30.0, help="longest standstill in seconds; 0: any")
    parser.add_argument("--grace", type=float, default=STOP_SECONDS, help="seconds from SIGTERM to the end, if rolling")
    parser.add_argument("--keep-logs", default="", help="copy the processes' logs to this folder")
    flags = parser.parse_args(argv)
    flags.seed = int(flags.seed or random.SystemRandom().randrange(10**6))
    return flags


def tokens() -> list[str]:
    """Users with more credits than they can spend."""
    from django.contrib.auth import get_user_model
    from rest_framework_simplejwt.tokens import AccessToken

    from video.credits import ledger

    made = []
    for number in range(USERS):
        user = get_user_model().objects.create_user(f"chaos-{number}", password=None)
        ledger.grant(user.pk, 1_000_000, note="chaos")
        token = AccessToken.for_user(user)
        token.set_exp(lifetime=timedelta(hours=12))
        made.append(str(token))
    return made


class Run:
    """One run: start, load and harm side by side, heal, wait, check."""

    def __init__(self, place: Home, flags: argparse.Namespace, disk: Path | None) -> None:
        self.flags, self.place, self.disk = flags, place, disk
        env = fleet.settings(place, lease_s=flags.lease, slots=flags.slots)
        self.fleet = fleet.Fleet(place, env, fps=24 if flags.transcode else 30, render_s=flags.render_seconds)
        self.monitor = Monitor(self.fleet, slots=flags.slots)
        rng = random.Random(flags.seed)
        self.rolling = flags.mode == "rolling"
        scripts = plan.SCRIPTS if flags.script is None else _one_script(flags.script)
        if self.rolling:
            scripts = _one_script("")
        self.jobs = plan.make_jobs(
            flags.jobs,
            rng,
            users=USERS,
            scripts=scripts,
            model=flags.model,
            steering=flags.script is None and not self.rolling,
        )
        kinds = [kind.strip() for kind in flags.kinds.split(",") if kind.strip()] or list(plan.KINDS)
        if self.rolling:
            self.faults = plan.make_restarts(flags.jobs, 10 if flags.faults is None else flags.faults)
        else:
            count = plan.default_faults(flags.jobs) if flags.faults is None else flags.faults
            self.faults = plan.make_faults(flags.jobs, count, rng, lease_s=flags.lease, kinds=kinds)
        if flags.rate is None:
            flags.rate = min(4.0, flags.jobs / (len(self.faults) * plan.RESTART_S)) if self.rolling else 4.0
        self.harm = Harm(self.fleet, place, disk=disk)
        self._lock = threading.Lock()
        api = Api(self.fleet.url, tokens())
        self.load = Load(api, self.jobs, rate=flags.rate, most_open=flags.most_open, on_accepted=self._accepted)

    def _accepted(self, count: int) -> None:
        """Faults whose place in the run has come."""
        with self._lock:
            while self.faults and self.faults[0].after_jobs <= count:
                fault = self.faults.pop(0)
                say(f"{count} accepted, {self.load.open()} open: {fault.kind} {fault.target}")
                self.harm.begin(fault)

    def work(self) -> int:
        """Returns the number of breaches; prints everything."""
        flags, ready = self.flags, time.monotonic()
        say(f"everything runs; {flags.jobs} jobs, {len(self.faults)} faults, seed {flags.seed}")
        self.monitor.start()
        self.load.offer_all()
        last_fault = self.harm.last_over()
        self.monitor.last_fault_was(last_fault)
        say(f"all offered, {self.load.open()} open; healing")
        self.harm.heal()
        say("everything is up again; waiting for the rest to end")
        self.load.wait_ended(flags.settle_seconds)
        self.monitor.stop()
        say("checking")
        storage = Path(os.environ["STORAGE_LOCAL_PATH"])
        found = checker.gather(self.load, simulator_url=self.fleet.simulator_url, storage=storage, slots=flags.slots)
        breaches = checker.check(found) + self._slow()
        if self.rolling:
            breaches += checker.check_rolling(found, self.harm.stops, self.harm.loads, grace_s=flags.grace)
        result = report.figures(
            found,
            self.harm.done,
            self.monitor.recovery,
            breaches,
            mode=flags.mode,
            stops={name: round(max(s for n, s in self.harm.stops if n == name), 1) for name, _ in self.harm.stops},
            seed=flags.seed,
            jobs=flags.jobs,
            flags=vars(flags),
            seconds=round(time.monotonic() - ready),
        )
        print(report.show(result), flush=True)
        if breaches:
            print(report.timelines(found, breaches, self.harm.done), flush=True)
        print(f"\nseed {flags.seed}; {report.keep(result, breaches, self.harm.done)}")
        return len(breaches)

    def _slow(self) -> list[Breach]:
        limit = self.flags.recovery_limit
        return [
            Breach("slow", f"stood still in {stage} for {seconds:.1f} s after the last fault", task_id)
            for task_id, (seconds, stage) in self.monitor.recovery.stood.items()
            if limit and seconds > limit
        ]


def _one_script(directives: str) -> tuple[plan.Script, ...]:
    known = {script.directives: script for script in plan.SCRIPTS}
    every = frozenset(code for script in plan.SCRIPTS for code in script.may_fail)
    return (known.get(directives, plan.Script(directives, 1, every)),)


def main() -> int:
    """Run, print, say by the exit code whether every promise held."""
    flags = parse()
    disk: Path | None = None
    try:
        with home() as place:
            folder = place.folder / "storage"
            size = fleet.DISK_RESERVE_BYTES + (256 + 2 * flags.jobs) * 1024**2
            if fleet.small_disk(folder, size):
                disk = folder
            else:
                say("no small disk could be mounted here (that takes root), so none is filled")
            try:
                monitor.watch_moves()
                run = Run(place, flags, disk)
                return 1 if run.fleet.run(run.work) else 0
            finally:
                if flags.keep_logs:
                    shutil.copytree(place.logs, flags.keep_logs, dirs_exist_ok=True)
                if disk is not None:
                    fleet.unmount(disk)
    except (BenchError, EmbeddedError) as err:
        say(str(err))
        return 2
    except KeyboardInterrupt:
        say("stopped; nothing is left behind")
        return 130


if __name__ == "__main__":
    sys.exit(main())
