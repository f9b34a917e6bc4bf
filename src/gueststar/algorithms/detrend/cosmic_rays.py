"""Cosmic rays: pixels with edges sharper than the optics can make them (van Dokkum 2001, PASP 113, 1420).

What is called for every candidate is compiled without reference counts (``_nrt=False``), see `psf.newton`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detrend.groups import label_groups, pixels_with
from gueststar.algorithms.detrend.interpolate import interpolate_in_place
from gueststar.algorithms.stats.select import median_of_few_in_place


@dataclass(frozen=True)
class CosmicRayConfig:
    """How cosmic rays are told from stars."""

    significance: float = 5.0
    """Laplacian edge above the noise, sigma, for the first pixels of a ray."""
    sharpness: float = 0.75
    """First pixels hold neighbours with less than this fraction of what the sharpest star would give them."""
    sharpness_sigma: float = 2.0
    """By how many sigma the neighbours must hold less."""
    neighbour_significance: float = 2.5
    """As ``significance``, for pixels that touch a ray, which is by then replaced."""
    neighbour_sharpness: float = 0.9
    """As ``sharpness``, for pixels that touch a ray."""
    neighbour_sharpness_sigma: float = 0.5
    """As ``sharpness_sigma``, for pixels that touch a ray."""
    tail_significance: float = 2.5
    """By how many sigma pixels that touch a ray must stand out from the median around them, where that is dark sky."""
    lit_tail_significance: float = 3.0
    """As ``tail_significance``, under the light of stars once these are subtracted, their model's error included."""
    iterations: int = 5
    """Rounds: the first looks at the whole image, later ones peel what was found."""


_UNDERSAMPLED = 0.25
"""Below this (times the sharpness asked for) neighbours hold so little of a star that no star looks like a track."""


class CosmicRays(NamedTuple):
    """Where cosmic rays hit, and the image without them."""

    y: NDArray[np.int64]
    x: NDArray[np.int64]
    n_rays: int
    """Number of connected groups of pixels."""


class _Pixels(NamedTuple):
    """Pixels of rays, and what they held."""

    y: NDArray[np.int64]
    x: NDArray[np.int64]
    value: NDArray[np.float32]


