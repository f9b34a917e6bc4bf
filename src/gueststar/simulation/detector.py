"""A detector and its electronics: what pixels do to light, and what the amplifiers write."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.model.camera import Amplifier, Camera, Detector, parse_section
from gueststar.simulation.atmosphere import correlated_sequence
from gueststar.simulation.electronics import ElectronicsTruth, compressed, crosstalk_of, make_electronics, trailed
from gueststar.simulation.optics import Optics, focal_plane_position, pixel_area, vignetting
from gueststar.simulation.random_fields import wave_field
from gueststar.simulation.scenario import DetectorPlan
from gueststar.simulation.seeds import generator_for

Image = NDArray[np.float32]

ADC_MAXIMUM = 65535


@dataclass(frozen=True, eq=False)
class DetectorTruth:
    """One detector as built, the same in every exposure of a seed."""

    camera: Camera
    detector: Detector
    plan: DetectorPlan
    seed: int
    efficiency: float
    """Sensitivity of the whole detector over the camera's mean, at its median pixel."""
    dark: Image
    """Dark current, electrons per second."""
    fixed_charge: Image
    """Charge that bad columns add in every exposure, electrons."""
    pixel_response: Image
    """Sensitivity pixel by pixel, bad columns included; about 1."""
    field: NDArray[np.float32]
    """Focal-plane position of the pixels in field radii ``[2, ny, nx]``."""
    area: Image
    """Solid angle of the pixels over the nominal one."""
    transmission: Image
    """Vignetting, 1 at the median pixel."""
    patterns: dict[str, Image]
    """Bias pattern by amplifier, ADU, in the raw orientation of its data section."""
    electronics: ElectronicsTruth


def make_detector(
    camera: Camera, optics: Optics, detector: Detector, plan: DetectorPlan, *, seed: int
) -> DetectorTruth:
    """Return one detector with its flaws."""
    random = generator_for(seed, "detector", detector.id)
    ny, nx = detector.shape
    x, y = np.meshgrid(np.arange(nx, dtype=np.float64), np.arange(ny, dtype=np.float64))
    field = focal_plane_position(camera, optics, detector, x, y)
    transmission = vignetting(optics, field)
    efficiency = float(np.clip(random.normal(1.0, 0.03), 0.85, 1.15)) * float(np.median(transmission))
    response = random.normal(1.0, plan.pixel_response_rms, (ny, nx)).astype(np.float32)
    response *= (1.0 + 0.004 * random.normal(size=nx)).astype(np.float32)
    fixed = np.zeros((ny, nx), dtype=np.float32)
    _spoil_columns_in_place(response, fixed, detector, plan, random)
    dark = _dark_current(detector.shape, plan, random)
    area = pixel_area(optics, field).astype(np.float32)
    flat = (transmission / np.median(transmission)).astype(np.float32)
    patterns = {amplifier.name: _bias_pattern(amplifier, plan, random) for amplifier in detector.amplifiers}
    return DetectorTruth(
        camera, detector, plan, seed, efficiency, dark, fixed, response, field.astype(np.float32), area, flat, patterns,
        make_electronics(detector, plan, seed=seed),
    )  # fmt: skip


def response_in(truth: DetectorTruth, physical_filter: str, night: int) -> Image:
    """Return the sensitivity to starlight through a filter in a night, its median 1.

    Dust moves: one grain in five is there from some night on only.
    """
    random = generator_for(truth.seed, "response", truth.detector.id, physical_filter)
    wave = wave_field(random, scale=1.5, n_waves=20)
    ny, nx = truth.detector.shape
    smooth = wave.on_grid(np.linspace(-1, 1, nx), np.linspace(-1, 1, ny))
    response = truth.pixel_response * truth.transmission * (1.0 + 0.006 * smooth).astype(np.float32)
    response *= _dust(truth, physical_filter, night)
    return np.asarray(response / np.float32(np.median(response)), dtype=np.float32)


def lamp_in(truth: DetectorTruth, physical_filter: str) -> Image:
    """Return the brightness of the flat-field screen over the detector in a filter, about 1.

    It differs from the sky's by a few per cent over the camera (illumination error).
    """
    random = generator_for(truth.seed, "lamp", physical_filter)
    slope, bend = random.normal(0, 0.012, 2), random.normal(0, 0.008, 3)
    u, v = truth.field
    lamp = 1.0 + slope[0] * u + slope[1] * v + bend[0] * u * u + bend[1] * u * v + bend[2] * v * v
    return np.asarray(lamp * truth.area, dtype=np.float32)


