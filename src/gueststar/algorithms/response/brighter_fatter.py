"""The brighter-fatter effect: charge in a pixel pushes later charge into its neighbours.

After Antilogus et al. (2014, JINST 9, C03048) and Coulton et al. (2018, AJ 155, 258): the shifts of a pixel's
boundaries are the gradient of a potential, a kernel convolved with the charge, whose Laplacian flats' covariances tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.response.photon_transfer import AreaChange

Image = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BrighterFatterConfig:
    """How the kernel is made and applied."""

    radius: int = 8
    """The kernel reaches this many pixels each way."""
    tail_tolerance: float = 0.5
    """Area changes beyond the nearest neighbours may differ from a power law of the distance by this fraction."""
    sum_tolerance: float = 0.05
    """What a pixel seems to lose and what all others gain may differ by this fraction: the former comes from variances,
    which feel errors of linearity."""
    min_significance: float = 5.0
    """Without the pixel's own area change known to this many sigma there is no kernel."""
    iterations: int = 10
    """Most iterations."""
    convergence: float = 0.3
    """Electrons; iterations end when no pixel changes by more."""
    min_change: float = 1e-4
    """Blocks of pixels where the effect moves less than this fraction of the light are left as they are."""


def make_kernel(change: AreaChange, config: BrighterFatterConfig = BrighterFatterConfig()) -> Floats:
    """Return the potential whose Laplacian is the area change per electron: ``[2 r + 1, 2 r + 1]``.

    The area that one pixel loses others gain, so the coefficients are made to sum to zero. Raises
    ValueError where the effect is not significant, or the coefficients are not those of repulsion.
    """
    own, error = change.coefficients[0, 0], change.errors[0, 0]
    if not own < -config.min_significance * error:
        raise ValueError(f"the area change {own:.2e} +- {error:.1e} per electron is not significant")
    quadrant = _completed(change, config)
    size = 8 * config.radius  # far edges, so that periodic images do not matter
    source = np.zeros((size, size))
    reach = quadrant.shape[0]
    for dy in range(-reach + 1, reach):
        for dx in range(-reach + 1, reach):
            source[dy % size, dx % size] = quadrant[abs(dy), abs(dx)]
    frequency = 2.0 * np.pi * np.fft.fftfreq(size)
    laplacian = 2.0 * np.cos(frequency)[:, None] + 2.0 * np.cos(frequency)[None, :] - 4.0
    laplacian[0, 0] = 1.0
    transformed = np.fft.fft2(source) / laplacian
    transformed[0, 0] = 0.0
    potential = np.fft.ifft2(transformed).real
    index = np.arange(-config.radius, config.radius + 1) % size
    kernel = potential[np.ix_(index, index)]
    rim = np.concatenate([kernel[0], kernel[-1], kernel[1:-1, 0], kernel[1:-1, -1]])
    return np.asarray(kernel - rim.mean())


def correct_brighter_fatter_in_place(
    image: Image, kernel: Floats, *, config: BrighterFatterConfig = BrighterFatterConfig()
) -> float:
    """Move charge back to where it would have fallen without repulsion; return the largest change, electrons.

    ``image`` is the charge that was collected (electrons, sky and dark current in, not flat-fielded; bled pixels as
    they are). Through the boundary between two pixels went half the light beside it times the difference of the
    potential that the charge makes (half, since the charge grew from nothing); what a pixel loses its neighbour gains,
    so the sum of the image stays. Blocks in which nothing stands out are skipped. Pixels that are not finite count
    as empty and stay.
    """
    charge = np.where(np.isfinite(image), image, np.float32(0.0))
    is_active = _active_blocks(charge, kernel, config)
    if not is_active.any():
        return 0.0
    potential = _potential(charge, np.ascontiguousarray(kernel, dtype=np.float32), is_active, _BLOCK)
    return float(
        _move_back(image, charge, potential, is_active, _BLOCK, config.iterations, np.float32(config.convergence))
    )


