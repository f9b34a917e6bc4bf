"""A night with everything that can go wrong, beside the same night undisturbed.

60 exposures of 4 detectors (320 pixels a side), one every few seconds, operated by `gueststar operate` with its
ledger on PostgreSQL and its alerts on Kafka. In the disturbed night three workers are killed and one hangs, the
database stops for a minute and so does the broker, the disk is full for a while, the operator is killed twice, and
30 exposures wait for the link and come all at once.

Printed: whether catalogs and alerts are those of the undisturbed night, whether each alert is on its topic once, what
is unexplained, latencies of new exposures before and during the backlog, and how fast the backlog drained.

    python -m benchmarks.disturbed_night [--exposures 60] [--every 4] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import ConfigError
from gueststar.operations.drills import faults
from gueststar.operations.drills.contingencies.broker import wait_until_published
from gueststar.operations.drills.contingencies.workers import a_worker
from gueststar.operations.drills.judge import compare_surveys
from gueststar.operations.drills.operating import Operating
from gueststar.operations.drills.servers import PostgresServer, copied_postgres, running_broker, running_postgres
from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.world import Plan, World, fresh_survey, make_world
from gueststar.operations.rules.load import SHIPPED
from gueststar.store.operator_state import read_operator_state
from gueststar.store.repo import SurveyRepo
from gueststar.stream.broker import LocalBroker

AWAY_S = 60.0
"""How long the database and the broker are away."""

FULL_S = 20.0
"""How long the disk is full."""

UNIT_LIMIT_S = 15.0
"""A unit that takes longer is taken for hung."""

PROMPT_S = 30.0
"""What comes later than this waited for the link; 10 min in a survey whose exposures take longer."""

DISK_MB = 4000
"""Size of the disk that is filled."""

COMES_UP_S = 30.0
"""The operator is started so long before the first exposure."""

ROUNDS = 5
"""Exposures of each field, one after the other: fields are not revisited after the link was down."""


def main() -> int:
    """Live through the night twice and print what differs."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--exposures", type=int, default=60)
    arguments.add_argument("--every", type=float, default=4.0, help="seconds from one exposure to the next")
    arguments.add_argument("--only-link", action="store_true", help="the link's outage, and nothing else")
    arguments.add_argument("--keep", type=Path, help="folder to keep everything in")
    chosen = arguments.parse_args()
    plan = Plan(
        detectors=(0, 1, 2, 3), n_fields=max(chosen.exposures // ROUNDS, 4), n_rounds=ROUNDS, every_s=chosen.every,
        workers=os.cpu_count() or 1, sweeps=True, seed=11,
    )  # fmt: skip
    with ExitStack() as stack:
        folder = Path(chosen.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="gsnight"))).absolute()
        server = stack.enter_context(running_postgres())
        begun = time.monotonic()
        world = make_world(folder / "world", plan, database=server.url)
        print(
            f"{world.n_exposures} exposures of {len(plan.detectors)} detectors, {plan.n_fields} fields; "
            f"sky and references made in {time.monotonic() - begun:.0f} s"
        )
        copy = stack.enter_context(copied_postgres(server))
        stage = Stage(world, folder, workers=os.cpu_count() or 1, before_s=COMES_UP_S)
        begun = time.monotonic()
        quiet = stage.quiet()
        print(f"undisturbed: {time.monotonic() - begun:.0f} s; latency {_told(latencies(quiet, world))}")
        if not _keeps_pace(quiet, world):
            print(
                "this machine does not keep pace: its latencies grow all night and tell nothing; take a larger --every"
            )
        disk = _disk(stack)
        root = fresh_survey(world, (disk or folder) / "disturbed", replaced={server.folder.name: copy.folder.name})
        is_published = _live_through(stage, root, copy, disk, is_only_link=chosen.only_link)
        return 0 if _compare(stage, quiet, root) and is_published else 1


def _disk(stack: ExitStack) -> Path | None:
    try:
        return stack.enter_context(faults.small_disk(DISK_MB))
    except ConfigError as problem:
        print(f"no disk of its own, so none is filled: {problem}")
        return None


