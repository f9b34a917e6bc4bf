"""One job of a workflow: run the units in a file, and write each one's outcome down as it comes.

python -m gueststar.pipelines.batch.run_units UNITS OUTCOMES --limit SECONDS
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.on_worker import run_sealed, sealed
from gueststar.pipelines.engine.outcome import Outcome


def write_units(path: Path, calls: list[Call]) -> None:
    """Write calls to a file for `run_units`."""
    path.write_bytes(pickle.dumps([(call.job_id, sealed(call.function, call.arguments)) for call in calls]))


def run_units(units: Path, outcomes: Path, *, limit_s: float) -> int:
    """Run the units of a file one after the other; return how many there were.

    A unit that takes longer than ``limit_s`` has this process ended by the kernel, whatever it is doing: the outcomes
    of those before it are written by then.
    """
    rows = pickle.loads(units.read_bytes())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with outcomes.open("wb") as sink:
        for job_id, payload in rows:
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            outcome = _run(job_id, payload)
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            pickle.dump(outcome, sink)
            sink.flush()
            os.fsync(sink.fileno())
    return len(rows)


def _run(job_id: int, payload: bytes) -> Outcome | BaseException:
    try:
        outcome: Outcome = run_sealed(payload)
    except Exception as problem:  # for the whole run: a person must act, or a service is down
        return problem
    return outcome


def read_outcomes(path: Path) -> Iterator[Outcome | BaseException]:
    """Yield what was written down, up to where the job ended."""
    if not path.exists():
        return
    with path.open("rb") as source:
        while True:
            try:
                yield pickle.load(source)
            except (EOFError, pickle.UnpicklingError):
                return


def main() -> None:
    """Be a job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("units", type=Path)
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--limit", type=float, required=True)
    chosen = parser.parse_args()
    run_units(chosen.units, chosen.outcomes, limit_s=chosen.limit)


if __name__ == "__main__":
    main()
