"""Make nights: raw exposures, calibration frames, truth, reference catalog and schedule in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.formats.parquet import write_catalog
from gueststar.model.camera import Camera, Detector
from gueststar.model.catalog import Catalog, concatenate
from gueststar.simulation import headers
from gueststar.simulation.calibrations import CalibrationFrame, calibration_electrons, plan_calibrations
from gueststar.simulation.conditions import Conditions, make_conditions
from gueststar.simulation.detector import DetectorTruth, make_detector, response_in
from gueststar.simulation.electronics import electronics_tables
from gueststar.simulation.exposure import DetectorExposure, expose, make_exposure_sky
from gueststar.simulation.optics import Optics, field_radius_deg, make_optics
from gueststar.simulation.raw_files import file_groups, file_name, write_raw_file
from gueststar.simulation.refcat import make_refcat
from gueststar.simulation.satellites import SATELLITE, make_satellites
from gueststar.simulation.scenario import Scenario
from gueststar.simulation.survey import plan_survey
from gueststar.simulation.truth import OBSERVED, TRUE_DETECTOR_IMAGE, exposure_table, schedule_lines
from gueststar.simulation.universe import Universe, make_universe


@dataclass(frozen=True)
class Summary:
    """What was written."""

    n_science: int
    n_calibration: int
    n_lost: int
    folder: Path


@dataclass(frozen=True, eq=False)
class Simulation:
    """One simulated survey: everything that is decided before the first pixel."""

    camera: Camera
    scenario: Scenario
    seed: int
    detectors: tuple[Detector, ...]
    optics: Optics
    conditions: tuple[Conditions, ...]
    frames: tuple[CalibrationFrame, ...]
    universe: Universe
    satellites: Catalog


@dataclass(frozen=True, eq=False)
class _Bench:
    """The detectors of one raw file, with the responses that are in use."""

    part: str
    truths: list[DetectorTruth]
    responses: dict[tuple[int, str, int], NDArray[np.float32]]

    def response(self, truth: DetectorTruth, physical_filter: str, night: int) -> NDArray[np.float32]:
        key = (truth.detector.id, physical_filter, night)
        if key not in self.responses:
            self.responses[key] = response_in(truth, physical_filter, night)
        return self.responses[key]


def plan_simulation(
    camera: Camera, scenario: Scenario, *, seed: int, detector_ids: tuple[int, ...] | None = None
) -> Simulation:
    """Decide everything; with ``detector_ids`` only those are read out, and new things lie on them."""
    if not camera.has_sky:
        raise ConfigError(f"camera {camera.name} sees no sky (has_sky: false): there is nothing to simulate")
    detectors = camera.detectors
    if detector_ids is not None:
        detectors = tuple(camera.detector(identifier) for identifier in sorted(set(detector_ids)))
        if not detectors:
            raise ConfigError("no detectors were chosen")
    visits = plan_survey(camera, scenario, seed=seed)
    conditions = make_conditions(camera, scenario, visits, seed=seed)
    return Simulation(
        camera, scenario, seed, detectors, make_optics(camera, scenario.optics, seed=seed), conditions,
        plan_calibrations(camera, scenario, visits),
        make_universe(camera, detectors, scenario, visits, seed=seed),
        _satellites(camera, scenario, conditions, seed),
    )  # fmt: skip


def simulate(
    folder: str | Path, camera: Camera, scenario: Scenario, *, seed: int, detector_ids: tuple[int, ...] | None = None,
    n_workers: int = 1, report: Callable[[str], None] = lambda _: None,
) -> Summary:  # fmt: skip
    """Write a whole simulated survey to ``folder``: the same arguments give the same bytes, with any ``n_workers``.

    Detectors that share a raw file are held in memory together, others one after the other.
    """
    simulation = plan_simulation(camera, scenario, seed=seed, detector_ids=detector_ids)
    folder = Path(folder)
    _write_sky(folder, simulation)
    taken: dict[int, list[DetectorExposure]] = {}
    for part, members in file_groups(camera, simulation.detectors).items():
        truths = [make_detector(camera, simulation.optics, d, scenario.detector, seed=seed) for d in members]
        studio = _Studio(folder, simulation, _Bench(part, truths, {}))
        with _pool(n_workers, studio) as run:
            n_frames = sum(run(_calibration_frame, range(len(simulation.frames))))
            report(f"{n_frames} calibration frames{part.replace('_', ' ')}")
            wanted = [n for n, conditions in enumerate(simulation.conditions) if not conditions.visit.is_lost]
            for n, exposures in zip(wanted, run(_science_exposure, wanted), strict=True):
                conditions = simulation.conditions[n]
                taken.setdefault(conditions.exposure_id, []).extend(exposures)
                report(f"{times.isot_utc(conditions.visit.mjd_start)} {conditions.visit.glass.physical_filter}")
    _write_observed(folder, simulation, taken)
    n_lost = sum(c.visit.is_lost for c in simulation.conditions)
    return Summary(len(simulation.conditions) - n_lost, len(simulation.frames), n_lost, folder)


class _Studio(NamedTuple):
    """What a process needs to write any exposure of one raw file's detectors."""

    folder: Path
    simulation: Simulation
    bench: _Bench


