"""What a detector image costs from the raw file to its alert packets, everything written, on one core.

Run: python benchmarks/raw_to_alerts.py [--epochs N] [--apart] [--peer] [--keep FOLDER] [--profile FOLDER] [hl] [gp]
The data lie in ``$GUESTSTAR_SHARED/data`` or ``../shared/data`` (bench_hl, bench_gp: raw exposures, masters, a co-add
as reference). A repository gets masters, reference catalog, reference (`differences.enter_reference`) and raw files;
then each exposure goes as it would in a night that is watched: science image and difference in one chain of calls
(`pipelines.night.chain`), then its association, in one process that did one exposure of another repository before, so
that compiled code is loaded. ``--apart`` takes all exposures through one stage after the other, as a batch does where
references are still to be made: images are then read again from their files. Seconds are of CPU, medians over the
exposures, from the ledger, where each step's are written down; *beside the work* is what the process spent outside of
its units of work (planning, registry, ledger), shared by the exposures; of little meaning for a single one. The first
exposure of a repository reads masters and reference, the others find them in memory. Peak memory is that of the
process during each stage, with what it keeps from one exposure to the next.
``--peer`` runs the classic chain as far as its catalogs on the first two exposures, each right after ours
(`_classic_chain`; its reference warp, subtraction and search come on top). The aims were set where these took
`CLASSIC_S` seconds: how long they take here tells how fast this machine is, and ours is given as a part of that.
``--keep`` keeps what does not depend on the code measured, ``--profile`` writes a profile (of each stage, if apart).
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from _classic_chain import ClassicChain, missing_programs
from catalogs import CAMERA, data_folder
from differences import enter_reference
from gueststar.formats.calibrated_image import read_calibrated_image
from gueststar.formats.calibration_master import read_calibration_master
from gueststar.formats.parquet import read_catalog
from gueststar.model.calibration import KINDS
from gueststar.pipelines.engine.inline import InlineEngine
from gueststar.pipelines.night.association import AssociateVisit
from gueststar.pipelines.night.chain import ChainWork, run_chain
from gueststar.pipelines.night.runner import NightRunner
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.ledger import Job, JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
from single_exposure import write_masters

STAGES = {"science": "science", "difference": "difference", "associate": "association"}
"""Stage of a night -> kind of its jobs."""

AIMS = {
    "hl": {"science": 2.5, "warp to vet": 2.0, "raw to packets": 4.0, "peak memory, MB": 1200.0},
    "gp": {"science": 7.0, "warp to vet": 4.0, "raw to packets": 10.0, "peak memory, MB": 1500.0},
}
"""Seconds of CPU, and memory, at most."""

CLASSIC_S = {"hl": 43.8, "gp": 77.0}
"""Seconds of CPU of the classic chain from raw file to PSF catalog and astrometry on the machine of the aims, median of
the first `N_CLASSIC` exposures (PSFEx takes 2 s for the third of hl, 50 s for the others here)."""

N_CLASSIC = 2

VETTED = ("warp", "subtract", "detect", "vet")


@dataclass(frozen=True)
class Measured:
    """What the exposures of one repository cost."""

    jobs: dict[str, list[Job]]
    """By stage, in order of exposure."""
    cpu_s: float
    """Of the process, all exposures together."""
    classic_s: tuple[float, ...] = ()
    """Of the classic chain as far as its catalogs, the first exposures; none where it was not run."""

    def stage(self, name: str) -> float:
        return float(np.median([job.cpu_s or 0.0 for job in self.jobs[name]]))

    def step(self, stage: str, name: str) -> float:
        return float(np.median([job.metrics["steps"].get(name, 0.0) for job in self.jobs[stage]]))

    def peak_mb(self, stage: str) -> float:
        return max(job.peak_rss_mb or 0.0 for job in self.jobs[stage])

    @property
    def beside_s(self) -> float:
        works = sum(job.cpu_s or 0.0 for jobs in self.jobs.values() for job in jobs)
        return (self.cpu_s - works) / len(self.jobs["science"])

    def figures(self) -> dict[str, float]:
        stages = [self.stage(name) for name in STAGES]
        return {
            "science": stages[0],
            "warp to vet": sum(self.step("difference", name) for name in VETTED),
            "raw to packets": sum(stages),
            "raw to packets and all beside the work": sum(stages) + self.beside_s,
            "peak memory, MB": max(self.peak_mb(name) for name in STAGES),
        }


def make_survey(data: Path, root: Path, kept: Path, n_epochs: int) -> None:
    """Make a repository with everything but results: masters, reference, catalog, raw files."""
    raws = sorted(data.glob("sci*_raw.fits.fz"))[:n_epochs]
    for words in (
        ["init", root, "--camera", CAMERA],
        ["refcat", "import", root, data / "refcat.fits.gz"],
        ["ingest", root, *raws, "--transfer", "direct"],
    ):
        subprocess.run([sys.executable, "-m", "gueststar", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    image, sources = enter_reference(data, kept)
    with SurveyRepo.open(root) as survey:
        info = survey.ledger.exposures(observation_type="science")[0].info
        for kind, path in write_masters(data, kept).items():
            glass = info.physical_filter if KINDS[kind].is_per_filter else None
            data_id = DataId(detector=0, physical_filter=glass)
            survey.commit([survey.stage(kind, data_id, read_calibration_master(path))])
            survey.certify(kind, data_id, info.mjd_tai - 100.0, info.mjd_tai + 100.0)
        for field in survey.ledger.fields():  # pointings differ by minutes of arc: there may be more than one
            place = DataId(field=field.id, detector=0, band=info.band)
            survey.put("reference_image", place, read_calibrated_image(image))
            survey.put("reference_source", place, read_catalog(sources))


@dataclass(frozen=True)
class Peer:
    """The classic chain, to be run on exposures of a field in a process of its own."""

    data: Path
    folder: Path

    def seconds(self, epoch: int) -> float:
        """Return the CPU seconds of one exposure as far as its catalogs."""
        return sum(_classic_chain(self.data, self.folder).run(epoch).seconds.values())


@lru_cache(maxsize=1)
def _classic_chain(data: Path, folder: Path) -> ClassicChain:
    return ClassicChain(data, folder)


def measure(root: Path, profiles: Path | None = None, *, is_apart: bool = False, peer: Peer | None = None) -> Measured:
    """Take all exposures of a repository from raw file to packets and return what it cost."""
    begin, classic_s = time.process_time(), list[float]()
    with SurveyRepo.open(root) as survey, survey.only_writer(), InlineEngine() as engine:
        runner = NightRunner(survey, engine, PipelineSettings.of(survey.camera.settings))
        if is_apart:
            _all_stages(runner, profiles)
        else:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
                for epoch in _one_by_one(runner, profiles):
                    if peer is not None and epoch < N_CLASSIC:
                        classic_s.append(other.submit(peer.seconds, epoch).result())
        cpu_s = time.process_time() - begin
        jobs = {stage: _done(survey, kind) for stage, kind in STAGES.items()}
    return Measured(jobs, cpu_s, tuple(classic_s))


def _all_stages(runner: NightRunner, profiles: Path | None) -> None:
    for night in runner.nights():
        for stage in STAGES:
            with _profiled(profiles and profiles / f"{stage}.prof"):
                getattr(runner, stage)(night)


def _one_by_one(runner: NightRunner, profiles: Path | None) -> Iterator[int]:
    """Take one exposure after the other to its packets, and yield the number of each that is done."""
    ledger, planner, associate = runner.ledger, runner.planner, AssociateVisit(runner.repo, runner.settings)
    with _profiled(profiles and profiles / "chain.prof"):
        planner.look_again()
        for epoch, row in enumerate(ledger.exposures(observation_type="science")):
            work = planner.science_of(row, 0, is_chained=True)
            if not isinstance(work, ChainWork):
                sys.exit(f"exposure {row.id} has no reference")
            ledger.start(work.job_id)
            runner.settling.settle([run_chain(work)])
            for job in planner.associations(row.info.day_obs):
                job_id = ledger.submit("association", {"visit": job.exposure_id, "detector": job.detector})
                ledger.start(job_id)
                runner.settling.settle([associate.run(job_id, job)])
            yield epoch


@contextmanager
def _profiled(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with cProfile.Profile() as profile:
        yield
    profile.dump_stats(path)


def _done(survey: SurveyRepo, kind: str) -> list[Job]:
    jobs = survey.ledger.jobs(kind=kind)
    if lost := [job for job in jobs if job.state is not JobState.DONE]:
        sys.exit(f"{kind}: {lost[0].state}, {lost[0].reason} {lost[0].traceback}")
    return sorted(jobs, key=lambda job: job.exposure_id or 0)


def in_fresh_process(
    warm: Path, root: Path, profiles: Path | None, *, is_apart: bool, peer: Peer | None = None
) -> Measured:
    """Measure in a process of its own, after it did the exposures of the repository ``warm``."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(measure, warm, is_apart=is_apart).result()
        pool.submit(WorkerContext.of.cache_clear).result()  # a worker has one survey: its images alone count
        return pool.submit(measure, root, profiles, is_apart=is_apart, peer=peer).result()


