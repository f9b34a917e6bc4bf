"""The search for streaks in one difference image: candidates from line sums, each traced, tested and fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.streaks.cells import SearchCells, coarser, erase_in_place, hide_in_place, make_cells
from gueststar.algorithms.streaks.ends import weigh_ends
from gueststar.algorithms.streaks.line_fit import LineFit, Pixels, fit_line
from gueststar.algorithms.streaks.point import is_point
from gueststar.algorithms.streaks.radon import find_segments, next_standing, segment_ends
from gueststar.algorithms.streaks.readout import without_shared
from gueststar.algorithms.streaks.strips import N_PARALLEL, Strips, measure_strips, noise_of_lines
from gueststar.algorithms.streaks.trace import Segment, trace
from gueststar.algorithms.subtraction.fine_psf import FinePsf

Float32Image = NDArray[np.float32]

POINTLIKE_FWHM = 8.0
"""Segments shorter than this may be a point source's doing, FWHM: they are asked whether they are."""


@dataclass(frozen=True)
class StreakSearchConfig:
    """How streaks are looked for and fitted."""

    clip: float = 4.0
    """Pixels of the score count for at most this many sigma in the search: a star is no line."""
    threshold: float = 5.0
    """Least significance of a sum along a segment for a closer look, sigma."""
    min_snr: float = 7.0
    """Least signal to noise of a streak, over the noise of lines of the image and of lines beside it."""
    min_length_fwhm: float = 3.0
    """Shortest streak, FWHM; what is shorter is a trailed detection."""
    min_evenness: float = 0.45
    """Least flux per pixel away from its brightest place, over the mean: a point source has none."""
    fit_reach_fwhm: float = 2.0
    """Pixels this near to a line take part in its fit, FWHM."""
    coarse_factor: int = 4
    """Bright streaks are looked for first in cells larger by this, and taken out before the search for faint ones."""
    bright_threshold: float = 12.0
    """Least significance of a sum along a segment in that first search, sigma."""
    max_examined: int = 400
    """Candidates looked at more closely at most, the most significant first."""
    max_streaks: int = 50
    """Streaks of either sign kept at most."""


class FoundStreak(NamedTuple):
    """A streak of one sign, fitted."""

    sign: int
    """+1, or -1 for a negative one: no streak of the sky, but a measure of what is false."""
    fit: LineFit
    strips: Strips
    is_end_seen: tuple[bool, bool]
    """Whether the streak ends there, rather than leaving the image or the pixels that can be used."""
    evenness: float
    """Flux per pixel away from its brightest place, over the mean."""
    noise: float
    """Scatter of such sums over what the variance plane says."""
    level: float
    """Median significance of the lines beside it: what is spread out around it, which is no part of it."""

    @property
    def snr(self) -> float:
        """Signal to noise of its flux."""
        return abs(self.strips.significance - self.level) / self.noise

    @property
    def flux_per_pixel(self) -> float:
        """Flux of a pixel of length, image units, without what is spread out around it."""
        significance = self.strips.significance
        return self.fit.flux_per_pixel * (1.0 - self.level / significance if significance else 1.0)


class SearchResult(NamedTuple):
    """What was found in one image."""

    streaks: list[FoundStreak]
    n_candidates: int
    """Segments whose sum is beyond the threshold."""
    n_examined: int
    line_noise: float
    """Scatter of sums along lines laid at random, over what the variance plane says."""
    is_complete: bool
    """Whether all candidates were examined."""


def find_streaks(
    score: Float32Image, pixels: Pixels, psf: FinePsf, *, fwhm: float, config: StreakSearchConfig | None = None
) -> SearchResult:
    """Find the streaks of a difference image, positive and negative ones alike.

    ``score`` is its point-source significance (unit noise, 0 where unusable): a matched filter across any line. Masked
    pixels add neither signal nor noise.
    """
    config = config or StreakSearchConfig()
    image = without_shared(pixels.image, pixels.usable, scale=_pixel_noise(pixels))
    pixels = pixels._replace(image=image, usable=pixels.usable.copy())  # found streaks are hidden from later ones
    search = _Search(score, pixels, psf, fwhm, config)
    search.run(coarser(search.cells, config.coarse_factor), config.bright_threshold)
    search.run(search.cells, config.threshold)
    streaks = sorted(search.streaks, key=lambda streak: -streak.snr)
    return SearchResult(
        streaks[: config.max_streaks],
        search.n_candidates,
        search.n_examined,
        search.fits.line_noise,
        search.is_complete,
    )


def fit_known(
    pixels: Pixels,
    psf: FinePsf,
    segments: Sequence[Segment],
    *,
    fwhm: float,
    config: StreakSearchConfig | None = None,
) -> list[FoundStreak | None]:
    """Fit streaks that are known to be at segments, to a few pixels; None for each of which there is no fit."""
    config = config or StreakSearchConfig()
    search = _Fits(pixels, psf, fwhm, config, noise_of_lines(pixels, psf, fwhm=fwhm))
    return [search.known(segment) for segment in segments]


