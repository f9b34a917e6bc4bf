"""What each stage of the chain costs on full-size images, measured on the real commands.

Run: python benchmarks/stages.py [--sky FOLDER] [--repo FOLDER]
A survey with one detector of 3072 x 3080 pixels is simulated (or one simulated before is taken) and processed, each
stage by a process of its own, so that its peak memory is its own. Seconds are of one detector image, the first of
each process left out where there are others: it loads the compiled code. What a process spends outside of its units
of work, less what it costs to find nothing to do, is the middleware: registry, ledger, planning, committing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gueststar.store.ledger import Job, JobState
from gueststar.store.repo import SurveyRepo

CAMERA = Path(__file__).parent / "cameras" / "quadrant.yaml"

KINDS = {
    "science": "science", "reference": "reference", "difference": "difference",
    "associate": "association",
}  # fmt: skip
"""Stage of a night -> kind of its jobs."""


@dataclass(frozen=True)
class Cost:
    """What a process used."""

    cpu_s: float
    wall_s: float
    peak_mb: float


def gueststar(*words: object) -> Cost:
    """Run a command in a process of its own and return what it used; stop if it fails."""
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "gueststar", *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"gueststar {words[0]} ended with status {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - begin, usage.ru_maxrss / 1024.0)


def prepare(sky: Path, repo: Path) -> None:
    """Simulate the survey unless it is there, and make the repository."""
    if not (sky / "raw").is_dir():
        cost = gueststar("simulate", sky, "--scenario", "bench", "--camera", CAMERA, "--quiet")
        print(f"simulating: {cost.cpu_s:.0f} s of CPU, {cost.peak_mb:.0f} MB", flush=True)
    gueststar("init", repo, "--camera", CAMERA)
    gueststar("refcat", "import", repo, sky / "refcat.parquet")
    cost = gueststar("ingest", repo, sky / "raw", "--transfer", "link")
    print(f"ingesting: {cost.cpu_s:.1f} s of CPU", flush=True)


def done_jobs(repo: Path, kind: str) -> list[Job]:
    with SurveyRepo.open(repo) as survey:
        jobs = survey.ledger.jobs(kind=kind)
    if lost := [job.reason for job in jobs if job.state is not JobState.DONE]:
        print(f"  {kind}: {len(lost)} of {len(jobs)} without result: {lost[0]}")
    done = [job for job in jobs if job.state is JobState.DONE]
    return sorted(done, key=lambda job: job.started or 0.0)


def measure_stage(repo: Path, stage: str, idle: Cost) -> None:
    """Run one stage and print what its units cost, step by step, and what was spent beside them."""
    cost = gueststar("process", repo, "--until", stage)
    jobs = done_jobs(repo, KINDS[stage])
    if not jobs:
        print(f"{stage}: nothing to do")
        return
    beside = (cost.cpu_s - sum(job.cpu_s or 0.0 for job in jobs) - idle.cpu_s) / len(jobs)
    warm = jobs[1:] or jobs
    cpu = float(np.median([job.cpu_s or 0.0 for job in warm]))
    wall = float(np.median([job.metrics["wall_s"] for job in warm]))
    print(
        f"{stage:11} {len(jobs):3d} units  CPU {cpu:6.2f} s  wall {wall:6.2f} s  peak {cost.peak_mb:5.0f} MB  "
        f"beside {beside:6.3f} s = {100.0 * beside / max(cpu, 1e-9):4.1f} %",
        flush=True,
    )
    for step in warm[-1].metrics.get("steps", {}):
        seconds = float(np.median([job.metrics["steps"].get(step, 0.0) for job in warm]))
        print(f"    {step:14} {seconds:7.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sky", type=Path, help="folder of the simulation, made if it is not there")
    parser.add_argument("--repo", type=Path, help="folder of the repository, kept; it must not be there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sky, repo = options.sky or Path(folder) / "sky", options.repo or Path(folder) / "repo"
        prepare(sky, repo)
        gueststar("process", repo, "--until", "calibrate")
        idle = gueststar("process", repo, "--until", "calibrate")
        print(f"starting and finding nothing to do: {idle.cpu_s:.1f} s of CPU")
        for stage in KINDS:
            measure_stage(repo, stage, idle)


if __name__ == "__main__":
    main()
