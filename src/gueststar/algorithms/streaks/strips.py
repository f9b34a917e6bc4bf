"""What lies on a line and beside it: brightness piece by piece, and along lines parallel to it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.streaks.line_fit import Pixels
from gueststar.algorithms.streaks.line_model import STEP, LineProfile, make_profile, spread_at
from gueststar.algorithms.streaks.trace import Segment
from gueststar.algorithms.subtraction.fine_psf import FinePsf

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]

FIRST_PARALLEL = 3.0
"""Distance of the nearest parallel line, FWHM."""
PARALLEL_STEP = 1.5
"""Distance between parallel lines, FWHM."""
N_PARALLEL = 6
"""Parallel lines on either side."""


class Strips(NamedTuple):
    """Sums over pieces of a line and of lines beside it, each weighted with the profile across a line.

    A sum over its weight is a flux per pixel of length; over the root of its weight, a significance.
    """

    sums: Floats
    """``[1 + 2 n, pieces]``: the line itself first."""
    weights: Floats
    """Inverse variance of the flux per pixel of length."""
    lost: Floats
    """``[pieces]``: fraction of the weight on the line that masked pixels took."""
    broader: tuple[float, float]
    """Sum and weight of what broadening the profile would add: by how much (pixels squared) it is too narrow."""

    @property
    def significance(self) -> float:
        """Of the whole line."""
        weight = float(self.weights[0].sum())
        return float(self.sums[0].sum()) / np.sqrt(weight) if weight > 0 else 0.0

    @property
    def parallel(self) -> Floats:
        """Significance of each parallel line that has at least half the line's weight."""
        sums, weights = self.sums[1:].sum(axis=1), self.weights[1:].sum(axis=1)
        known = weights > 0.5 * self.weights[0].sum()
        return np.asarray(sums[known] / np.sqrt(weights[known]))

    @property
    def step(self) -> float:
        """Significance by which the flux beside the line on one side is above that on the other."""
        n = (len(self.sums) - 1) // 2
        sums, weights = self.sums[1:].sum(axis=1), self.weights[1:].sum(axis=1)
        w = weights[:n].sum(), weights[n:].sum()
        if min(w) < 0.5 * n * self.weights[0].sum() or min(w) <= 0:
            return 0.0
        difference = sums[:n].sum() / w[0] - sums[n:].sum() / w[1]
        return float(difference / np.sqrt(1.0 / w[0] + 1.0 / w[1]))


def measure_strips(
    pixels: Pixels,
    psf: FinePsf,
    segment: Segment,
    *,
    fwhm: float,
    n_pieces: int,
    image: Float32Image | None = None,
    n_parallel: int = N_PARALLEL,
) -> Strips:
    """Measure ``n_pieces`` equal pieces of a line, and ``n_parallel`` parallel lines on either side.

    ``image`` is measured in place of that of ``pixels``, with the same weights.
    """
    beside = (FIRST_PARALLEL + PARALLEL_STEP * np.arange(n_parallel, dtype=np.float64)) * fwhm
    offsets: Floats = np.concatenate([np.zeros(1), beside, -beside])
    profile = make_profile(psf, segment, reach=1.5 * fwhm + 1.0)
    return _measured(pixels, profile, segment, offsets, n_pieces, image)


def measure_along(pixels: Pixels, psf: FinePsf, segment: Segment, *, fwhm: float) -> tuple[Floats, Floats]:
    """Return sums and weights, as in `Strips`, of every pixel of length of a line."""
    profile = make_profile(psf, segment, reach=1.5 * fwhm + 1.0)
    strips = _measured(pixels, profile, segment, np.zeros(1), max(1, round(segment.length)), None)
    return strips.sums[0], strips.weights[0]


def _measured(
    pixels: Pixels, profile: LineProfile, segment: Segment, offsets: Floats, n_pieces: int, image: Float32Image | None
) -> Strips:
    out = _strips(
        pixels.image if image is None else image, pixels.variance, pixels.usable, profile.spread,
        profile.reach, segment.x1, segment.y1, segment.x2, segment.y2, offsets, n_pieces,
    )  # fmt: skip
    sums, weights, lost, broader = out
    return Strips(sums, weights, lost, (float(broader[0]), float(broader[1])))


def measure_beside(
    pixels: Pixels, psf: FinePsf, segment: Segment, *, fwhm: float, offsets: Floats, n_pieces: int
) -> tuple[Floats, Floats]:
    """Return sums and weights as in `Strips`, ``[offsets, n_pieces]``, of lines at distances (pixels) beside one."""
    profile = make_profile(psf, segment, reach=1.5 * fwhm + 1.0)
    strips = _measured(pixels, profile, segment, offsets, n_pieces, None)
    return strips.sums, strips.weights


