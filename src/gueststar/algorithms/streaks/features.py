"""What tells a streak of the sky from what only looks like one, in numbers that mean the same on any camera."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.streaks.bends import bend_gain
from gueststar.algorithms.streaks.line_fit import Pixels
from gueststar.algorithms.streaks.search import FoundStreak
from gueststar.algorithms.streaks.strips import measure_strips
from gueststar.algorithms.subtraction.fine_psf import FinePsf

Float32Image = NDArray[np.float32]


class StreakFeatures(NamedTuple):
    """Features of one streak; each is finite."""

    snr: float
    """Signal to noise of its flux."""
    length_fwhm: float
    """Length over the FWHM of the PSF."""
    evenness: float
    """Flux per pixel away from its brightest place, over the mean: 1 for a streak, 0 for a star."""
    flux_scatter: float
    """Scatter of its brightness along it beyond noise, over the mean."""
    flux_scatter_snr: float
    """Significance of that scatter."""
    residual: float
    """Root of the excess of chi-square, beyond chance, over the signal to noise: what is left, over what is fitted."""
    broadening: float
    """By how much its profile is broader (above 0) or narrower than the PSF's, over the PSF's variance."""
    broadening_err: float
    """Its error."""
    beside: float
    """Largest of the significances of lines beside it, of either sign, over its own."""
    noise: float
    """Scatter of sums along lines beside it, over what the variance plane says."""
    masked: float
    """Fraction of it that masked pixels hide."""
    mismatch: float
    """Logarithm of the mean ratio of noise to photon noise along it: 0 away from bright stars."""
    reference: float
    """Median brightness of the reference along it, over its own; 0 on blank sky."""
    axis_offset: float
    """Pixels by which it leaves a row or column over its length, at most 10: defects of detectors do not."""
    bend: float
    """Significance that a parabola along it gains over the straight line, over its own: edges of ghosts are bent."""
    step: float
    """Significance of a step of brightness from one side to the other, over its own: edges have one."""


NAMES = StreakFeatures._fields


def measure_features(
    streak: FoundStreak,
    pixels: Pixels,
    psf: FinePsf,
    *,
    fwhm: float,
    inflation: Float32Image | None,
    reference: Float32Image | None,
) -> StreakFeatures:
    """Return the features of a streak; ``inflation`` (noise of the score over its photon noise) and ``reference`` (the
    reference on the same pixels) may be missing, and then say nothing."""
    fit, strips = streak.fit, streak.strips
    scatter, significance = _flux_scatter(streak)
    sums, weight = strips.broader
    variance = (fwhm / 2.3548) ** 2
    broadening = sums / weight / variance if weight > 0 else 0.0
    beside = strips.parallel
    by_chance = 3.0 * np.sqrt(2.0 / max(fit.n_pixels, 1))
    excess = max(fit.chi2 - 1.0 - by_chance, 0.0) * fit.n_pixels
    dx, dy = abs(fit.segment.x2 - fit.segment.x1), abs(fit.segment.y2 - fit.segment.y1)
    return StreakFeatures(
        snr=streak.snr,
        length_fwhm=fit.segment.length / fwhm,
        evenness=float(np.clip(streak.evenness, -1.0, 2.0)),
        flux_scatter=scatter,
        flux_scatter_snr=significance,
        residual=float(np.sqrt(excess) / max(abs(strips.significance), 1.0)),
        broadening=float(np.clip(broadening, -3.0, 20.0)),
        broadening_err=float(streak.noise / np.sqrt(weight) / variance) if weight > 0 else 99.0,
        beside=float(np.max(np.abs(beside - streak.level)) / max(abs(strips.significance - streak.level), 1.0))
        if beside.size
        else 0.0,
        noise=streak.noise,
        masked=float(strips.lost.mean()),
        mismatch=0.0 if inflation is None else _mismatch(streak, inflation),
        reference=0.0 if reference is None else _reference_ratio(streak, pixels, psf, fwhm, reference),
        axis_offset=min(dx, dy, 10.0),
        bend=float(bend_gain(pixels, psf, fit.segment, fwhm=fwhm) / max(abs(strips.significance - streak.level), 1.0)),
        step=float(strips.step / streak.noise / max(abs(strips.significance - streak.level), 1.0)),
    )


def _flux_scatter(streak: FoundStreak) -> tuple[float, float]:
    """Return the scatter of the brightness of pieces beyond noise, and its significance; the outermost are left out."""
    sums, weights = streak.strips.sums[0], streak.strips.weights[0]
    inner = slice(1, -1) if sums.size > 4 else slice(None)
    # Pieces that hold about as many sigma as there are pieces: finer ones would be noise only.
    n = int(np.clip(streak.snr / 3.0, 2, sums[inner].size))
    groups = np.array_split(np.arange(sums[inner].size), n)
    s = np.array([sums[inner][g].sum() for g in groups])
    w = np.array([weights[inner][g].sum() for g in groups])
    known = w > 0.2 * np.max(w, initial=0.0)
    s, w = s[known], w[known]
    if s.size < 2:
        return 0.0, 0.0
    mean = s.sum() / w.sum()
    chi2 = float(np.sum((s - mean * w) ** 2 / w)) / streak.noise**2
    free = s.size - 1
    excess = (chi2 - free) / (mean**2 * w.sum() / streak.noise**2)
    return float(np.clip(np.sqrt(max(excess, 0.0)), 0.0, 5.0)), float((chi2 - free) / np.sqrt(2.0 * free))


def _mismatch(streak: FoundStreak, inflation: Float32Image) -> float:
    """Return the logarithm of the mean inflation of noise along a streak."""
    segment = streak.fit.segment
    s = np.linspace(0.0, 1.0, int(np.clip(segment.length, 8, 500)))
    x = np.rint(segment.x1 + s * (segment.x2 - segment.x1)).astype(int)
    y = np.rint(segment.y1 + s * (segment.y2 - segment.y1)).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < inflation.shape[1]) & (y < inflation.shape[0])
    values = inflation[y[inside], x[inside]]
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.log(max(float(values.mean()), 1.0))) if values.size else 0.0


def _reference_ratio(streak: FoundStreak, pixels: Pixels, psf: FinePsf, fwhm: float, reference: Float32Image) -> float:
    """Return the median brightness of the reference in pieces of a streak over the streak's own, 0 to 100."""
    strips = measure_strips(
        pixels, psf, streak.fit.segment, fwhm=fwhm, n_pieces=streak.strips.sums.shape[1], image=reference
    )
    known = strips.weights[0] > 0
    if not known.any():
        return 0.0
    there = float(np.median(strips.sums[0][known] / strips.weights[0][known]))
    return float(np.clip(there / max(abs(streak.fit.flux_per_pixel), 1e-9), 0.0, 100.0))