def _live_through(
    stage: Stage, root: Path, server: PostgresServer, disk: Path | None, *, is_only_link: bool = False
) -> bool:
    """Live through the disturbed night; return whether each alert is on its topic, once."""
    stage.prepared(
        root,
        {
            "cluster": {"unit_limit_s": UNIT_LIMIT_S}, "disks": {"reserve_gb": 0.05, "sandbox_low_gb": 0.06},
            "queue": {"prompt_s": PROMPT_S},
        },
    )  # fmt: skip
    (root / "rules.yaml").write_text(SHIPPED.read_text().replace("delay: < 10 min", f"delay: < {PROMPT_S:.0f} s"))
    every_s, n = stage.world.plan.every_s, stage.world.n_exposures
    outage, back = (n // 4, 3 * n // 4), 4 * n // 5
    begun = time.monotonic()
    with running_broker(root) as broker, stage.operating(root) as operator:
        opens = operator.what_time_it_is()
        before_s = max(stage.world.begins - opens, 0.0)
        with stage.link(root, begins=opens, outage=outage, back_s=before_s + back * every_s) as link:
            opened = time.monotonic()

            def at(exposure: float, what: str, happen: Callable[[], None]) -> None:
                if is_only_link:
                    return
                time.sleep(max(opened + before_s + exposure * every_s - time.monotonic(), 0.0))
                print(f"  {time.monotonic() - opened:6.1f} s  {what}")
                happen()

            at(2, "a worker is killed", lambda: faults.kill(a_worker(operator)))
            at(3, "the operator is killed", lambda: _restarted(operator))
            at(6, "a worker hangs", lambda: a_worker(operator).suspend())
            at(8, f"the database is away for {AWAY_S:.0f} s", lambda: _away(server.stop, server.start))
            at(n // 3, "a worker is killed", lambda: faults.kill(a_worker(operator)))
            at(n // 2, f"the broker is away for {AWAY_S:.0f} s", lambda: _away(broker.stop, broker.start))
            at(back + 1, f"{outage[1] - outage[0]} exposures have come at once; a worker is killed",
               lambda: faults.kill(a_worker(operator)))  # fmt: skip
            at(back + 3, "the operator is killed", lambda: _restarted(operator))
            if disk is not None:
                at(back + 5, f"the disk is full for {FULL_S:.0f} s", lambda: _full(disk, broker))
            link.wait(600)
            stage.wait_for_all(root, operator, timeout_s=1200)
        _print_backlog(root, stage.world, outage, back)
        is_published, said = wait_until_published(root, stage.world.night, timeout_s=300)
        print(f"disturbed: {time.monotonic() - begun:.0f} s; topics: {' '.join(said.split())}")
        operator.stop()
    return is_published


def _restarted(operator: Operating) -> None:
    operator.kill()
    operator.start()


def _away(stop: Callable[[], object], start: Callable[[], object]) -> None:
    stop()
    time.sleep(AWAY_S)
    start()


def _full(disk: Path, broker: LocalBroker) -> None:
    with faults.filled(disk, left_mb=1.0):
        time.sleep(FULL_S)
    if broker.pid() is None:  # Kafka ends when it cannot write; its service manager starts it again
        print("          the broker ended of it, and is started again")
        broker.start()


def latencies(root: Path, world: World, *, among: range | None = None) -> NDArray[np.float64]:
    """Return seconds from receipt to the end of association of the detector images of exposures, by number.

    Receipts are told by the rehearsal's clock, the ends of jobs by the machine's.
    """
    state = read_operator_state(root)
    lag_s = state.beat - state.clock if state else 0.0
    with SurveyRepo.open(root) as repo:
        rows = repo.ledger.exposures(day_obs=world.night, observation_type="science")
        ended = {
            (job.exposure_id, job.detector): job.finished
            for job in repo.ledger.jobs(kind="association", day_obs=world.night)
            if job.finished
        }
    chosen = {row.id: row.received for n, row in enumerate(rows) if among is None or n in among}
    return np.array([end - lag_s - chosen[exposure] for (exposure, _), end in ended.items() if exposure in chosen])


def _keeps_pace(root: Path, world: World) -> bool:
    """Return whether images of the last quarter of the night do not end much later than those of the first."""
    n = world.n_exposures
    first, last = (np.median(latencies(root, world, among=part)) for part in (range(n // 4), range(3 * n // 4, n)))
    return bool(last < first + world.plan.every_s)


def _told(seconds: NDArray[np.float64]) -> str:
    if seconds.size == 0:
        return "of nothing"
    p50, p95 = np.percentile(seconds, [50, 95])
    return f"p50 {p50:.1f} s, p95 {p95:.1f} s of {seconds.size} images"


def _print_backlog(root: Path, world: World, outage: tuple[int, int], back: int) -> None:
    """Print the latency of exposures that came in time, before and during the backlog, and the pace of its drain."""
    n = world.n_exposures
    print(f"latency in time, before the outage: {_told(latencies(root, world, among=range(outage[0])))}")
    print(f"latency of new ones, during the backlog: {_told(latencies(root, world, among=range(back, n)))}")
    late = latencies(root, world, among=range(*outage))
    if late.size:
        rate = late.size / late.max()
        print(
            f"backlog of {late.size} images drained in {late.max():.0f} s: {rate:.2f} images a second, beside new ones"
        )


def _compare(stage: Stage, quiet: Path, root: Path) -> bool:
    """Print what the disturbed survey has in common with the quiet one; return whether it is the same."""
    judged = compare_surveys(quiet, root, night=stage.world.night)
    for name, compared in judged.products.items():
        print(f"  {compared.line(name)}")
    print(f"  {judged.alerts.line('alerts')}")
    fates = ", ".join(f"{n} {fate}" for fate, n in judged.fates.items() if n)
    print(f"  fates: {fates}; {judged.unexplained} unexplained")
    is_well = judged.is_same and judged.unexplained == 0
    print("identical to the undisturbed night" if is_well else "NOT identical to the undisturbed night")
    return is_well


if __name__ == "__main__":
    sys.exit(main())