def remove_cosmic_rays_in_place(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    rms: NDArray[np.float32],
    is_excluded: NDArray[np.bool_],
    *,
    neighbour_ratio: float,
    spikes: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    spike_angles_deg: NDArray[np.float64] | None = None,
    config: CosmicRayConfig = CosmicRayConfig(),
) -> CosmicRays:
    """Find cosmic rays and replace their pixels by the mean of clean neighbours.

    The Laplacian is taken of the whole image once; everything costlier is computed for its candidates
    only. A candidate must (1) stand out in the Laplacian of the twice finer grid, less its 5 x 5 median,
    by ``significance`` times the noise of the local median (the paper's equations 5 to 13), and (2) be too
    sharp for the optics: in one direction its two opposite neighbours together hold
    significantly less, and in another not more, than a fraction of what the sharpest star
    would give them; where stars are narrower than two pixels, a pixel between two as bright, with dark ones on both
    sides, is too sharp as well. The second test takes the place of the paper's comparison with the fine
    structure, which eats undersampled stars. Pixels that touch a ray are then judged more readily, and in dark sky,
    where no star's light is taken for a ray's, by their brightness alone. Groups of pixels most of which lie on
    ``spikes`` (y, x: diffraction spikes are sharp too) are given back, unless they are tracks across the directions of
    spikes, ``spike_angles_deg``.

    ``image`` is in electrons with the sky (``level``) in; ``rms`` its noise there; ``neighbour_ratio`` comes from
    `star_sharpness.measure_star_sharpness`. Excluded pixels (saturated, bad) are neither candidates nor
    trusted as neighbours.
    """
    is_ray, is_lost = np.zeros(image.shape, np.bool_), is_excluded.copy()
    y, x = _edges(image, rms, is_excluded, config.significance)
    limits = (config.significance, neighbour_ratio * config.sharpness, config.sharpness_sigma)
    peeled: list[_Pixels] = []
    for turn in range(config.iterations):
        is_hit = are_hit(image, level, rms, is_excluded, y, x, *limits)
        is_tail = np.zeros_like(is_hit)
        if turn > 0:
            is_tail = ~is_hit & are_tails(image, level, rms, is_ray, is_excluded, y, x, config.tail_significance)
        peeled.append(_Pixels(y[is_tail], x[is_tail], image[y[is_tail], x[is_tail]]))
        is_ray[y[is_tail], x[is_tail]] = is_lost[y[is_tail], x[is_tail]] = True
        y, x = y[is_hit], x[is_hit]  # tails have no tails: they would creep along the noise
        if y.size == 0:
            break
        is_ray[y, x] = is_lost[y, x] = True
        peeled.append(_Pixels(y, x, image[y, x]))
        interpolate_in_place(image, is_lost, y=y, x=x)
        y, x = touching(y, x, is_ray, is_excluded)
        limits = (
            config.neighbour_significance,
            neighbour_ratio * config.neighbour_sharpness,
            config.neighbour_sharpness_sigma,
        )
    if spikes is not None and spikes[0].size > 0 and peeled:
        pixels = _Pixels._make(np.concatenate(part) for part in zip(*peeled, strict=True))
        _give_back_in_place(image, is_ray, pixels, *spikes, angles_deg=spike_angles_deg)
        is_lost[pixels.y, pixels.x] = is_ray[pixels.y, pixels.x]
    y, x = pixels_with(is_ray, 1)
    interpolate_in_place(image, is_lost, y=y, x=x)  # again, now that all hit neighbours are known
    return CosmicRays(y, x, int(label_groups(y, x, shape=image.shape).max(initial=-1)) + 1)


