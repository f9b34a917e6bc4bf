"""What an operator costs that has nothing to do: CPU of its process, files left in its landing place.

python benchmarks/idle_operator.py --seconds 60 --files 2000
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from gueststar.cameras.load import load_camera
from gueststar.operations.landing.completeness import Stamp
from gueststar.operations.landing.journal import ArrivedFile, ReceiptJournal
from gueststar.store.operation_settings import LandingPlace, OperationSettings
from gueststar.store.operator_state import read_operator_state
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import SurveySettings

COMMAND = "from gueststar.cli.main import main; main()"


def main() -> None:
    """Print the fraction of a core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--files", type=int, default=2000, help="files that were taken in and stay where they landed")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = prepared(Path(folder), options.files)
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "operate", str(root), "--workers", str(options.workers)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            wait_for_rest(root, process)
            watched = psutil.Process(process.pid)
            cpu, begun = cpu_of(watched), time.monotonic()
            time.sleep(options.seconds)
            used, wall = cpu_of(watched) - cpu, time.monotonic() - begun
        finally:
            process.terminate()
            process.wait()
    told = f"{options.workers} workers, {options.files} files left in its landing place"
    print(f"idle operator, {told}: {100 * used / wall:.2f} % of a core")


def prepared(folder: Path, n_files: int) -> Path:
    """Return a survey whose landing place holds files that were taken in."""
    landing, root = folder / "landing", folder / "survey"
    landing.mkdir()
    operation = OperationSettings(landing=(LandingPlace(path=landing),))
    SurveyRepo.create(root, load_camera("simcam"), settings=SurveySettings(operation=operation)).close()
    (root / "operator").mkdir()
    journal = ReceiptJournal(root)
    for k in range(n_files):
        path = landing / f"{k}.fits"
        path.write_bytes(b"x")
        state = path.stat()
        journal.taken(ArrivedFile(path, Stamp(state.st_size, state.st_mtime_ns), state.st_mtime))
    return root


def wait_for_rest(root: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when the operator has begun and had time to settle down."""
    while read_operator_state(root) is None:
        if process.poll() is not None:
            raise SystemExit("the operator did not start")
        time.sleep(0.5)
    time.sleep(15.0)


def cpu_of(process: psutil.Process) -> float:
    """Return the CPU seconds of a process, its workers left out."""
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