def _dark_current(shape: tuple[int, int], plan: DetectorPlan, random: np.random.Generator) -> Image:
    dark = plan.dark_e_per_s * random.lognormal(-0.02, 0.2, shape)
    hot = random.random(shape) < plan.hot_pixel_fraction
    dark[hot] += 10.0 ** random.uniform(0.0, 2.5, int(hot.sum()))
    return np.asarray(dark, dtype=np.float32)


def _spoil_columns_in_place(
    response: Image, fixed: Image, detector: Detector, plan: DetectorPlan, random: np.random.Generator
) -> None:
    """Make dead and hot columns along the readout axis, from a random place to the far end."""
    along_y = detector.readout_axis == "y"
    sensitivity, charge = (response, fixed) if along_y else (response.T, fixed.T)
    n_rows, n_columns = sensitivity.shape
    for _ in range(int(random.poisson(plan.bad_columns_per_mpix * response.size / 1e6))):
        column, start = int(random.integers(n_columns)), int(random.integers(n_rows))
        if random.random() < 0.3:
            start = 0
        if random.random() < 0.6:
            sensitivity[start:, column] *= np.float32(random.uniform(0.0, 0.7))
        else:
            charge[start:, column] += np.float32(10.0 ** random.uniform(2.0, 3.8))


def _bias_pattern(amplifier: Amplifier, plan: DetectorPlan, random: np.random.Generator) -> Image:
    rows, columns = parse_section(amplifier.data_section)
    ny, nx = rows.stop - rows.start, columns.stop - columns.start
    size = plan.bias_structure * amplifier.read_noise / amplifier.gain
    smooth = wave_field(random, scale=1.0, n_waves=20).on_grid(np.linspace(0, 1, nx), np.linspace(0, 1, ny))
    pattern = 0.5 * size * smooth + 0.5 * size * random.normal(size=nx)
    pattern += 2.5 * size * np.exp(-np.arange(nx) / 25.0) + 1.5 * size * np.exp(-np.arange(ny) / 40.0)[:, None]
    return np.asarray(pattern, dtype=np.float32)


def _dust(truth: DetectorTruth, physical_filter: str, night: int) -> Image:
    random = generator_for(truth.seed, "dust", truth.detector.id)
    ny, nx = truth.detector.shape
    shadow = np.ones((ny, nx), dtype=np.float32)
    on_filter = generator_for(truth.seed, "dust", truth.detector.id, physical_filter)
    for source, share in ((random, 0.6), (on_filter, 0.4)):
        for _ in range(int(source.poisson(share * truth.plan.dust_per_mpix * nx * ny / 1e6))):
            x, y, radius = source.uniform(0, nx), source.uniform(0, ny), source.uniform(12.0, 45.0)
            depth, arrives = source.uniform(0.005, 0.04), source.random()
            if arrives > 0.8 and night < int((arrives - 0.8) * 20.0):
                continue
            _shade_in_place(shadow, x, y, radius, depth)
    return shadow


@numba.njit(cache=True)
def _shade_in_place(shadow, x, y, radius, depth):  # type: ignore[no-untyped-def]
    ny, nx = shadow.shape
    for j in range(max(0, int(y - radius - 3)), min(ny, int(y + radius + 4))):
        for i in range(max(0, int(x - radius - 3)), min(nx, int(x + radius + 4))):
            r = np.sqrt((j - y) ** 2 + (i - x) ** 2)
            edge = 1.0 / (1.0 + np.exp((r - radius) / 1.5))
            hole = 1.0 / (1.0 + np.exp((r - 0.45 * radius) / 1.5))
            shadow[j, i] *= 1.0 - depth * (edge - 0.8 * hole)


def full_well(truth: DetectorTruth) -> Image:
    """Return the charge at which pixels overflow, electrons."""
    well = np.empty(truth.detector.shape, dtype=np.float32)
    for amplifier in truth.detector.amplifiers:
        above_bias = amplifier.saturation - _bias_level(truth, amplifier)
        well[parse_section(amplifier.detector_section)] = above_bias * amplifier.gain * truth.plan.full_well_margin
    return well