@numba.njit(cache=True)
def _edges(image, rms, is_excluded, significance):  # type: ignore[no-untyped-def]
    """Return the pixels whose Laplacian exceeds ``significance`` times the noise of the sky."""
    ny, nx = image.shape
    found_y, found_x = [0 for _ in range(0)], [0 for _ in range(0)]
    edge = np.empty(nx, np.float32)
    zero = np.float32(0.0)
    for y in range(1, ny - 1):
        row, below, above = image[y], image[y - 1], image[y + 1]
        for x in range(1, nx - 1):
            twice = np.float32(2.0) * row[x]
            edge[x] = (
                max(twice - row[x - 1] - below[x], zero) + max(twice - row[x + 1] - below[x], zero)
                + max(twice - row[x - 1] - above[x], zero) + max(twice - row[x + 1] - above[x], zero)
            )  # fmt: skip
        limit = np.float32(8.0 * significance)
        for x in range(1, nx - 1):
            if edge[x] > limit * rms[y, x] and not is_excluded[y, x]:
                found_y.append(y)
                found_x.append(x)
    return np.array(found_y, np.int64), np.array(found_x, np.int64)


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _laplacian(image, y, x, floor):  # type: ignore[no-untyped-def]
    """Return the positive Laplacian of the twice finer grid, rebinned; an isolated pixel gives its height.

    Neighbours count as at least ``floor``: a dead one does not make a hit of the pixel beside it.
    """
    ny, nx = image.shape
    twice = 2.0 * image[y, x]
    left, right = max(image[y, max(x - 1, 0)], floor), max(image[y, min(x + 1, nx - 1)], floor)
    below, above = max(image[max(y - 1, 0), x], floor), max(image[min(y + 1, ny - 1), x], floor)
    return 0.125 * (
        max(twice - left - below, 0.0) + max(twice - right - below, 0.0)
        + max(twice - left - above, 0.0) + max(twice - right - above, 0.0)
    )  # fmt: skip


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _sharpness_deficits(image, level, rms, is_excluded, y, x, ratio):  # type: ignore[no-untyped-def]
    """Return largest and second largest deficit (sigma) of opposite neighbours against those of a star."""
    sky, noise = level[y, x], rms[y, x]
    peak = image[y, x] - sky
    floor = sky - 2.0 * noise
    largest, second = -1e9, -1e9
    for dy, dx, expected in ((0, 1, ratio), (1, 0, ratio), (1, 1, ratio * ratio), (1, -1, ratio * ratio)):
        if is_excluded[y + dy, x + dx] or is_excluded[y - dy, x - dx]:
            continue
        pair = 0.5 * (max(image[y + dy, x + dx], floor) + max(image[y - dy, x - dx], floor)) - sky
        variance = 0.5 * (noise**2 + max(pair, 0.0)) + expected**2 * (noise**2 + max(peak, 0.0))
        deficit = (expected * peak - pair) / math.sqrt(variance)
        if deficit > largest:
            largest, second = deficit, largest
        elif deficit > second:
            second = deficit
    return largest, second


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _is_in_track(image, level, rms, is_excluded, y, x):  # type: ignore[no-untyped-def]
    """Return whether a pixel continues a thin line: as bright as both neighbours one way, dark on both sides.

    Where stars are narrower than two pixels no star does that, and no pair of them: between two stars it is darker.
    """
    sky, noise = level[y, x], rms[y, x]
    peak = image[y, x] - sky
    for dy, dx, oy, ox in ((0, 1, 1, 0), (1, 0, 0, 1), (1, 1, 1, -1), (1, -1, 1, 1)):
        if is_excluded[y + dy, x + dx] or is_excluded[y - dy, x - dx]:
            continue
        one, other = image[y + dy, x + dx] - sky, image[y - dy, x - dx] - sky
        fainter, brighter = min(one, other), max(one, other)
        beside = 0.5 * (image[y + oy, x + ox] + image[y - oy, x - ox]) - sky
        is_even = fainter > 0.5 * peak and peak > 0.5 * brighter and fainter > 4.0 * noise
        if is_even and beside + 2.0 * noise < 0.5 * peak:
            return True
    return False


@numba.njit(cache=True)
def are_hit(image, level, rms, is_excluded, y, x, significance, ratio, n_sigma):  # type: ignore[no-untyped-def]
    """Return which of the pixels pass the tests of edge and sharpness of `remove_cosmic_rays_in_place`."""
    ny, nx = image.shape
    is_hit = np.zeros(y.size, np.bool_)
    around = np.empty(25)
    for i in range(y.size):
        v, u = y[i], x[i]
        if v < 1 or u < 1 or v > ny - 2 or u > nx - 2:
            continue
        largest, next_largest = _sharpness_deficits(image, level, rms, is_excluded, v, u, ratio)
        is_sharp = largest >= n_sigma and next_largest >= 0.0
        if not is_sharp and (ratio > _UNDERSAMPLED or not _is_in_track(image, level, rms, is_excluded, v, u)):
            continue
        floor = level[v, u] - 2.0 * rms[v, u]
        edge = _laplacian(image, v, u, floor)
        n = _window(image, v, u, 2, around)
        noise = math.sqrt(rms[v, u] ** 2 + max(median_of_few_in_place(around[:n]) - level[v, u], 0.0))
        if edge < significance * noise:
            continue
        n = 0
        for q in range(max(v - 2, 0), min(v + 3, ny)):
            for p in range(max(u - 2, 0), min(u + 3, nx)):
                around[n] = _laplacian(image, q, p, floor)
                n += 1
        if edge - median_of_few_in_place(around[:n]) < significance * noise:
            continue
        is_hit[i] = True
    return is_hit