def noise_of_lines(
    pixels: Pixels, psf: FinePsf, *, fwhm: float, length: float = 100.0, n: int = 120, seed: int = 1
) -> float:
    """Return the scatter of sums along lines over what the variance plane says, from lines laid at random.

    Neighbouring pixels share noise, and faint sources that vary or were not subtracted add some, so sums over lines
    scatter more than sums over the PSF. Never below 1; 1 if too few lines are free of masked pixels.
    """
    random = np.random.default_rng(seed)
    ny, nx = pixels.image.shape
    length = min(length, 0.4 * min(ny, nx))
    values = []
    for angle in np.linspace(0.0, np.pi, 8, endpoint=False) + 0.1:
        ux, uy = np.cos(angle), np.sin(angle)
        along = Segment(nx / 2, ny / 2, nx / 2 + length * ux, ny / 2 + length * uy)
        profile = make_profile(psf, along, reach=1.5 * fwhm + 1.0)
        for _ in range(max(1, n // 8)):
            x = random.uniform(max(0.0, -length * ux), nx - max(0.0, length * ux))
            y = random.uniform(0.0, ny - length * uy)
            there = Segment(x, y, x + length * ux, y + length * uy)
            strips = _measured(pixels, profile, there, np.zeros(1), 1, None)
            if strips.lost[0] < 0.3:
                values.append(strips.significance)
    if len(values) < 20:
        return 1.0
    # Lines through what varies are not noise; the middle of the distribution is.
    return float(np.clip(1.4826 * np.median(np.abs(values)), 1.0, 3.0))


@njit(cache=True, error_model="numpy")
def _strips(image, variance, usable, spread, reach, x1, y1, x2, y2, offsets, n_pieces):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    length = np.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    middle = spread.shape[1] // 2
    sums, weights = np.zeros((offsets.size, n_pieces)), np.zeros((offsets.size, n_pieces))
    possible, lost, broader = np.zeros(n_pieces), np.zeros(n_pieces), np.zeros(2)
    wide = np.max(np.abs(offsets)) + reach + 1.0
    for y in range(max(int(min(y1, y2) - wide), 0), min(int(max(y1, y2) + wide) + 1, ny - 1) + 1):
        values, noise, is_usable = image[y], variance[y], usable[y]
        for k in range(offsets.size):
            first, stop = _columns(y - y1, x1, ux, uy, length, offsets[k], reach, nx)
            for x in range(first, stop):
                t = (x - x1) * ux + (y - y1) * uy
                d = -(x - x1) * uy + (y - y1) * ux - offsets[k]
                if t < 0.0 or t > length or abs(d) > reach:
                    continue
                piece = min(int(t / length * n_pieces), n_pieces - 1)
                node = min(int(t / length * spread.shape[0]), spread.shape[0] - 1)
                v = d / STEP + middle
                j = int(v)
                p = spread[node, j] + (v - j) * (spread[node, j + 1] - spread[node, j])
                good = is_usable[x] and noise[x] > 0
                if k == 0:
                    possible[piece] += p * p
                    if not good:
                        lost[piece] += p * p
                if good:
                    w = p / noise[x]
                    sums[k, piece] += w * values[x]
                    weights[k, piece] += w * p
    flux = sums[0].sum() / weights[0].sum() if weights[0].sum() > 0 else 0.0
    for k in range(n_pieces):
        lost[k] = lost[k] / possible[k] if possible[k] > 0 else 1.0
    for y in range(max(int(min(y1, y2) - reach - 1), 0), min(int(max(y1, y2) + reach + 1) + 1, ny - 1) + 1):
        first, stop = _columns(y - y1, x1, ux, uy, length, 0.0, reach, nx)
        for x in range(first, stop):
            t = (x - x1) * ux + (y - y1) * uy
            o = -(x - x1) * uy + (y - y1) * ux
            if t < 0.0 or t > length or abs(o) > reach - 1.0 or not usable[y, x] or not variance[y, x] > 0:
                continue
            node = min(int(t / length * spread.shape[0]), spread.shape[0] - 1)
            p = spread_at(spread[node], o)
            # Broadening by a variance b adds b / 2 times the second derivative of the profile.
            q = 0.5 * (spread_at(spread[node], o + 1.0) - 2.0 * p + spread_at(spread[node], o - 1.0))
            broader[0] += q * flux * (image[y, x] - flux * p) / variance[y, x]
            broader[1] += q * q * flux * flux / variance[y, x]
    return sums, weights, lost, broader


@njit(cache=True, error_model="numpy")
def _columns(dy, x1, ux, uy, length, offset, reach, nx):  # type: ignore[no-untyped-def]
    """Return the range of columns, ``dy`` rows above a segment's start, that lie near the line ``offset`` beside it.

    All within ``reach`` of that line are in it, and up to a pixel more to either side.
    """
    left, right = 0.0, nx - 1.0
    if abs(uy) > 1e-6:
        middle, half = x1 + (dy * ux - offset) / uy, (reach + 1.0) / abs(uy)
        left, right = max(left, middle - half), min(right, middle + half)
    elif abs(dy * ux - offset) > reach + 1.0:
        return 0, 0
    if abs(ux) > 1e-6:
        start, end = x1 - dy * uy / ux, x1 + (length - dy * uy) / ux
        left, right = max(left, min(start, end) - 1.0), min(right, max(start, end) + 1.0)
    return int(left), max(int(right), -1) + 1
