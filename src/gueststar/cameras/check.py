"""Prove a camera's description on real exposures: headers, sections, noise, saturation, gain, WCS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.raw_sections import (
    excess_of_lines,
    measure_section,
    photon_transfer_gain,
    unexposed_edges,
)
from gueststar.cameras.check_wcs import wcs_findings
from gueststar.cameras.findings import Finding
from gueststar.cameras.translate import Translation, translate
from gueststar.core.errors import GueststarError
from gueststar.core.times import isot_utc
from gueststar.formats.raw import read_detector, read_headers
from gueststar.model.camera import Camera
from gueststar.model.raw import AmplifierPixels, RawDetector

_NOISE_NOTE, _NOISE_BAD = 1.3, 2.0
"""Factors by which measured and described read noise may differ."""
_GAIN_NOTE, _GAIN_BAD = 1.1, 1.5
_LIT_NOTE, _LIT_BAD = 0.002, 0.02
"""Light in an overscan line, as a fraction of the exposure beside it; transfer leaves up to a percent in the first."""
_PILED_UP_PIXELS = 10
_EXPOSED_SIGMAS = 20.0


@dataclass(frozen=True)
class FileReport:
    """What one exposure says about the description."""

    path: Path
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class CameraReport:
    """What all exposures say."""

    camera: str
    files: tuple[FileReport, ...]
    pairs: tuple[Finding, ...] = ()
    """From pairs of flats: gains."""
    description: tuple[Finding, ...] = ()
    """What no exposure is needed for."""

    @property
    def is_good(self) -> bool:
        """Whether nothing failed."""
        findings = [finding for report in self.files for finding in report.findings]
        return not any(finding.level == "bad" for finding in (*findings, *self.pairs, *self.description))

    def lines(self) -> list[str]:
        """Return the report as text, a line a finding."""
        lines = [str(finding) for finding in self.description]
        for report in self.files:
            lines += [str(report.path), *(f"  {finding}" for finding in report.findings)]
        if self.pairs:
            lines += ["gain from pairs of flats", *(f"  {finding}" for finding in self.pairs)]
        return lines


@dataclass
class _Flats:
    """The last flat of each filter and detector, waiting for its partner."""

    waiting: dict[tuple[str | None, int], RawDetector] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def check_camera(camera: Camera, paths: Sequence[str | Path]) -> CameraReport:
    """Translate, read and measure exposures with a camera's description and say where they disagree."""
    flats = _Flats()
    reports = tuple(FileReport(Path(path), tuple(_check_file(camera, Path(path), flats))) for path in paths)
    return CameraReport(camera.name, reports, tuple(flats.findings), tuple(_description_findings(camera)))


def _description_findings(camera: Camera) -> Iterable[Finding]:
    if not camera.site.is_placed:
        told = "site: latitude_deg and longitude_deg are both 0: fill them in; nights, airmass and parallax need them"
        yield Finding("bad", told)


def _check_file(camera: Camera, path: Path, flats: _Flats) -> Iterable[Finding]:
    try:
        raw = read_headers(path)
        translation = translate(camera, raw)
    except GueststarError as error:
        yield Finding("bad", str(error).removeprefix(f"{path}: "))
        return
    yield Finding("good", _summary(translation))
    yield from (Finding("note", warning) for warning in translation.warnings)
    for detector_id in translation.detector_ids:
        try:
            pixels = read_detector(path, camera.detector(detector_id), translation.info)
        except GueststarError as error:
            yield Finding("bad", str(error).removeprefix(f"{path}: "))
            continue
        for amplifier in pixels.amplifiers:
            name = f"{pixels.detector.name} {amplifier.amplifier.name}".strip()
            yield from (finding.about(name) for finding in amplifier_findings(amplifier, pixels.info.observation_type))
        if translation.info.observation_type == "flat":
            _pair_flats(pixels, flats)
    yield from wcs_findings(camera, raw, translation)


def _summary(translation: Translation) -> str:
    info = translation.info
    place = "" if info.ra is None or info.dec is None else f", RA {info.ra:.4f} Dec {info.dec:+.4f}"
    airmass = "" if info.airmass is None else f", airmass {info.airmass:.2f}"
    return (
        f"{info.observation_type}, {info.exposure_s:g} s, {info.physical_filter or 'no filter'}, "
        f"{isot_utc(info.mjd_start)} UTC, night {info.day_obs}{place}{airmass}, {info.program.name.lower()}, "
        f"detectors {_ranges(translation.detector_ids)}"
    )


def _ranges(numbers: Sequence[int]) -> str:
    if len(numbers) > 3 and all(b == a + 1 for a, b in pairwise(numbers)):
        return f"{numbers[0]}-{numbers[-1]}"
    return " ".join(str(number) for number in numbers)


