"""Crosstalk: what bright pixels of one amplifier leave in the pixels that others read at the same moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.robust import clipped_mean, median_and_sigma, weighted_clipped_mean

Image = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CrosstalkConfig:
    """How crosstalk is measured."""

    min_source_fraction: float = 0.1
    """Pixels brighter than this fraction of saturation (above the sky) count as sources of crosstalk."""
    block: int = 32
    """Pixels of the mesh that takes the sky away."""
    n_sigma: float = 4.0
    """Pixels that stand out of the model by more than this many sigma are left out: they hold objects of their own."""
    min_pixels: int = 50
    """Fewest bright pixels of a source amplifier in one exposure."""
    min_exposures: int = 3
    """Fewest exposures in which a pair of amplifiers was measured."""
    min_significance: float = 5.0
    """Coefficients below this many of their errors are zero."""
    max_coefficient: float = 0.02
    """Larger coefficients are not believed."""


class Crosstalk(NamedTuple):
    """Coefficients of crosstalk into each target from each source amplifier."""

    coefficient: Floats
    """``[target, source]``: counts in the target per count in the source."""
    error: Floats
    """Standard errors; infinite where nothing was measured."""


def measure_crosstalk(
    amplifiers: Sequence[Image],
    *,
    saturation: Sequence[float],
    targets: int | None = None,
    config: CrosstalkConfig = CrosstalkConfig(),
) -> Crosstalk:
    """Measure crosstalk in one exposure.

    ``amplifiers`` are counts (ADU, zero level removed) in the order of reading, all of one shape: pixels of equal
    index were read at the same moment. The first ``targets`` of them are targets, all are sources. Wherever a source
    is bright, the target's counts above its own sky are fitted as the sum of all sources' counts above theirs;
    as many pixels with no bright source fix the zero. Target pixels with light of their own drop out. Pixels
    at the highest value of a source, if many have it, are at the end of the converter and are not used.
    """
    signals = [subtract_sky(image, config.block) for image in amplifiers]
    limits = [config.min_source_fraction * level for level in saturation]
    is_bright = [
        (signal > limit) & (signal < _converter_end(signal)) for signal, limit in zip(signals, limits, strict=True)
    ]
    n_targets = len(amplifiers) if targets is None else targets
    coefficient = np.zeros((n_targets, len(amplifiers)))
    error = np.full(coefficient.shape, math.inf)
    for target in range(n_targets):
        fitted = _fit_target(target, signals, is_bright, config)
        if fitted is not None:
            sources, values, errors = fitted
            coefficient[target, sources], error[target, sources] = values, errors
    return Crosstalk(coefficient, error)


def combine_crosstalk(measured: Sequence[Crosstalk], config: CrosstalkConfig = CrosstalkConfig()) -> Crosstalk:
    """Average the coefficients of several exposures robustly; insignificant ones become zero, errors stay.

    Errors grow with the scatter between exposures. Raises ValueError for a coefficient too large to be crosstalk.
    """
    shape = measured[0].coefficient.shape if measured else (0, 0)
    coefficient, error = np.zeros(shape), np.full(shape, math.inf)
    for pair in np.ndindex(shape):
        known = [m for m in measured if math.isfinite(m.error[pair])]
        if len(known) < config.min_exposures:
            continue
        mean = weighted_clipped_mean([m.coefficient[pair] for m in known], [m.error[pair] ** 2 for m in known])
        widening = math.sqrt(max(mean.chi2_per_dof, 1.0)) if mean.n > 1 else 1.0
        error[pair] = mean.error * widening
        if abs(mean.mean) >= config.min_significance * error[pair]:
            coefficient[pair] = mean.mean
    if coefficient.size and np.max(np.abs(coefficient)) > config.max_coefficient:
        target, source = np.unravel_index(np.argmax(np.abs(coefficient)), shape)
        raise ValueError(
            f"crosstalk {coefficient[target, source]:.3g} from amplifier {source} into {target} exceeds "
            f"{config.max_coefficient:g}"
        )
    return Crosstalk(coefficient, error)


def subtract_crosstalk_in_place(
    target: Image, source: Image, coefficient: float, *, flip_x: bool = False, flip_y: bool = False
) -> None:
    """Subtract ``coefficient`` times a source amplifier's counts from a target's.

    Both are ADU with the zero level removed; the source is read mirrored as the flips say. Source pixels that are not
    finite do nothing.
    """
    _subtract(target, source, np.float32(coefficient), flip_x, flip_y)


def subtract_sky(image: Image, block: int) -> Image:
    """Return an image less the medians of blocks, interpolated between their centres."""
    ny, nx = image.shape
    rows = np.array_split(np.arange(ny), max(1, ny // block))
    columns = np.array_split(np.arange(nx), max(1, nx // block))
    mesh = np.array(
        [[np.nanmedian(image[r[0] : r[-1] + 1, c[0] : c[-1] + 1]) for c in columns] for r in rows], np.float64
    )
    y, x = np.array([r.mean() for r in rows]), np.array([c.mean() for c in columns])
    tall = np.array([np.interp(np.arange(ny), y, mesh[:, i]) for i in range(x.size)])
    wide = np.array([np.interp(np.arange(nx), x, row) for row in tall.T], np.float32)
    return np.asarray(image - wide, np.float32)


def _converter_end(signal: Image) -> float:
    """Return the highest value if more than a few pixels have just about it, else infinity."""
    highest = float(np.nanmax(signal))
    n_there = int(np.count_nonzero(signal > 0.998 * highest))
    return 0.998 * highest if n_there > 20 else math.inf


def _fit_target(
    target: int, signals: Sequence[Image], is_bright: Sequence[NDArray[np.bool_]], config: CrosstalkConfig
) -> tuple[list[int], Floats, Floats] | None:
    """Return the sources that shine, their coefficients and errors; None without any."""
    image = signals[target]
    sources = [s for s in range(len(signals)) if s != target and is_bright[s].sum() >= config.min_pixels]
    if not sources:
        return None
    is_lit = np.logical_or.reduce([is_bright[s] for s in sources])
    is_control = np.roll(is_lit, (11, 23), axis=(0, 1)) & ~is_lit
    scatter = clipped_mean(image[::3, ::3], n_sigma=3.0).sigma
    others = np.stack([signals[s] for s in sources])
    values: Floats = np.zeros(len(sources))
    for _ in range(2):  # once more with the target's own objects seen beneath the crosstalk
        model = np.tensordot(values.astype(np.float32), others, axes=1)
        chosen = (is_lit | is_control) & ~_has_light(image - model, np.float32(scatter)) if values.any() else is_lit
        chosen &= np.isfinite(image) & np.isfinite(model)
        y, x = np.nonzero(chosen)
        design = np.column_stack([*others[:, y, x], np.ones(y.size)]).astype(np.float64)
        solved = _robust_fit(design, image[y, x].astype(np.float64), config.n_sigma, scatter)
        if solved is None:
            return None
        values, errors = solved[0][:-1], solved[1][:-1]
    return sources, values, errors


def _robust_fit(design: Floats, values: Floats, n_sigma: float, noise: float) -> tuple[Floats, Floats] | None:
    """Solve by least squares with clipping, from a start that outliers do not move; return values and errors."""
    scale = np.linalg.norm(design, axis=0)
    if values.size < 4 * design.shape[1] or np.any(scale == 0):
        return None
    matrix = design / scale
    weight = np.ones(values.size)
    solution = np.zeros(design.shape[1])
    for _ in range(15):  # Huber: half of the bright pixels may lie on the target's own stars
        solution = np.linalg.lstsq(matrix * weight[:, None], values * weight, rcond=None)[0]
        pull = np.abs(values - matrix @ solution) / noise
        weight = np.sqrt(np.where(pull > 1.5, 1.5 / np.maximum(pull, 1e-9), 1.0))
    for _ in range(10):
        residual = values - matrix @ solution
        sigma = max(median_and_sigma(residual[np.abs(residual) < 10 * noise])[1], 0.5 * noise)
        is_kept = np.abs(residual) <= n_sigma * sigma
        if is_kept.sum() < 4 * design.shape[1]:
            return None
        updated = np.linalg.lstsq(matrix[is_kept], values[is_kept], rcond=None)[0]
        has_settled = np.allclose(updated, solution, rtol=1e-6, atol=1e-12)
        solution = updated
        if has_settled:
            break
    sigma = float(np.std(values[is_kept] - matrix[is_kept] @ solution))
    normal = matrix[is_kept].T @ matrix[is_kept]
    if np.linalg.cond(normal) > 1e8:
        return None
    errors = sigma * np.sqrt(np.diag(np.linalg.inv(normal)))
    return solution / scale, errors / scale


@numba.njit(cache=True)
def _has_light(image, limit):  # type: ignore[no-untyped-def]
    """Return where the mean of 5 x 5 pixels exceeds ``limit``: objects, which are wider than noise."""
    ny, nx = image.shape
    found = np.zeros((ny, nx), np.bool_)
    for y in range(2, ny - 2):
        for x in range(2, nx - 2):
            total = np.float32(0.0)
            for v in range(y - 2, y + 3):
                for u in range(x - 2, x + 3):
                    total += image[v, u]
            found[y, x] = total > np.float32(25.0) * limit
    return found


@numba.njit(cache=True)
def _subtract(target, source, coefficient, flip_x, flip_y):  # type: ignore[no-untyped-def]
    ny, nx = target.shape
    for y in range(ny):
        row = source[ny - 1 - y if flip_y else y]
        for x in range(nx):
            value = row[nx - 1 - x if flip_x else x]
            if math.isfinite(value):
                target[y, x] -= coefficient * value