_BLOCK = 32


def _completed(change: AreaChange, config: BrighterFatterConfig) -> Floats:
    """Return a quadrant of area changes that sum to zero, from measurements, a power law, and the sum itself.

    What is measured poorly leans on a power law of the distance through all lags but the nearest; and since the own
    pixel's loss is known best, the others are shifted within their errors so that their sum is its opposite.
    """
    y, x = np.indices(change.coefficients.shape)
    radius = np.hypot(y, x)
    multiplicity = np.where(y > 0, 2.0, 1.0) * np.where(x > 0, 2.0, 1.0)
    multiplicity[0, 0] = 0.0
    known, variance = change.coefficients.copy(), change.errors**2
    known[0, 0], variance[0, 0] = 0.0, math.inf
    is_near = (radius > 0) & (radius < 1.2) & np.isfinite(variance)
    own = float(-change.coefficients[0, 0])
    own_error = math.hypot(float(change.errors[0, 0]), config.sum_tolerance * own)
    rest = own - float(np.sum(multiplicity[is_near] * known[is_near]))
    rest_error = math.sqrt(own_error**2 + float(np.sum(multiplicity[is_near] ** 2 * variance[is_near])))
    model = _power_law(radius, known, variance, multiplicity * ~is_near, rest, rest_error)
    prior = np.where(is_near, math.inf, np.maximum((config.tail_tolerance * model) ** 2, 1e-40))
    weight = 1.0 / variance + 1.0 / prior
    quadrant = (known / variance + np.where(is_near, 0.0, model) / prior) / weight
    gap = own - float(np.sum(multiplicity * quadrant))
    pull = multiplicity / weight
    quadrant = quadrant + pull * gap / (float(np.sum(multiplicity * pull)) + own_error**2)
    total = float(np.sum(multiplicity * quadrant))
    if not total > 0 or not np.all(quadrant[is_near] > 0):
        raise ValueError("neighbouring pixels of flats are not positively correlated: no charge repulsion")
    quadrant[0, 0] = -total
    return np.asarray(quadrant)


def _power_law(
    radius: Floats, known: Floats, variance: Floats, multiplicity: Floats, rest: float, rest_error: float
) -> Floats:
    """Return the power law of the distance that fits the lags and what they must add up to; never negative."""
    is_used = np.isfinite(variance) & (multiplicity > 0)
    best, chosen = math.inf, np.zeros(radius.shape)
    for slope in np.arange(-6.0, -2.4, 0.1):
        shape = np.where(multiplicity > 0, np.maximum(radius, 1.0) ** slope, 0.0)
        sigma = np.sqrt(variance[is_used])
        basis = np.append(shape[is_used] / sigma, np.sum(multiplicity * shape) / rest_error)
        value = np.append(known[is_used] / sigma, rest / rest_error)
        amplitude = max(float(np.sum(basis * value) / np.sum(basis**2)), 0.0)
        misfit = float(np.sum((value - amplitude * basis) ** 2))
        if misfit < best:
            best, chosen = misfit, amplitude * shape
    return chosen


def _active_blocks(charge: Image, kernel: Floats, config: BrighterFatterConfig) -> NDArray[np.bool_]:
    """Return the blocks with pixels whose charge stands out enough to move light, and their neighbours."""
    step = float(np.max(np.abs(np.diff(kernel, axis=1))))
    limit = config.min_change / max(0.5 * step, 1e-30)
    span = _block_spans(charge, _BLOCK)
    is_active = span > limit
    grown = is_active.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            to_y, to_x = slice(max(dy, 0), grown.shape[0] + min(dy, 0)), slice(max(dx, 0), grown.shape[1] + min(dx, 0))
            of_y, of_x = (
                slice(max(-dy, 0), grown.shape[0] + min(-dy, 0)),
                slice(max(-dx, 0), grown.shape[1] + min(-dx, 0)),
            )
            grown[to_y, to_x] |= is_active[of_y, of_x]
    return grown