class _Fits:
    """Measures lines on one image."""

    def __init__(
        self, pixels: Pixels, psf: FinePsf, fwhm: float, config: StreakSearchConfig, line_noise: float
    ) -> None:
        self.pixels, self.psf, self.fwhm, self.config, self.line_noise = pixels, psf, fwhm, config, line_noise

    def known(self, segment: Segment) -> FoundStreak | None:
        """Return the streak that is known to be at a segment; None if it cannot be fitted."""
        cut, is_seen = self.ends(segment)
        if cut.length < self.config.min_length_fwhm * self.fwhm:
            return None
        reach = self.config.fit_reach_fwhm * self.fwhm
        fit = fit_line(self.pixels, self.psf, cut, is_end_free=is_seen, reach=reach)
        return None if fit is None else self.measured(fit, is_seen, 1 if fit.flux_per_pixel > 0 else -1)

    def measured(self, fit: LineFit, is_seen: tuple[bool, bool], sign: int) -> FoundStreak:
        """Return a fitted line with what lies on it and beside it."""
        strips, fitted = self.strips(fit.segment), fit.segment
        noise, _ = self.surroundings(strips)
        fit = weigh_ends(self.pixels, self.psf, fit, fwhm=self.fwhm, noise=noise)
        if not all(is_seen):
            fit = fit._replace(segment=clipped(fit.segment, self.pixels.image.shape))
        if fit.segment != fitted:
            strips = self.strips(fit.segment)
        return FoundStreak(
            sign, fit, strips, is_seen, _evenness(strips, fit.segment.length, self.fwhm), *self.surroundings(strips)
        )

    def strips(self, segment: Segment, *, n_parallel: int = N_PARALLEL) -> Strips:
        n = int(np.clip(segment.length / self.fwhm, 4, 48))
        return measure_strips(self.pixels, self.psf, segment, fwhm=self.fwhm, n_pieces=n, n_parallel=n_parallel)

    def surroundings(self, strips: Strips) -> tuple[float, float]:
        """Return noise and level of sums like a streak's: scatter and median of the lines beside it.

        Both only where they are beyond chance: else the image's noise of lines, and no level.
        """
        beside = strips.parallel / self.line_noise
        if beside.size < 4:
            return self.line_noise, 0.0
        level = float(np.median(beside))
        if abs(level) < 3.0 * 1.25 / np.sqrt(beside.size):
            level = 0.0
        scatter = float(np.mean(np.minimum((beside - level) ** 2, 25.0)))
        by_chance = 1.0 + 2.0 * np.sqrt(2.0 / beside.size)
        noise = self.line_noise * float(np.sqrt(scatter)) if scatter > by_chance else self.line_noise
        return noise, level * self.line_noise

    def ends(self, segment: Segment) -> tuple[Segment, tuple[bool, bool]]:
        """Return the segment cut at the edges of the image, and which of its ends lie among usable pixels."""
        cut = clipped(segment, self.pixels.image.shape)
        seen = []
        ux, uy = segment.direction
        for x, y, way in ((segment.x1, segment.y1, -1.0), (segment.x2, segment.y2, 1.0)):
            t = way * np.arange(-self.fwhm, 3.0 * self.fwhm)
            seen.append(self._usable_fraction(x + t * ux, y + t * uy) > 0.6)
        return cut, (seen[0], seen[1])

    def _usable_fraction(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        usable = self.pixels.usable
        column, row = np.rint(x).astype(int), np.rint(y).astype(int)
        inside = (column >= 0) & (row >= 0) & (column < usable.shape[1]) & (row < usable.shape[0])
        return float(usable[row[inside], column[inside]].sum()) / x.size


class _Search:
    """The cells still to be searched, and what was found in them."""

    def __init__(
        self, score: Float32Image, pixels: Pixels, psf: FinePsf, fwhm: float, config: StreakSearchConfig
    ) -> None:
        self.score, self.pixels, self.psf, self.fwhm, self.config = score, pixels, psf, fwhm, config
        self.cells = make_cells(score, fwhm=fwhm, clip=config.clip)
        self.fits = _Fits(pixels, psf, fwhm, config, noise_of_lines(pixels, psf, fwhm=fwhm))
        self.streaks: list[FoundStreak] = []
        self.n_candidates = self.n_examined = 0
        self.is_complete = True

    def run(self, cells: SearchCells, threshold: float) -> None:
        """Go through the segments of ``cells`` that stand out, the strongest first, erasing each once it was judged."""
        config = self.config
        segments = find_segments(cells.values, threshold=threshold)
        self.n_candidates += segments.n
        k = -1
        while True:
            k, remaining = next_standing(cells.values, segments, k + 1, threshold=threshold)
            if k == segments.n:
                return
            if self.n_examined >= config.max_examined or len(self.streaks) >= config.max_streaks:
                self.is_complete = False
                return
            self.n_examined += 1
            rough = Segment(*cells.on_pixels(segment_ends(segments, k, cells.values.shape)))
            streak = self._examined(rough, 1 if remaining > 0 else -1, reach=1.5 * cells.factor)
            _erase(cells, rough, 0.0)
            if streak is not None:
                self.streaks.append(streak)
                for searched in (cells, self.cells):
                    _erase(searched, streak.fit.segment, self._half_width(streak))
                if streak.snr > self.config.bright_threshold:
                    hide_in_place(self.pixels.usable, *streak.fit.segment, half_width=self._half_width(streak))

    def _examined(self, rough: Segment, sign: int, *, reach: float) -> FoundStreak | None:
        """Return the streak near a rough segment; None if there is none worth the name."""
        config, fwhm = self.config, self.fwhm
        least = config.min_length_fwhm * fwhm
        if self._is_point(rough, sign, reach):
            return None
        traced = trace(self.score, rough, sign=sign, reach=reach, least=0.7 * least)
        if self._is_point(traced, sign, fwhm):
            return None
        alone = self.fits.strips(traced, n_parallel=0)  # an eighth of the work, and enough for most
        if alone.significance * sign < 0.8 * config.min_snr * self.fits.line_noise:
            return None
        if _evenness(alone, traced.length, fwhm) < 0.6 * config.min_evenness:
            return None
        strips = self.fits.strips(traced)
        noise, level = self.fits.surroundings(strips)
        if (strips.significance - level) * sign < 0.8 * config.min_snr * noise:
            return None
        traced, is_seen = self.fits.ends(traced)
        if traced.length < 0.7 * least:
            return None
        fit = fit_line(self.pixels, self.psf, traced, is_end_free=is_seen, reach=config.fit_reach_fwhm * fwhm)
        if fit is None or fit.flux_per_pixel * sign <= 0 or fit.segment.length < least:
            return None
        streak = self.fits.measured(fit, is_seen, sign)
        is_bright = (streak.strips.significance - streak.level) * sign >= config.min_snr * streak.noise
        is_good = is_bright and streak.evenness >= config.min_evenness
        return streak if is_good and not self._is_known(fit.segment) else None

    def _is_point(self, segment: Segment, sign: int, reach: float) -> bool:
        """Return whether a short segment is there for a point source's sake."""
        is_short = segment.length < POINTLIKE_FWHM * self.fwhm
        return is_short and is_point(self.score, segment, sign=sign, reach=reach, fwhm=self.fwhm)

    def _is_known(self, segment: Segment) -> bool:
        """Return whether most of a segment lies on a streak that was found before."""
        return any(share_on(segment, other.fit.segment, width=1.5 * self.fwhm) > 0.5 for other in self.streaks)

    def _half_width(self, streak: FoundStreak) -> float:
        """Return how far from a streak its light may be above the noise: farther the brighter it is."""
        per_pixel = streak.snr / np.sqrt(max(streak.fit.segment.length, 1.0))
        return self.fwhm * (1.5 + 0.5 * float(np.log10(max(per_pixel, 1.0))))


def share_on(segment: Segment, other: Segment, *, width: float) -> float:
    """Return the fraction of a segment that lies within ``width`` pixels of another."""
    s = np.linspace(0.0, 1.0, 33)
    x, y = segment.x1 + s * (segment.x2 - segment.x1), segment.y1 + s * (segment.y2 - segment.y1)
    ux, uy = other.direction
    along = (x - other.x1) * ux + (y - other.y1) * uy
    across = -(x - other.x1) * uy + (y - other.y1) * ux
    return float(np.mean((np.abs(across) < width) & (along > -width) & (along < other.length + width)))


def clipped(segment: Segment, shape: tuple[int, ...]) -> Segment:
    """Return the part of a segment that lies on the pixels of an image, half a pixel about them included."""
    low, high = 0.0, segment.length
    ux, uy = segment.direction
    for start, speed, size in ((segment.x1, ux, shape[1]), (segment.y1, uy, shape[0])):
        if abs(speed) > 1e-9:
            ends = sorted(((-0.5 - start) / speed, (size - 0.5 - start) / speed))
            low, high = max(low, ends[0]), min(high, ends[1])
    return segment.moved(start=low, end=max(high, low))


def _pixel_noise(pixels: Pixels) -> float:
    """Return the median noise of a pixel."""
    some = pixels.variance[::8, ::8][pixels.usable[::8, ::8]]
    return float(np.sqrt(np.median(some) * pixels.noise_ratio)) if some.size else 1.0


def _evenness(strips: Strips, length: float, fwhm: float) -> float:
    """Return the flux per pixel outside of the brightest place, 1.5 FWHM to both sides, over the mean of the whole."""
    sums, weights = strips.sums[0], strips.weights[0]
    total = float(sums.sum()) / max(float(weights.sum()), 1e-30)
    if total == 0.0 or not np.isfinite(total):
        return 0.0
    n = sums.size
    half = min(1.5 * fwhm, 0.2 * length) / (length / n)
    at = int(np.argmax(np.sign(total) * sums))
    rest = np.abs(np.arange(n) - at) > half
    if not weights[rest].sum() > 0:
        return 0.0
    return float(sums[rest].sum() / weights[rest].sum()) / total


def _erase(cells: SearchCells, segment: Segment, half_width: float) -> None:
    erase_in_place(
        cells, x1=segment.x1, y1=segment.y1, x2=segment.x2, y2=segment.y2, half_width=half_width
    )  # fmt: skip