def blank_extension(
    truth: DetectorTruth, extension: int | str, shape: tuple[int, int], random: np.random.Generator
) -> NDArray[np.uint16]:
    """Return an extension in which nothing but bias was read, for what is neither data nor overscan (prescan)."""
    amplifier = next((a for a in truth.detector.amplifiers if a.extension == extension), truth.detector.amplifiers[0])
    level = np.full(shape, _bias_level(truth, amplifier), dtype=np.float32)
    return _digitised(level, amplifier, random)


def _bias_level(truth: DetectorTruth, amplifier: Amplifier) -> float:
    return amplifier.bias_level if amplifier.bias_level > 0 else truth.plan.bias_adu


def read_out(
    truth: DetectorTruth, electrons: Image, random: np.random.Generator
) -> dict[int | str, list[tuple[tuple[slice, slice], NDArray[np.uint16]]]]:
    """Return what is written: extension -> (place in the raw extension, ADU) of data and overscans."""
    written: dict[int | str, list[tuple[tuple[slice, slice], NDArray[np.uint16]]]] = {}
    signals, trails = {}, {}
    for amplifier in truth.detector.amplifiers:
        charge, trails[amplifier.name] = trailed(_as_read(electrons, amplifier), amplifier, truth.plan)
        signals[amplifier.name] = compressed(charge / np.float32(amplifier.gain), amplifier, truth.electronics)
    for amplifier in truth.detector.amplifiers:
        signal = signals[amplifier.name] + crosstalk_of(amplifier, truth.detector, signals, truth.electronics)
        place = parse_section(amplifier.data_section)
        scans = [(scan, parse_section(scan.section)) for scan in amplifier.overscans]
        last_row = max([place[0].stop, *(section[0].stop for _, section in scans)])
        level = _bias_level(truth, amplifier) + _row_levels(truth, amplifier, last_row, random)
        data = signal + truth.patterns[amplifier.name] + level[place[0], None]
        written.setdefault(amplifier.extension, []).append((place, _digitised(data, amplifier, random)))
        for scan, section in scans:
            shape = (section[0].stop - section[0].start, section[1].stop - section[1].start)
            blank = np.broadcast_to(level[section[0], None], shape)
            if (trail := trails[amplifier.name]) is not None and section[1].start == place[1].stop:
                blank = blank.copy()
                rows = slice(place[0].start - section[0].start, place[0].stop - section[0].start)
                blank[rows, : trail.shape[1]] += trail / np.float32(amplifier.gain)
            extension = amplifier.extension if scan.extension is None else scan.extension
            written.setdefault(extension, []).append((section, _digitised(blank, amplifier, random)))
    return written


def _as_read(electrons: Image, amplifier: Amplifier) -> Image:
    part = electrons[parse_section(amplifier.detector_section)]
    return part[:: -1 if amplifier.flip_y else 1, :: -1 if amplifier.flip_x else 1]


def _row_levels(
    truth: DetectorTruth, amplifier: Amplifier, n_rows: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """Return the bias level of each row beyond the nominal one: offset of the frame, drift, and sometimes a jump."""
    plan, noise = truth.plan, amplifier.read_noise / amplifier.gain
    drift = plan.row_drift * noise
    levels = random.normal(0.0, 3.0 * drift) + np.zeros(n_rows)
    coarse = correlated_sequence(random, np.arange(0.0, n_rows + 16.0, 16.0), 150.0)
    levels += drift * np.interp(np.arange(n_rows), 16.0 * np.arange(coarse.size), coarse)
    levels += 0.15 * drift * random.normal(size=n_rows)
    if random.random() < plan.bias_jump_probability:
        levels[int(random.integers(n_rows)) :] += random.normal(0.0, 1.2 * noise)
    return levels.astype(np.float32)


def _digitised(adu: NDArray[np.float32], amplifier: Amplifier, random: np.random.Generator) -> NDArray[np.uint16]:
    noise = random.standard_normal(adu.shape, dtype=np.float32) * np.float32(amplifier.read_noise / amplifier.gain)
    return np.clip(np.rint(adu + noise), 0, ADC_MAXIMUM).astype(np.uint16)