def print_beside_peer(name: str, found: Measured) -> None:
    """Print what ours costs as a part of the classic chain, and how fast this machine is by that."""
    there, classic_s = CLASSIC_S[name], float(np.median(found.classic_s))
    aim, part = AIMS[name]["raw to packets"] / there, found.figures()["raw to packets"] / classic_s
    each, mark = ", ".join(f"{one:.1f}" for one in found.classic_s), "met" if part <= aim else "MISSED"
    print(f"{'classic chain to catalogs':44} {classic_s:8.2f}   ({each}); {there:g} where the aims were set")
    print(f"{'raw to packets / classic chain to catalogs':44} {part:8.3f}   aim {aim:.3f} {mark}")


def print_table(name: str, found: Measured) -> None:
    """Print what the stages and their steps cost, and the figures that have aims."""
    n_alerts = [int(job.metrics["n_alerts"]) for job in found.jobs["associate"]]
    print(f"\nbench_{name}, {len(n_alerts)} exposures, alerts {n_alerts}")
    for stage, jobs in found.jobs.items():
        each = ", ".join(f"{job.cpu_s or 0.0:.2f}" for job in jobs)
        print(f"{stage:28} {found.stage(stage):8.2f} s   ({each}), peak {found.peak_mb(stage):.0f} MB")
        for step in jobs[-1].metrics["steps"]:
            print(f"    {step:24} {found.step(stage, step):8.3f}")
    print(f"{'beside the work':28} {found.beside_s:8.2f} s an exposure")
    for figure, value in found.figures().items():
        aim = AIMS[name].get(figure)
        mark = "" if aim is None else f"aim {aim:g} " + ("met" if value <= aim else "MISSED")
        print(f"{figure:44} {value:8.2f}   {mark}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fields", nargs="*", default=["hl", "gp"], metavar="FIELD")
    parser.add_argument("--epochs", type=int, default=4, help="exposures of each field, where there are as many")
    parser.add_argument("--apart", action="store_true", help="one stage after the other, images read from their files")
    parser.add_argument("--peer", action="store_true", help="run the classic chain as well")
    parser.add_argument("--keep", type=Path, help="folder of references and masters; they stay")
    parser.add_argument("--profile", type=Path, help="folder for a profile of each stage")
    options = parser.parse_args()
    if options.peer and options.apart:
        sys.exit("--peer takes exposures one by one: leave out --apart")
    if options.peer and (missing := missing_programs()):
        sys.exit(f"--peer needs {', '.join(missing)}: install {'it' if len(missing) == 1 else 'them'} or leave it out")
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.fields:
            data, folder = data_folder() / f"bench_{name}", Path(scratch) / name
            kept = (options.keep or Path(scratch)) / name
            for path in (folder, kept, options.profile):
                if path is not None:
                    path.mkdir(parents=True, exist_ok=True)
            make_survey(data, folder / "warm", kept, n_epochs=1)
            make_survey(data, folder / "measured", kept, n_epochs=options.epochs)
            folders = folder / "warm", folder / "measured", options.profile
            peer = Peer(data, folder / "classic") if options.peer else None
            found = in_fresh_process(*folders, is_apart=options.apart, peer=peer)
            print_table(name, found)
            if found.classic_s:
                print_beside_peer(name, found)


if __name__ == "__main__":
    main()
