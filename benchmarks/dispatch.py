"""What the machinery costs around a unit of work: ledger and engine, with units that do nothing.

Run: python benchmarks/dispatch.py [--units 10000] [--workers 2] [--database URL]
Prints per thousand units the wall time, the CPU of the main process and that of the workers; then the CPU of an engine
that waits.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import psutil

from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.dask_engine import DaskEngine
from gueststar.pipelines.engine.outcome import Outcome, Result, attempt
from gueststar.store.job_batches import JobBatches, JobEnding, JobRequest
from gueststar.store.ledger import Ledger
from gueststar.store.ledger_rows import JobState
from gueststar.store.operation_settings import ClusterSettings
from gueststar.store.sql import sqlite_url

SUBMITTED, STARTED, SETTLED = 64, 8, 12
"""Jobs in one transaction: about an exposure's, what the engine takes at once, and a batch that is committed."""
IDLE_S = 10.0


def do_nothing(job_id: int) -> Outcome:
    """Be a unit of work."""
    return attempt(job_id, lambda: Result(metrics={"fwhm_arcsec": 2.0, "zero_point": 26.3}))


def in_parts(items: Iterable[int], size: int) -> Iterator[list[int]]:
    """Yield lists of at most ``size``."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


class Meter:
    """CPU of this process and of its workers, and wall time, since the last reading."""

    def __init__(self) -> None:
        self.last = self._now()

    def _now(self) -> tuple[float, float, float]:
        workers = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
        return time.process_time(), sum(times.user + times.system for times in workers), time.monotonic()

    def read(self) -> tuple[float, float, float]:
        """Return seconds of the main process, of the workers and of the wall."""
        now, before = self._now(), self.last
        self.last = now
        return now[0] - before[0], now[1] - before[1], now[2] - before[2]


def calls(batches: JobBatches, n_units: int) -> Iterator[Call]:
    """Submit and start jobs as they are taken, as a night does."""
    for part in in_parts(range(n_units), SUBMITTED):
        requests = [
            JobRequest("empty", {"visit": n // 4, "detector": n % 4}, n // 4, n % 4, day_obs=20260101) for n in part
        ]
        for some in in_parts(batches.submit(requests), STARTED):
            yield from (Call(job_id, do_nothing, (job_id,)) for job_id in batches.start(some))


def run(engine: DaskEngine, batches: JobBatches, n_units: int) -> None:
    """Run units that do nothing and write down what became of them."""
    meter, ended = Meter(), []
    print("  units   wall s   CPU ms a unit: main   workers   all")
    for n_done, outcome in enumerate(engine.run(calls(batches, n_units)), start=1):
        ended.append(JobEnding(outcome.job_id, JobState.DONE, metrics=outcome.result.metrics, cpu_s=outcome.cpu_s))
        if len(ended) == SETTLED or n_done == n_units:
            batches.settle(ended)
            ended = []
        if n_done % 1000 == 0 or n_done == n_units:
            main, workers, wall = meter.read()
            n = 1000 if n_done % 1000 == 0 else n_done % 1000
            print(f"{n_done:7d} {wall:8.2f} {1e3 * main / n:20.2f} {1e3 * workers / n:9.2f} {1e3 * (main + workers) / n:5.2f}")  # fmt: skip  # noqa: E501


def wait(engine: DaskEngine) -> None:
    """Print what an engine costs that has nothing to do."""
    meter, end = Meter(), time.monotonic() + IDLE_S
    while time.monotonic() < end:
        engine.collect(1.0)
    main, workers, wall = meter.read()
    print(f"idle: main process {100 * main / wall:.2f} % of a core, workers {100 * workers / wall:.2f} %")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--database", help="URL of a PostgreSQL database; default: a SQLite file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dispatch") as folder:
        ledger = Ledger(chosen.database or sqlite_url(Path(folder) / "ledger.sqlite3"))
        settings = ClusterSettings(workers=chosen.workers)
        with DaskEngine(settings, scratch=folder, modules=("gueststar.pipelines.engine.outcome",)) as engine:
            while engine.n_free < 2 * chosen.workers:
                engine.collect(1.0)
            run(engine, JobBatches(ledger), chosen.units)
            wait(engine)


if __name__ == "__main__":
    main()