_here: list[_Studio] = []
"""The studio of this process: a pool's tasks are handed only the number of their exposure."""


def _enter(studio: _Studio) -> None:
    _here[:] = [studio]


def _calibration_frame(n: int) -> int:
    studio = _here[0]
    _write_calibration(studio.folder, studio.simulation, studio.simulation.frames[n], studio.bench)
    return 1


def _science_exposure(n: int) -> list[DetectorExposure]:
    studio = _here[0]
    return _write_science(studio.folder, studio.simulation, studio.simulation.conditions[n], studio.bench)


@contextmanager
def _pool(n_workers: int, studio: _Studio) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yield a ``map`` that keeps the order, over processes where there is more than one worker."""
    if n_workers <= 1:
        _enter(studio)
        yield map
        return
    with ProcessPoolExecutor(n_workers, initializer=_enter, initargs=(studio,)) as pool:
        yield pool.map


def science_file(simulation: Simulation, conditions: Conditions, part: str) -> str:
    """Return the path of one raw file of a science exposure, below the output folder."""
    visit = conditions.visit
    return file_name(
        simulation.scenario, day_obs=visit.day_obs, kind="sci", mjd_start=visit.mjd_start, band=visit.glass.band,
        part=part,
    )  # fmt: skip


def _satellites(camera: Camera, scenario: Scenario, conditions: tuple[Conditions, ...], seed: int) -> Catalog:
    counts = {c.visit.night: sum(o.visit.night == c.visit.night for o in conditions) for c in conditions}
    trails = []
    for item in conditions:
        expected = scenario.satellites.per_night / counts[item.visit.night]
        trails.append(
            make_satellites(
                scenario.satellites, exposure_id=item.exposure_id, expected=expected, ra=item.ra, dec=item.dec,
                radius_deg=field_radius_deg(camera), seed=seed,
            )
        )  # fmt: skip
    return concatenate([SATELLITE.empty(), *trails])


def _write_sky(folder: Path, simulation: Simulation) -> None:
    universe, scenario = simulation.universe, simulation.scenario
    for name in ("stars", "galaxies", "variables", "transients", "asteroids"):
        write_catalog(folder / "truth" / f"{name}.parquet", getattr(universe, name))
    write_catalog(folder / "truth" / "satellites.parquet", simulation.satellites)
    settings = {"camera": simulation.camera.name, "seed": simulation.seed, "scenario": scenario.model_dump(mode="json")}
    write_catalog(folder / "truth" / "exposures.parquet", exposure_table(simulation.conditions), settings)
    amplifiers, crosstalk, area_changes = electronics_tables(
        simulation.detectors, scenario.detector, seed=simulation.seed
    )
    write_catalog(folder / "truth" / "amplifiers.parquet", amplifiers, {"area_changes": area_changes})
    write_catalog(folder / "truth" / "crosstalk.parquet", crosstalk)
    refcat = make_refcat(scenario.refcat, universe.stars, universe.galaxies, universe.variables, seed=simulation.seed)
    write_catalog(folder / "refcat.parquet", refcat)
    parts = list(file_groups(simulation.camera, simulation.detectors))
    files = {c.exposure_id: [science_file(simulation, c, part) for part in parts] for c in simulation.conditions}
    _write_text(folder / "schedule.csv", "\n".join(schedule_lines(simulation.conditions, files)) + "\n")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _write_science(
    folder: Path, simulation: Simulation, conditions: Conditions, bench: _Bench
) -> list[DetectorExposure]:
    visit, camera, scenario, seed = conditions.visit, simulation.camera, simulation.scenario, simulation.seed
    trails = simulation.satellites.select(simulation.satellites["exposure_id"] == conditions.exposure_id)
    sky = make_exposure_sky(camera, simulation.optics, scenario, simulation.universe, conditions, trails, seed=seed)
    exposures = []
    for truth in bench.truths:
        response = bench.response(truth, visit.glass.physical_filter, visit.night)
        exposures.append(
            expose(camera, simulation.optics, scenario, simulation.universe, truth, sky, response, seed=seed)
        )
    facts = headers.Facts(
        "science", visit.mjd_start, visit.exposure_s, visit.program, visit.glass, conditions.header_ra,
        conditions.header_dec, conditions.airmass, visit.field.id, f"field {visit.field.id}",
    )  # fmt: skip
    if camera.header.is_wcs_trusted:
        wcs = [exposure.wcs for exposure in exposures]
    else:
        ra, dec = conditions.header_ra, conditions.header_dec
        wcs = [camera.nominal_wcs(truth.detector, ra=ra, dec=dec) for truth in bench.truths]
    path = folder / science_file(simulation, conditions, bench.part)
    electrons = [exposure.electrons for exposure in exposures]
    write_raw_file(path, camera, scenario, facts, bench.truths, electrons, wcs, seed=seed)
    return [exposure.without_pixels() for exposure in exposures]


def _write_observed(folder: Path, simulation: Simulation, taken: dict[int, list[DetectorExposure]]) -> None:
    for exposure_id, exposures in taken.items():
        observed = concatenate([OBSERVED.empty(), *(exposure.observed for exposure in exposures)])
        write_catalog(folder / "truth" / "observed" / f"{exposure_id}.parquet", observed)
    rows = [exposure.row for exposures in taken.values() for exposure in exposures]
    optics = simulation.optics
    distortion = {"pv1": optics.pv1.tolist(), "pv2": optics.pv2.tolist()}
    table = concatenate([TRUE_DETECTOR_IMAGE.empty(), *rows])
    write_catalog(folder / "truth" / "detector_images.parquet", table, distortion)


def _write_calibration(folder: Path, simulation: Simulation, frame: CalibrationFrame, bench: _Bench) -> None:
    camera, scenario = simulation.camera, simulation.scenario
    electrons = []
    for truth in bench.truths:
        response = bench.response(truth, frame.glass.physical_filter, frame.night) if frame.glass else None
        plan = scenario.calibrations
        electrons.append(
            calibration_electrons(
                frame, truth, response, fraction=plan.flat_fraction_of_saturation, lamp_rms=plan.lamp_rms,
                seed=simulation.seed,
            )
        )  # fmt: skip
    facts = headers.Facts(
        frame.kind, frame.mjd_start, frame.exposure_s, headers.calibration_program(camera), frame.glass
    )
    day_obs = times.day_obs(frame.mjd_start, longitude_deg=camera.site.longitude_deg)
    name = file_name(
        scenario, day_obs=day_obs, kind=frame.kind, mjd_start=frame.mjd_start,
        band=frame.glass.band if frame.glass else "", part=bench.part,
    )  # fmt: skip
    write_raw_file(folder / name, camera, scenario, facts, bench.truths, electrons, None, seed=simulation.seed)
