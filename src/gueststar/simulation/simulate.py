"""Make nights: raw exposures, calibration frames, truth, reference catalog and schedule in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.formats.parquet import write_catalog
from gueststar.formats.raw_writer import RawImage, write_raw
from gueststar.model.camera import Amplifier, Camera, Detector
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.wcs import Wcs
from gueststar.simulation import calibrations, headers
from gueststar.simulation.calibrations import CalibrationFrame, plan_calibrations
from gueststar.simulation.conditions import Conditions, make_conditions
from gueststar.simulation.detector import DetectorTruth, make_detector, read_out, response_in
from gueststar.simulation.exposure import expose, make_exposure_sky
from gueststar.simulation.optics import Optics, field_radius_deg, make_optics
from gueststar.simulation.refcat import make_refcat
from gueststar.simulation.satellites import SATELLITE, make_satellites
from gueststar.simulation.scenario import Scenario
from gueststar.simulation.seeds import generator_for
from gueststar.simulation.survey import plan_survey
from gueststar.simulation.truth import OBSERVED, TRUE_DETECTOR_IMAGE, exposure_table, schedule_lines
from gueststar.simulation.universe import Universe, make_universe

Electrons = NDArray[np.float32]


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


def plan_simulation(
    camera: Camera, scenario: Scenario, *, seed: int, detector_ids: tuple[int, ...] | None = None
) -> Simulation:
    """Decide everything; ``detector_ids`` restricts what is read out, not the sky."""
    detectors = camera.detectors
    if detector_ids is not None:
        detectors = tuple(camera.detector(identifier) for identifier in sorted(set(detector_ids)))
        if not detectors:
            raise ConfigError("no detectors were chosen")
    visits = plan_survey(camera, scenario, seed=seed)
    conditions = make_conditions(camera, scenario, visits, seed=seed)
    return Simulation(
        camera, scenario, seed, detectors, make_optics(camera, scenario.optics, seed=seed), conditions,
        plan_calibrations(camera, scenario, visits), make_universe(camera, scenario, visits, seed=seed),
        _satellites(camera, scenario, conditions, seed),
    )  # fmt: skip


def simulate(
    folder: str | Path, camera: Camera, scenario: Scenario, *, seed: int, detector_ids: tuple[int, ...] | None = None,
    n_workers: int = 1, report: Callable[[str], None] = lambda _: None,
) -> Summary:  # fmt: skip
    """Write a whole simulated survey to ``folder``: the same arguments give the same bytes, with any ``n_workers``."""
    simulation = plan_simulation(camera, scenario, seed=seed, detector_ids=detector_ids)
    studio = Studio(Path(folder), simulation)
    _write_sky(studio.folder, simulation)
    taken = [n for n, conditions in enumerate(simulation.conditions) if not conditions.visit.is_lost]
    rows = [TRUE_DETECTOR_IMAGE.empty()]
    with _pool(n_workers, studio) as run:
        for _ in run(_calibration_frame, range(len(simulation.frames))):
            pass
        report(f"{len(simulation.frames)} calibration frames")
        for n, row in zip(taken, run(_science_exposure, taken), strict=True):
            rows.append(row)
            visit = simulation.conditions[n].visit
            report(f"{times.isot_utc(visit.mjd_start)} {visit.glass.physical_filter}")
    optics = simulation.optics
    distortion = {"pv1": optics.pv1.tolist(), "pv2": optics.pv2.tolist()}
    write_catalog(studio.folder / "truth" / "detector_images.parquet", concatenate(rows), distortion)
    n_lost = len(simulation.conditions) - len(taken)
    return Summary(len(taken), len(simulation.frames), n_lost, studio.folder)


class Studio:
    """A planned simulation with what all its exposures share, made once in each process."""

    def __init__(self, folder: Path, simulation: Simulation) -> None:
        self.folder, self.simulation = folder, simulation

    @cached_property
    def truths(self) -> list[DetectorTruth]:
        """The detectors as they really are."""
        plan = self.simulation
        return [
            make_detector(plan.camera, plan.optics, detector, plan.scenario.detector, seed=plan.seed)
            for detector in plan.detectors
        ]

    def calibration_frame(self, n: int) -> None:
        """Write the n-th calibration frame."""
        _write_calibration(self.folder, self.simulation, self.simulation.frames[n], self.truths)

    def science_exposure(self, n: int) -> Catalog:
        """Write the n-th science exposure and its truth; return its rows of the table of detector images."""
        return _write_science(self.folder, self.simulation, self.simulation.conditions[n], self.truths)


_here: list[Studio] = []
"""The studio of this worker process (a pool's tasks can be handed only small arguments)."""


def _enter(studio: Studio) -> None:
    _here[:] = [studio]


def _calibration_frame(n: int) -> None:
    _here[0].calibration_frame(n)


def _science_exposure(n: int) -> Catalog:
    return _here[0].science_exposure(n)


@contextmanager
def _pool(n_workers: int, studio: Studio) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yield a ``map`` that keeps the order, over processes where there is more than one worker."""
    if n_workers <= 1:
        _enter(studio)
        yield map
        return
    with ProcessPoolExecutor(n_workers, initializer=_enter, initargs=(studio,)) as pool:
        yield pool.map


def file_names(simulation: Simulation, day_obs: int, stem: str) -> list[tuple[str, tuple[Detector, ...]]]:
    """Return the files of one exposure and the detectors that each holds, as the camera writes them."""
    suffix = ".fits.fz" if simulation.scenario.compression == "rice" else ".fits"
    mapping = simulation.camera.header
    if mapping.detector_keyword is None:
        return [(f"raw/{day_obs}/{stem}{suffix}", simulation.detectors)]
    groups: dict[str, list[Detector]] = {}
    for detector in simulation.detectors:
        part = f"c{detector.ccd:02d}" if mapping.detector_keyword_means == "ccd" else f"d{detector.id:03d}"
        groups.setdefault(part, []).append(detector)
    return [(f"raw/{day_obs}/{stem}_{part}{suffix}", tuple(members)) for part, members in groups.items()]


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
    refcat = make_refcat(scenario.refcat, universe.stars, universe.galaxies, universe.variables, seed=simulation.seed)
    write_catalog(folder / "refcat.parquet", refcat)
    files = {
        c.exposure_id: [
            name
            for name, _ in file_names(simulation, c.visit.day_obs, _stem("sci", c.visit.mjd_start, c.visit.glass.band))
        ]
        for c in simulation.conditions
    }
    _write_text(folder / "schedule.csv", "\n".join(schedule_lines(simulation.conditions, files)) + "\n")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _stem(kind: str, mjd_start: float, band: str) -> str:
    clock = times.isot_utc(mjd_start)
    day, time = clock.split("T")
    return f"{kind}_{day.replace('-', '')}T{time.replace(':', '').split('.')[0]}_{band}".rstrip("_")


def _write_science(
    folder: Path, simulation: Simulation, conditions: Conditions, truths: list[DetectorTruth]
) -> Catalog:
    visit, camera, seed = conditions.visit, simulation.camera, simulation.seed
    trails = simulation.satellites.select(simulation.satellites["exposure_id"] == conditions.exposure_id)
    sky = make_exposure_sky(
        camera, simulation.optics, simulation.scenario, simulation.universe, conditions, trails, seed=seed
    )
    electrons, observed, rows, solved = {}, [OBSERVED.empty()], [], {}
    for truth in truths:
        response = response_in(truth, visit.glass.physical_filter, visit.night)
        taken = expose(
            camera, simulation.optics, simulation.scenario, simulation.universe, truth, sky, response, seed=seed
        )
        electrons[truth.detector.id] = taken.electrons
        observed.append(taken.observed)
        rows.append(taken.row)
        solved[truth.detector.id] = taken.wcs
    facts = headers.Facts(
        "science", visit.mjd_start, visit.exposure_s, visit.program, visit.glass, conditions.header_ra,
        conditions.header_dec, conditions.airmass, visit.field.id, f"field {visit.field.id}",
    )  # fmt: skip
    stem = _stem("sci", visit.mjd_start, visit.glass.band)
    wcs = solved if camera.header.is_wcs_trusted else _nominal_wcs(simulation, conditions)
    _write_files(folder, simulation, visit.day_obs, stem, facts, truths, electrons, wcs)
    write_catalog(folder / "truth" / "observed" / f"{conditions.exposure_id}.parquet", concatenate(observed))
    return concatenate(rows)


def _nominal_wcs(simulation: Simulation, conditions: Conditions) -> dict[int, Wcs]:
    return {
        d.id: simulation.camera.nominal_wcs(d, ra=conditions.header_ra, dec=conditions.header_dec)
        for d in simulation.detectors
    }


def _write_calibration(
    folder: Path, simulation: Simulation, frame: CalibrationFrame, truths: list[DetectorTruth]
) -> None:
    fraction = simulation.scenario.calibrations.flat_fraction_of_saturation
    electrons = {}
    for truth in truths:
        response = response_in(truth, frame.glass.physical_filter, frame.night) if frame.glass else None
        electrons[truth.detector.id] = calibrations.calibration_electrons(
            frame, truth, response, fraction=fraction, seed=simulation.seed
        )
    facts = headers.Facts(frame.kind, frame.mjd_start, frame.exposure_s, 0, frame.glass)
    stem = _stem(frame.kind, frame.mjd_start, frame.glass.band if frame.glass else "")
    day_obs = times.day_obs(frame.mjd_start, longitude_deg=simulation.camera.site.longitude_deg)
    _write_files(folder, simulation, day_obs, stem, facts, truths, electrons, {})


def _write_files(
    folder: Path, simulation: Simulation, day_obs: int, stem: str, facts: headers.Facts, truths: list[DetectorTruth],
    electrons: dict[int, Electrons], wcs: dict[int, Wcs],
) -> None:  # fmt: skip
    by_id = {truth.detector.id: truth for truth in truths}
    cards = headers.primary_cards(simulation.camera, facts)
    for name, members in file_names(simulation, day_obs, stem):
        images = []
        for detector in members:
            random = generator_for(simulation.seed, "readout", stem, detector.id)
            images += _raw_images(by_id[detector.id], electrons[detector.id], random, wcs.get(detector.id))
        part = headers.part_cards(simulation.camera, members)
        write_raw(folder / name, {**cards, **part}, images, compression=simulation.scenario.compression)


def _raw_images(
    truth: DetectorTruth, electrons: Electrons, random: np.random.Generator, wcs: Wcs | None
) -> list[RawImage]:
    """Return the extensions of one detector; those that hold one amplifier alone get a WCS."""
    images = []
    for extension, parts in read_out(truth, electrons, random).items():
        shape = tuple(max(place[axis].stop for place, _ in parts) for axis in (0, 1))
        pixels = np.zeros(shape, dtype=np.uint16)
        for place, adu in parts:
            pixels[place] = adu
        alone = [a for a in truth.detector.amplifiers if a.extension == extension]
        cards = headers.wcs_cards(wcs, alone[0]) if wcs is not None and len(alone) == 1 else {}
        images.append(RawImage(extension, pixels, {**_amplifier_cards(alone), **cards}))
    return images


def _amplifier_cards(amplifiers: list[Amplifier]) -> dict[str, float | str]:
    if len(amplifiers) != 1:
        return {}
    one = amplifiers[0]
    return {"GAIN": one.gain, "RDNOISE": one.read_noise, "SATURATE": one.saturation, "DATASEC": one.data_section}