@numba.njit(cache=True)
def are_tails(image, level, rms, is_ray, is_excluded, y, x, significance):  # type: ignore[no-untyped-def]
    """Return which of the pixels stand out from the median of the good ones about them, where that is dark sky."""
    ny, nx = image.shape
    is_tail = np.zeros(y.size, np.bool_)
    around = np.empty(25)
    for i in range(y.size):
        v, u, n = y[i], x[i], 0
        for q in range(max(v - 2, 0), min(v + 3, ny)):
            for p in range(max(u - 2, 0), min(u + 3, nx)):
                if not (is_ray[q, p] or is_excluded[q, p] or (q == v and p == u)):
                    around[n] = image[q, p]
                    n += 1
        if n < 8:
            continue
        local, noise = median_of_few_in_place(around[:n]), rms[v, u]
        is_tail[i] = local - level[v, u] < noise and image[v, u] - local > significance * noise
    return is_tail


def _give_back_in_place(
    image: NDArray[np.float32],
    is_ray: NDArray[np.bool_],
    pixels: _Pixels,
    spike_y: NDArray[np.int64],
    spike_x: NDArray[np.int64],
    *,
    angles_deg: NDArray[np.float64] | None,
) -> None:
    """Restore the pixels on spikes of those groups that lie mostly on spikes; they are no rays any more."""
    is_spike_pixel = np.zeros(image.shape, np.bool_)
    is_spike_pixel[spike_y, spike_x] = True
    is_on = is_spike_pixel[pixels.y, pixels.x]
    groups = label_groups(pixels.y, pixels.x, shape=(image.shape[0], image.shape[1]))
    is_spike = np.bincount(groups, is_on) > 0.5 * np.bincount(groups)
    if angles_deg is not None:
        is_spike &= ~_is_across(groups, pixels, angles_deg)
    back = is_on & is_spike[groups]
    y, x = pixels.y[back], pixels.x[back]
    image[y, x] = pixels.value[back]
    is_ray[y, x] = False


def _is_across(
    groups: NDArray[np.int64], pixels: _Pixels, angles_deg: NDArray[np.float64], *, tolerance_deg: float = 15.0
) -> NDArray[np.bool_]:
    """Return which groups are tracks of five pixels or more that run in none of the directions."""
    n = np.bincount(groups)
    y, x = (v - (np.bincount(groups, v) / n)[groups] for v in (pixels.y, pixels.x))
    xx, yy, xy = (np.bincount(groups, product) / n for product in (x * x, y * y, x * y))
    difference, total = np.hypot(xx - yy, 2.0 * xy), xx + yy
    is_track = (n >= 5) & (total + difference > 6.0 * (total - difference))  # of the variances along and across
    axis = np.degrees(0.5 * np.arctan2(2.0 * xy, xx - yy))
    off = np.abs((axis[:, None] - angles_deg + 90.0) % 180.0 - 90.0).min(axis=1, initial=90.0)
    return is_track & (off > tolerance_deg)


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _window(image, y, x, reach, values):  # type: ignore[no-untyped-def]
    """Copy the pixels within ``reach`` of a pixel into ``values`` and return their number."""
    n = 0
    for v in range(max(y - reach, 0), min(y + reach + 1, image.shape[0])):
        for u in range(max(x - reach, 0), min(x + reach + 1, image.shape[1])):
            values[n] = image[v, u]
            n += 1
    return n


def touching(
    y: NDArray[np.int64], x: NDArray[np.int64], is_ray: NDArray[np.bool_], is_excluded: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the usable pixels that touch the given ones and were not found yet."""
    ny, nx = is_ray.shape
    shifts = np.array([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])
    near_y = (y[:, None] + shifts[:, 0]).ravel()
    near_x = (x[:, None] + shifts[:, 1]).ravel()
    is_inside = (near_y >= 0) & (near_y < ny) & (near_x >= 0) & (near_x < nx)
    flat = np.unique(near_y[is_inside] * nx + near_x[is_inside])
    near_y, near_x = np.divmod(flat, nx)
    is_new = ~(is_ray[near_y, near_x] | is_excluded[near_y, near_x])
    return near_y[is_new], near_x[is_new]
