"""Where does the telescope point? The search over shift, rotation, scale and parity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.astrometry.config import AstrometryConfig
from gueststar.algorithms.astrometry.polynomial import PlaneMap
from gueststar.algorithms.astrometry.selection import select_bright
from gueststar.algorithms.astrometry.verification import SearchVolume, Verdict, verify
from gueststar.algorithms.astrometry.voting import SearchGrid, search_grid, vote

Floats = NDArray[np.float64]

_NARROW_ROTATION = np.radians(1.5)
_NARROW_SCALE = 0.015
_CERTAIN = -12.0
"""log10 of the false-match probability below which no better pointing is looked for."""
_PIXELS_OF_JUDGEMENT = 2.0
"""Smallest matching radius, pixels, at which a pointing is judged."""
_MAX_BINS = 1000
"""Largest number of bins of the shift on either side of zero."""


class Tolerances(NamedTuple):
    """How wrong the starting point may be."""

    shift: float
    """Arcsec."""
    rotation: float
    """Radian; pi: unknown."""
    scale: float
    """Fraction."""
    is_parity_known: bool


class Pointing(NamedTuple):
    """The best pointing found; ``verdict.log10_false_probability`` says whether to believe it."""

    start: PlaneMap
    """The starting map, mirrored if the image is."""
    verdict: Verdict | None
    """The similarity that follows ``start``; None if no stars could be compared."""
    is_mirrored: bool
    n_stars: int
    """Catalog stars that were compared."""


def field_radius(start: PlaneMap, shape: tuple[int, int]) -> float:
    """Return half the diagonal of the detector, arcsec."""
    return 0.5 * float(np.hypot(*shape)) * float(np.sqrt(abs(np.linalg.det(start.matrix))))


def find_pointing(
    *, start: PlaneMap, shape: tuple[int, int], x: Floats, y: Floats, flux: Floats,
    stars: Floats, star_magnitude: Floats, tolerances: Tolerances, config: AstrometryConfig,
) -> Pointing:  # fmt: skip
    """Return the similarity between the starting map of the sources and the catalog's plane.

    ``start`` maps pixels to a tangent plane (arcsec) about where the detector's centre should be;
    ``stars`` ``[n, 2]`` lie in the same plane. Lists of growing depth are tried, near orientations before all.
    """
    radius = field_radius(start, shape)
    within = np.hypot(stars[:, 0], stars[:, 1]) < radius * (1.0 + tolerances.scale) + 1.5 * tolerances.shift
    stars, star_magnitude = stars[within], star_magnitude[within]
    volume = SearchVolume(
        tolerances.shift, tolerances.rotation, tolerances.scale, 1 if tolerances.is_parity_known else 2, radius
    )
    best = Pointing(start, None, False, stars.shape[0])
    tried: set[tuple[int, float, float]] = set()
    left_s = config.max_search_s
    for depth, resolution, skip in config.pattern_ladder:
        source, star = _bright_lists(start, shape, x, y, flux, stars, star_magnitude, depth, skip, config)
        resolution = float(np.clip(1.2 * source.size, 20.0, resolution))
        if min(source.size, star.size) < config.min_matches or (source.size, resolution, skip) in tried:
            continue
        tried.add((source.size, resolution, skip))
        for grid in _grids(volume, resolution):
            cost_s = grid.cost_s(source.size, stars[star]) * volume.n_parities
            if cost_s > left_s:
                continue
            left_s -= cost_s
            for pointing in _search(start, x[source], y[source], stars[star], grid, volume, config):
                best = _surer(best, pointing)
                if best.verdict and best.verdict.log10_false_probability < _CERTAIN:
                    return best
    return best


def _surer(a: Pointing, b: Pointing) -> Pointing:
    if b.verdict is None:
        return a
    if a.verdict is None or b.verdict.log10_false_probability < a.verdict.log10_false_probability:
        return b
    return a


def _bright_lists(
    start: PlaneMap, shape: tuple[int, int], x: Floats, y: Floats, flux: Floats,
    stars: Floats, magnitude: Floats, depth: int, skip: float, config: AstrometryConfig,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:  # fmt: skip
    """Return indices of the brightest sources and of the catalog's stars down to about their number density."""
    with np.errstate(divide="ignore", invalid="ignore"):
        faintness = -np.log(flux)
    cell = max(shape) / 4.0
    scale = float(np.sqrt(abs(np.linalg.det(start.matrix))))
    rest = np.argsort(faintness, kind="stable")[int(skip * x.size) :]
    sources = rest[select_bright(x[rest], y[rest], faintness[rest], n=depth, cell=cell, min_distance=5.0)]
    area = np.ptp(stars, axis=0).prod() if stars.shape[0] > 1 else 1.0
    seen = max(float(np.ptp(x) * np.ptp(y)) if x.size else 0.0, 0.01 * shape[0] * shape[1])
    share = max(float(area) / (seen * scale**2), 1.0)
    n_stars = int(config.reference_excess * max(min(depth, sources.size), 20) * share) + 1
    chosen = select_bright(stars[:, 0], stars[:, 1], magnitude, n=n_stars, cell=cell * scale, min_distance=5.0 * scale)
    return sources, chosen


def _grids(volume: SearchVolume, resolution: float) -> list[SearchGrid]:
    """Return the near orientations, then all within the tolerances."""
    bin_size = max(volume.field_radius / resolution, volume.max_shift / _MAX_BINS)
    narrow = (min(volume.max_rotation, _NARROW_ROTATION), min(volume.scale_tolerance, _NARROW_SCALE))
    wide = (volume.max_rotation, volume.scale_tolerance)
    return [
        search_grid(
            radius=volume.field_radius, bin_size=bin_size, max_shift=volume.max_shift,
            max_rotation=rotation, scale_tolerance=stretch,
        )
        for rotation, stretch in dict.fromkeys((narrow, wide))
    ]  # fmt: skip


def _search(
    start: PlaneMap, x: Floats, y: Floats, stars: Floats, grid: SearchGrid, volume: SearchVolume,
    config: AstrometryConfig,
) -> Iterator[Pointing]:  # fmt: skip
    """Yield verified pointings, those of most votes first."""
    tree = cKDTree(stars)
    pixel = float(np.sqrt(abs(np.linalg.det(start.matrix))))
    for is_mirrored in (False, True)[: volume.n_parities]:
        mapped = start.mirrored() if is_mirrored else start
        points = mapped(x, y)
        for hypothesis in vote(points, stars, grid, n_best=config.n_hypotheses, is_mirrored=is_mirrored):
            verdict = verify(
                hypothesis, points, tree,
                radius=1.7 * grid.bin_size, min_radius=_PIXELS_OF_JUDGEMENT * pixel, volume=volume,
            )  # fmt: skip
            yield Pointing(mapped, verdict, is_mirrored, stars.shape[0])