@numba.njit(cache=True)
def _block_spans(charge, block):  # type: ignore[no-untyped-def]
    """Return, by block, how far the highest pixel stands above the mean."""
    ny, nx = charge.shape
    my, mx = (ny + block - 1) // block, (nx + block - 1) // block
    span = np.empty((my, mx), np.float32)
    for j in range(my):
        for i in range(mx):
            highest, total, n = np.float32(-np.inf), 0.0, 0
            for y in range(j * block, min((j + 1) * block, ny)):
                for x in range(i * block, min((i + 1) * block, nx)):
                    value = charge[y, x]
                    highest = max(highest, value)
                    total += value
                    n += 1
            span[j, i] = highest - np.float32(total / n)
    return span


@numba.njit(cache=True, fastmath=True)
def _potential(charge, kernel, is_active, block):  # type: ignore[no-untyped-def]
    """Return kernel convolved with charge in the active blocks (edge pixels repeated beyond the rim)."""
    ny, nx = charge.shape
    radius = kernel.shape[0] // 2
    result = np.zeros((ny, nx), np.float32)
    line = np.empty(block + 2 * radius, np.float32)
    for j in range(is_active.shape[0]):
        for i in range(is_active.shape[1]):
            if not is_active[j, i]:
                continue
            first, last = i * block, min((i + 1) * block, nx)
            width = last - first
            for y in range(j * block, min((j + 1) * block, ny)):
                out = result[y, first:last]
                for dy in range(-radius, radius + 1):
                    row = charge[min(max(y + dy, 0), ny - 1)]
                    if first >= radius and last + radius <= nx:
                        near = row[first - radius : last + radius]
                    else:
                        for k in range(width + 2 * radius):
                            line[k] = row[min(max(first - radius + k, 0), nx - 1)]
                        near = line
                    for dx in range(2 * radius + 1):
                        weight = kernel[dy + radius, dx]
                        for x in range(width):
                            out[x] += weight * near[x + dx]
    return result


@numba.njit(cache=True)
def _move_back(image, charge, potential, is_active, block, iterations, convergence):  # type: ignore[no-untyped-def]
    """Iterate ``true = measured - div(true grad(potential)) / 2`` in place; return the largest change."""
    ny, nx = image.shape
    true = charge.copy()
    half = np.float32(0.25)  # half of the mean of two pixels
    largest = np.float32(0.0)
    down = np.zeros(nx, np.float32)
    n_blocks = is_active.shape[1]
    for _ in range(iterations):
        change = np.float32(0.0)
        down[:] = np.float32(0.0)
        for y in range(ny):
            active = is_active[y // block]
            below = is_active[min(y + 1, ny - 1) // block]
            row, under = true[y].copy(), true[min(y + 1, ny - 1)]
            height, deeper = potential[y], potential[min(y + 1, ny - 1)]
            left = np.float32(0.0)
            for i in range(n_blocks):
                if not active[i]:
                    left = np.float32(0.0)
                    continue
                has_below = below[i] and y + 1 < ny
                last = min((i + 1) * block, nx)
                for x in range(i * block, last):
                    bottom = np.float32(0.0)
                    if has_below:
                        bottom = half * (row[x] + under[x]) * (deeper[x] - height[x])
                    right = np.float32(0.0)
                    if x + 1 < last or (last < nx and active[i + 1]):
                        right = half * (row[x] + row[x + 1]) * (height[x + 1] - height[x])
                    value = charge[y, x] - (right - left + bottom - down[x])
                    change = max(change, abs(value - row[x]))
                    true[y, x] = value
                    down[x], left = bottom, right
        if change < convergence:
            break
    for y in range(ny):
        for x in range(nx):
            if is_active[y // block, x // block] and math.isfinite(image[y, x]):
                largest = max(largest, abs(true[y, x] - image[y, x]))
                image[y, x] = true[y, x]
    return largest