def amplifier_findings(pixels: AmplifierPixels, kind: Literal["science", "bias", "dark", "flat"]) -> Iterable[Finding]:
    """Compare one amplifier's raw pixels with its description."""
    amplifier = pixels.amplifier
    data = measure_section(pixels.data)
    bias, noise = amplifier.bias_level, amplifier.read_noise / amplifier.gain
    if pixels.overscans:
        overscan = measure_section(np.concatenate([part.ravel() for part in pixels.overscans])[None, :])
        bias = overscan.level
        yield _noise_finding(overscan.level, overscan.noise, amplifier.gain, amplifier.read_noise)
    elif kind == "bias":
        yield _noise_finding(data.level, data.noise, amplifier.gain, amplifier.read_noise)
    lit = _bias_subtracted(pixels)
    exposed = float(np.median(lit))
    if kind in ("science", "flat") and exposed > _EXPOSED_SIGMAS * noise:
        for number, part in enumerate(pixels.overscans, start=1):
            yield from _overscan_light(part, number, exposed)
        for edge, count in unexposed_edges(lit).items():
            yield Finding("bad", f"data_section: {count} lines at the {edge} edge got no light")
    yield from _level_findings(lit, kind, noise)
    if data.n_at_highest >= _PILED_UP_PIXELS and bias + _EXPOSED_SIGMAS * noise < data.highest < amplifier.saturation:
        yield Finding(
            "bad",
            f"saturation = {amplifier.saturation:g} ADU, but {data.n_at_highest} pixels end at {data.highest:g}",
        )
    elif data.highest >= amplifier.saturation:
        share = float(np.mean(pixels.data >= amplifier.saturation))
        yield Finding("bad" if share > 0.2 else "good", f"{100 * share:.3f} % of the pixels are saturated")


def _noise_finding(level: float, noise: float, gain: float, described: float) -> Finding:
    measured = noise * gain
    text = f"level {level:.1f} ADU, noise {noise:.2f} ADU = {measured:.2f} e-; read_noise = {described:g}"
    return Finding(_level_of(measured, described, _NOISE_NOTE, _NOISE_BAD), text)


def _level_of(measured: float, described: float, note: float, bad: float) -> Literal["good", "note", "bad"]:
    if not measured > 0 or not described > 0:
        return "note"
    factor = max(measured / described, described / measured)
    return "bad" if factor > bad else "note" if factor > note else "good"


def _overscan_light(overscan: NDArray[np.float32], number: int, exposed: float) -> Iterable[Finding]:
    excess = excess_of_lines(overscan)
    share = float(excess.max()) / exposed
    if share > _LIT_NOTE:
        n_lit = int(np.count_nonzero(excess > _LIT_NOTE * exposed))
        light = f"up to {excess.max():.1f} ADU of light, {100 * share:.1f} % of the data"
        is_bad = share > _LIT_BAD or n_lit > 2
        yield Finding("bad" if is_bad else "note", f"overscan {number}: {n_lit} lines hold {light}")


def _level_findings(
    lit: NDArray[np.float32], kind: Literal["science", "bias", "dark", "flat"], noise: float
) -> Iterable[Finding]:
    """Judge bias-subtracted pixels: none may be far below zero, and those of a bias frame not above it."""
    lowest, middle = (float(value) for value in np.percentile(lit, (1.0, 50.0)))
    limit = 10.0 * max(noise, 1.0)
    if lowest < -limit:
        yield Finding("bad", f"1 % of the pixels are {-lowest:.1f} ADU or more below the bias level")
    elif kind == "bias" and middle > limit:
        yield Finding("bad", f"a bias frame is {middle:.1f} ADU above the bias level")


def _pair_flats(pixels: RawDetector, flats: _Flats) -> None:
    """Measure the gain from this flat and the one before it of the same filter and detector."""
    key = (pixels.info.physical_filter, pixels.detector.id)
    partner = flats.waiting.pop(key, None)
    if partner is None:
        flats.waiting[key] = pixels
        return
    for first, second in zip(partner.amplifiers, pixels.amplifiers, strict=True):
        amplifier = first.amplifier
        noise = amplifier.read_noise / amplifier.gain
        gain = photon_transfer_gain(_bias_subtracted(first), _bias_subtracted(second), noise=noise)
        text = f"{pixels.detector.name} {amplifier.name}: {gain:.2f} e-/ADU; gain = {amplifier.gain:g}"
        flats.findings.append(Finding(_level_of(gain, amplifier.gain, _GAIN_NOTE, _GAIN_BAD), text))


def _bias_subtracted(pixels: AmplifierPixels) -> NDArray[np.float32]:
    """Return the data less the overscan, line by line where the two have lines in common."""
    ny, nx = pixels.data.shape
    for overscan in pixels.overscans:
        if overscan.shape[0] == ny and overscan.shape[1] < nx:
            return pixels.data - np.median(overscan, axis=1, keepdims=True)
        if overscan.shape[1] == nx and overscan.shape[0] < ny:
            return pixels.data - np.median(overscan, axis=0, keepdims=True)
    return pixels.data - np.float32(_bias_of(pixels))


def _bias_of(pixels: AmplifierPixels) -> float:
    if not pixels.overscans:
        return pixels.amplifier.bias_level
    return float(np.median(np.concatenate([part.ravel() for part in pixels.overscans])))
