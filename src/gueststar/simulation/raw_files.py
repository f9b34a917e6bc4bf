"""Raw files as the camera writes them: which detectors share one, and what is in its extensions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gueststar.core import times
from gueststar.formats.raw_writer import RawImage, write_raw
from gueststar.model.camera import Amplifier, Camera, Detector
from gueststar.model.wcs import Wcs
from gueststar.simulation import headers
from gueststar.simulation.detector import DetectorTruth, blank_extension, read_out
from gueststar.simulation.scenario import Scenario
from gueststar.simulation.seeds import generator_for

Electrons = NDArray[np.float32]


def file_groups(camera: Camera, detectors: tuple[Detector, ...]) -> dict[str, tuple[Detector, ...]]:
    """Return which of ``detectors`` share a file, by the part of the file's name that tells them apart."""
    mapping = camera.header
    if mapping.detector_keyword is None:
        return {"": detectors}
    groups: dict[str, list[Detector]] = {}
    for detector in detectors:
        part = f"_c{detector.ccd:02d}" if mapping.detector_keyword_means == "ccd" else f"_d{detector.id:03d}"
        groups.setdefault(part, []).append(detector)
    return {part: tuple(members) for part, members in groups.items()}


def file_name(scenario: Scenario, *, day_obs: int, kind: str, mjd_start: float, band: str, part: str) -> str:
    """Return the path of a raw file below the output folder."""
    day, clock = times.isot_utc(mjd_start).split("T")
    stem = f"{kind}_{day.replace('-', '')}T{clock.replace(':', '').split('.')[0]}_{band}".rstrip("_")
    suffix = ".fits.fz" if scenario.compression == "rice" else ".fits"
    return f"raw/{day_obs}/{stem}{part}{suffix}"


def write_raw_file(
    path: Path, camera: Camera, scenario: Scenario, facts: headers.Facts, truths: list[DetectorTruth],
    electrons: list[Electrons], wcs: list[Wcs] | None, *, seed: int,
) -> None:  # fmt: skip
    """Read the detectors of one file out and write it."""
    images: list[RawImage] = []
    moment = round(facts.mjd_start * 864000)
    for k, truth in enumerate(truths):
        random = generator_for(seed, "readout", facts.observation_type, moment, truth.detector.id)
        images += _raw_images(truth, electrons[k], random, wcs[k] if wcs is not None else None)
    cards = headers.primary_cards(camera, facts)
    part = headers.part_cards(camera, tuple(truth.detector for truth in truths))
    write_raw(path, {**cards, **part}, images, compression=scenario.compression)


def _raw_images(
    truth: DetectorTruth, electrons: Electrons, random: np.random.Generator, wcs: Wcs | None
) -> list[RawImage]:
    """Return the extensions of one detector; those that hold one amplifier alone get a WCS."""
    images = []
    for extension, parts in read_out(truth, electrons, random).items():
        shape = tuple(max(place[axis].stop for place, _ in parts) for axis in (0, 1))
        filled = sum((rows.stop - rows.start) * (columns.stop - columns.start) for (rows, columns), _ in parts)
        if filled == shape[0] * shape[1]:
            pixels = np.zeros(shape, dtype=np.uint16)
        else:
            pixels = blank_extension(truth, extension, (shape[0], shape[1]), random)
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
